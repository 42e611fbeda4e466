"""How far a figure could lie off for the choice of the queries: bootstrap intervals, and what was resampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

ROUNDS = 2000
SEED = 92_000
HOW = (
    f"95 % percentile bootstrap, {ROUNDS} rounds: the queries of each part (scene, class, split) are drawn anew "
    "with replacement, the parts themselves and the gallery stay"
)


def macro_interval(parts: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    """95 % interval of the mean over parts of their means; `parts` holds a value per query of each."""
    return limits(macro_rounds(parts))


def micro_interval(parts: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    """95 % interval of the mean over all queries."""
    total = sum(len(values) for values in parts.values())
    return limits(np.sum([size / total * means for size, means in _resampled(parts)], axis=0))


def macro_rounds(parts: Mapping[str, Sequence[float]]) -> Doubles:
    """The mean over parts of their means in each round (ROUNDS,)."""
    rounds: Doubles = np.mean([means for _, means in _resampled(parts)], axis=0)
    return rounds


def limits(rounds: Doubles) -> tuple[float, float]:
    """95 % interval of a figure, from what it is in each round (ROUNDS,)."""
    low, high = np.percentile(rounds, (2.5, 97.5))
    return float(low), float(high)


def draws(size: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """How often each of `size` queries is drawn in each round (ROUNDS, size)."""
    return rng.multinomial(size, np.full(size, 1 / size), ROUNDS)


def _resampled(parts: Mapping[str, Sequence[float]]) -> list[tuple[int, Doubles]]:
    """For each part its number of values, and the mean of a resample of them in each round (ROUNDS,)."""
    rng = np.random.default_rng(SEED)
    found = []
    for values in parts.values():
        size = len(values)
        found.append((size, draws(size, rng) @ np.asarray(values, dtype=np.float64) / size))
    return found
