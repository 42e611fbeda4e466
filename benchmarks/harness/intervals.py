"""95 % intervals of a figure, or of the difference of two, over the choice of queries.

They come from the bootstrap or, if all answers are equal, so that it would have no width, from Wilson's formula.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
# The value of each query or class. The parts of a mapping have equal weight: a figure is the mean of their means.
Answers: TypeAlias = "Sequence[float] | Mapping[str, Answers]"

ROUNDS = 2000
SEED = 92_000
HOW = (
    f"95 % percentile bootstrap, {ROUNDS} rounds: the queries of each part (scene, class, split) are drawn anew "
    "with replacement, the parts themselves and the gallery stay; Wilson's interval where all answers are the same"
)
_Z2 = 1.959964**2  # of the normal distribution at 97.5 %, squared


def macro_interval(parts: Answers, top: float = 1.0) -> tuple[float, float]:
    """95 % interval of the mean over parts of their means. parts: a value per query of each.

    top: the value of a right answer, 1 or 100; a wrong one has 0.
    """
    values = set(_values(parts))
    if values in ({0.0}, {top}):
        return _unanimous(values.pop(), queries_of(parts), 0.0, top)
    return limits(macro_rounds(parts))


def micro_interval(parts: Mapping[str, Sequence[float]], top: float = 1.0) -> tuple[float, float]:
    """95 % interval of the mean over all queries; `top` as in `macro_interval`."""
    total = sum(map(len, parts.values()))
    values = set(_values(parts))
    if values in ({0.0}, {top}):
        return _unanimous(values.pop(), total, 0.0, top)
    rng = np.random.default_rng(SEED)
    return limits(np.sum([len(part) / total * _means(part, rng) for part in parts.values()], axis=0))


def paired_interval(
    more: Answers, less: Answers, share: float = 1.0, top: float = 100.0
) -> tuple[float, float]:
    """95 % interval of the mean of `more` - share · `less`, with the same queries drawn for both in each round.

    top: the largest value of an answer; the smallest is 0. Raises ValueError unless both have the same queries.
    """
    apart = _differences(more, less, share)
    values = list(_values(apart))
    if max(values) - min(values) < 1e-9:
        return _unanimous(values[0], queries_of(apart), -share * top, top)
    return limits(macro_rounds(apart))


def macro_rounds(parts: Answers) -> Doubles:
    """The mean over parts of their means in each round (ROUNDS,)."""
    return _rounds(parts, np.random.default_rng(SEED))


def limits(rounds: Doubles) -> tuple[float, float]:
    """95 % interval of a figure, from its values in each round (ROUNDS,)."""
    low, high = np.percentile(rounds, (2.5, 97.5))
    return float(low), float(high)


def draws(size: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """How often each of `size` queries is drawn in each round (ROUNDS, size)."""
    return rng.multinomial(size, np.full(size, 1 / size), ROUNDS)


def mean_of(answers: Answers) -> float:
    """The figure: the mean over parts of their means."""
    parts = map(mean_of, answers.values()) if isinstance(answers, Mapping) else answers
    return float(np.mean(list(parts)))


def queries_of(answers: Answers) -> float:
    """The number of queries of a single part with the same variance, if all parts vary alike."""
    if not isinstance(answers, Mapping):
        return len(answers)
    return float(len(answers) ** 2 / sum(1 / queries_of(part) for part in answers.values()))


def _unanimous(value: float, queries: float, least: float, most: float) -> tuple[float, float]:
    """Wilson's interval for equal answers: a share of z² / (n + z²) may have any other value."""
    others = _Z2 / (queries + _Z2)
    return value + others * (least - value), value + others * (most - value)


def _rounds(answers: Answers, rng: np.random.Generator) -> Doubles:
    if not isinstance(answers, Mapping):
        return _means(answers, rng)
    rounds: Doubles = np.mean([_rounds(part, rng) for part in answers.values()], axis=0)
    return rounds


def _means(values: Sequence[float], rng: np.random.Generator) -> Doubles:
    """The mean of a resample of `values` in each round (ROUNDS,)."""
    means: Doubles = draws(len(values), rng) @ np.asarray(values, dtype=np.float64) / len(values)
    return means


def _differences(more: Answers, less: Answers, share: float) -> Answers:
    if isinstance(more, Mapping) and isinstance(less, Mapping) and more.keys() == less.keys():
        return {name: _differences(part, less[name], share) for name, part in more.items()}
    if isinstance(more, Mapping) or isinstance(less, Mapping) or len(more) != len(less):
        raise ValueError("these answers are to different queries")
    return [one - share * other for one, other in zip(more, less, strict=True)]


def _values(answers: Answers) -> Iterator[float]:
    for part in answers.values() if isinstance(answers, Mapping) else [answers]:
        if isinstance(part, Mapping):
            yield from _values(part)
        else:
            yield from part
