"""The order in which photos are steered under a focus that is not indexed: the likeliest candidates first.

It starts with late interaction (as in ColBERT): the query photo's patches that show the focus are compared with the
regions of every photo, all unsteered features. Then two ridge regressions learn from the photos steered so far where in
a photo the focus is, and the score that steering would give it; they are refitted as more photos are steered.
Without a query photo the first photos are drawn evenly from all folders.

Letters: n candidates, R regions each, D width, N patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count

import numpy as np
import numpy.typing as npt

from steersearch.core.vectors import Floats
from steersearch.indexer.embedder import QueryFeatures
from steersearch.indexer.regions import RegionArrays

Rows = npt.NDArray[np.int64]

QUERY_PATCHES = 3
POOL = 4096  # photos whose order is learned; the others keep the order of late interaction
FIRST_LESSON = 32  # photos steered before the first fit
GROWTH = 1.6  # factor from one refit to the next
_CHUNK = 512  # photos, the task of a thread
_THREADS = min(8, cpu_count() or 1)
_WHERE, _SCORE = 0.01, 0.3  # strengths of the two ridge regressions
_GOLDEN = (5**0.5 - 1) / 2
_FAINT = 1e-5  # heatmap values below count as 0


@dataclass(frozen=True)
class Known:
    """Photos steered earlier under one focus. rows: (m,) of the arrays.  heatmaps: (m, Hp, Wp).  scores: (m,)."""

    rows: Rows
    heatmaps: Floats
    scores: Floats


class Shortlist:
    """The photos in `rows` of `arrays`, likeliest first. Iterating yields each once, by its place in `rows`, in the
    order of the latest fit.

    queries: the query photo under each focus, with its patches, of several photos stacked; None: no query photo, and
        one focus.
    shares: of each focus, weight / Σ |weight|.
    steered: photos steered before, which are not yielded and used in every fit.
    """

    def __init__(
        self,
        arrays: RegionArrays,
        rows: Rows,
        queries: Sequence[QueryFeatures] | None,
        shares: Sequence[float] = (1.0,),
        steered: Known | None = None,
    ) -> None:
        num_left = len(rows)
        rows = rows if steered is None else np.concatenate([rows, steered.rows])
        each = zip(queries or (None,), shares, strict=True)
        self._lessons = [_Lesson(arrays, rows, query, share) for query, share in each]
        self._has_query = queries is not None
        self.scores = np.sum([lesson.share * lesson.matches for lesson in self._lessons], axis=0)
        if queries is None:
            self._order = evenly_spread(num_left)
        else:
            self._order = np.argsort(-self.scores[:num_left], kind="stable")
        pool = np.sort(self._order[:POOL])
        for lesson in self._lessons:
            lesson.read(pool)
        self._pool = pool
        self._taken = np.arange(len(rows)) >= num_left
        self._next, self._due = 0, FIRST_LESSON
        if steered is not None:
            self.learn(range(num_left, len(rows)), [steered.heatmaps], [steered.scores])

    def __iter__(self) -> Iterator[int]:
        """Every fit reorders the remaining ones."""
        while self._next < len(self._order):
            number = int(self._order[self._next])
            self._next += 1
            self._taken[number] = True
            yield number

    @property
    def is_informed(self) -> bool:
        """Whether the order is informed: without a query photo only after the first fit."""
        return self._has_query or self._lessons[0].num_photos >= FIRST_LESSON

    def best(self, count: int) -> list[tuple[int, float]]:
        """The numbers of the photos that match the query best by late interaction, with scores."""
        best = np.argsort(-self.scores, kind="stable")[:count]
        return [(int(number), float(self.scores[number])) for number in best]

    def learn(self, numbers: Sequence[int], heatmaps: Sequence[Floats], scores: Sequence[Floats]) -> None:
        """Add steered photos. heatmaps: per focus (len(numbers), Hp, Wp).  scores: per focus (len(numbers),)."""
        for lesson, maps, given in zip(self._lessons, heatmaps, scores, strict=True):
            lesson.add(np.array(numbers, dtype=np.int64), maps, given)
        if self._lessons[0].num_photos >= self._due and self._next < len(self._order):
            self._due = int(self._lessons[0].num_photos * GROWTH)
            self._reorder()

    def _reorder(self) -> None:
        guesses = np.sum([lesson.share * lesson.guesses() for lesson in self._lessons], axis=0)
        left = self._pool[~self._taken[self._pool]]
        first = left[np.argsort(-guesses[~self._taken[self._pool]], kind="stable")]
        is_behind = ~self._taken
        is_behind[self._pool] = False
        behind = self._order[is_behind[self._order]]
        self._order, self._next = np.concatenate([first, behind]), 0


def evenly_spread(count: int) -> Rows:
    """The numbers below `count` in an order whose every prefix is spread evenly, so that photos sorted by path come
    from all folders in proportion."""
    return np.argsort(np.arange(count) * _GOLDEN % 1, kind="stable")


class _Lesson:
    """One focus: how well each photo matches the query's patches, and the regressions on steered photos.

    matches: (n,) float32, Σ over the query's patches of weight × the best cosine among the photo's regions; 0 without
    a query photo.
    """

    def __init__(self, arrays: RegionArrays, rows: Rows, query: QueryFeatures | None, share: float) -> None:
        self._arrays, self._rows, self.share = arrays, rows, share
        self.matches = np.zeros(len(rows), np.float32) if query is None else self._match(query)
        self._photos: list[int] = []
        self._focused: list[Floats] = []  # per steered photo (D,): its regions weighted by its heatmap
        self._inputs: list[Floats] = []  # per region with patches, less the photo's mean
        self._heat: list[Floats] = []
        self._sizes: list[Floats] = []
        self._scores: list[float] = []

    def _match(self, query: QueryFeatures) -> Floats:
        assert query.patches is not None, "the shortlist needs the query's patches"
        heat = query.heatmap.ravel()
        num_photos = len(query.heatmap) // self._arrays.patches.shape[1]
        strongest = np.argsort(-heat)[: num_photos * QUERY_PATCHES]
        tokens = query.patches.reshape(len(heat), -1)[strongest]
        weights = heat[strongest] / heat[strongest].sum()
        return matches(self._arrays, self._rows, self._arrays.centred(tokens), weights)

    @property
    def num_photos(self) -> int:
        return len(self._photos)

    def read(self, pool: Rows) -> None:
        """Load the sizes of the regions of the photos with these numbers, for `guesses`."""
        self._pool = pool
        self._pool_sizes = _sizes(self._arrays.patches[self._rows[pool]], self._arrays.vectors.shape[1])

    def add(self, numbers: Rows, heatmaps: Floats, scores: Floats) -> None:
        regions = self._arrays.unit_vectors(self._rows[numbers])
        patches = self._arrays.patches[self._rows[numbers]]
        sizes = _sizes(patches, regions.shape[1])
        for i, number in enumerate(numbers):
            heat = np.bincount(patches[i].ravel(), heatmaps[i].ravel(), minlength=len(sizes[i]))
            there = sizes[i] > 0
            size, vectors = sizes[i][there], regions[i][there]
            per_patch = np.log(np.maximum(heat[there] / size, _FAINT))
            self._photos.append(int(number))
            self._focused.append(heat[there].astype(np.float32) @ vectors)
            self._inputs.append(vectors - size @ vectors / size.sum())
            self._heat.append(per_patch - size @ per_patch / size.sum())
            self._sizes.append(size)
            self._scores.append(float(scores[i]))

    def guesses(self) -> Floats:
        """(len(pool),): the estimated score of each photo of the pool, up to a constant."""
        root = np.sqrt(np.concatenate(self._sizes))
        where = _ridge(
            np.concatenate(self._inputs) * root[:, None], np.concatenate(self._heat) * root, _WHERE
        )
        focused = np.stack(self._focused)
        inputs = focused - focused.mean(axis=0)
        matches = self.matches[self._photos]
        scale = np.sqrt((inputs**2).sum(axis=1).mean()) / max(float(matches.std()), 1e-6)
        inputs = np.column_stack([inputs, (matches - matches.mean()) * scale])
        scores = np.array(self._scores, dtype=np.float32)
        score = _ridge(inputs, scores - scores.mean(), _SCORE)
        directions = np.stack([where, score[:-1]]).astype(np.float32)
        seen = _of_each(self._rows[self._pool], lambda rows: self._arrays.products(rows, directions))
        logits = seen[..., 0] - seen[..., 0].max(axis=1, keepdims=True)
        shares = self._pool_sizes * np.exp(logits)
        shares /= shares.sum(axis=1, keepdims=True)
        found: Floats = (shares * seen[..., 1]).sum(axis=1) + score[-1] * scale * self.matches[self._pool]
        return found


def matches(arrays: RegionArrays, rows: Rows, vectors: Floats, weights: Floats) -> Floats:
    """(n,) for the photos in these rows: Σ over `vectors` (q, D), of `RegionArrays.centred`, of weight × the best
    cosine among the photo's regions."""
    return _of_each(rows, lambda some: arrays.products(some, vectors).max(axis=1) @ weights)


def _of_each(rows: Rows, compute: Callable[[Rows], Floats]) -> Floats:
    """`compute` of all rows, in parts on several threads."""
    parts = np.array_split(rows, max(1, -(-len(rows) // _CHUNK)))
    with ThreadPoolExecutor(_THREADS) as pool:
        joined: Floats = np.concatenate(list(pool.map(compute, parts))).astype(np.float32)
    return joined


def _sizes(patches: npt.NDArray[np.uint8], count: int) -> Floats:
    """(b, Hp, Wp) region numbers -> (b, count) float32, the number of patches of each region."""
    flat = patches.reshape(len(patches), -1).astype(np.int64) + count * np.arange(len(patches))[:, None]
    sizes = np.bincount(flat.ravel(), minlength=count * len(patches)).reshape(len(patches), count)
    return sizes.astype(np.float32)


def _ridge(inputs: Floats, targets: Floats, strength: float) -> Floats:
    """Ridge regression of targets (b,) on inputs (b, F) -> weights (F,). strength: relative to the inputs' variance."""
    gram = inputs.T @ inputs
    held = strength * max(float(np.trace(gram)) / len(gram), 1e-12) * np.eye(len(gram), dtype=gram.dtype)
    weights: Floats = np.linalg.solve(gram + held, inputs.T @ targets)
    return weights
