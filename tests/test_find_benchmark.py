"""The benchmark of `find`: what photos show is known, and its figures are what their names say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steersearch.benchmarks.ours import find
from steersearch.benchmarks.ours.find import CHANCE, CONCENTRATION, FIND, PRESENCE, RARE, Seen, concentration
from steersearch.core.predictor import Predictor


def test_concentration_by_hand() -> None:
    """Two photos of two patches: in the first one stands out, threefold."""
    seen = Seen(
        np.array([[np.log(3), 0], [1, 1]]), np.eye(2, dtype=np.float32), np.zeros(2, dtype=np.float32)
    )
    expected = np.log(2) + 0.75 * np.log(0.75) + 0.25 * np.log(0.25)
    assert concentration(seen).tolist() == pytest.approx([expected, 0], abs=1e-9)


def test_a_run_on_few_photos(tiny_model: Path, word_encoder: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "LOOKS", 1)
    monkeypatch.setattr(find, "OBJECTS", {"kitchen": ("mug", "teapot")})
    nouns, gallery = find.photos("drawn", each=4)
    assert nouns == ["mug", "teapot"]
    assert all("mug" in photo.shown for photo in gallery[:4])
    assert all("teapot" in photo.shown for photo in gallery[4:])
    assert not any(photo.shown & photo.hidden for photo in gallery)
    found = find.evaluate(Predictor.from_pretrained(tiny_model), nouns, gallery)
    assert set(found) == {"all", "rare"}
    for case in found.values():
        assert set(case) == {CONCENTRATION, PRESENCE, FIND, CHANCE}
        assert all(len(values) == 2 for values in case.values())
    shows = [sum(noun in photo.shown for photo in gallery) for noun in nouns]
    hidden = [sum(noun in photo.hidden for photo in gallery) for noun in nouns]
    assert found["all"][CHANCE] == pytest.approx([n / (8 - h) for n, h in zip(shows, hidden, strict=True)])
    others = [sum(noun not in photo.shown | photo.hidden for photo in gallery) for noun in nouns]
    assert found["rare"][CHANCE] == pytest.approx([RARE / (RARE + n) for n in others])
    metrics, intervals = find.report(found)
    assert metrics["all/find"] == pytest.approx(100 * np.mean(found["all"][FIND]))
    low, high = intervals["all/find"]
    assert low <= metrics["all/find"] <= high
