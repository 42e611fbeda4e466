"""Anytime search: under a focus that was not indexed for all photos, steer the likeliest candidates within a budget.

Their vectors are kept in the prompt index of the focus, so the next query under it continues where this one stopped.
The search itself is the ordinary one, over the photos that have a vector.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import cached_property
from time import monotonic
from typing import Any

import numpy as np

from steersearch.core.errors import LibraryPlaceError, ModelMismatchError
from steersearch.core.images.dates import CaptureDate
from steersearch.core.images.limits import Limits
from steersearch.core.prompts import EncodedPrompt, Reading
from steersearch.core.vectors import Floats
from steersearch.indexer.build import COMMIT_SECONDS
from steersearch.indexer.embedder import Embedder, QueryFeatures, known_identity
from steersearch.indexer.filters import Mask, is_in, places_in
from steersearch.indexer.galleries import Galleries
from steersearch.indexer.manifest import (
    PromptIndex,
    UnsteeredIndex,
    mark_begun_by_query,
    write_prompt_index,
)
from steersearch.indexer.progress import Progress, ProgressEvent
from steersearch.indexer.prompt_features import features_of
from steersearch.indexer.query_photo import AnyQuery
from steersearch.indexer.query_terms import Focus, shares_of
from steersearch.indexer.regions import RegionSnapshot
from steersearch.indexer.schema import from_stored, integers, is_heatmap, numbers, unpack_heatmap
from steersearch.indexer.shortlist import Known, Rows, Shortlist, evenly_spread
from steersearch.indexer.store import Store, Vector, date_at
from steersearch.indexer.work import Candidate, Finished, IndexedPhoto, Job, Steering
from steersearch.indexer.writers import writing


@dataclass(frozen=True)
class Guess:
    """A photo by its regions alone. path: relative to the library's folder; score: its match with the query; date: see
    `store.date_at`."""

    path: str
    image_id: str
    score: float
    date: CaptureDate | None


@dataclass(frozen=True)
class Lacking:
    """The contents that are to be steered, sorted by path; item i is a content and its first path.

    photos: pyarrow table of PHOTO_COLUMNS, a row for each.  rows: (n,), of each in the region arrays; -1 where it has
    no regions.
    """

    photos: Any
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Candidate:
        image_id, path = (self.photos.column(name)[number].as_py() for name in ("image_id", "path"))
        return image_id, from_stored(path)

    @cached_property
    def with_regions(self) -> Rows:
        """The numbers of those that have regions."""
        return np.flatnonzero(self.rows >= 0)


@dataclass(frozen=True)
class Unkept:
    """Computed vectors of a prompt index that could not be written.

    reading: how the text encoder read the prompt; None if it was encoded before.
    """

    vectors: Sequence[Vector]
    reading: Reading | None


@dataclass(frozen=True)
class Steered:
    """The result of steering before a search.

    photos: contents steered now.  missing: contents that pass and still lack a vector under some focus.
    unreadable: those of `missing` whose photos could not be read.
    by_regions: whether the likeliest came first, which takes the regions of most contents and, without a query photo,
        a few steered photos.
    guesses: the best photos by regions alone, if no photo could be read and none was steered before.
    unkept: computed vectors, by key of the prompt index, that may not have been written.
    remarks: on where photos were steered.
    """

    photos: int = 0
    missing: int = 0
    unreadable: int = 0
    by_regions: bool = False
    guesses: tuple[Guess, ...] = ()
    unkept: Mapping[str, Unkept] = field(default_factory=dict)
    remarks: frozenset[str] = frozenset()

    @classmethod
    def together(cls, several: Sequence[Steered]) -> Steered:
        """The sum over all focuses of a search, without guesses."""
        return cls(
            photos=sum(one.photos for one in several),
            missing=max((one.missing for one in several), default=0),
            unreadable=max((one.unreadable for one in several), default=0),
            by_regions=bool(several) and all(one.by_regions for one in several if one.missing),
            unkept={key: unkept for one in several for key, unkept in one.unkept.items()},
            remarks=frozenset[str]().union(*(one.remarks for one in several)),
        )

    @property
    def is_kept(self) -> bool:
        """Whether all vectors were written."""
        return not any(unkept.vectors for unkept in self.unkept.values())


NOTHING = Steered()


logger = logging.getLogger(__name__)

BUDGET_S = 5.0
LESSON = 32  # photos between two refits of the shortlist, at most
RECALLED = 1024  # photos steered before that the shortlist learns from
# No limits: `index` has accepted these contents.
_ALLOWED = Limits(file=1e15, memory=1e15, seconds=3600)


class LikeliestFirst:
    """Steers photos of a library under `focuses`, whose indexes share a model and a gate_scale.

    query: the photo or photos that candidates should resemble in the focuses; None: candidates have the highest
        presence, for one focus.
    passing: returns the mask of photos in a region snapshot that pass the filters; None: all.
    steering: where photos are steered.
    """

    def __init__(
        self,
        galleries: Galleries,
        focuses: Sequence[Focus],
        embedder: Embedder,
        query: AnyQuery | None,
        passing: Callable[[RegionSnapshot], Mask | None],
        steering: Steering,
    ) -> None:
        self._galleries, self._place, self._folders = galleries, galleries.place, galleries.folders
        self._indexes = tuple(focus.index for focus in focuses)
        self._shares = shares_of([focus.weight for focus in focuses])
        self._embedder, self._query, self._passing = embedder, query, passing
        self._steering, self._remarks = steering, set[str]()
        self._store = Store(self._place)
        self._vectors: dict[str, list[Vector]] = {index.key: [] for index in self._indexes}  # not written yet
        self._readings: dict[str, Reading] = {}
        self._begun: set[str] = set()
        self._may_write = True
        self._refused: LibraryPlaceError | None = None
        self._queries: list[QueryFeatures] = []

    def steer(
        self, k: int, budget_s: float | None, progress: Callable[[ProgressEvent], None] | None = None
    ) -> Steered:
        """Steer the likeliest photos until all are done or the budget is spent, but at least one.

        k: number of guesses, if no photo can be read.
        budget_s: seconds after model, prompts and query photo are ready; None: all photos, without limit.
        Vectors that cannot be written are logged, and used for this answer.
        Raises ModelMismatchError, SteerSearchError (an embedding is not finite), after writing earlier vectors.
        """
        self._check_embedder()
        with ExitStack() as stack:
            try:
                stack.enter_context(writing(self._place))
            except LibraryPlaceError as error:
                self._may_write, self._refused = False, error
            snapshot = self._galleries.regions(UnsteeredIndex.beside(self._indexes[0]).key)
            lacking = self._lacking(snapshot)  # a wrong filter is refused before anything is kept
            self._features = [self._encoded(index) for index in self._indexes]
            if not len(lacking):
                return Steered(unkept=self._unkept())
            if self._query is not None:
                self._queries = self._query.features(self._indexes, self._features, patches=True)
            self._deadline = np.inf if budget_s is None else monotonic() + budget_s
            shortlist = self._shortlist(snapshot, lacking)
            self._progress = Progress(progress, self._deadline)
            self._progress.start(len(lacking))
            try:
                done, unreadable = self._run(lacking, shortlist)
            finally:  # an interrupted query keeps what it computed
                self._commit()
            guesses = () if done else self._guesses(k, shortlist, lacking)
        is_informed = shortlist is not None and shortlist.is_informed
        return Steered(
            photos=done,
            missing=len(lacking) - done,
            unreadable=unreadable,
            by_regions=is_informed and 2 * len(lacking.with_regions) >= len(lacking),
            guesses=guesses,
            unkept=self._unkept(),
            remarks=frozenset(self._remarks),
        )

    def _check_embedder(self) -> None:
        _ = self._embedder.dim  # loads it
        for index in self._indexes:
            if not known_identity(self._embedder).fits(index.weights_hash, index.preprocessing):
                raise ModelMismatchError.of(index.prompt, index.model_id, self._embedder.model_id)

    def _encoded(self, index: PromptIndex) -> Floats:
        """The prompt's features, encoded if missing."""

        def encode(prompt: str) -> EncodedPrompt:
            encoded = self._embedder.encode_prompt(prompt)
            self._readings[index.key] = encoded.reading
            return encoded

        return features_of(self._place, index, encode)

    def _lacking(self, snapshot: RegionSnapshot) -> Lacking:
        """The contents that lack a vector under some focus."""
        ids = snapshot.photos.column("image_id")
        has_all = np.all([is_in(ids, self._store.embedded(index.key)) for index in self._indexes], axis=0)
        passing = self._passing(snapshot)
        chosen = np.flatnonzero(~has_all if passing is None else ~has_all & passing)
        chosen = chosen[_first_of_each(ids.take(integers(chosen)))]
        return Lacking(snapshot.photos.take(integers(chosen)), snapshot.rows[chosen])

    def _shortlist(self, snapshot: RegionSnapshot, lacking: Lacking) -> Shortlist | None:
        rows = lacking.rows[lacking.with_regions]
        if snapshot.arrays is None or not len(rows):
            return None
        self._grid = snapshot.arrays.patches.shape[1:]
        num_photos = 0 if self._query is None else len(self._query.photos)
        shape = (num_photos * self._grid[0], self._grid[1], len(snapshot.arrays.mean))
        if any(query.patches is None or query.patches.shape != shape for query in self._queries):
            return None  # regions of another model
        if self._query is None:
            return Shortlist(snapshot.arrays, rows, None, steered=self._steered_before(snapshot))
        return Shortlist(snapshot.arrays, rows, self._queries, self._shares)

    def _steered_before(self, snapshot: RegionSnapshot) -> Known | None:
        """Photos with a known presence: the highest and as many others, at most RECALLED."""
        gallery = self._store.gallery(self._indexes[0].key)
        presence = gallery.presence
        falling = np.argsort(-presence, kind="stable")[: int((~np.isnan(presence)).sum())]
        others = np.random.default_rng(0).permutation(falling[RECALLED // 2 :])
        chosen = np.array([*falling[: RECALLED // 2], *others[: RECALLED // 2]], dtype=np.int64)
        ids = gallery.photos.column("image_id").take(integers(chosen))
        places = places_in(ids, snapshot.photos.column("image_id"))
        rows = np.where(places < 0, -1, snapshot.rows[places])
        kept = [number for number in _first_of_each(ids) if rows[number] >= 0]
        packed = gallery.photos.column("heatmap").take(integers(chosen[kept])).to_pylist()
        if not kept or not all(is_heatmap(one) and unpack_heatmap(one).shape == self._grid for one in packed):
            return None
        return Known(rows[kept], np.stack(list(map(unpack_heatmap, packed))), presence[chosen[kept]])

    # steering

    def _run(self, lacking: Lacking, shortlist: Shortlist | None) -> tuple[int, int]:
        """Returns the numbers of contents that were steered, and that could not be read."""
        if self._folders.are_gone:
            self._remarks.add("no photo can be read, the photo folder is gone")
            return 0, 0
        job = Job(
            folders=self._folders,
            prompts=self._indexes,
            features={
                index.key: features for index, features in zip(self._indexes, self._features, strict=True)
            },
            batch_size=min(LESSON, self._embedder.batch_size),
            limits=_ALLOWED,
        )
        self._number_of: dict[str, int] = {}
        candidates = self._candidates(lacking, shortlist)
        done, unreadable, committed_at = 0, 0, monotonic()
        with closing(self._steering.steer(job, self._embedder, candidates, self._deadline)) as batches:
            for finished in batches:
                steered = sum(isinstance(result, IndexedPhoto) for result in finished.results)
                done, unreadable = done + steered, unreadable + len(finished.results) - steered
                self._take(finished, shortlist)
                if monotonic() - committed_at > COMMIT_SECONDS:
                    self._commit()
                    committed_at = monotonic()
        return done, unreadable

    def _candidates(self, lacking: Lacking, shortlist: Shortlist | None) -> Iterator[Candidate]:
        """All contents, the likeliest first; then those without regions."""
        for number in shortlist or ():
            candidate = lacking[int(lacking.with_regions[number])]
            self._number_of[candidate[0]] = number
            yield candidate
        others = np.arange(len(lacking)) if shortlist is None else np.flatnonzero(lacking.rows < 0)
        for number in others[evenly_spread(len(others))]:
            yield lacking[int(number)]

    def _take(self, finished: Finished, shortlist: Shortlist | None) -> None:
        self._remarks |= finished.remarks
        vectors = [finished.vectors.get(index.key, []) for index in self._indexes]
        for index, found in zip(self._indexes, vectors, strict=True):
            self._vectors[index.key] += found
        known = [i for i, vector in enumerate(vectors[0]) if vector.image_id in self._number_of]
        if shortlist is not None and known and vectors[0][0].heatmap.shape == self._grid:
            shortlist.learn(
                [self._number_of[vectors[0][i].image_id] for i in known],
                [np.stack([found[i].heatmap for i in known]) for found in vectors],
                [self._scores(f, [found[i] for i in known]) for f, found in enumerate(vectors)],
            )
        self._progress.advance(len(vectors[0]))

    def _scores(self, focus: int, vectors: Sequence[Vector]) -> Floats:
        """What the search is for, under one focus."""
        if self._query is None:
            return np.array([vector.presence for vector in vectors], dtype=np.float32)
        query = np.atleast_2d(self._queries[focus].embedding)
        scores: Floats = (np.stack([vector.embedding for vector in vectors]) @ query.T).max(axis=1)
        return scores

    def _commit(self) -> None:
        """Write computed vectors; after a full disk they are tried again.

        The prompt index is created with the first vectors, so that a search that steers nothing leaves none behind.
        """
        if not self._may_write:
            return
        for index in self._indexes:
            vectors = self._vectors[index.key]
            if not vectors:
                continue
            try:
                if index.key not in self._begun:
                    self._begin(index)
                self._store.write_vectors(index.key, vectors)
                vectors.clear()
            except LibraryPlaceError as error:
                self._refused = error

    def _begin(self, index: PromptIndex) -> None:
        """Create table and manifest if missing."""
        self._store.ensure_prompt_table(index.key, index.dim)
        mark_begun_by_query(self._place, index)
        write_prompt_index(self._place, index)
        self._begun.add(index.key)

    def _unkept(self) -> dict[str, Unkept]:
        """Log what could not be written, and return all vectors that only this process may have."""
        if self._refused is not None and any(self._vectors.values()):
            logger.warning(
                "%s: what was computed for this answer could not be kept, the next one computes it again: it %s",
                self._place,
                self._refused.reason,
            )
        return {
            key: Unkept(tuple(vectors), self._readings.get(key)) for key, vectors in self._vectors.items()
        }

    def _guesses(self, k: int, shortlist: Shortlist | None, lacking: Lacking) -> tuple[Guess, ...]:
        """The best by regions alone, if the search would find nothing under some focus."""
        if (
            self._query is None
            or shortlist is None
            or all(len(self._store.embedded(index.key)) for index in self._indexes)
        ):
            return ()

        def guess(number: int, score: float) -> Guess:
            content, path = lacking[number]
            return Guess(path, content, score, date_at(lacking.photos, number))

        return tuple(guess(int(lacking.with_regions[number]), score) for number, score in shortlist.best(k))


def _first_of_each(ids: Any) -> Rows:
    """The numbers of the first of each text of an Arrow column, ascending."""
    codes = ids.combine_chunks().dictionary_encode().indices
    return np.unique(numbers(codes, np.int32), return_index=True)[1]
