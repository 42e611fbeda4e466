"""The tables of a library as things to be looked after; `store` is for their rows in daily use.

What changes or deletes files here is for those who are `alone` with the library, see `writers`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from steersearch.indexer.database import Database
from steersearch.indexer.place import delete_inside
from steersearch.indexer.row_checksums import summed_columns, with_checksums
from steersearch.indexer.store import (
    FILTER_LENGTH,
    IMAGES,
    added_columns,
    can_be_right,
    chunks,
    quoted,
    table_names,
)

T = TypeVar("T")

_BATCH = 512  # rows; with thumbnails some megabytes


class Tables:
    """The tables below `place`. Not safe after a fork: LanceDB is not."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._database = Database(place)

    def names(self, prefix: str = "") -> list[str]:
        """The tables whose name begins so, sorted."""
        return [name for name in table_names(self._place) if name.startswith(prefix)]

    def add_columns(self, name: str, columns: Iterable[str]) -> None:
        """Give a table of an older schema those of these `store.added_columns` that it lacks, without values."""

        def add(table: Any) -> None:
            missing = [added_columns()[column] for column in columns if column not in table.schema.names]
            if missing:
                table.add_columns(missing)

        self._database.change(name, add)

    def sum_up(self, name: str) -> None:
        """Give the rows of a table of an older schema checksums, but for those that cannot be right."""
        import pyarrow as pa

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
        schema = self._database.read(name, lambda table: table.schema)
        return int(schema.field("embedding").type.list_size) if "embedding" in schema.names else 0

    def drop_rows(self, name: str, column: str, keys: Iterable[str]) -> None:
        """Delete the rows with these keys."""
        for chunk in chunks(sorted(set(keys)), FILTER_LENGTH):
            self._database.delete(name, _is_one_of(column, chunk))

    def keep_one_each(self, name: str, column: str, keys: Iterable[str]) -> None:
        """Of the rows with one key leave one. If that is interrupted none may be left, and `index` makes it again."""

        def keep_one(table: Any, condition: str) -> None:
            row = table.search().where(condition).limit(1).to_arrow()
            table.delete(condition)
            table.add(row)

        for key in sorted(set(keys)):
            self._database.change(name, partial(keep_one, condition=_is_one_of(column, [key])))

    def compact(self, name: str) -> None:
        """Put the rows of a table into few files, drop all older versions and what killed writers left.

        Readers that had the table open have to open it again, as `store.read_latest` does. LanceDB warns of
        that, in vain: nobody else writes, and we do read so.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            self._database.change(
                name, lambda table: table.optimize(cleanup_older_than=timedelta(0), delete_unverified=True)
            )

    def drop(self, name: str) -> None:
        """Delete a table, if it is there, also one that cannot be opened."""
        delete_inside(self._place, self._database.folder(name))


def _is_one_of(column: str, keys: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(map(quoted, keys))})"
