"""Ranking: the photos of one or several prompt indexes by their scores under a query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steersearch.indexer import snapshot as snapshots
from steersearch.indexer.faiss_index import Doubles, Floats, Rows, best_rows, products, scores_of
from steersearch.indexer.filters import Mask
from steersearch.indexer.hits import Method
from steersearch.indexer.score_statistics import ScoreStatistics
from steersearch.indexer.snapshot import Snapshot

_RESCORED = 4  # candidates per hit, of a search in cells, that are scored exactly


@dataclass(frozen=True)
class Ranking:
    """rows: of the best photos in the first focus' gallery, best first, equal scores by path.

    scores: (len(rows),).  cosines: (len(rows), focuses).  statistics: of all photos, whether or not they pass.
    num_photos: that pass and were compared, or could have been.  method, probed: see `Searched`.
    """

    rows: Rows
    scores: Doubles
    cosines: Doubles
    statistics: ScoreStatistics
    num_photos: int
    method: Method = Method.exact
    probed: tuple[int, int] | None = None


def rank(
    galleries: Sequence[Snapshot],
    queries: Sequence[Floats],
    weights: Sequence[float],
    k: int,
    passing: Mask | None = None,
    *,
    exact: bool = False,
) -> Ranking:
    """The k best of the photos that have a vector under every focus; all, if there are fewer.

    galleries, queries, weights: per focus its gallery, the query's embedding (dim,) under it, and its weight.
    passing: which rows of the first gallery are compared; None: all.
    exact: compare every photo, however many there are. Otherwise, from APPROXIMATE_FROM photos on, one focus is
    searched in cells. Whatever found a photo, its score is computed from its float32 embedding.
    """
    shares = np.array(weights, dtype=np.float64)
    shares /= np.abs(shares).sum()
    search = _Search(galleries, queries, shares, k)
    if len(galleries) == 1 and not exact and (found := search.in_cells(passing)) is not None:
        return found
    if len(galleries) == 1 and passing is None and (found := search.on_gpus()) is not None:
        return found
    return search.by_all(passing)


@dataclass(frozen=True)
class _Search:
    """As in `rank`; shares: weight / Σ |weight|."""

    galleries: Sequence[Snapshot]
    queries: Sequence[Floats]
    shares: Doubles
    k: int

    def by_all(self, passing: Mask | None) -> Ranking:
        """Compares every photo."""
        rows = shared_rows(self.galleries)
        scores = np.zeros(len(rows[0]), dtype=np.float32)
        for gallery, query, share, own in zip(self.galleries, self.queries, self.shares, rows, strict=True):
            found = gallery.flat.scores(query)
            scores += np.float32(share) * (found if len(found) == len(own) else found[own])
        statistics = ScoreStatistics.of(scores)
        if passing is None:
            chosen, num_photos = best_rows(scores, self.k), len(scores)
        else:
            compared = np.flatnonzero(passing[rows[0]])
            chosen, num_photos = compared[best_rows(scores[compared], self.k)], len(compared)
        return Ranking(*self._scored([own[chosen] for own in rows]), statistics, num_photos)

    def in_cells(self, passing: Mask | None) -> Ranking | None:
        """Searches the nearest cells; None where that does not pay, or does not give k photos."""
        cells, gallery = self.galleries[0].cells, self.galleries[0]
        num_photos = len(gallery) if passing is None else int(passing.sum())
        if cells is None or gallery.sample is None:
            return None
        if num_photos < snapshots.APPROXIMATE_FROM or not cells.reaches(self.k):
            return None
        rows = cells.candidates(self._target, _RESCORED * self.k + 16, passing)
        if len(rows) < self.k:
            return None
        statistics = ScoreStatistics.of(products(gallery.sample, self._target))
        scored = self._scored([np.sort(rows)])
        return Ranking(*scored, statistics, num_photos, Method.cells, (cells.probes, cells.cells))

    def on_gpus(self) -> Ranking | None:
        """Compares every photo on the GPUs, where there are any and it pays."""
        gallery = self.galleries[0]
        if gallery.sample is None:
            return None
        rows = gallery.flat.candidates_on_gpus(self._target, self.k)
        if rows is None:
            return None
        statistics = ScoreStatistics.of(products(gallery.sample, self._target))
        return Ranking(*self._scored([np.sort(rows)]), statistics, len(gallery))

    @property
    def _target(self) -> Floats:
        """What the best photos of a single focus are near to: the query, or with a weight below 0 its opposite."""
        return self.queries[0] if self.shares[0] > 0 else -self.queries[0]

    def _scored(self, candidates: Sequence[Rows]) -> tuple[Rows, Doubles, Doubles]:
        """Scores the candidates (per focus their rows, sorted by path) exactly: the k best rows of the first gallery,
        their scores and cosines."""
        each = zip(self.galleries, self.queries, candidates, strict=True)
        cosines = np.stack([scores_of(g.flat.vectors, rows, query) for g, query, rows in each], axis=1)
        scores = (cosines * self.shares).sum(axis=1)
        best = np.lexsort((candidates[0], -scores))[: self.k]
        return candidates[0][best], scores[best], cosines[best]


def shared_rows(galleries: Sequence[Snapshot]) -> list[Rows]:
    """For each gallery the rows of the photos that all of them have, in the same order, by path."""
    first, *others = (gallery.table.column("path") for gallery in galleries)
    if all(other.equals(first) for other in others):
        return [np.arange(len(first))] * len(galleries)
    import pyarrow.compute as compute

    found = [np.arange(len(first))]
    found += [
        compute.fill_null(compute.index_in(first, value_set=other), -1).to_numpy().astype(np.int64)
        for other in others
    ]
    in_all = np.all([rows >= 0 for rows in found], axis=0)
    return [rows[in_all] for rows in found]
