"""Settings of vectors as versioned records: read from what older libraries hold, with keys that stay."""

from __future__ import annotations

import json

import pytest

from steersearch.core.preprocess import Preprocess
from steersearch.core.vectors import (
    AggregationRecord,
    VectorSettings,
    as_hashed,
    with_versions,
)

PREPROCESS = Preprocess(size=64, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), mode="squash")


@pytest.mark.parametrize(
    ("named", "record"),
    [
        ("cls", AggregationRecord("cls", 1)),
        ("mean", AggregationRecord("mean", 1)),
        ("focus", AggregationRecord("focus", 1)),
        ("focus, heatmap squared", AggregationRecord("focus", 2)),
        ("focus, heatmap squared, mean without a prompt", AggregationRecord("focus", 3)),
    ],
)
def test_what_older_libraries_hold_has_a_record_and_the_same_hash(
    named: str, record: AggregationRecord
) -> None:
    older = {**PREPROCESS.to_dict(), "aggregation": named}
    settings = VectorSettings(PREPROCESS, record)
    assert with_versions(older) == with_versions(settings.to_dict()) == settings.to_dict()
    assert as_hashed(settings.to_dict()) == as_hashed(older) == older
    assert VectorSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_a_later_version_has_another_hash() -> None:
    now = VectorSettings.of(PREPROCESS, "focus")
    later = [
        VectorSettings(PREPROCESS, AggregationRecord("focus", 4)),
        VectorSettings(PREPROCESS, AggregationRecord("focus", 3), version=2),
    ]
    assert len({json.dumps(as_hashed(one.to_dict()), sort_keys=True) for one in (now, *later)}) == 3


def test_settings_of_other_embedders_stay_as_they_are() -> None:
    for settings in ({"size": 4}, {"size": 4, "aggregation": 7}):
        assert with_versions(settings) == as_hashed(settings) == settings
