"""How far a figure could lie off for the choice of the queries: bootstrap intervals, and what was resampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

ROUNDS = 2000
SEED = 92_000
HOW = (
    f"95 % percentile bootstrap, {ROUNDS} rounds: the queries of each part (scene, class, split) are drawn anew "
    "with replacement, the parts themselves and the gallery stay"
)


def macro_interval(parts: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    """95 % interval of the mean over parts of their means; `parts` holds a value per query of each."""
    return _limits(np.mean([means for _, means in _resampled(parts)], axis=0))


def micro_interval(parts: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    """95 % interval of the mean over all queries."""
    total = sum(len(values) for values in parts.values())
    return _limits(np.sum([size / total * means for size, means in _resampled(parts)], axis=0))


def _resampled(parts: Mapping[str, Sequence[float]]) -> list[tuple[int, npt.NDArray[np.float64]]]:
    """For each part its number of values, and the mean of a resample of them in each round (ROUNDS,)."""
    rng = np.random.default_rng(SEED)
    found = []
    for values in parts.values():
        size = len(values)
        counts = rng.multinomial(size, np.full(size, 1 / size), ROUNDS)
        found.append((size, counts @ np.asarray(values, dtype=np.float64) / size))
    return found


def _limits(means: npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)
