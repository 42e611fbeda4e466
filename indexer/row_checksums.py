"""Checksums of the rows of tables: a row that does not say what was written is left out, and known for it.

Each is the CRC-32 of some of the row's columns, its key among them. A column that is null counts for nothing, so a
table may get new columns without new checksums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pyarrow as pa

CHECKSUM, DATE_CHECKSUM, THUMBNAIL_CHECKSUM = CHECKSUMS = ("checksum", "date_checksum", "thumbnail_checksum")

_IMAGES = {
    CHECKSUM: ("path", "image_id", "size", "mtime_ns", "width", "height", "status", "reason"),
    DATE_CHECKSUM: ("path", "taken_at", "taken_at_precision", "taken_at_source"),
    THUMBNAIL_CHECKSUM: ("path", "thumbnail"),
}
_PROMPT = {CHECKSUM: ("image_id", "embedding", "heatmap", "presence")}
_FROZEN = {CHECKSUM: ("image_id", "embedding", "regions")}
_SUMMED: dict[str, Mapping[str, Sequence[str]]] = {"images": _IMAGES, "prompt": _PROMPT, "frozen": _FROZEN}


def summed_columns(name: str) -> Mapping[str, Sequence[str]]:
    """For each column of checksums of the table of this name, the columns that it is of."""
    return _SUMMED[name.partition("_")[0]]


def with_checksums(name: str, rows: Any) -> Any:
    """Rows (a pyarrow.Table) of the table of this name, with those checksums for which it has all columns."""
    rows = rows.drop_columns([column for column in CHECKSUMS if column in rows.column_names])
    for checksum, columns in summed_columns(name).items():
        if set(columns) <= set(rows.column_names):
            field = pa.field(checksum, pa.int64())
            rows = rows.append_column(field, pa.array(checksums_of(rows, columns)))
    return rows


def is_sound(name: str, rows: Any, checksum: str) -> npt.NDArray[np.bool_]:
    """(n,) Whether each row says what its checksum was made of; one that has none does not."""
    computed = checksums_of(rows, summed_columns(name)[checksum])
    sound: npt.NDArray[np.bool_] = rows.column(checksum).fill_null(-1).to_numpy() == computed
    return sound


def checksums_of(rows: Any, columns: Sequence[str]) -> npt.NDArray[np.int64]:
    """(n,) The CRC-32 of these columns of each row."""
    kinds = {column: rows.schema.field(column).type for column in columns}
    arrays = {column: rows.column(column).combine_chunks() for column in sorted(columns)}
    parts = [_texts({c: a for c, a in arrays.items() if not _is_bytes(kinds[c])}, len(rows))]
    parts += [_bytes(array, pa) for column, array in arrays.items() if _is_bytes(kinds[column])]
    return np.fromiter((_crc(values) for values in zip(*parts, strict=True)), np.int64, len(rows))


def _crc(values: Sequence[bytes]) -> int:
    found = 0
    for value in values:
        found = crc32(value, found)
    return found


def _is_bytes(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_fixed_size_list(kind))


def _bytes(array: Any, pa: Any) -> list[bytes]:
    """Each value of a column of bytes or of vectors; null: none."""
    if pa.types.is_binary(array.type):
        return [b"" if value is None else value for value in array.to_pylist()]
    values = array.flatten().to_numpy(zero_copy_only=False)
    matrix = np.ascontiguousarray(values).reshape(len(array), array.type.list_size)
    return [row.tobytes() for row in matrix]


def _texts(arrays: Mapping[str, Any], count: int) -> list[bytes]:
    """The values of all other columns of each row, as one text: name=value of those that are not null."""
    import pyarrow.compute as compute

    named = []
    for name, array in arrays.items():
        if pa.types.is_floating(array.type):
            array = array.view(pa.int32())  # its bits: no number of digits says them all
        elif pa.types.is_timestamp(array.type):
            array = array.cast(pa.int64())
        named.append(compute.binary_join_element_wise(pa.scalar(name), array.cast(pa.string()), "="))
    joined = compute.binary_join_element_wise(*named, "\0", null_handling="skip")
    return [text.encode() for text in joined.to_pylist()] if named else [b""] * count
