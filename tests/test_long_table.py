from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersearch.core.errors import OutputError
from steersearch.indexer import long_table
from steersearch.indexer.long_table import LongTable

SCHEMA = pa.schema({"path": pa.large_string(), "size": pa.int64(), "reason": pa.large_string()})
ROW = st.tuples(st.text("abé\n", max_size=3), st.integers(-9, 9), st.none() | st.text("xy", max_size=2))
PARTS = st.lists(st.lists(ROW, max_size=7), max_size=6)


def table_of(rows: list[Any]) -> Any:
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], schema=SCHEMA)


@pytest.fixture(params=[0, 10**6], ids=["in a file", "in memory"])
def table(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_table, "IN_MEMORY", request.param)
        patch.setattr(long_table, "PART", 3)
        yield


@pytest.mark.usefixtures("table")
@given(PARTS, st.data())
def test_rows_are_those_of_a_list(parts: list[list[Any]], data: st.DataObject) -> None:
    rows = [row for part in parts for row in part]
    table = LongTable(SCHEMA, map(table_of, parts))
    assert len(table) == len(rows)
    assert table.table.to_pylist() == table_of(rows).to_pylist()
    wanted = data.draw(st.lists(st.sampled_from(range(len(rows))), max_size=9) if rows else st.just([]))
    found = table.rows(np.array(wanted, np.int64), ["reason", "size"])
    assert [tuple(row.values()) for row in found.to_pylist()] == [(rows[i][2], rows[i][1]) for i in wanted]
    for i in wanted:
        assert table.row(i, ["size", "path"]) == {"size": rows[i][1], "path": rows[i][0]}
    in_order = table.sorted_by("path").table.to_pylist()
    assert in_order == sorted(table_of(rows).to_pylist(), key=lambda row: row["path"].encode())


def test_a_long_table_takes_no_memory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_table, "IN_MEMORY", 10)
    before = pa.total_allocated_bytes()
    table = LongTable(SCHEMA, (table_of([(f"{i}", j, None) for j in range(4000)]) for i in range(8)))
    assert pa.total_allocated_bytes() - before < 4000
    in_order = table.sorted_by("path")
    assert pa.total_allocated_bytes() - before < 4000
    del table
    assert in_order.row(31_999, ["path", "size"]) == {"path": "7", "size": 3999}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_table, "IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(open, "/dev/full", "w+b"))
    for rows in (1, 10**5):
        with pytest.raises(OutputError, match="No space left on device; set TMPDIR"):
            LongTable(SCHEMA, [table_of([("a", 1, None)] * rows)])


def test_without_any_folder_for_temporary_files_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object) -> NoReturn:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(long_table, "IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", nowhere)
    with pytest.raises(OutputError, match=r"No usable temporary directory found.*; set TMPDIR"):
        LongTable(SCHEMA, [table_of([("a", 1, None)])])


def test_an_error_of_what_is_read_is_not_one_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def parts() -> Iterator[Any]:
        yield table_of([("a", 1, None)])
        raise PermissionError("the bucket")

    monkeypatch.setattr(long_table, "IN_MEMORY", 0)
    with pytest.raises(PermissionError, match="the bucket"):
        LongTable(SCHEMA, parts())
