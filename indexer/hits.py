"""The results of a search: hits, best first, and what was searched."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path

from PIL import Image

from steersearch.core.errors import ArgumentError
from steersearch.core.images.dates import CaptureDate
from steersearch.core.vectors import Floats
from steersearch.indexer.doubts import Doubt
from steersearch.indexer.folders import FileState
from steersearch.indexer.galleries import Galleries
from steersearch.indexer.manifest import PromptIndex, UnsteeredIndex
from steersearch.indexer.query_photo import AnyQuery
from steersearch.indexer.query_terms import Focus, Sort, checked_sort
from steersearch.indexer.region import Area
from steersearch.indexer.snapshot import Snapshot

# How many randomly chosen photos have to be compared before they can be ranked:
ENOUGH, ENOUGH_OF_FEW = 50, 0.75  # this number, or this share of a small gallery


class Method(Enum):
    """How hits are found.

    exact: every photo with a vector is compared.  ivf: those in the nearest cells of an IVF index.
    regions: no photo has a vector; the regions alone give the order.
    """

    exact = "exact"
    ivf = "ivf"
    regions = "regions"


@dataclass(frozen=True)
class FocusScore:
    """A photo under one focus. score: cosine in [-1, 1], of a `find` the photo's presence."""

    focus: Focus
    score: float

    @property
    def prompt(self) -> str:
        return self.focus.index.prompt

    @property
    def weight(self) -> float:
        return self.focus.weight


@dataclass(frozen=True)
class Searched:
    """What a search compared.

    focuses: each with the prompt index that answered.
    compared: photos that pass the filters and have a vector under each focus.  of: photos that pass the filters.
    method: see `Method`.  probed: nprobe and nlist of an IVF search.
    is_filtered: whether there were filters.
    by_regions: whether the photos with a vector are the likeliest candidates, see `anytime`.
    unreadable: of those not compared, photos that could not be read.
    undated: photos that a filter of dates left out for want of a plausible date.
    unsteered: whose vectors were compared where there was no focus, else None.
    region: that of the query photo whose regions were compared, else None.
    num_query_photos: photos searched with.  any_of: by any of them, not by their mean.
    left_out: photos that would be among the hits, but are query photos or copies of them.
    doubt: why the model may well be wrong here; None where nothing is known against it.
    is_kept: whether what was steered for this search is kept for the next one.
    is_served: whether a running `serve` searched for this process.
    remarks: on where photos were steered, if not where they should have been, and why none could be.
    is_unfinished: whether the last run of `index` has not ended, so that the library may lack photos of its folders.
    """

    focuses: tuple[Focus, ...]
    compared: int
    of: int
    method: Method
    probed: tuple[int, int] | None = None
    is_filtered: bool = False
    by_regions: bool = False
    unreadable: int = 0
    undated: int = 0
    unsteered: UnsteeredIndex | None = None
    region: Area | None = None
    num_query_photos: int = 1
    any_of: bool = False
    left_out: tuple[Path, ...] = ()
    doubt: Doubt | None = None
    is_kept: bool = True
    is_served: bool = False
    remarks: tuple[str, ...] = ()
    is_unfinished: bool = False

    @property
    def index(self) -> PromptIndex | UnsteeredIndex:
        """Whose vectors were compared; of several focuses those of the first."""
        return self.focuses[0].index if self.unsteered is None else self.unsteered

    @property
    def prompt(self) -> str:
        """The focus, "" without one; several, and one with a weight, as on the command line, joined by ", "."""
        if len(self.focuses) == 1 and self.focuses[0].weight == 1:
            return self.focuses[0].text
        return ", ".join(map(str, self.focuses))

    @property
    def missing(self) -> int:
        """Photos that pass the filters but have no vector yet, and so were not compared."""
        return self.of - self.compared

    @property
    def is_exact(self) -> bool:
        """Whether no photo can be missing from the hits."""
        return self.method is Method.exact and self.missing == 0 and not self.is_unfinished

    @property
    def is_guess(self) -> bool:
        """Whether no photo was compared under the focus: the order is that of their regions."""
        return self.method is Method.regions

    @property
    def is_too_little(self) -> bool:
        """Whether too few photos, chosen at random, were compared to rank them: there are no hits."""
        enough = is_enough(self.compared, self.of - self.unreadable)
        return not (self.is_guess or self.by_regions or enough)

    def __str__(self) -> str:
        how = ""
        if self.region is not None:
            several = self.num_query_photos > 1
            number = len(self.region.boxes)
            boxes = f"{number:,} marked {'box' if number == 1 else 'boxes'}"
            region = f"the region {self.region}" if number == 1 and not several else boxes
            focus = " and the focus" if self.focuses else ""
            how = f"; by {region} of the query photo{'s' if several else ''}{focus}"
        elif self.unsteered is not None:
            how = "; no focus: plain similarity"
        if self.num_query_photos > 1:
            how += f"; by {'any' if self.any_of else 'the mean'} of {self.num_query_photos:,} photos"
        left_out = ""
        if self.left_out and self.num_query_photos > 1:
            noun = "photo" if len(self.left_out) == 1 else "photos"
            left_out = f"; left out: query photos and their copies, {len(self.left_out):,} {noun}"
        elif self.left_out:
            copies = f" and its copies, {len(self.left_out):,} photos" if len(self.left_out) > 1 else ""
            left_out = f"; left out: the query photo{copies}"
        unfinished = ["the last index has not ended: photos may be missing"] if self.is_unfinished else []
        return "; ".join([f"{self._compared}{how}{left_out}", *unfinished, *self.remarks])

    @property
    def _compared(self) -> str:
        under = " under this focus" if self.unsteered is None else ""
        if self.is_guess:
            return f"a guess by regions alone, none of {self.of:,} photos compared under this focus"
        passing = ""
        if self.is_filtered:
            passing = f" {'that passes' if self.of == 1 else 'that pass'} the filters"
        photos = f"{self.of:,} {'photo' if self.of == 1 else 'photos'}{passing}"
        if self.undated:
            photos += f" (not {self.undated:,} without a plausible date)"
        if self.unreadable:
            photos += f" ({self.unreadable:,} cannot be read)"
        if self.is_too_little:
            return f"no ranking yet: {self.compared:,} of {photos} compared{under}"
        if self.missing:
            how = "" if self.probed is None else f" ({self._ivf})"
            likeliest = "the likeliest " if self.by_regions else ""
            return f"approximate{how}: {likeliest}{self.compared:,} of {photos} compared{under}"
        said = "exact" if self.probed is None else f"approximate ({self._ivf})"
        if self.is_unfinished:
            return f"approximate: the {photos} indexed so far compared{under}"
        return f"{said} over the {photos}" if self.is_filtered else said

    @property
    def _ivf(self) -> str:
        probes, cells = self.probed or (0, 0)
        return f"IVF, {probes} of {cells:,} cells"


def is_enough(compared: int, of: int) -> bool:
    """Whether this many photos, chosen at random from `of`, can be ranked."""
    return compared >= min(ENOUGH, ENOUGH_OF_FEW * of)


@dataclass(frozen=True)
class Hit:
    """One result.

    path: absolute.  rank: from 1.  image_id: content hash of the photo.
    score: Σ weight·cosine / Σ |weight| over the focuses, for one focus its cosine; of a find see `find_scores`;
        by any of several photos the best of their scores; without a focus the cosine of the unsteered vectors. With a
        region of the query photo: how well the photo's best regions match it, a mean cosine; with a focus too, the mean
        of both scores in standard deviations.
        Higher is better.
    z: how many standard deviations the score lies above the mean of the gallery's scores.
    parts: the photo under each focus.
    searched: what the hit was found among.
    match: with a region, as `heatmap`: where the photo matches it.
    copies: duplicates that were folded into this hit, see `dedup.folded`.
    date: when the photo was taken and what says so, see `core.images.dates`; None: nothing plausible does.
    indexed: size and mtime_ns of its file when it was indexed; None: not known.
    galleries: of the library.
    """

    path: Path
    score: float
    rank: int
    image_id: str
    z: float
    parts: tuple[FocusScore, ...]
    searched: Searched = field(repr=False)
    match: Floats | None = field(default=None, repr=False, compare=False)
    copies: tuple[Path, ...] = ()
    date: CaptureDate | None = None
    indexed: tuple[int, int] | None = None
    galleries: Galleries | None = field(default=None, repr=False, compare=False)

    @property
    def heatmap(self) -> Floats:
        """(Hp, Wp) float32 on the patch grid, sums to 1: where in this photo the (first) focus was found, or
        without one the region.

        Raises ArgumentError if the photo has left the library since, or was not compared under a focus or by a region.
        """
        if not self.parts and self.match is not None:
            return self.match
        if not self.parts:
            raise ArgumentError("hit", os.fspath(self.path), "has no heatmap: the search had no focus")
        return self._heatmap_under(self.parts[0].focus)

    @property
    def heatmaps(self) -> tuple[Floats, ...]:
        """As `heatmap`, for each focus, in the order of `parts`."""
        return tuple(self._heatmap_under(part.focus) for part in self.parts)

    def _heatmap_under(self, focus: Focus) -> Floats:
        return self.heatmap_in(self._own.of(focus.index))

    def heatmap_in(self, gallery: Snapshot) -> Floats:
        """As `heatmap`, in the gallery of a focus."""
        row = self.row_in(gallery)
        if row is None:
            reason = "has no heatmap: it left the library, or was not compared"
            raise ArgumentError("hit", os.fspath(self.path), reason)
        return gallery.heatmap_at(row)

    def row_in(self, gallery: Snapshot) -> int | None:
        """The photo's row, or that of another with its content; None if there is none."""
        return gallery.row_of(self.image_id, near=self._own.folders.stored(self.path))

    @property
    def presences(self) -> tuple[float, ...]:
        """How surely the photo shows what each focus names, in the order of `parts`; NaN where it is not known."""
        galleries = (self._own.of(part.focus.index) for part in self.parts)
        return tuple(gallery.presence_at(self.row_in(gallery)) for gallery in galleries)

    def photo_within(self, side: int) -> Image.Image:
        """As `photo`, at most `side` pixels each way; decodes no more of a large photo than that takes."""
        image = self._own.photo(self.path, self.image_id, at_least=side)
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        return image

    @property
    def photo(self) -> Image.Image:
        """The photo, upright, RGB; one that is gone or cannot be read any more as its thumbnail."""
        return self._own.photo(self.path, self.image_id)

    @property
    def thumbnail(self) -> Image.Image:
        """The small picture that the library keeps of the photo. Raises ImageError where there is none."""
        return self._own.thumbnail(self.path, self.image_id)

    @property
    def picture(self) -> Image.Image:
        """The photo in grey with the heatmap in colour over it, RGB, as a notebook shows it."""
        assert self._own.views is not None, "nothing draws hits here"
        return self._own.views.hit_picture(self)

    def _repr_html_(self) -> str | None:
        views = self._own.views
        return None if views is None else views.hit_html(self)

    @property
    def name(self) -> str:
        """See `Folders.shown`."""
        return self.shown(self.path)

    def shown(self, path: Path) -> str:
        """The name of this photo, or of a copy, for people."""
        return self._own.folders.shown(path)

    @property
    def _own(self) -> Galleries:
        assert self.galleries is not None, "a hit that no search gave"
        return self.galleries

    @property
    def taken_at(self) -> datetime | None:
        """The beginning of the second, minute, day, month or year (`date.precision`) of the photo, in local time."""
        return None if self.date is None else self.date.moment

    @property
    def taken_at_source(self) -> str | None:
        """The field that gives `taken_at`, such as "EXIF DateTimeOriginal"; if there is none, "file time"."""
        return None if self.date is None else self.date.source

    @property
    def prompt(self) -> str:
        """See `Searched.prompt`."""
        return self.searched.prompt

    @property
    def exact(self) -> bool:
        """False where some photos were not compared."""
        return self.searched.is_exact

    @property
    def compared(self) -> int:
        """See `Searched`."""
        return self.searched.compared

    @property
    def of(self) -> int:
        """See `Searched`."""
        return self.searched.of

    @property
    def state(self) -> FileState:
        """See `Folders.state_of`."""
        return self._own.folders.state_of(self.path, self.indexed)

    def state_of_copy(self, copy: Path) -> FileState:
        """As `state`, of one of `copies`, but for its changes, which are not known."""
        return self._own.folders.state_of(copy, None)

    @property
    def is_gone(self) -> bool:
        """Whether there is no file at `path` now: it was deleted, or its folder moved, since it was indexed."""
        return self.state in ("gone", "away")

    @property
    def is_changed(self) -> bool:
        """Whether the file at `path` has another size or time than when it was indexed, so that it may show something
        else by now."""
        return self.state == "changed"


class Hits(list[Hit]):
    """Hits, best first unless they are `sorted_by` date; a notebook shows them with their pictures.

    searched: what they were found among; there are none where `Searched.is_too_little`.
    query: the photo or photos searched with; None: of a find.
    sorted: how they are ordered.
    exact, compared, of: see `Searched`.
    """

    def __init__(
        self,
        hits: Iterable[Hit],
        searched: Searched,
        query: AnyQuery | None = None,
        sort: Sort = "score",
    ) -> None:
        super().__init__(hits)
        self.searched, self.query, self.sorted = searched, query, sort
        self.exact, self.compared, self.of = searched.is_exact, searched.compared, searched.of

    def sorted_by(self, sort: Sort) -> Hits:
        """The same hits with the same ranks: by score, or by date, "date" the oldest first, "-date" the newest.

        Hits without a date come last. Raises ArgumentError.
        """
        checked_sort(sort)
        ranked = sorted(self, key=lambda hit: hit.rank)
        dated = [(hit.taken_at, hit) for hit in ranked if hit.taken_at is not None]
        if sort == "score":
            return Hits(ranked, self.searched, self.query)
        dated.sort(key=lambda pair: pair[0], reverse=sort == "-date")
        undated = (hit for hit in ranked if hit.taken_at is None)
        return Hits([*(hit for _, hit in dated), *undated], self.searched, self.query, sort)

    def _repr_html_(self) -> str | None:
        views = self[0]._own.views if self else None
        return None if views is None else views.hits_html(self)
