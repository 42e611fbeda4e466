"""Ranking: the photos of one or several prompt indexes by their scores under a query."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from steersearch.core.capture_date import CaptureDate
from steersearch.core.reading import Reading
from steersearch.indexer import search
from steersearch.indexer.faiss_index import Doubles, Floats, Rows, best_rows, products, scores_of
from steersearch.indexer.filters import Mask
from steersearch.indexer.focus import Focus
from steersearch.indexer.manifest import PromptIndex
from steersearch.indexer.score_statistics import ScoreStatistics
from steersearch.indexer.search import Snapshot

EXACT, REGIONS_ALONE = "exact", "regions alone"
# Photos that have to be compared before their order means something, where it is not known which are the likeliest:
ENOUGH, ENOUGH_OF_FEW = 50, 0.75  # so many, or this part of a small gallery
_RESCORED = 4  # candidates per hit, of a search in cells, that are scored exactly


@dataclass(frozen=True)
class Aim:
    """A focus whose prompt index is found. weight: see `Focus`.

    others: the prompt indexes of the same focus that fit what was asked for as well, see `Library.choices`.
    reading: how the model reads the prompt; None: not known (before the search, and of an index of an older version).
    """

    index: PromptIndex
    weight: float = 1.0
    others: tuple[PromptIndex, ...] = ()
    reading: Reading | None = None

    @property
    def remarks(self) -> list[str]:
        """What is to be said of how the model reads the prompt."""
        return [] if self.reading is None else self.reading.remarks()


@dataclass(frozen=True)
class FocusScore:
    """A photo under one focus. score: cosine in [-1, 1], of a `find` the photo's presence."""

    aim: Aim
    score: float

    @property
    def prompt(self) -> str:
        return self.aim.index.prompt

    @property
    def weight(self) -> float:
        return self.aim.weight


@dataclass(frozen=True)
class Searched:
    """What a search looked at.

    aims: the focuses, each with the prompt index that was asked.
    compared: photos that pass the filters and have a vector under each focus.  of: photos that pass the filters.
    method: `EXACT`, all that have a vector were compared, or how the nearest were found.
    is_filtered: whether there were filters.
    by_regions: whether the photos that have a vector are the likeliest, see `Library.search_any`.
    unreadable: of those not compared, photos that could not be read.
    undated: photos that a filter of dates left out for want of a plausible date.
    """

    aims: tuple[Aim, ...]
    compared: int
    of: int
    method: str
    is_filtered: bool = False
    by_regions: bool = False
    unreadable: int = 0
    undated: int = 0

    @property
    def prompt(self) -> str:
        """The focus; of several, and of one with a weight, as they are written on the command line, joined by ", "."""
        if len(self.aims) == 1 and self.aims[0].weight == 1:
            return self.aims[0].index.prompt
        return ", ".join(str(Focus(aim.index.prompt, aim.weight)) for aim in self.aims)

    @property
    def missing(self) -> int:
        """Photos that pass the filters and were not compared, since they have no vector yet."""
        return self.of - self.compared

    @property
    def is_exact(self) -> bool:
        """Whether no photo can be missing from the hits."""
        return self.method == EXACT and self.missing == 0

    @property
    def is_guess(self) -> bool:
        """Whether no photo was compared under the focus: the order is that of their regions, see `search_any`."""
        return self.method == REGIONS_ALONE

    @property
    def is_too_little(self) -> bool:
        """Whether so few were compared, chosen blindly, that their order would be noise: there are no hits."""
        enough = is_enough(self.compared, self.of - self.unreadable)
        return not (self.is_guess or self.by_regions or enough)

    def __str__(self) -> str:
        if self.is_guess:
            return f"a guess by {REGIONS_ALONE}, none of {self.of:,} photos compared under this focus"
        passing = ""
        if self.is_filtered:
            passing = f" {'that passes' if self.of == 1 else 'that pass'} the filters"
        photos = f"{self.of:,} {'photo' if self.of == 1 else 'photos'}{passing}"
        if self.undated:
            photos += f" (not {self.undated:,} without a plausible date)"
        if self.unreadable:
            photos += f" ({self.unreadable:,} cannot be read)"
        if self.is_too_little:
            return f"not enough yet for an order: {self.compared:,} of {photos} compared under this focus"
        if self.missing:
            how = "" if self.method == EXACT else f" ({self.method})"
            likeliest = "the likeliest " if self.by_regions else ""
            return f"approximate{how}: {likeliest}{self.compared:,} of {photos} compared under this focus"
        said = EXACT if self.method == EXACT else f"approximate ({self.method})"
        return f"{said} over the {photos}" if self.is_filtered else said


def is_enough(compared: int, of: int) -> bool:
    """Whether so many photos, chosen blindly from `of`, can be put in order."""
    return compared >= min(ENOUGH, ENOUGH_OF_FEW * of)


@dataclass(frozen=True)
class Hit:
    """One result.

    path: absolute.  rank: from 1.  image_id: content hash of the photo.
    score: Σ weight·cosine / Σ |weight| over the focuses, for one focus its cosine; of a find see `find_scores`.
        Higher is better.
    z: how many standard deviations the score lies above the mean of the gallery's scores.
    parts: the photo under each focus.
    searched: what the hit was found among.
    copies: photos that show the same and were folded into this hit, see `copies.folded`.
    date: when the photo was taken and what says so, see `core.capture_date`; None: nothing plausible does.
    """

    path: Path
    score: float
    rank: int
    image_id: str
    z: float
    parts: tuple[FocusScore, ...]
    searched: Searched = field(repr=False)
    copies: tuple[Path, ...] = ()
    date: CaptureDate | None = None

    @property
    def taken_at(self) -> datetime | None:
        """The beginning of the second, minute, day, month or year (`date.precision`) of the photo, in local time."""
        return None if self.date is None else self.date.moment

    @property
    def taken_at_source(self) -> str | None:
        """What says so, such as "EXIF DateTimeOriginal" or, for want of a better one, "file time"."""
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
    def is_gone(self) -> bool:
        """Whether there is no file at `path` now: it was deleted, or its folder moved, since it was indexed."""
        return not os.path.exists(self.path)  # Path.exists raises OSError for a name that is too long


H = TypeVar("H", bound=Hit)


class Hits(list[H], Generic[H]):
    """Hits, best first. searched: what they were found among; none where `Searched.is_too_little`.

    exact, compared, of: see `Searched`.
    """

    def __init__(self, hits: Iterable[H], searched: Searched) -> None:
        super().__init__(hits)
        self.searched = searched
        self.exact, self.compared, self.of = searched.is_exact, searched.compared, searched.of


@dataclass(frozen=True)
class Asked:
    """One focus of a query: the gallery under it, the query's embedding (dim,) under it, and its weight."""

    gallery: Snapshot
    embedding: Floats
    weight: float = 1.0


@dataclass(frozen=True)
class Ranking:
    """rows: of the best photos in the first focus' gallery, best first, equal scores by path.

    scores: (len(rows),).  cosines: (len(rows), focuses).  statistics: of all photos, whether or not they pass.
    num_photos: that pass and were compared, or could have been.  method: see `Searched`.
    """

    rows: Rows
    scores: Doubles
    cosines: Doubles
    statistics: ScoreStatistics
    num_photos: int
    method: str


def rank(asked: Sequence[Asked], k: int, passing: Mask | None = None, *, exact: bool = False) -> Ranking:
    """The k best of the photos that have a vector under every focus; all, if there are fewer.

    passing: which rows of the first focus' gallery are compared; None: all.
    exact: compare every photo, however many there are. Otherwise, from APPROXIMATE_FROM photos on, one focus is
    searched in cells. Whatever found a photo, its score is computed from its float32 embedding.
    """
    if len(asked) == 1 and not exact:
        found = _in_cells(asked[0], k, passing)
        if found is not None:
            return found
    return _on_gpus(asked, k, passing) or _by_all(asked, k, passing)


def _by_all(asked: Sequence[Asked], k: int, passing: Mask | None) -> Ranking:
    """Compares every photo."""
    rows = shared_rows([one.gallery for one in asked])
    scores = np.zeros(len(rows[0]), dtype=np.float32)
    for one, share, own in zip(asked, _shares(asked), rows, strict=True):
        found = one.gallery.flat.scores(one.embedding)
        scores += np.float32(share) * (found if len(found) == len(own) else found[own])
    statistics = ScoreStatistics.of(scores)
    if passing is None:
        chosen, num_photos = best_rows(scores, k), len(scores)
    else:
        compared = np.flatnonzero(passing[rows[0]])
        chosen, num_photos = compared[best_rows(scores[compared], k)], len(compared)
    return _ranking(asked, [own[chosen] for own in rows], k, statistics, num_photos, EXACT)


def _in_cells(one: Asked, k: int, passing: Mask | None) -> Ranking | None:
    """Looks into the nearest cells; None where that does not pay, or does not give k photos."""
    cells, gallery = one.gallery.cells, one.gallery
    num_photos = len(gallery) if passing is None else int(passing.sum())
    if (
        cells is None
        or gallery.sample is None
        or num_photos < search.APPROXIMATE_FROM
        or not cells.reaches(k)
    ):
        return None
    query = _signed(one)
    rows = cells.candidates(query, _RESCORED * k + 16, passing)
    if len(rows) < k:
        return None
    statistics = ScoreStatistics.of(products(gallery.sample, query))
    method = f"IVF, {cells.probes} of {cells.cells:,} cells"
    return _ranking([one], [np.sort(rows)], k, statistics, num_photos, method)


def _on_gpus(asked: Sequence[Asked], k: int, passing: Mask | None) -> Ranking | None:
    """Compares every photo on the GPUs, where there are any and it pays."""
    one, gallery = asked[0], asked[0].gallery
    if len(asked) > 1 or passing is not None or gallery.sample is None:
        return None
    query = _signed(one)
    rows = gallery.flat.candidates_on_gpus(query, k)
    if rows is None:
        return None
    statistics = ScoreStatistics.of(products(gallery.sample, query))
    return _ranking([one], [np.sort(rows)], k, statistics, len(gallery), EXACT)


def _ranking(
    asked: Sequence[Asked],
    candidates: Sequence[Rows],
    k: int,
    statistics: ScoreStatistics,
    num_photos: int,
    method: str,
) -> Ranking:
    """Scores the candidates (per focus their rows, sorted by path) exactly, and orders them."""
    cosines = np.stack(
        [
            scores_of(one.gallery.flat.vectors, rows, one.embedding)
            for one, rows in zip(asked, candidates, strict=True)
        ],
        axis=1,
    )
    scores = (cosines * _shares(asked)).sum(axis=1)
    best = np.lexsort((candidates[0], -scores))[:k]
    return Ranking(candidates[0][best], scores[best], cosines[best], statistics, num_photos, method)


def _signed(one: Asked) -> Floats:
    """What the best photos of a single focus are near to: the query, or with a weight below 0 its opposite."""
    return one.embedding if one.weight > 0 else -one.embedding


def _shares(asked: Sequence[Asked]) -> Doubles:
    """What each focus has of the score: weight / Σ |weight|."""
    weights = np.array([one.weight for one in asked], dtype=np.float64)
    shares: Doubles = weights / np.abs(weights).sum()
    return shares


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
