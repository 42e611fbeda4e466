"""Which photos a query is to compare: by folder, by date, by SQL."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steersearch.core.errors import ArgumentError
from steersearch.core.images.dates import are_plausible
from steersearch.indexer.conditions import check_condition
from steersearch.indexer.schemas import PHOTO_COLUMNS
from steersearch.indexer.store import rows_where
from steersearch.indexer.stored_path import comparable_paths, normal_form, paths_in, to_stored

Mask = npt.NDArray[np.bool_]
_SHOWN = 8  # folders that an error names


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Photos pass that fulfil all that is given.

    folder: they lie in this folder or below it; its path is relative to the library's folder, or absolute.
    after, before: they can have been taken at `after` or later, and earlier than `before` (local time, no zone): one
        of which only the month is known passes with any part of it. For a photo without a date its file's time
        counts; one whose file's time is not plausible either does not pass.
    where: SQL over the photos, see `store.rows_where` and, for its bounds, `conditions`.
    """

    folder: str | None = None
    after: datetime | None = None
    before: datetime | None = None
    where: str | None = None

    @classmethod
    def of(
        cls,
        folder: str | os.PathLike[str] | None = None,
        after: str | date | None = None,
        before: str | date | None = None,
        where: str | None = None,
    ) -> Filters:
        """Filters from what people write; dates: see `parse_date`. Raises ArgumentError, FilterError."""
        return cls(
            folder=None if folder is None else os.fspath(folder),
            after=None if after is None else parse_date("after", after),
            before=None if before is None else parse_date("before", before),
            where=where,
        )

    def __post_init__(self) -> None:
        if self.folder is not None and not self.folder.strip():
            raise ArgumentError("folder", self.folder, 'names none; "." is the whole library')
        if self.where is not None:
            check_condition(self.where, PHOTO_COLUMNS)

    def __bool__(self) -> bool:
        return any(value is not None for value in (self.folder, self.after, self.before, self.where))

    def passing(self, photos: Any, root: Path) -> Mask | None:
        """Which of `photos` pass, (n,) bool; None: all, since nothing is asked.

        photos: table with the columns `store.PHOTO_COLUMNS`.  root: the library's folder. Raises ArgumentError for a
        folder in which no photo lies, FilterError.
        """
        if not self:
            return None
        passing = np.ones(photos.num_rows, dtype=bool)
        if self.folder is not None:
            passing &= _is_below(photos.column("path"), _relative(self.folder, root), self.folder)
        if self.after is not None or self.before is not None:
            passing &= _is_between(photos, self.after, self.before)
        if self.where is not None:
            fulfilling = rows_where(photos, self.where)
            passing &= np.isin(np.arange(photos.num_rows), fulfilling)
        return passing

    def num_undated(self, photos: Any) -> int:
        """How many of `photos` do not pass because no date of theirs is plausible."""
        if self.after is None and self.before is None:
            return 0
        return int((_by_file(photos) & ~are_plausible(photos.column("mtime_ns").to_numpy())).sum())


def parse_date(name: str, value: str | date) -> datetime:
    """The beginning of a year, month, day or minute: "2024", "2024-05", "2024-05-17", "2024-05-17 18:30".

    name: of the option, for the ArgumentError that anything else raises, a time zone included: cameras write none.
    """
    try:
        if isinstance(value, str):
            text = value.strip()
            if re.fullmatch(r"\d{4}(-\d\d)?", text):
                text = f"{text}-01-01"[:10]
            found = datetime.fromisoformat(text)
        elif isinstance(value, datetime):
            found = value
        else:
            found = datetime(value.year, value.month, value.day)
        found.timestamp()  # of a year that the clock does not reach it raises
    except (ValueError, OverflowError, OSError):
        raise ArgumentError(
            name, value, 'is no date; write it like "2024", "2024-05", "2024-05-17" or "2024-05-17 18:30"'
        ) from None
    if found.tzinfo is not None:
        raise ArgumentError(name, value, "has a time zone; photos know the local time only, leave it out")
    return found


def _relative(folder: str, root: Path) -> str:
    """A folder relative to the library's own, which is "", in normal form."""
    path = Path(folder)
    if not path.is_absolute() and not (root / path).is_dir() and path.is_dir():
        path = path.resolve()  # named from the current folder
    if path.is_absolute():
        real, home = (Path(normal_form(os.path.realpath(one))) for one in (path, root))
        if not real.is_relative_to(home):
            raise ArgumentError("folder", folder, f"lies outside the library's folder {root}")
        path = real.relative_to(home)
    relative = PurePosixPath(os.path.normpath(path)).as_posix()
    return "" if relative == "." else normal_form(relative)


def _is_below(paths: Any, relative: str, folder: str) -> Mask:
    import pyarrow.compute as compute

    if not relative:
        return np.ones(len(paths), dtype=bool)
    start = f"{to_stored(relative)}/"
    below: Mask = compute.starts_with(comparable_paths(paths), pattern=start).to_numpy()
    if not below.any():
        have = sorted({path.split("/", 1)[0] for path in paths_in(paths) if "/" in path})
        more = ", …" if len(have) > _SHOWN else ""
        listed = f"; its folders: {', '.join(have[:_SHOWN])}{more}" if have else "; it has no folders"
        raise ArgumentError("folder", folder, f"holds no photo of the library{listed}")
    return below


def _is_between(photos: Any, after: datetime | None, before: datetime | None) -> Mask:
    """Whether each photo can be of this time; one that says nothing is as old as its file."""
    begins = photos.column("taken_at").to_numpy().astype("datetime64[us]")
    ends = begins + np.timedelta64(1, "s")
    precision = photos.column("taken_at_precision").to_numpy()
    for name, unit in (("minute", "m"), ("day", "D"), ("month", "M"), ("year", "Y")):
        vague = precision == name
        ends[vague] = begins[vague].astype(f"datetime64[{unit}]") + 1
    by_file, mtimes = _by_file(photos), photos.column("mtime_ns").to_numpy()
    passing: Mask = ~by_file | are_plausible(mtimes)
    if after is not None:
        is_later = mtimes >= round(after.timestamp() * 1e9)
        passing &= np.where(by_file, is_later, ends > np.datetime64(after, "us"))
    if before is not None:
        is_earlier = mtimes < round(before.timestamp() * 1e9)
        passing &= np.where(by_file, is_earlier, begins < np.datetime64(before, "us"))
    return passing


def _by_file(photos: Any) -> Mask:
    """Which photos say nothing themselves of when they were taken."""
    silent: Mask = photos.column("taken_at").is_null().to_numpy()
    return silent


def is_in(column: Any, values: Iterable[str]) -> Mask:
    """Which values of a text column are among `values`."""
    import pyarrow.compute as compute

    found: Mask = compute.is_in(column, value_set=pa.array(values, pa.string())).to_numpy()
    return found
