"""Statistics and faults of a data set, from reading every row and decoding every mask and picture."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from steersearch.core.errors import ImageError
from steersearch.indexer.loader import read_ahead
from steersearch.training.data.samples import Boxed, Sample, Skip, Source

MOST_THREADS = 16
NEARLY_ALL = 0.9  # of a picture: a mask that covers more is likelier wrong than right
ROWS_AT_ONCE = 64  # of one picture, in one task


@dataclass(frozen=True)
class Spread:
    """Minimum, 5 %, median, 95 %, maximum and mean."""

    least: float
    low: float
    median: float
    high: float
    greatest: float
    mean: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None without values."""
        if not values:
            return None
        least, low, median, high, greatest = np.quantile(values, [0, 0.05, 0.5, 0.95, 1]).tolist()
        return cls(least, low, median, high, greatest, float(np.mean(values)))


@dataclass(frozen=True)
class Large:
    """A row whose mask covers NEARLY_ALL of its picture. index: of the row in its source;  path, row: where it is
    written;  share: of the picture"""

    index: int
    path: Path
    row: str
    share: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found.

    rows: in the index; read: how many of them were looked at; samples: of these with a mask that can be used;
    absent: of the samples, whose expression fits nothing in the picture;
    boxes: with boxes and no mask; images: different pictures of both; duplicates: rows whose picture and expression
    an earlier one has; splits, sources: samples and boxes of each; words: per expression; areas: of masks, as share
    of the picture; large: masks that cover nearly all of it; skips: what cannot be used, skipped: how many
    expressions that are
    """

    name: str
    rows: int
    read: int
    samples: int
    absent: int
    boxes: int
    images: int
    duplicates: int
    splits: dict[str, int]
    sources: dict[str, int]
    words: Spread | None
    areas: Spread | None
    large: list[Large]
    skips: list[Skip]
    skipped: int


@dataclass
class _Tally:
    samples: int = 0
    absent: int = 0
    boxes: int = 0
    keys: array[int] = field(default_factory=lambda: array("q"))  # of picture and expression
    words: array[int] = field(default_factory=lambda: array("i"))
    areas: array[float] = field(default_factory=lambda: array("d"))
    splits: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    large: list[Large] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)


def check_source(
    source: Source,
    *,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> Report:
    """Read `source` whole.

    limit: at most this many rows, evenly spread.  progress: called with rows done and in all
    """
    total = len(source) if limit is None else min(limit, len(source))
    rows = [i * len(source) // total for i in range(total)]
    threads = threads or min(MOST_THREADS, os.cpu_count() or 1)
    tally, pictures = _Tally(skips=list(source.skips)), _Pictures()
    done = 0
    tasks = read_ahead(
        _by_picture(source, rows),
        lambda task: _look_at(source, task, pictures),
        threads=threads,
        look_ahead=4 * threads,
    )
    for part in tasks:
        for found in part:
            _add(tally, found)
        done += len(part)
        if progress is not None:
            progress(done, total)
    return Report(
        name=source.name,
        rows=len(source),
        read=total,
        samples=tally.samples,
        absent=tally.absent,
        boxes=tally.boxes,
        images=pictures.good,
        duplicates=len(tally.keys) - len(np.unique(tally.keys)),
        splits=dict(tally.splits),
        sources=dict(tally.sources),
        words=Spread.of(tally.words),
        areas=Spread.of(tally.areas),
        large=tally.large,
        skips=tally.skips,
        skipped=sum(skip.rows for skip in tally.skips),
    )


@dataclass(frozen=True)
class _Seen:
    """A row that can be used. area: of its mask, 0 where it means nothing, None for boxes; key: of its picture and
    expression; place: the row itself."""

    place: tuple[int, Path, str]
    key: int
    words: int
    area: float | None
    split: str
    source: str


class _Pictures:
    """Decodes each picture once and remembers whether it is usable."""

    def __init__(self) -> None:
        self._reasons: dict[Path, str | None] = {}

    def wrong(self, source: Source, index: int, path: Path) -> str | None:
        """Why the picture of row `index`, at `path`, is unusable; None if it is usable."""
        if path not in self._reasons:
            try:
                source.picture(index)
                self._reasons[path] = None
            except ImageError as error:
                self._reasons[path] = error.reason
        return self._reasons[path]

    @property
    def good(self) -> int:
        return sum(reason is None for reason in self._reasons.values())


def _by_picture(source: Source, rows: Sequence[int]) -> Iterator[list[int]]:
    """Rows in order, consecutive ones of one picture together, so that it is decoded in one task."""
    task: list[int] = []
    before: Path | None = None
    for index in rows:
        image = source.row(index).image
        if task and (image != before or len(task) == ROWS_AT_ONCE):
            yield task
            task = []
        task.append(index)
        before = image
    if task:
        yield task


def _look_at(source: Source, rows: Sequence[int], pictures: _Pictures) -> list[_Seen | Skip]:
    found: list[_Seen | Skip] = []
    for index in rows:
        row = source.read(index)
        if isinstance(row, Skip):
            found.append(row)
        elif (reason := pictures.wrong(source, index, row.image)) is not None:
            found.append(Skip(row.image, "", reason))
        else:
            place = source.row(index)
            found.append(_seen(row, (index, place.path, place.row)))
    return found


def _seen(row: Sample | Boxed, place: tuple[int, Path, str]) -> _Seen:
    key = hash((str(row.image), row.expression))
    area = float(row.mask.mean()) if isinstance(row, Sample) else None
    return _Seen(place, key, len(row.expression.split()), area, row.split, row.source)


def _add(tally: _Tally, found: _Seen | Skip) -> None:
    if isinstance(found, Skip):
        tally.skips.append(found)
        return
    if found.area is None:
        tally.boxes += 1
    else:
        tally.samples += 1
        if found.area > NEARLY_ALL:
            tally.large.append(Large(*found.place, found.area))
        if found.area:
            tally.areas.append(found.area)
        else:
            tally.absent += 1
    tally.keys.append(found.key)
    tally.words.append(found.words)
    tally.splits[found.split] += 1
    tally.sources[found.source] += 1
