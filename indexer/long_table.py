"""Arrow tables of millions of rows in a mapped file, so that memory holds only the rows in use.

The file is among the temporary ones (TMPDIR) and has no name: it goes with the table, however the process ends.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steersearch.core.errors import OutputError
from steersearch.indexer.schema import numbers

Rows = npt.NDArray[np.int64]

PART = 1 << 14  # rows that are looked at together
IN_MEMORY = 1 << 16  # rows: shorter tables need no file


class LongTable:
    """parts: pyarrow.Tables of this schema, taken one after the other. Raises OutputError if the file cannot be
    written."""

    def __init__(self, schema: Any, parts: Iterable[Any]) -> None:
        remaining, first, count = iter(parts), list[Any](), 0
        while count <= IN_MEMORY and (part := next(remaining, None)) is not None:
            first.append(part)
            count += len(part)
        table = pa.concat_tables([schema.empty_table(), *first])
        self.table = _mapped(schema, chain([table], remaining)) if count > IN_MEMORY else table
        self._batches = [batch for batch in self.table.to_batches() if len(batch)]
        self._ends = np.cumsum([0, *map(len, self._batches)])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def row(self, row: int, columns: Sequence[str]) -> dict[str, Any]:
        """Values of one row, by column."""
        return {name: self.table.column(name)[row].as_py() for name in columns}

    def rows(self, rows: Rows, columns: Sequence[str]) -> Any:
        """A pyarrow.Table of these rows and columns; quick where few of the rows lie far apart."""
        batches = np.searchsorted(self._ends, rows, side="right") - 1
        order = np.argsort(batches, kind="stable")
        found = [self.table.schema.empty_table().select(columns)]
        for number in np.unique(batches).tolist():
            here = rows[batches == number] - self._ends[number]
            batch = pa.Table.from_batches([self._batches[number]]).select(columns)
            found.append(batch.take(pa.array(here)))
        taken = pa.concat_tables(found).combine_chunks()
        return taken if (order[1:] > order[:-1]).all() else taken.take(pa.array(np.argsort(order)))

    def sorted_by(self, column: str) -> LongTable:
        """The same rows in the order of this column; takes 8 bytes of memory a row meanwhile."""
        import pyarrow.compute as compute

        order = numbers(compute.sort_indices(self.table.column(column)), np.uint64).view(np.int64)
        schema = self.table.schema
        return LongTable(schema, (self.rows(order[part], schema.names) for part in parts_of(len(self))))


def parts_of(count: int) -> Iterator[slice]:
    """All rows, PART at a time."""
    return (slice(start, start + PART) for start in range(0, count, PART))


def _mapped(schema: Any, parts: Iterable[Any]) -> Any:
    """A pyarrow.Table of these parts, in a file."""
    of_parts: list[OSError] = []

    def watched() -> Iterator[Any]:
        try:
            yield from parts
        except OSError as error:
            of_parts.append(error)
            raise

    try:
        with tempfile.TemporaryFile() as file:
            with pa.ipc.new_file(file, schema) as writer:
                for part in watched():
                    writer.write_table(part, max_chunksize=PART)
            file.flush()
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        if of_parts:
            raise of_parts[0] from None
        reason = f"{error.strerror or error}; set TMPDIR to a folder with space for temporary files"
        raise OutputError(tempfile.tempdir or "a temporary file", reason) from error
    return pa.ipc.open_file(pa.py_buffer(content)).read_all()
