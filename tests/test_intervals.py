"""Bootstrap intervals: against a resampling written out, and where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from steersearch.benchmarks.harness.intervals import macro_interval, micro_interval


def test_values_without_spread_have_an_interval_without_width() -> None:
    parts = {"kitchen": [1.0] * 7, "park": [0.0] * 3}
    assert macro_interval(parts) == pytest.approx((0.5, 0.5))
    assert micro_interval(parts) == pytest.approx((0.7, 0.7))


def test_as_wide_as_the_normal_approximation_says() -> None:
    """Two parts of unequal size, shares 0.8 of 100 and 0.5 of 400."""
    parts = {"kitchen": [1.0] * 80 + [0.0] * 20, "park": [1.0, 0.0] * 200}
    variance = np.array([0.8 * 0.2 / 100, 0.5 * 0.5 / 400])
    for interval, weights, mean in (
        (macro_interval(parts), np.array([0.5, 0.5]), 0.65),
        (micro_interval(parts), np.array([0.2, 0.8]), 0.56),
    ):
        half = 1.96 * np.sqrt((weights**2 * variance).sum())
        assert interval == pytest.approx((mean - half, mean + half), abs=0.006)


def test_against_a_resampling_query_by_query() -> None:
    rng = np.random.default_rng(3)
    parts = {"a": rng.random(30).tolist(), "b": (2 + rng.random(10)).tolist()}
    means = [
        np.mean([np.mean(rng.choice(values, len(values))) for values in parts.values()]) for _ in range(4000)
    ]
    assert macro_interval(parts) == pytest.approx(tuple(np.percentile(means, (2.5, 97.5))), abs=0.01)


def test_it_is_the_same_every_time() -> None:
    parts = {"a": [0.0, 1.0, 1.0], "b": [1.0, 0.0]}
    assert macro_interval(parts) == macro_interval(parts)
