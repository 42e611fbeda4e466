"""LanceDB below a library's place: the one file that opens, reads and changes its tables, and translates its errors.

Other processes may write at any time, so every call opens the latest version of its table. A library may come from
somebody else: a table is opened only if it consists of regular files, and changed only if no link leads out of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steersearch.core.errors import (
    LibraryDamagedError,
    LibraryPlaceError,
    LibraryUnreadableError,
    SteerSearchError,
)
from steersearch.core.objects import ObjectPath, lance_options, real_path
from steersearch.indexer.checksums import check_structure, is_sealed, seal
from steersearch.indexer.disks import is_local
from steersearch.indexer.leases import lock_at
from steersearch.indexer.locks import LOCKS, wait_for
from steersearch.indexer.place import make_folder, reading, refuse_links, writing_to

T = TypeVar("T")

_ROW = "row number"
FOLDER = "lance"  # of the tables, within a library
# Bytes of what LanceDB remembers of files and versions: a long run would add up to 1 GB.
_CACHED = 2**21
# What it reads ahead, in bytes and files, and the rows that it copies at once, unless a user's environment says: by
# itself 2 GiB, 4 and 8,192, which is what `optimize` would take of rows of a few kB.
_READ_AHEAD = {
    "LANCE_DEFAULT_IO_BUFFER_SIZE": f"{2**25}",
    "LANCE_DEFAULT_FRAGMENT_READAHEAD": "2",
    "LANCE_DEFAULT_BATCH_SIZE": "512",
}
_READS = 5  # of a table whose files vanish meanwhile


class _VanishedError(SteerSearchError):
    """Another process has deleted the files of the version of a table that is read. Field: `table`."""

    def __init__(self, table: Path) -> None:
        self.table = table
        super().__init__(f"{table}: Not found: files of an older version")


class Database:
    """The tables of the library at `place`. Not safe after a fork: LanceDB is not."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._checked: set[str] = set()

    def has(self, name: str) -> bool:
        """Whether this table exists; one without a version, just begun, does not.

        Raises LibraryUnreadableError for one whose versions are missing.
        """
        if versions(self._place, name):
            return True
        if is_sealed(self.folder(name)):
            raise LibraryUnreadableError(self.folder(name), "its versions are missing")
        return False

    def create(self, name: str, schema: Any) -> None:
        """Create an empty table unless it exists.

        Under a lock: of two writers that create a table at once, LanceDB may let the second overwrite the first's rows.
        """
        if self.has(name):
            return
        make_folder(self._place, self._place / FOLDER)
        refuse_links(self._place, self.folder(name))
        with writing_to(self._place), self._locked(self._place / LOCKS / "tables.lock"):
            if not self.has(name):
                self._connection.create_table(name, schema=schema)

    def read(self, name: str, read: Callable[[Any], T]) -> T:
        """The result of `read` on a table; repeated on a newer version if another process deletes its files meanwhile.

        Raises LibraryUnreadableError, LibraryDamagedError.
        """
        folder = self.folder(name)
        with reading(folder):
            self._check(name)
            for attempt in range(_READS + 1):
                try:
                    return read(self._connection.open_table(name))
                except _VanishedError as error:
                    if error.table != folder:
                        raise
                    if attempt == _READS:  # no other process: the files are lost
                        raise error.__cause__ or error from None
                except RuntimeError as error:
                    if "Not found" not in str(error) or attempt == _READS:
                        raise
            raise AssertionError("the last attempt returns or raises")

    def read_several(self, names: Sequence[str], read: Callable[..., T], *opened: Any) -> T:
        """As `read`, of several tables at once, None for one that does not exist. `read` reads within `reading_on`, so
        that it is known which table's files were deleted."""
        if not names:
            return read(*opened)
        if not self.has(names[0]):
            return self.read_several(names[1:], read, *opened, None)
        return self.read(names[0], lambda table: self.read_several(names[1:], read, *opened, table))

    @contextmanager
    def reading_on(self, name: str) -> Iterator[None]:
        """Around what `read` calls to read more rows where something is written: errors are those of the table."""
        with reading(self.folder(name)):
            try:
                yield
            except RuntimeError as error:
                if "Not found" not in str(error):
                    raise
                raise _VanishedError(self.folder(name)) from error

    def change(self, name: str, change: Callable[[Any], T]) -> T:
        """The result of `change` on the latest version of a table, which where `excludes_others` no one else changes
        meanwhile. Raises LibraryPlaceError, LibraryDamagedError."""
        with writing_to(self._place):
            for folder in _folders(self.folder(name)):
                refuse_links(self._place, folder)
            self._check(name)
            with self._locked(self.lock(name)) if self.excludes_others else nullcontext():
                return change(self._connection.open_table(name))

    @cached_property
    def excludes_others(self) -> bool:
        """Whether only one process at a time changes a table: not in a bucket or on a file server, where a lock may
        pass to another while its holder is paused, and a list of versions be out of date."""
        return not isinstance(self._place, ObjectPath) and is_local(real_path(self._place))

    def state(self, name: str, table: Any) -> tuple[Any, ...]:
        """Changes with each commit to an open table, and differs between tables that had the same name in turn."""
        return (table.version, *commits(self._place, name))

    @contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        make_folder(self._place, path.parent)
        lock = lock_at(path)
        wait_for(lock, f"the tables of the library at {self._place}")
        try:
            yield
        finally:
            lock.release()

    def narrow(self, name: str, schema: Any) -> None:
        """Rewrite a table in one step with only the columns of `schema`; no other process may write to it.

        LanceDB's own `drop_columns` leaves their bytes in files that no compaction rewrites.
        """

        def rewrite(table: Any) -> None:
            batches = table.search().select(schema.names).to_batches()
            tables = (pa.Table.from_batches([batch]).select(schema.names).cast(schema) for batch in batches)
            reader = pa.RecordBatchReader.from_batches(schema, (b for t in tables for b in t.to_batches()))
            self._connection.create_table(name, reader, mode="overwrite")

        self.change(name, rewrite)

    def delete(self, name: str, condition: str) -> None:
        """Delete the rows for which an SQL condition holds."""
        self.change(name, lambda table: table.delete(condition))

    def folder(self, name: str) -> Path:
        """Where a table's files lie."""
        return self._place / FOLDER / f"{name}.lance"

    def lock(self, name: str) -> Path:
        """The file that locks a table while it is changed."""
        return self._place / LOCKS / f"table-{name}.lock"

    def _check(self, name: str) -> None:
        """Check the files that list a table's rows, once, before LanceDB trusts them."""
        if name not in self._checked:
            _refuse_special_files(self.folder(name))
            check_structure(self.folder(name))
            self._checked.add(name)

    @cached_property
    def _connection(self) -> Any:
        lancedb = _lancedb()
        session = lancedb.Session(index_cache_size_bytes=_CACHED, metadata_cache_size_bytes=_CACHED)
        return lancedb.connect(
            str(self._place / FOLDER), storage_options=lance_options(self._place), session=session
        )


def selected_rows(table: Any, condition: str) -> npt.NDArray[np.int64]:
    """The rows of a pyarrow.Table for which an SQL condition on its columns holds; LanceDB reads the SQL.

    Raises many types for an invalid condition.
    """
    numbered = table.append_column(_ROW, pa.array(np.arange(len(table))))
    in_memory = _lancedb().connect("memory://").create_table("rows", numbered)
    whole = f"({condition})"  # without parentheses "a = 1 b = 2" would be read as "a = 1"
    query = in_memory.search().where(whole).select([_ROW]).limit(max(len(table), 1))
    rows: npt.NDArray[np.int64] = query.to_arrow().column(_ROW).to_numpy()
    return rows


def seal_tables(place: Path) -> None:
    """Record the checksums of new files. Only for callers that know that no process is writing.

    Not in a bucket: the store keeps checksums of its objects.
    """
    with suppress(OSError, LibraryPlaceError):  # the next writer to end does it then
        for table in [] if isinstance(place, ObjectPath) else (place / FOLDER).glob("*.lance"):
            refuse_links(place, table)
            seal(place, table)


def versions(place: Path, name: str) -> list[str]:
    """The names of a table's versions, which change with each commit; without lancedb."""
    try:
        files = [path.name for path in (place / FOLDER / f"{name}.lance" / "_versions").iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(file for file in files if file.endswith(".manifest"))


def commits(place: Path, name: str) -> list[str]:
    """The names of a table's newest commit, and of attempts at the next one: unlike versions, which are numbers, no
    other table has them; without lancedb."""
    try:
        files = [path.name for path in (place / FOLDER / f"{name}.lance" / "_transactions").iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    numbers = {file: int(file.partition("-")[0]) for file in files if re.fullmatch(r"\d+-.+\.txn", file)}
    newest = max(numbers.values(), default=0)
    return sorted(file for file, number in numbers.items() if number == newest)


def _lancedb() -> Any:
    """LanceDB, imported late."""
    for variable, value in _READ_AHEAD.items():
        os.environ.setdefault(variable, value)
    import lancedb

    return lancedb


def _folders(folder: Path) -> Iterator[Path]:
    """A table's folder and those in it."""
    yield folder
    if isinstance(folder, ObjectPath):
        return
    with os.scandir(folder) as entries:
        yield from (Path(entry.path) for entry in entries if entry.is_dir())


def _refuse_special_files(folder: Path) -> None:
    """Raise LibraryDamagedError for pipes and devices, which LanceDB would read for ever."""
    for part in [] if isinstance(folder, ObjectPath) else _folders(folder):
        with os.scandir(part) as entries:
            for entry in entries:
                if not (entry.is_dir() or entry.is_file()):
                    raise LibraryDamagedError(entry.path, "not a regular file")
