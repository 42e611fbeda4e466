"""What reading one photo may take, as people write it."""

from __future__ import annotations

import math

import pytest

from steersearch.core.errors import ArgumentError
from steersearch.core.images.limits import DEFAULT_LIMITS, Limits, in_units, parse_limits


def test_limits_are_written_with_units() -> None:
    assert parse_limits([]) == DEFAULT_LIMITS == Limits(file=2e9, memory=1e9, seconds=20)
    assert parse_limits(["memory=4GB", "seconds=1.5m"]) == Limits(memory=4e9, seconds=90)
    assert parse_limits(["file= 500 mb", "seconds=500ms"]) == Limits(file=5e8, seconds=0.5)
    assert parse_limits(["memory=1GB", "memory=2GB"]) == Limits(memory=2e9)


@pytest.mark.parametrize(
    "text",
    ["memory", "memory=", "memory=much", "memory=5s", "seconds=1GB", "pixels=3", "=1GB", "memory=-1GB"],
)
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match="write it like file=4GB, memory=2GB or seconds=60"):
        parse_limits([text])


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
def test_a_limit_is_a_number_above_zero(value: float) -> None:
    with pytest.raises(ArgumentError, match="must be a number above 0"):
        Limits(seconds=value)


def test_what_an_error_suggests_can_be_typed() -> None:
    for needed in (1.2e12, 3.456e9, 999e6, 1234, 12):
        suggested = in_units(needed).replace(" ", "").replace("bytes", "")
        assert parse_limits([f"memory={suggested}"]).memory == pytest.approx(needed, rel=0.005)
