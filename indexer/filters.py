"""Which photos a query is to compare: by folder, by date, by SQL."""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from steersearch.core.errors import ArgumentError
from steersearch.indexer.stored_path import paths_in, to_stored

Mask = npt.NDArray[np.bool_]
_SHOWN = 8  # folders that an error names


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Photos pass that fulfil all that is given.

    folder: they lie in this folder or below it; its path is relative to the library's folder, or absolute.
    after, before: they were taken at `after` or later, and earlier than `before` (local time, no zone); for a photo
        whose camera left no date its file's time counts.
    where: SQL over the table `images`, see `Store.paths_where`.
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
        """Filters from what people write; dates: see `parse_date`. Raises ArgumentError."""
        return cls(
            folder=None if folder is None else os.fspath(folder),
            after=None if after is None else parse_date("after", after),
            before=None if before is None else parse_date("before", before),
            where=where,
        )

    def __bool__(self) -> bool:
        return any(value is not None for value in (self.folder, self.after, self.before, self.where))

    def passing(self, photos: Any, root: Path, paths_where: Callable[[str], Iterable[str]]) -> Mask | None:
        """Which of `photos` pass, (n,) bool; None: all, since nothing is asked.

        photos: table with path (sorted), taken_at and mtime_ns.  root: the library's folder.  paths_where: the
        paths for which an SQL condition holds; only called if there is one. Raises ArgumentError for a folder in
        which no photo lies.
        """
        if not self:
            return None
        passing = np.ones(photos.num_rows, dtype=bool)
        if self.folder is not None:
            first, end = _rows_below(photos.column("path"), _relative(self.folder, root), self.folder)
            passing[:first] = passing[end:] = False
        if self.after is not None:
            passing &= _is_from(photos, self.after)
        if self.before is not None:
            passing &= ~_is_from(photos, self.before)
        if self.where is not None:
            passing &= _is_in(photos.column("path"), paths_where(self.where))
        return passing


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
    """A folder as the library writes paths: relative to its own folder, which is ""."""
    path = Path(folder)
    if not path.is_absolute() and not (root / path).is_dir() and path.is_dir():
        path = path.resolve()  # named from the current folder
    if path.is_absolute():
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(root):
            raise ArgumentError("folder", folder, f"lies outside the library's folder {root}")
        path = real.relative_to(root)
    relative = PurePosixPath(os.path.normpath(path)).as_posix()
    return "" if relative == "." else relative


def _rows_below(paths: Any, relative: str, folder: str) -> tuple[int, int]:
    """First row and end of the photos below a folder: sorted by path, they stand together."""
    if not relative:
        return 0, len(paths)
    relative = to_stored(relative)
    after = chr(ord("/") + 1)
    first, end = (
        bisect_left(range(len(paths)), f"{relative}{edge}", key=lambda row: paths[row].as_py())
        for edge in ("/", after)
    )
    if first == end:
        have = sorted({path.split("/", 1)[0] for path in paths_in(paths) if "/" in path})
        more = ", …" if len(have) > _SHOWN else ""
        listed = f"; its folders: {', '.join(have[:_SHOWN])}{more}" if have else "; it has no folders"
        raise ArgumentError("folder", folder, f"holds no photo of the library{listed}")
    return first, end


def _is_from(photos: Any, moment: datetime) -> Mask:
    """Whether each photo is of this moment or later."""
    taken = photos.column("taken_at").to_numpy().astype("datetime64[us]")
    by_file = photos.column("mtime_ns").to_numpy() >= round(moment.timestamp() * 1e9)
    is_from: Mask = np.where(np.isnat(taken), by_file, taken >= np.datetime64(moment, "us"))
    return is_from


def _is_in(column: Any, values: Iterable[str]) -> Mask:
    import pyarrow as pa
    import pyarrow.compute as compute

    found: Mask = compute.is_in(column, value_set=pa.array(values, pa.string())).to_numpy()
    return found
