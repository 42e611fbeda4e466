"""Ranking: the photos of one or several prompt indexes by their scores under a query, or by presence without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from steersearch.indexer import snapshot as snapshots
from steersearch.indexer.faiss_index import (
    Doubles,
    Floats,
    Rows,
    best_rows,
    num_candidates,
    products,
    scores_of,
)
from steersearch.indexer.filters import Mask, places_in
from steersearch.indexer.hits import Method
from steersearch.indexer.query_terms import shares_of
from steersearch.indexer.snapshot import Snapshot


@dataclass(frozen=True)
class Ranking:
    """rows: of the best photos in the first focus' gallery, best first, ties by path.

    scores: (len(rows),).  cosines: (len(rows), focuses).  statistics: of all photos, passing or not.
    num_photos: number of passing photos.  method, probed: see `Searched`.
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
    beside: Floats | None = None,
) -> Ranking:
    """The k best of the photos that have a vector under every focus; all, if there are fewer.

    galleries, queries, weights: per focus its gallery, the query's embedding (dim,) under it, and its weight.
    Of q query photos (q, dim): the score of a photo is its best with any of them, and all photos are compared.
    passing: which rows of the first gallery are compared; None: all.
    exact: compare every photo, however many there are. Otherwise, from APPROXIMATE_FROM photos on, one focus is
    searched by its IVF index. Every score is computed from the float32 embedding.
    beside: another score of each photo of the first gallery, NaN where it has none, which leaves it out. The score is
    the mean of both, each in standard deviations above its mean; then all photos are compared.
    """
    search = _Search(galleries, [np.atleast_2d(query) for query in queries], np.array(shares_of(weights)), k)
    if beside is not None:
        return search.by_all(passing, beside)
    is_one = len(galleries) == 1 and len(search.queries[0]) == 1
    if is_one and not exact and (found := search.by_ivf(passing)) is not None:
        return found
    return search.by_all(passing)


@dataclass(frozen=True)
class _Search:
    """As in `rank`; queries: per focus (q, dim); shares: weight / Σ |weight|."""

    galleries: Sequence[Snapshot]
    queries: Sequence[Floats]
    shares: Doubles
    k: int

    def by_all(self, passing: Mask | None, beside: Floats | None = None) -> Ranking:
        """Compare every photo."""
        rows = shared_rows(self.galleries)
        if beside is not None:
            known = ~np.isnan(beside[rows[0]])
            rows = [own[known] for own in rows]
        sums = [self._sums(queries, rows) for queries in zip(*self.queries, strict=True)]
        scores: Floats = np.max(sums, axis=0)
        if beside is not None and len(scores):
            both = (_standardised(scores) + _standardised(beside[rows[0]])) / 2
            scores = both.round(_DIGITS).astype(np.float32)
        chosen, num_photos = _best_passing(scores, rows[0], self.k, passing)
        statistics = ScoreStatistics.of(scores)
        given = None if beside is None else scores[chosen].astype(np.float64)
        return Ranking(*self._scored([own[chosen] for own in rows], given), statistics, num_photos)

    def _sums(self, queries: Sequence[Floats], rows: Sequence[Rows]) -> Floats:
        """The scores of these rows with one query photo, whose embeddings (dim,) per focus are given."""
        scores = np.zeros(len(rows[0]), dtype=np.float32)
        for gallery, query, share, own in zip(self.galleries, queries, self.shares, rows, strict=True):
            found = gallery.flat.scores(query)
            scores += np.float32(share) * (found if len(found) == len(own) else found[own])
        return scores

    def by_ivf(self, passing: Mask | None) -> Ranking | None:
        """Search the IVF index; None if that does not pay, or does not give k photos."""
        ivf, gallery = self.galleries[0].ivf, self.galleries[0]
        num_photos = len(gallery) if passing is None else int(passing.sum())
        if ivf is None or gallery.sample is None:
            return None
        if num_photos < snapshots.APPROXIMATE_FROM or not ivf.reaches(self.k):
            return None
        rows = ivf.candidates(self._target, num_candidates(self.k), passing)
        if len(rows) < self.k:
            return None
        statistics = ScoreStatistics.of(products(gallery.sample, self._target))
        scored = self._scored([np.sort(rows)])
        return Ranking(*scored, statistics, num_photos, Method.ivf, (ivf.nprobe, ivf.nlist))

    @property
    def _target(self) -> Floats:
        """The target of a search under a single focus: the query, or, for a negative weight, its opposite."""
        query: Floats = self.queries[0][0]
        return query if self.shares[0] > 0 else -query

    def _scored(
        self, candidates: Sequence[Rows], scores: Doubles | None = None
    ) -> tuple[Rows, Doubles, Doubles]:
        """Score candidates (rows per focus, sorted by path) exactly, unless `scores` are given; returns the k best
        rows of the first gallery, their scores and cosines, of several query photos those with the nearest."""
        of_each = []
        for queries in zip(*self.queries, strict=True):
            each = zip(self.galleries, queries, candidates, strict=True)
            of_each.append(
                np.stack([scores_of(g.flat.vectors, rows, query) for g, query, rows in each], axis=1)
            )
        found = np.stack(of_each).clip(-1, 1)  # which rounding leaves
        sums = (found * self.shares).sum(axis=2)
        cosines = found[sums.argmax(axis=0), np.arange(sums.shape[1])]
        if scores is None:
            scores = sums.max(axis=0)
        best = np.lexsort((candidates[0], -scores))[: self.k]
        return candidates[0][best], scores[best], cosines[best]


def rank_scores(scores: Floats, k: int, passing: Mask | None = None) -> Ranking:
    """The k best photos by these scores (n,), ties by path, without cosines."""
    rows = np.arange(len(scores))
    chosen, num_photos = _best_passing(scores, rows, k, passing)
    best = chosen[np.argsort(-scores[chosen], kind="stable")[:k]]
    none: Doubles = np.empty((len(best), 0))
    return Ranking(best, scores[best].astype(np.float64), none, ScoreStatistics.of(scores), num_photos)


def _best_passing(scores: Floats, rows: Rows, k: int, passing: Mask | None) -> tuple[Rows, int]:
    """The k best passing photos of these rows, ties included, and the number of passing photos."""
    if passing is None:
        return best_rows(scores, k), len(scores)
    compared = np.flatnonzero(passing[rows])
    return compared[best_rows(scores[compared], k)], len(compared)


def shared_rows(galleries: Sequence[Snapshot]) -> list[Rows]:
    """For each gallery the rows of the photos common to all, in the order of paths."""
    first, *others = (gallery.table.column("path") for gallery in galleries)
    if all(other.equals(first) for other in others):
        return [np.arange(len(first))] * len(galleries)
    found = [np.arange(len(first)), *(places_in(first, other) for other in others)]
    in_all = np.all([rows >= 0 for rows in found], axis=0)
    return [rows[in_all] for rows in found]


# ---------------------------------------------------------------------------------------------------- score statistics

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ScoreStatistics:
    """Mean and standard deviation of the scores of a whole gallery under one query.

    They set no cut-off: none that sees only scores is reliable, see benchmarks/LOG.md.
    """

    mean: float
    sd: float

    @classmethod
    def of(cls, scores: Scores) -> ScoreStatistics:
        """scores: (n,), of all photos or of a random sample of them; n may be 0."""
        if len(scores) == 0:
            return cls(0.0, 0.0)
        return cls(float(scores.mean(dtype=np.float64)), float(scores.std(dtype=np.float64)))

    def z(self, score: float) -> float:
        """Standard deviations of a score above the mean; 0 if all scores are equal."""
        return (score - self.mean) / self.sd if self.sd > 0 else 0.0


# --------------------------------------------------------------------------------- find: ranking without a query photo

_SUREST = 10  # photos that define the object's look; in a gallery of less than a hundred, a tenth of it
_PRESENCE = 0.5  # weight of presence; that of similarity to the surest photos is 1
# Of a score that count: equal photos are to have equal ones, however a product of matrices was cut up.
_DIGITS = 6


def rank_by_presence(gallery: Snapshot, k: int, passing: Mask | None = None) -> Ranking:
    """The k best photos, ties by path; all, if there are fewer. `cosines` of the ranking are presences.

    passing: which rows are ranked; None: all. Photos of unknown presence are ignored.
    """
    known = np.flatnonzero(~np.isnan(gallery.presence))
    presence = gallery.presence[known]
    vectors = gallery.flat.all
    embeddings, ids = vectors, gallery.table.column("image_id")
    if len(known) < len(vectors):
        embeddings, ids = vectors[known], ids.take(known)
    scores = find_scores(presence, embeddings, ids.to_pylist())
    ranked = np.arange(len(known)) if passing is None else np.flatnonzero(passing[known])
    best = ranked[np.argsort(-scores[ranked], kind="stable")[:k]]
    statistics = ScoreStatistics.of(scores.astype(np.float32))
    parts = presence[best].astype(np.float64)[:, None]
    return Ranking(known[best], scores[best], parts, statistics, len(ranked))


def find_scores(presence: Floats, embeddings: Floats, image_ids: list[str]) -> Doubles:
    """How surely each of n photos shows the object, (n,): the weighted mean of its similarity to the surest photos and
    its presence, each in standard deviations above its mean.

    presence (n,); embeddings (n, dim), unit length; image_ids (n,): a content counts once among the surest.
    """
    if len(presence) == 0:
        return np.empty(0)
    surest = _surest(presence, image_ids)
    weights = np.exp(presence[surest].astype(np.float64) - presence.max())
    together = weights @ embeddings[surest].astype(np.float64)
    together /= max(float(np.linalg.norm(together)), 1e-12)
    likeness = embeddings @ together.astype(np.float32)
    scores: Doubles = (_standardised(likeness) + _PRESENCE * _standardised(presence)) / (1 + _PRESENCE)
    return scores.round(_DIGITS)


def _surest(presence: Floats, image_ids: list[str]) -> Rows:
    """Rows of the highest presence, one per content."""
    wanted = min(_SUREST, -(-len(presence) // 10))
    rows: dict[str, int] = {}
    for row in np.argsort(-presence, kind="stable").tolist():
        rows.setdefault(image_ids[row], row)
        if len(rows) == wanted:
            break
    return np.array(list(rows.values()), dtype=np.int64)


def _standardised(values: Floats) -> Doubles:
    wide = values.astype(np.float64)
    spread = float(wide.std())
    return (wide - wide.mean()) / spread if spread > 1e-9 else np.zeros_like(wide)
