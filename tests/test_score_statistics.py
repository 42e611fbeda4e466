"""How a gallery's scores are spread."""

from __future__ import annotations

import numpy as np
import pytest

from steersearch.indexer.ranking import ScoreStatistics


def test_mean_deviation_and_z_by_hand() -> None:
    statistics = ScoreStatistics.of(np.array([0.1, 0.2, 0.3, 0.4], np.float32))
    assert (statistics.mean, statistics.sd) == pytest.approx((0.25, np.sqrt(0.0125)))
    assert statistics.z(0.25) == pytest.approx(0, abs=1e-6)
    assert statistics.z(0.4) == pytest.approx(0.15 / np.sqrt(0.0125))


@pytest.mark.parametrize("scores", [[], [0.7], [0.7] * 9])
def test_equal_scores_are_no_deviation_apart(scores: list[float]) -> None:
    assert ScoreStatistics.of(np.array(scores, np.float32)).z(0.7) == 0
