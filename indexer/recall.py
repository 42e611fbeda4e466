"""The recall gate: an approximate index is used only if it finds what an exact search finds, on a sample of queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from steersearch.indexer.faiss_index import (
    Doubles,
    Floats,
    IVFIndex,
    Rows,
    num_candidates,
    scores_of,
    tied_from,
)

LEAST_RECALL = 0.95  # of the ten nearest
QUERIES, NEAREST = 200, 10
_MOST_CELLS = 4  # nprobe is raised to at most one cell in 4: beyond, comparing all takes little longer
_SCORED_AT_ONCE = 1 << 13  # vectors: 7 MB of scores
_SEED = 4321
_MEASURED = f"the {NEAREST} nearest photos in {QUERIES} sampled searches"


@dataclass(frozen=True)
class ExactAnswers:
    """What an exact search finds for a sample of the vectors, each without itself.

    rows: (q,) of the sample.  least: (q,) float64, the score of the NEAREST-th neighbour, of fewer vectors the last.
    """

    rows: Rows
    least: Doubles
    num_neighbours: int

    @classmethod
    def of(cls, vectors: Floats) -> ExactAnswers:
        """vectors: (n, dim) float32; the sample is drawn with a fixed seed."""
        count = len(vectors)
        nearest = min(NEAREST, max(count - 1, 0))
        rows = np.sort(np.random.default_rng(_SEED).choice(count, min(QUERIES, count), replace=False))
        queries = np.ascontiguousarray(vectors[rows])
        best = np.full((len(rows), nearest), -np.inf, dtype=np.float32)
        for start in range(0, count if nearest else 0, _SCORED_AT_ONCE):
            scores = queries @ vectors[start : start + _SCORED_AT_ONCE].T
            here = (start <= rows) & (rows < start + _SCORED_AT_ONCE)
            scores[here, rows[here] - start] = -np.inf  # itself
            both = np.concatenate([best, scores], axis=1)
            best = np.partition(both, both.shape[1] - nearest, axis=1)[:, both.shape[1] - nearest :]
        least = best.min(axis=1).astype(np.float64) if nearest else np.zeros(len(rows))
        return cls(rows, least, nearest)

    def recall(self, ivf: IVFIndex, vectors: Floats) -> float:
        """The share of the nearest neighbours that a search by `ivf` finds; ties count as found."""
        if not self.num_neighbours:
            return 1.0
        found = 0
        for row, least in zip(self.rows.tolist(), self.least.tolist(), strict=True):
            near = ivf.candidates(vectors[row], num_candidates(NEAREST))
            scores = scores_of(vectors, near[near != row], vectors[row])
            found += min(self.num_neighbours, int((scores >= tied_from(least)).sum()))
        return found / (self.num_neighbours * len(self.rows))


@dataclass(frozen=True)
class Gated:
    """ivf: the first index that was good enough, or None.  recalls: of all that were tried, in order."""

    ivf: IVFIndex | None
    recalls: tuple[float, ...]

    @property
    def recall(self) -> float:
        """Of the index that is used; else of the best that was tried."""
        return max(self.recalls) if self.ivf is None else self.recalls[-1]

    def remark(self) -> str:
        """A remark on an index that was not good enough; "" if the first was."""
        if self.ivf is not None and len(self.recalls) > 1:
            missed = f"a new approximate index found only {_percent(self.recalls[0])}"
            return f"{missed} of {_MEASURED}; the cells of the earlier one are kept, which find {_percent(self.recall)}"
        return "" if self.ivf is not None else why_exact(self.recall)


def first_good(vectors: Floats, makers: Iterable[Callable[[], IVFIndex | None]]) -> Gated:
    """The first index of `vectors` whose recall is at least LEAST_RECALL.

    nprobe is raised as far as it pays before an index is given up.  makers: each makes one; None: it cannot.
    """
    answers, recalls = ExactAnswers.of(vectors), list[float]()
    for make in makers:
        if (ivf := make()) is None:
            continue
        recall = answers.recall(ivf, vectors)
        while recall < LEAST_RECALL and 2 * ivf.nprobe <= ivf.nlist // _MOST_CELLS:
            ivf.nprobe *= 2
            recall = answers.recall(ivf, vectors)
        recalls.append(recall)
        if recall >= LEAST_RECALL:
            return Gated(ivf, tuple(recalls))
    return Gated(None, tuple(recalls))


def why_exact(recall: float) -> str:
    """Why no index is used, in words."""
    return (
        f"the approximate index finds only {_percent(recall)} of {_MEASURED}, and {LEAST_RECALL:.0%} are needed: it is "
        "not used. Searches compare all photos, which is exact and takes longer; the next `index` that changes photos "
        "tries again"
    )


def _percent(recall: float) -> str:
    """Rounded down, so that a recall below the gate never reads as if it were not."""
    return f"{int(recall * 1000) / 10:.1f} %"
