"""Files with checksums: whatever byte of one is another, nothing is made of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersearch.indexer import checksums
from steersearch.indexer.checksums import (
    CheckedArray,
    CheckedFile,
    DamagedFileError,
    read_array,
    read_table,
    write_array,
    write_checked,
    write_table,
)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "_BLOCK", 256)


@given(st.lists(st.binary(max_size=700), max_size=6))
def test_what_is_written_in_any_parts_is_read(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]
) -> None:
    place = tmp_path_factory.mktemp("place")
    write_checked(place, place / "file", lambda file: [file.write(part) for part in parts])
    file = CheckedFile(place / "file")
    file.check()
    assert bytes(file.content) == b"".join(parts)
    assert (place / "file").read_bytes().startswith(b"".join(parts))  # as any other program reads it


@pytest.mark.parametrize(
    "array",
    [
        np.arange(300, dtype=np.float32).reshape(100, 3),
        np.zeros((0, 5), np.float32),
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        np.array([1.5], np.float16),
        np.asfortranarray(np.arange(12, dtype=np.int8).reshape(3, 4)),
    ],
)
def test_arrays(tmp_path: Path, array: npt.NDArray[Any]) -> None:
    write_array(tmp_path, tmp_path / "a.npy", array)
    for found in (read_array(tmp_path / "a.npy"), np.load(tmp_path / "a.npy")):
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype
    lazy = CheckedArray(tmp_path / "a.npy")
    rows = np.array([len(array) - 1, 0, 0]) if len(array) else np.empty(0, np.int64)
    np.testing.assert_array_equal(lazy[rows], array[rows])


def test_one_bit_anywhere_is_seen(tmp_path: Path) -> None:
    path, array = tmp_path / "a.npy", np.arange(150, dtype=np.float32).reshape(50, 3)
    write_array(tmp_path, path, array)
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(
            whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :]
        )
        with pytest.raises(DamagedFileError):
            read_array(path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedFileError):
            read_array(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(DamagedFileError):
        read_array(path)


def test_of_a_large_array_the_rows_that_are_used_are_compared(tmp_path: Path) -> None:
    path, array = tmp_path / "a.npy", np.arange(3000, dtype=np.float32).reshape(1000, 3)
    write_array(tmp_path, path, array)
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(array[500, 1]).tobytes())] ^= 1
    path.write_bytes(content)
    lazy = CheckedArray(path)
    np.testing.assert_array_equal(lazy[np.array([0, 400, 999])], array[[0, 400, 999]])
    with pytest.raises(DamagedFileError, match="does not match its checksums"):
        lazy[np.array([3, 500])]
    with pytest.raises(DamagedFileError):
        _ = lazy.values


def test_another_file_of_this_name_is_none(tmp_path: Path) -> None:
    one, other = tmp_path / "red" / "1.npy", tmp_path / "blue" / "1.npy"
    for path in (one, other):
        write_array(tmp_path, path, np.ones(3))
    one.write_bytes(other.read_bytes())
    with pytest.raises(DamagedFileError, match="another file's"):
        read_array(one)


def test_tables_of_the_columns_that_are_wanted(tmp_path: Path) -> None:
    path, table = tmp_path / "t.arrow", pa.table({"path": ["a", "b"], "row": [1, None]})
    table = table.replace_schema_metadata({"missing": "3"})
    write_table(tmp_path, path, table.schema, [table])
    read = read_table(path, table.schema)
    assert read.equals(table)
    assert read.schema.metadata == {b"missing": b"3"}
    with pytest.raises(DamagedFileError, match="has the columns"):
        read_table(path, pa.schema([("path", pa.string())]))


def test_an_arrow_file_is_looked_through_although_its_checksum_fits(tmp_path: Path) -> None:
    """A number in it that leads elsewhere ended the process; whoever writes it can write the checksum, too."""
    path, table = tmp_path / "t.arrow", pa.table({"path": ["first", "second", "third"] * 40})
    write_table(tmp_path, path, table.schema, [table])
    length = len(CheckedFile(path).content)
    content = path.read_bytes()[:length]
    offset = np.int32(5 + 6).tobytes()  # where the third text begins
    for number in (-7, 2**31 - 1, 12345):
        damaged = content.replace(offset, np.int32(number).tobytes(), 1)
        assert damaged != content
        write_checked(tmp_path, path, lambda file, damaged=damaged: file.write(damaged))
        with pytest.raises(DamagedFileError, match="no Arrow table"):
            read_table(path, table.schema)


def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        CheckedFile(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="a pipe, not a regular file"):
        CheckedFile(tmp_path / "pipe")
