"""The benchmark of presence: what photos show is known, and its scores are what their names say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steersearch.benchmarks import find, find_any
from steersearch.benchmarks.find import RARE, SCORES, Evidence, Seen
from steersearch.benchmarks.photo_gallery import LabelledPhoto, Shown
from steersearch.core.steervit import SteerViT


def seen(logits: list[list[float]], vectors: list[list[float]]) -> Seen:
    values, unit = np.array(logits, np.float64), np.array(vectors, np.float64)
    return Seen(values, unit, unit, values.max(axis=1))


@pytest.fixture
def evidence() -> Evidence:
    """Two photos of two patches: in the first one stands out."""
    under = seen([[np.log(3), 0], [1, 1]], [[1, 0], [0, 1]])
    neutral = [seen([[0, 0], [2, 0]], [[1, 0], [0, 1]])] * 3
    frozen, grey = seen([[0, 0]] * 2, [[0.6, 0.8], [0, 1]]), seen([[0, 0]], [[0, 1]])
    return Evidence(under, frozen, neutral, grey, np.array([[0.5, 0], [0, 0]]), np.array([0.5, 0.25]))


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("heatmap: largest", 0.75, 0.5),
        ("heatmap: concentration, log N - H", np.log(2) + 0.75 * np.log(0.75) + 0.25 * np.log(0.25), 0),
        ("heatmap: first over second peak", np.log(3), 0),
        ("logits: largest", np.log(3), 1),
        ("logits: mean under the heatmap", 0.75 * np.log(3), 1),
        ("logits: largest less mean", np.log(3) / 2, 0),
        ("logits: log mean exp", np.log(2), 1),
        ("logits: log mean exp less mean", np.log(2) - np.log(3) / 2, 0),
        ("largest less that of 'the thing'", np.log(3), -1),
        ("largest less mean of three neutral prompts", np.log(3), -1),
        ("mean under the heatmap of logits less those of 'the background'", 0.75 * np.log(3), 0),
        ("largest less mean of other prompts", np.log(3) - 0.5, 0.75),
        ("mean under the heatmap of logits less those of other prompts", 0.75 * (np.log(3) - 0.5), 1),
        ("focus: away from steered grey", 0, -1),
        ("cls: moved from frozen", -0.6, -1),
    ],
)
def test_scores_by_hand(evidence: Evidence, name: str, first: float, second: float) -> None:
    assert SCORES[name](evidence).tolist() == pytest.approx([first, second], abs=1e-9)


def test_scores_of_some_photos_are_those_of_these(evidence: Evidence) -> None:
    some = evidence.of(np.array([1]))
    for name in ("heatmap: largest", "logits: largest", "largest less mean of other prompts"):
        assert SCORES[name](some).tolist() == SCORES[name](evidence)[[1]].tolist()


def test_a_run_on_few_photos(tiny_model: Path, word_encoder: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "LOOKS", 1)
    monkeypatch.setattr(find, "OBJECTS", {"kitchen": ("mug", "teapot")})
    nouns, gallery = find.photos("drawn", each=4)
    assert nouns == ["mug", "teapot"]
    assert all("mug" in photo.shown for photo in gallery[:4])
    assert all("teapot" in photo.shown for photo in gallery[4:])
    assert not any(photo.shown & photo.hidden for photo in gallery)
    found = find.evaluate(SteerViT.from_pretrained(tiny_model), nouns, gallery)
    assert set(found) == {"all", "rare"}
    chance = "chance: share of photos that show it"
    for case in found.values():
        assert set(case) == {*SCORES, chance}
        assert all(len(values) == 2 for values in case.values())
    shows = [sum(noun in photo.shown for photo in gallery) for noun in nouns]
    assert found["all"][chance] == pytest.approx(
        [
            n / (8 - hidden)
            for n, hidden in zip(
                shows, [sum(noun in photo.hidden for photo in gallery) for noun in nouns], strict=True
            )
        ]
    )
    others = [sum(noun not in photo.shown | photo.hidden for photo in gallery) for noun in nouns]
    assert found["rare"][chance] == pytest.approx([RARE / (RARE + n) for n in others])
    metrics, intervals = find.report(found)
    assert metrics["all/logits: largest"] == pytest.approx(100 * np.mean(found["all"]["logits: largest"]))
    low, high = intervals["all/logits: largest"]
    assert low <= metrics["all/logits: largest"] <= high


def test_what_is_steered_first(tmp_path: Path) -> None:
    """Photos of four patches, of which one tells how sure it is: the learned order finds more than chance."""
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(400, 2, 2, 8)).astype(np.float32)
    signal = patches[..., 0].reshape(400, 4)
    heat = np.exp(2 * signal)
    under = find_any.Steered(
        presence=signal.max(axis=1),
        embeddings=(patches / np.linalg.norm(patches, axis=-1, keepdims=True))[:, 0, 0],
        heatmaps=(heat / heat.sum(axis=1, keepdims=True)).reshape(400, 2, 2),
    )
    arrays = find_any.regions(patches)
    assert sorted(find_any.steering_order(arrays, under, 400)) == list(range(400))
    shows = signal.max(axis=1) > 2
    found = find_any.evaluate(arrays, [under], [shows])
    assert found["likeliest/0.2/of_exact_fifty"] > 2 * found["random/0.2/of_exact_fifty"]
    assert found["photos_that_show_it"] == pytest.approx(100 * shows.mean(), abs=0.1)
    assert sorted(find_any.best(under, [7, 3], 10)) == [3, 7]


def test_looks_that_some_photos_show(tmp_path: Path) -> None:
    photos = [
        LabelledPhoto(
            tmp_path, (Shown("mug", "red mug" if i < 3 else "blue mug", 0.1), Shown("key", "key", 0.001))
        )
        for i in range(300)
    ]
    found = find_any.looks(photos, 5)
    assert list(found) == ["red mug"]  # a key is too small to count, blue mugs are everywhere
    assert found["red mug"].tolist() == [True] * 3 + [False] * 297
