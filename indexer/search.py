"""One search in a library: photos steered for it, filters, ranking, hits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from numbers import Real
from typing import Any

import numpy as np

from steersearch.core.errors import ArgumentError
from steersearch.core.vectors import Floats
from steersearch.indexer.anytime import BUDGET_S, NOTHING, LikeliestFirst, Steered
from steersearch.indexer.dedup import folded, without_query
from steersearch.indexer.doubts import Doubt
from steersearch.indexer.embedder import Embedder
from steersearch.indexer.faiss_index import scores_of
from steersearch.indexer.filters import Filters, Mask, is_in, places_in
from steersearch.indexer.galleries import Galleries
from steersearch.indexer.hits import FocusScore, Hit, Hits, Method, Searched, is_enough
from steersearch.indexer.manifest import PromptIndex, UnsteeredIndex, read_prompt_indexes
from steersearch.indexer.progress import ProgressEvent
from steersearch.indexer.query_photo import AnyQuery, Marked, QueryPhoto
from steersearch.indexer.query_terms import Focus
from steersearch.indexer.ranking import Ranking, rank, rank_by_presence, rank_scores
from steersearch.indexer.region import Area, parts_of
from steersearch.indexer.regions import (
    RegionArrays,
    RegionSnapshot,
)
from steersearch.indexer.shortlist import Rows, matches
from steersearch.indexer.snapshot import Snapshot
from steersearch.indexer.store import Store, dates_at
from steersearch.indexer.unfinished import is_unfinished
from steersearch.indexer.work import LocalEngine, Steering


class Search:
    """Photos under `focuses`, each resolved to a prompt index that need not exist.

    query: the photo or photos that hits are to be like; None: hits are to show what the one focus names.
    embedder_of: the model that made an index; asked only where something has to be computed.
    filters: only photos that pass are steered, compared and found.
    unsteered: what the query is compared in where there are no focuses, and by the region.
    region: of the query photo or photos, which hits are to match, beside the focuses if there are any.
    doubt: see `Searched`.
    steering: where photos are steered; None: in this process.
    """

    def __init__(
        self,
        galleries: Galleries,
        focuses: Sequence[Focus],
        query: AnyQuery | None,
        embedder_of: Callable[[PromptIndex | UnsteeredIndex], Embedder],
        filters: Filters | None = None,
        unsteered: UnsteeredIndex | None = None,
        region: Area | None = None,
        doubt: Doubt | None = None,
        steering: Steering | None = None,
    ) -> None:
        self._galleries, self._focuses, self._query = galleries, tuple(focuses), query
        self._embedder_of, self._filters, self._unsteered = embedder_of, filters, unsteered
        self._region, self._doubt, self._steering = region, doubt, steering or LocalEngine()

    def run(
        self,
        k: int,
        *,
        exact: bool = False,
        collapse: bool = False,
        include_query: bool = False,
        budget_s: float | None = None,
        progress: Callable[[ProgressEvent], None] | None = None,
    ) -> Hits:
        """`ranked`, after photos without a vector under a focus were steered, the likeliest first.

        Their vectors are kept, also when this is interrupted; if they cannot be written, that is logged, and only this
        process has them. If no photo can be read and none has a vector under a focus, the regions alone give the order.
        budget_s: how long photos are steered, at least one is (None: BUDGET_S); with `exact` all are.
        collapse: deduplicate, see `dedup.folded`; k hits are left if there are that many.
        include_query: do not leave the query photos out, see `dedup.without_query`.
        Raises ArgumentError, FilterError, ImageError, ModelMismatchError, SteerSearchError.
        """
        _check_number(k)
        search = self._search(k, exact, budget_s, progress)
        if self._query is not None and not include_query:
            search = partial(without_query, search, photos=self._query.photos, likeness=self._likeness)
        return folded(search, k, Store(self._galleries.place).thumbnails) if collapse else search(k)

    def _likeness(self, photo: QueryPhoto, hit: Hit) -> float:
        """See `dedup.without_query`."""
        assert self._query is not None
        if len(self._query.photos) == 1 or hit.searched.is_guess:
            return min((part.score for part in hit.parts), default=hit.score)
        pairs = [(self._galleries.of(one.index), photo.embedding(one.index)) for one in self._focuses]
        if not pairs:
            pairs = [(self._unsteered_gallery, photo.unsteered_embedding(self._unsteered_gallery))]
        return min(float(scores_of(own.flat.vectors, _row_of(hit, own), query)[0]) for own, query in pairs)

    def _search(
        self,
        k: int,
        exact: bool,
        budget_s: float | None,
        progress: Callable[[ProgressEvent], None] | None,
    ) -> Callable[[int], Hits]:
        """Steer what has to be; gives the search for a number of hits."""
        if not self._focuses:
            return self.similar if self._region is None else self.in_region
        done = self._steer(k + 1, _seconds(exact, budget_s), progress)
        if guessed := next((steered for steered in done if steered.guesses), None):
            if self._region is not None:
                reason = (
                    "no photo can be read to be steered; leave the focus out to search by the region alone"
                )
                raise ArgumentError("focus", self._focuses[0].text, reason)
            return lambda count: self._guessed(guessed, count)
        return partial(self.ranked, exact=exact, after=Steered.together(done))

    def ranked(self, k: int, *, exact: bool = False, after: Steered = NOTHING) -> Hits:
        """The k best of the photos that have a vector under each focus; all, if fewer.

        Photos with equal scores come in the order of their paths. Photos that have no vector yet cannot be found:
        `Hits.searched` counts them, no hit is exact then, and there is none where `Searched.is_too_little`.
        exact: compare all, however many there are.  after: what was steered for this search.
        """
        _check_number(k)
        galleries = [self._galleries.of(focus.index) for focus in self._focuses]
        unsteered_key = UnsteeredIndex.beside(self._focuses[0].index).key
        passing, of, undated = self._passing_rows(galleries[0], unsteered_key)
        if self._query is None:
            ranking = rank_by_presence(galleries[0], k, passing)
            # The first were chosen blindly.
            by_regions = after.by_regions and is_enough(ranking.num_photos, of)
        else:
            embeddings = [self._query.embedding(focus.index) for focus in self._focuses]
            weights = [focus.weight for focus in self._focuses]
            beside = None if self._region is None else self._matches_in(galleries[0])
            ranking = rank(galleries, embeddings, weights, k, passing, exact=exact, beside=beside)
            by_regions = after.by_regions
        searched = Searched(
            self._read(),
            ranking.num_photos,
            max(of, ranking.num_photos),
            ranking.method,
            ranking.probed,
            is_filtered=bool(self._filters),
            by_regions=by_regions,
            unreadable=after.unreadable,
            is_kept=after.is_kept,
            remarks=tuple(sorted(after.remarks)),
            undated=undated,
            region=self._region,
            **self._several,
            doubt=self._doubt,
            is_unfinished=is_unfinished(self._galleries.place),
        )
        found = () if searched.is_too_little else self._hits(searched, galleries[0], ranking)
        return Hits(found, searched, self._query)

    def similar(self, k: int) -> Hits:
        """The k photos whose unsteered vectors are nearest to the query's; all, if fewer.

        What lacks such a vector is not found, see `ranked`; here nothing is computed for it.
        """
        assert self._query is not None, "without a focus, a photo is searched with"
        gallery = self._unsteered_gallery
        query = self._query.unsteered_embedding(gallery)
        return self._by_unsteered(k, lambda passing: rank([gallery], [query], [1.0], k, passing))

    def in_region(self, k: int) -> Hits:
        """The k photos that match the region of the query best; all, if fewer. See `similar`."""
        return self._by_unsteered(k, lambda passing: rank_scores(self._matches, k, passing))

    def _by_unsteered(self, k: int, ranked: Callable[[Mask | None], Ranking]) -> Hits:
        """Hits among the photos that have unsteered features."""
        gallery, index = self._unsteered_gallery, self._unsteered
        assert index is not None
        passing, of, undated = self._passing_rows(gallery, index.key)
        ranking = ranked(passing)
        searched = Searched(
            (),
            ranking.num_photos,
            max(of, ranking.num_photos),
            ranking.method,
            is_filtered=bool(self._filters),
            undated=undated,
            unsteered=index,
            region=self._region,
            **self._several,
            doubt=self._doubt,
            is_unfinished=is_unfinished(self._galleries.place),
        )
        found = () if searched.is_too_little else self._hits(searched, gallery, ranking)
        return Hits(found, searched, self._query)

    # the region of the query

    @cached_property
    def _kept(self) -> RegionSnapshot:
        """The regions of the library's photos."""
        assert self._unsteered is not None
        return self._galleries.regions(self._unsteered.key)

    @cached_property
    def _unsteered_gallery(self) -> Snapshot:
        assert self._unsteered is not None
        return self._galleries.unsteered(self._unsteered, None if self._region is None else self._kept)

    @cached_property
    def _marked(self) -> list[Marked]:
        """Of each query photo."""
        assert self._query is not None
        assert self._region is not None
        assert self._unsteered is not None
        arrays, rows = self._arrays_and_rows
        return [
            photo.marked(part, self._unsteered, self._unsteered_gallery, arrays, rows)
            for photo, part in zip(self._query.photos, parts_of(self._region), strict=True)
        ]

    @property
    def _arrays_and_rows(self) -> tuple[RegionArrays, Rows]:
        """The regions, and the row of each photo of the unsteered gallery in them. Raises ArgumentError."""
        if self._kept.arrays is None:
            reason = "needs the regions of photos; index the folder without --no-regions"
            raise ArgumentError("region", str(self._region), reason)
        return self._kept.arrays, self._kept.rows[self._kept.rows >= 0]

    @cached_property
    def _matches(self) -> Floats:
        """(n,): how well each photo of the unsteered gallery matches the region; of the parts of several photos in the
        mean, or the best of them."""
        assert self._query is not None
        arrays, rows = self._arrays_and_rows
        each = [matches(arrays, rows, marked.vectors, marked.shares) for marked in self._marked]
        found: Floats = np.max(each, axis=0) if self._query.any_of else np.mean(each, axis=0)
        return found

    def _matches_in(self, gallery: Snapshot) -> Floats:
        """The same for the photos of another gallery; NaN for those without regions."""
        own = self._unsteered_gallery.table.column("image_id")
        found = places_in(gallery.table.column("image_id"), own)
        known = found >= 0
        scores = np.full(len(found), np.nan, dtype=np.float32)
        scores[known] = self._matches[found[known]]
        return scores

    def _match(self, image_id: str, path: str) -> Floats | None:
        """Where the photo matches the region, as a heatmap; None where no region was asked for."""
        if self._region is None:
            return None
        arrays, rows = self._arrays_and_rows
        row = self._unsteered_gallery.row_of(image_id, near=path)
        assert row is not None
        parts = zip(self._marked, parts_of(self._region), strict=True)
        vectors = np.concatenate([marked.vectors for marked, part in parts if part is not None])
        return arrays.match(int(rows[row]), vectors)

    # steering

    def _steer(
        self, k: int, seconds: float | None, progress: Callable[[ProgressEvent], None] | None
    ) -> list[Steered]:
        """Give photos vectors under the focuses under which some lack one; these share the seconds."""
        groups = self._incomplete()
        if groups and self._query is not None:
            for photo in self._query.photos:
                _ = photo.picture  # one that cannot be read is refused before a model is loaded
        done = []
        for group in groups:
            likeliest = LikeliestFirst(
                self._galleries,
                group,
                self._embedder_of(group[0].index),
                self._query,
                lambda snapshot: self._passing(snapshot.photos),
                self._steering,
            )
            done.append(likeliest.steer(k, None if seconds is None else seconds / len(groups), progress))
            for index in (focus.index for focus in group):
                if (unkept := done[-1].unkept.get(index.key)) is not None:
                    self._galleries.hold(index, unkept.vectors, unkept.reading)
        return done

    def _incomplete(self) -> list[list[Focus]]:
        """The focuses under which photos lack a vector; those that can share a forward pass together."""
        begun = {index.key for index in read_prompt_indexes(self._galleries.place)}
        groups: dict[str, list[Focus]] = {}
        for focus in self._focuses:
            is_begun = focus.index.key in begun or self._galleries.holds(focus.index)
            if not is_begun or self._lacks_vectors(focus.index):
                groups.setdefault(focus.index.settings, []).append(focus)
        return list(groups.values())

    def _lacks_vectors(self, index: PromptIndex) -> bool:
        """Whether there is anything to steer; a damaged vector is there until `verify --repair` takes it away."""
        gallery = self._galleries.of(index)
        return gallery.missing > gallery.damaged

    # what may be found

    def _passing(self, photos: Any) -> Mask | None:
        """Which of `photos`, see `Filters.passing`, pass; None: all."""
        return self._filters.passing(photos, self._galleries.folders) if self._filters else None

    def _passing_rows(self, gallery: Snapshot, unsteered_key: str) -> tuple[Mask | None, int, int]:
        """Which rows of the first gallery pass (None: all), how many photos of the library pass, with a vector or not,
        and how many do not for want of a plausible date."""
        if not self._filters:
            return None, len(gallery) + gallery.missing, 0
        if not gallery.missing:
            passing = self._passing(gallery.table)
            assert passing is not None
            return passing, int(passing.sum()), self._filters.num_undated(gallery.table)
        photos = self._galleries.regions(unsteered_key).photos
        paths = photos.column("path").filter(self._passing(photos))
        return is_in(gallery.table.column("path"), paths), len(paths), self._filters.num_undated(photos)

    # what is found

    def _read(self) -> tuple[Focus, ...]:
        """The focuses with what is known of how the model reads them."""
        return tuple(replace(one, reading=self._galleries.reading(one.index)) for one in self._focuses)

    @property
    def _several(self) -> dict[str, Any]:
        """What `Searched` says of the query photos."""
        if self._query is None:
            return {}
        return {"num_query_photos": len(self._query.photos), "any_of": self._query.any_of}

    def _hits(self, searched: Searched, gallery: Snapshot, ranking: Ranking) -> Iterator[Hit]:
        rows, dates = ranking.rows.tolist(), dates_at(gallery.table, ranking.rows)
        found = zip(rows, ranking.scores.tolist(), ranking.cosines.tolist(), dates, strict=True)
        for number, (row, score, cosines, date) in enumerate(found, start=1):
            image_id, path = gallery.value("image_id", row), gallery.value("path", row)
            yield Hit(
                path=self._galleries.folders / path,
                score=score,
                rank=number,
                image_id=image_id,
                z=ranking.statistics.z(score),
                parts=tuple(FocusScore(focus, cosines[i]) for i, focus in enumerate(searched.focuses)),
                searched=searched,
                match=self._match(image_id, path),
                date=date,
                indexed=(gallery.value("size", row), gallery.value("mtime_ns", row)),
                galleries=self._galleries,
            )

    def _guessed(self, steered: Steered, k: int) -> Hits:
        """Hits by regions alone: their score is how well these match, and nothing is known of the steered photo."""
        searched = Searched(
            self._read(),
            0,
            steered.missing,
            Method.regions,
            unreadable=steered.unreadable,
            remarks=tuple(sorted(steered.remarks)),
            **self._several,
            doubt=self._doubt,
        )
        hits = (
            Hit(
                path=self._galleries.folders / guess.path,
                score=guess.score,
                rank=number,
                image_id=guess.image_id,
                z=np.nan,
                parts=tuple(FocusScore(focus, guess.score) for focus in searched.focuses),
                searched=searched,
                date=guess.date,
                galleries=self._galleries,
            )
            for number, guess in enumerate(steered.guesses[:k], start=1)
        )
        return Hits(hits, searched, self._query)


def _row_of(hit: Hit, gallery: Snapshot) -> Rows:
    return np.array([hit.row_in(gallery)], dtype=np.int64)


def _check_number(k: int) -> None:
    if not hasattr(k, "__index__") or k < 1:
        raise ArgumentError("k", k, "must be at least 1, and a whole number")


def _seconds(exact: bool, budget_s: float | None) -> float | None:
    """How long photos are steered; None: as long as it takes. Raises ArgumentError."""
    if exact and budget_s is not None:
        reason = "contradicts `exact`, which compares all however long it takes; give one of the two"
        raise ArgumentError("budget_s", budget_s, reason)
    if budget_s is not None and not (isinstance(budget_s, Real) and budget_s > 0):
        raise ArgumentError("budget_s", budget_s, "must be a number of seconds above 0")
    return None if exact else budget_s or BUDGET_S
