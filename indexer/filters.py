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

from steersearch.core.errors import ArgumentError
from steersearch.indexer.conditions import check_condition
from steersearch.indexer.store import PHOTO_COLUMNS, rows_where
from steersearch.indexer.stored_path import comparable_paths, normal_form, paths_in, to_stored

Mask = npt.NDArray[np.bool_]
_SHOWN = 8  # folders that an error names


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Photos pass that fulfil all that is given.

    folder: they lie in this folder or below it; its path is relative to the library's folder, or absolute.
    after, before: they were taken at `after` or later, and earlier than `before` (local time, no zone); for a photo
        whose camera left no date its file's time counts.
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
        if self.after is not None:
            passing &= _is_from(photos, self.after)
        if self.before is not None:
            passing &= ~_is_from(photos, self.before)
        if self.where is not None:
            fulfilling = rows_where(photos, self.where)
            passing &= np.isin(np.arange(photos.num_rows), fulfilling)
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


def _is_from(photos: Any, moment: datetime) -> Mask:
    """Whether each photo is of this moment or later."""
    taken = photos.column("taken_at").to_numpy().astype("datetime64[us]")
    by_file = photos.column("mtime_ns").to_numpy() >= round(moment.timestamp() * 1e9)
    is_from: Mask = np.where(np.isnat(taken), by_file, taken >= np.datetime64(moment, "us"))
    return is_from


def is_in(column: Any, values: Iterable[str]) -> Mask:
    """Which values of a text column are among `values`."""
    import pyarrow as pa
    import pyarrow.compute as compute

    found: Mask = compute.is_in(column, value_set=pa.array(values, pa.string())).to_numpy()
    return found
