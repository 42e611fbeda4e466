"""Lists of files as tables sorted by path, of which long ones lie on disk.

Paths are kept in their stored form, see `schema.to_stored`, and compared by its bytes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steersearch.indexer.id_map import Ids, sorted_ids
from steersearch.indexer.long_table import PART, LongTable, Rows, parts_of
from steersearch.indexer.schema import FileRecord, from_stored, mask_of, numbers, paths_in, to_stored

_FOUND = pa.schema({"path": pa.large_string(), "size": pa.int64(), "mtime_ns": pa.int64()})
_KNOWN = pa.schema(
    [*_FOUND, ("image_id", pa.large_string()), ("reason", pa.large_string()), ("is_dated", pa.bool_())]
)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file with an image's suffix. path: relative to the folder, "/" between its parts; size in bytes;
    mtime_ns: see `scan.changed_at`.

    Bytes of a name that are not UTF-8 are lone surrogates in a path, as in `os.fsdecode`.
    """

    path: str
    size: int
    mtime_ns: int


class _Files:
    """parts: pyarrow.Tables of this schema, with the columns of _FOUND, in any order. Raises OutputError if a long list
    cannot be written to a temporary file."""

    def __init__(self, schema: Any, parts: Iterable[Any]) -> None:
        self._table = LongTable(schema, parts).sorted_by("path")
        self._paths = self._table.table.column("path")

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, row: int) -> str:
        return from_stored(self._paths[row].as_py())

    def row(self, path: str) -> int | None:
        """Where the file at this path is; None: it is not here."""
        stored = to_stored(path)
        row = bisect_left(range(len(self)), stored, key=self._stored)
        return row if row < len(self) and self._stored(row) == stored else None

    def has(self, path: str) -> bool:
        return self.row(path) is not None

    def parts(self) -> Iterator[Rows]:
        """All rows, some at a time."""
        return (np.arange(part.start, min(part.stop, len(self))) for part in parts_of(len(self)))

    def states(self, rows: Rows) -> tuple[Rows, Rows]:
        """(n,) The sizes in bytes of these files, and their mtime_ns."""
        found = self._table.rows(rows, ["size", "mtime_ns"])
        return numbers(found.column("size"), np.int64), numbers(found.column("mtime_ns"), np.int64)

    def rows_of(self, others: _Files, part: Rows) -> Rows:
        """(n,) Where the files of this part of others are; -1: not here."""
        import pyarrow.compute as compute

        paths = others._paths[int(part[0]) : int(part[-1]) + 1]
        if not len(self):
            return np.full(len(paths), -1)
        first = bisect_left(range(len(self)), paths[0].as_py(), key=self._stored)
        end = bisect_right(range(len(self)), paths[-1].as_py(), key=self._stored)
        found = compute.index_in(paths, value_set=self._paths[first:end])
        return numbers(found, np.int32, -1 - first).astype(np.int64) + first

    def _stored(self, row: int) -> str:
        stored: str = self._paths[row].as_py()
        return stored


class FoundFiles(_Files, Sequence[FoundFile]):
    """What a scan found."""

    @classmethod
    def of(cls, files: Iterable[FoundFile] = ()) -> Self:
        def parts() -> Iterator[Any]:
            remaining = iter(files)
            while some := list(islice(remaining, PART)):
                columns = [
                    [to_stored(f.path) for f in some],
                    [f.size for f in some],
                    [f.mtime_ns for f in some],
                ]
                arrays = [pa.array(c, kind) for c, kind in zip(columns, _FOUND.types, strict=True)]
                yield pa.table(arrays, schema=_FOUND)

        return cls(_FOUND, parts())

    @classmethod
    def joined(cls, lists: Sequence[FoundFiles]) -> FoundFiles:
        """All files of several lists."""
        return lists[0] if len(lists) == 1 else cls(_FOUND, [one._table.table for one in lists])

    def below(self, prefix: str) -> FoundFiles:
        """The same files with paths that begin with `prefix`."""
        import pyarrow.compute as compute

        if not prefix:
            return self
        first, nothing = (pa.scalar(text, pa.large_string()) for text in (prefix, ""))

        def parts() -> Iterator[Any]:
            for batch in self._table.table.to_batches():
                paths = compute.binary_join_element_wise(first, batch.column("path"), nothing)
                yield pa.table([paths, *batch.columns[1:]], schema=_FOUND)

        return FoundFiles(_FOUND, parts())

    @overload
    def __getitem__(self, row: int) -> FoundFile: ...
    @overload
    def __getitem__(self, row: slice) -> list[FoundFile]: ...
    def __getitem__(self, row: int | slice) -> FoundFile | list[FoundFile]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        return FoundFile(**self._table.row(row, _FOUND.names) | {"path": self.path(row)})

    def paths(self, rows: Rows) -> Paths:
        """The paths of some of them."""
        return Paths(self._table, rows)


class Paths(Sequence[str]):
    """Some of the paths of a list, decoded as they are asked for."""

    def __init__(self, files: LongTable, rows: Rows) -> None:
        self._files, self._rows = files, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return paths_in(self._files.rows(self._rows[row], ["path"]).column("path"))
        return from_stored(self._files.table.column("path")[int(self._rows[row])].as_py())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), PART):
            yield from self[start : start + PART]


class KnownFiles(_Files, Sequence[FileRecord]):
    """The files in a library when a run begins, without what was computed from them.

    is_dated: (n,) whether their date was read, see `FileRecord`.
    """

    def __init__(self, parts: Iterable[Any]) -> None:
        """parts: see `part_of`."""
        super().__init__(_KNOWN, parts)
        self.is_bad: npt.NDArray[np.bool_] = mask_of(self._table.table.column("reason").is_valid())
        self.is_dated: npt.NDArray[np.bool_] = mask_of(self._table.table.column("is_dated"))

    @staticmethod
    def part_of(rows: Any) -> Any:
        """Some of the files. rows: pyarrow.Table of a path, image_id, size, mtime_ns, reason and taken_at_source."""
        is_dated = rows.column("taken_at_source").is_valid()
        return rows.append_column("is_dated", is_dated).select(_KNOWN.names).cast(_KNOWN)

    @overload
    def __getitem__(self, row: int) -> FileRecord: ...
    @overload
    def __getitem__(self, row: slice) -> list[FileRecord]: ...
    def __getitem__(self, row: int | slice) -> FileRecord | list[FileRecord]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        return FileRecord(self.path(row), **self._table.row(row, ["image_id", "size", "mtime_ns", "reason"]))

    def get(self, path: str) -> FileRecord | None:
        """The file at this path, if it is known."""
        row = self.row(path)
        return None if row is None else self[row]

    def image_ids(self, rows: Rows) -> Ids:
        """(n,) The contents of these rows."""
        return np.array(self._table.rows(rows, ["image_id"]).column("image_id").to_pylist(), dtype="S")

    @property
    def usable(self) -> Ids:
        """The contents of usable photos, sorted."""
        found = [
            self.image_ids(rows)
            for rows in np.array_split(np.flatnonzero(~self.is_bad), len(self) // PART + 1)
        ]
        return sorted_ids(np.concatenate(found))

    @property
    def bad(self) -> dict[str, str]:
        """Why contents cannot be decoded."""
        files = map(self.__getitem__, np.flatnonzero(self.is_bad).tolist())
        return {file.image_id: file.reason for file in files if file.image_id and file.reason is not None}
