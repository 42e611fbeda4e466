"""The tables of a library as things to be looked after; `store` is for their rows in daily use.

What changes or deletes files here is for those who are `alone` with the library, see `writers`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from steersearch.core.errors import LibraryDamagedError
from steersearch.indexer.database import Database
from steersearch.indexer.place import delete_inside, move_inside, set_aside
from steersearch.indexer.row_checksums import summed_columns, with_checksums
from steersearch.indexer.row_faults import sound_parts
from steersearch.indexer.schemas import IMAGES, added_columns, table_schema
from steersearch.indexer.seals import damaged_files, seal
from steersearch.indexer.store import FILTER_LENGTH, can_be_right, chunks, quoted, table_names
from steersearch.indexer.store_errors import writing_to

T = TypeVar("T")

_BATCH = 512  # rows; with thumbnails some megabytes
_COPIED = 16  # batches


class Tables:
    """The tables below `place`. Not safe after a fork: LanceDB is not."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._database = Database(place)

    def names(self, prefix: str = "") -> list[str]:
        """The tables whose name begins so, sorted."""
        return [name for name in table_names(self._place) if name.startswith(prefix)]

    def has(self, name: str) -> bool:
        """Whether there is such a table. Raises LibraryUnreadableError for one whose versions are away."""
        return self._database.has(name)

    def add_columns(self, name: str, columns: Iterable[str]) -> None:
        """Give a table of an older schema those of these `store.added_columns` that it lacks, without values."""

        def add(table: Any) -> None:
            missing = [added_columns()[column] for column in columns if column not in table.schema.names]
            if missing:
                table.add_columns(missing)

        self._database.change(name, add)

    def sum_up(self, name: str) -> None:
        """Give the rows of a table of an older schema checksums, but for those that cannot be right."""
        key = "path" if name == IMAGES else "image_id"
        checksums = list(summed_columns(name))

        def summed(table: Any) -> list[Any]:
            batches = table.search().to_batches(batch_size=_BATCH)
            parts = []
            for batch in batches:
                rows = with_checksums(name, pa.Table.from_batches([batch]))
                parts.append(rows.select([key, *checksums]).filter(pa.array(can_be_right(rows))))
            return parts

        if parts := self._database.read(name, summed):
            rows = pa.concat_tables(parts)
            once = {value: row for row, value in enumerate(rows.column(key).to_pylist())}
            rows = rows.take(list(once.values()))  # a merge takes each key once
            self._database.change(
                name, lambda table: table.merge_insert(key).when_matched_update_all().execute(rows)
            )

    def inspect(self, name: str, columns: Sequence[str] | None, check: Callable[[Iterable[Any]], T]) -> T:
        """What `check` makes of the rows of a table, which it gets in Arrow's record batches, in no order.

        columns: those that the table lacks are left out; None: all. Another process may compact it meanwhile: then
        `check` is called again. Raises LibraryUnreadableError, LibraryDamagedError.
        """

        def read(table: Any) -> T:
            names = table.schema.names
            there = names if columns is None else [column for column in columns if column in names]
            return check(table.search().select(there).to_batches(batch_size=_BATCH))

        return self._database.read(name, read)

    def dim(self, name: str) -> int:
        """Length of the embeddings in a table; 0 if it has none."""
        return self._database.read(name, _dim)

    def drop_rows(self, name: str, column: str, keys: Iterable[str]) -> None:
        """Delete the rows with these keys."""
        for chunk in chunks(sorted(set(keys)), FILTER_LENGTH):
            self._database.delete(name, _is_one_of(column, chunk))

    def folder(self, name: str) -> Path:
        """Where a table's files lie."""
        return self._database.folder(name)

    def damaged_files(self, name: str) -> tuple[list[str], list[str]]:
        """See `seals.damaged_files`."""
        return damaged_files(self._database.folder(name))

    def rebuild(self, name: str, dim: int, kept: Sequence[Any], *, keep_rows: bool) -> None:
        """Make a table anew of its sound rows, one for each key, and of those of `kept` whose keys it then lacks.

        The old one is set aside. dim: of its vectors; 0: as they are, and no table is made if it has none that can be
        read.  keep_rows: whether it can be read.
        """
        folder, draft = self._database.folder(name), f"repaired_{name}"
        if not folder.exists() and self._database.has(
            draft
        ):  # a repair was killed when this was made, and all but named
            move_inside(self._place, self._database.folder(draft), folder)
            keep_rows = True
        self.drop(draft)
        dim = dim or (self.dim(name) if keep_rows else max(map(_dim, kept), default=0))
        if name == IMAGES or dim:
            self._database.create(draft, table_schema(name, dim))
            copy = partial(self._copy, draft, table_schema(name, dim), set[str]())
            if keep_rows:
                self.inspect(name, None, lambda batches: copy(sound_parts(name, batches)))
            copy(with_checksums(name, rows) for rows in kept if _dim(rows) == dim)
        if folder.exists():
            set_aside(self._place, folder)
        if self._database.has(draft):
            move_inside(self._place, self._database.folder(draft), folder)

    def _copy(self, name: str, schema: Any, seen: set[str], parts: Iterable[Any]) -> None:
        """Add rows to a table, those whose keys were not seen yet."""
        remaining = iter(parts)
        while some := list(islice(remaining, _COPIED)):
            rows = pa.concat_tables(some)
            keys = rows.column(schema.field(0).name).to_pylist()
            once = {key: row for row, key in reversed(list(enumerate(keys))) if key not in seen}
            if not once:
                continue
            seen.update(once)
            new = rows.take(sorted(once.values())).select(schema.names).cast(schema)
            self._database.change(name, partial(_add, rows=new))

    def compact(self, name: str) -> None:
        """Put the rows of a table into few files, drop all older versions and what killed writers left.

        Readers that had the table open have to open it again, as `store.read_latest` does. LanceDB warns of
        that, in vain: nobody else writes, and we do read so. Raises LibraryDamagedError for a table that is damaged.
        """
        damaged, _ = self.damaged_files(name)
        if damaged:
            raise LibraryDamagedError(
                self._database.folder(name) / damaged[0], "it does not fit its checksum"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            self._database.change(
                name, lambda table: table.optimize(cleanup_older_than=timedelta(0), delete_unverified=True)
            )
        with writing_to(self._place):
            seal(self._place, self._database.folder(name), forget=True)

    def drop(self, name: str) -> None:
        """Delete a table, if it is there, also one that cannot be opened."""
        delete_inside(self._place, self._database.folder(name))


def _add(table: Any, rows: Any) -> None:
    table.add(rows)


def _dim(rows: Any) -> int:
    """Length of the embeddings in a table of LanceDB or Arrow; 0 if it has none."""
    return int(rows.schema.field("embedding").type.list_size) if "embedding" in rows.schema.names else 0


def _is_one_of(column: str, keys: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(map(quoted, keys))})"
