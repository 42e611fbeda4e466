"""Which scores stand out, on scores whose groups can be seen."""

from __future__ import annotations

import numpy as np
import pytest

from steersearch.indexer.relevance import Background, two_groups


def test_mean_deviation_and_z_by_hand() -> None:
    background = Background.of(np.array([0.1, 0.2, 0.3, 0.4], np.float32))
    assert (background.mean, background.sd) == pytest.approx((0.25, np.sqrt(0.0125)))
    assert background.z(0.25) == pytest.approx(0, abs=1e-6)
    assert background.z(0.4) == pytest.approx(0.15 / np.sqrt(0.0125))


def test_the_best_cut_by_hand() -> None:
    """Means .9 and .1, shares 2/5 and 3/5: the cut explains 2/5 · 3/5 · .8² = .1536 of .1536 + .0002/5 + .02/5."""
    scores = np.array([0.1, 0.91, 0.0, 0.89, 0.2], np.float32)
    explained, cut, share = two_groups(scores)
    assert explained == pytest.approx(0.1536 / (0.1536 + 0.00004 + 0.004))
    assert (cut, share) == pytest.approx((0.545, 0.4))


def test_a_clear_upper_group_stands_out() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(0.9, 0.02, 80), rng.normal(0.5, 0.05, 320)]).astype(np.float32)
    background = Background.of(scores)
    assert background.z(0.9) < 2.1
    assert [background.stands_out(float(score)) for score in scores] == [True] * 80 + [False] * 320


def test_most_of_a_gallery_cannot_stand_out_of_it() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(0.9, 0.02, 300), rng.normal(0.5, 0.05, 100)]).astype(np.float32)
    assert not any(Background.of(scores).stands_out(float(score)) for score in scores)


@pytest.mark.parametrize("draw", ["normal", "uniform", "exponential"])
def test_in_a_crowd_without_groups_two_deviations_stand_out(draw: str) -> None:
    scores = getattr(np.random.default_rng(0), draw)(size=5000).astype(np.float32)
    background = Background.of(scores)
    assert background.least == pytest.approx(scores.mean() + 2 * scores.std(), rel=1e-4)


@pytest.mark.parametrize("scores", [[], [0.7], [0.7] * 9])
def test_equal_scores_do_not_stand_out(scores: list[float]) -> None:
    background = Background.of(np.array(scores, np.float32))
    assert background.z(0.7) == 0
    assert not background.stands_out(0.7)


def test_many_scores_are_looked_at_evenly() -> None:
    rng = np.random.default_rng(0)
    scores = np.where(rng.random(200_000) < 0.1, 0.9, 0.1).astype(np.float32)
    assert two_groups(scores) == pytest.approx((1, 0.5, 0.1), abs=0.01)
