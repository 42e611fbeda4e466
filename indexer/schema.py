"""The tables of a library: names, columns, schemas, and the encoding of paths, heatmaps and checksums."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steersearch.core.images.dates import CaptureDate
from steersearch.core.vectors import Floats

Number = TypeVar("Number", bound=np.generic)

PRESENCE = "presence"  # a column of prompt tables, missing in schema 1
IMAGES, THUMBNAILS = "images", "thumbnails"  # tables
PROMPT = "prompt"  # the prefix of prompt tables
UNSTEERED = "frozen"  # the prefix of tables of unsteered features; existing libraries have this name
_KEY = {b"lance-schema:unenforced-primary-key": b"true"}
DATE_COLUMNS = ("taken_at", "taken_at_precision", "taken_at_source")
PHOTO_COLUMNS = ("path", "image_id", "size", "mtime_ns", "width", "height", *DATE_COLUMNS)


def prompt_table(key: str) -> str:
    return f"{PROMPT}_{key}"


def unsteered_table(key: str) -> str:
    return f"{UNSTEERED}_{key}"


def photos_schema() -> Any:
    """Of a table of photos, with PHOTO_COLUMNS."""
    return pa.schema([images_schema().field(name).remove_metadata() for name in PHOTO_COLUMNS])


def gallery_schema() -> Any:
    """Of `Gallery.photos`, but for its metadata."""
    return photos_schema().append(pa.field("heatmap", pa.binary())).append(pa.field(PRESENCE, pa.float32()))


def unsteered_gallery_schema() -> Any:
    """Of `UnsteeredGallery.photos`."""
    return photos_schema().append(pa.field("row", pa.int64()))


def added_columns() -> dict[str, Any]:
    """The fields that tables of some schemas lack, by name."""
    names = {PRESENCE: pa.float32(), "taken_at_precision": pa.string(), "taken_at_source": pa.string()}
    names |= {"thumbnail": pa.binary()}
    names |= dict.fromkeys(CHECKSUMS, pa.int64())
    return {name: pa.field(name, kind) for name, kind in names.items()}


def images_schema() -> Any:
    added = added_columns()
    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False, metadata=_KEY),
            pa.field("image_id", pa.string(), nullable=False),
            pa.field("size", pa.int64(), nullable=False),
            pa.field("mtime_ns", pa.int64(), nullable=False),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            pa.field("taken_at", pa.timestamp("s")),
            added["taken_at_precision"],
            added["taken_at_source"],
            pa.field("status", pa.string(), nullable=False),  # ok, skipped
            pa.field("reason", pa.string()),  # of a skipped file
            added[CHECKSUM],
            added[DATE_CHECKSUM],
        ]
    )


def thumbnails_schema() -> Any:
    return pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False, metadata=_KEY),
            pa.field("thumbnail", pa.binary(), nullable=False),  # JPEG, longer side at most 256 pixels
            added_columns()[CHECKSUM],
        ]
    )


def prompt_schema(dim: int) -> Any:
    return pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False, metadata=_KEY),
            pa.field("embedding", pa.list_(pa.float32(), dim), nullable=False),
            pa.field("heatmap", pa.binary(), nullable=False),
            added_columns()[PRESENCE],  # null: made before there was one
            added_columns()[CHECKSUM],
        ]
    )


def unsteered_schema(dim: int) -> Any:
    return pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False, metadata=_KEY),
            pa.field("embedding", pa.list_(pa.float16(), dim), nullable=False),
            pa.field("regions", pa.binary(), nullable=False),
            added_columns()[CHECKSUM],
        ]
    )


def table_schema(name: str, dim: int) -> Any:
    """Of the table of this name, whose vectors are `dim` long."""
    if name == IMAGES:
        return images_schema()
    if name == THUMBNAILS:
        return thumbnails_schema()
    return (prompt_schema if name.startswith(PROMPT) else unsteered_schema)(dim)


# ----------------------------------------------------------------------------------------------------- a row of images

NO_DATE = "none"  # the source of a photo without a date; null: not read yet


@dataclass(frozen=True, slots=True)
class FileRecord:
    """The state of a file when it was read, and the result. Equal for the same state of the same file.

    path: relative to the photo folder, "/" between its parts.
    image_id: hash of its content; "" if the next run must retry it, since it could not be read.
    mtime_ns: modification time; a nanosecond less if it was written so shortly before reading that another write could
        have the same time. The next run then sees a changed file and hashes it.
    reason: why it is skipped; None for a usable photo. A skipped file has none of the following.
    width, height: in pixels, upright.
    taken_at, taken_at_precision, taken_at_source: of a `CaptureDate`, see `date_columns`; the source is null if the
        date was not read, as before schema 3.
    """

    path: str
    image_id: str
    size: int
    mtime_ns: int
    width: int | None = field(default=None, compare=False)
    height: int | None = field(default=None, compare=False)
    taken_at: datetime | None = field(default=None, compare=False)
    taken_at_precision: str | None = field(default=None, compare=False)
    taken_at_source: str | None = field(default=None, compare=False)
    reason: str | None = None

    def as_row(self) -> dict[str, Any]:
        """Its fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}


def date_columns(date: CaptureDate | None) -> Mapping[str, Any]:
    """The date columns of a photo whose date was read."""
    moment, precision, source = (
        (None, None, NO_DATE) if date is None else (date.moment, date.precision, date.source)
    )
    return {"taken_at": moment, "taken_at_precision": precision, "taken_at_source": source}


# ---------------------------------------------------------------------------------------------------------- file names

_ESCAPE = re.compile("\0([0-9a-f]{2})")
_OUTSIDE = r"(?s)^/|(^|/)\.\.(/|$)|^$|\x00([^0-9a-f]|$|[0-9a-f]([^0-9a-f]|$))"
_SURROGATE = re.compile("[\udc80-\udcff]")


def to_stored(path: str) -> str:
    """Encode a path of `os.fsdecode` as valid UTF-8."""
    return path if path.isascii() else _SURROGATE.sub(lambda found: f"\0{ord(found[0]) - 0xDC00:02x}", path)


def paths_in(column: Any) -> list[str]:
    """The paths of an Arrow column, decoded to Python's file names."""
    return list(map(from_stored, column.to_pylist()))


def is_outside(stored: str) -> bool:
    """Whether a stored path is not a relative path below a folder, so that no index has written it."""
    return re.search(_OUTSIDE, stored) is not None


def are_outside(column: Any) -> npt.NDArray[np.bool_]:
    """(n,) As `is_outside`, for each path of an Arrow column."""
    import pyarrow.compute as compute

    # Plain comparisons, twenty times as fast, show that there is hardly ever a path which the pattern may match.
    for suspect in (
        compute.match_substring(column, ".."),
        compute.match_substring(column, "\0"),
        compute.starts_with(column, "/"),
        compute.equal(column, ""),
    ):
        if compute.any(suspect).as_py():
            return mask_of(compute.match_substring_regex(column, _OUTSIDE))
    return np.zeros(len(column), dtype=bool)


def normal_form(text: str) -> str:
    """Text in NFC, so that composed and decomposed letters are equal."""
    return unicodedata.normalize("NFC", text)


def comparable_paths(column: Any) -> Any:
    """An Arrow column of stored paths in NFC, to compare with user input."""
    import pyarrow.compute as compute

    is_plain = compute.all(compute.string_is_ascii(column)).as_py()
    return column if is_plain else compute.utf8_normalize(column, form="NFC")


def from_stored(stored: str) -> str:
    """Inverse of `to_stored`."""
    return _ESCAPE.sub(lambda found: chr(0xDC00 + int(found[1], 16)), stored) if "\0" in stored else stored


# ------------------------------------------------------------------------------------------------------------ heatmaps


def pack_heatmap(heatmap: Floats) -> bytes:
    """(Hp, Wp) float32, not negative -> Hp and Wp as uint16, then a byte per value.

    The bytes are 255·√(value / largest): a linear scale would round the many faint values of a peaked heatmap, half of
    its mass, to 0.
    """
    largest = float(heatmap.max())
    shares = heatmap / largest if largest > 0 else np.zeros_like(heatmap)
    values = np.rint(255 * np.sqrt(shares)).astype(np.uint8)
    return bytes(np.array(heatmap.shape, dtype="<u2").tobytes() + values.tobytes())


def unpack_heatmap(packed: bytes) -> Floats:
    """Inverse of `pack_heatmap`, up to rounding: (Hp, Wp) float32, sums to 1, or all 0."""
    shape = np.frombuffer(packed, dtype="<u2", count=2)
    values = np.frombuffer(packed, dtype=np.uint8, offset=4).reshape(shape).astype(np.float32) ** 2
    return values / np.float32(max(values.sum(), 1))


def is_heatmap(packed: bytes) -> bool:
    """Whether these bytes are a heatmap."""
    try:
        return unpack_heatmap(packed).size > 0
    except ValueError:
        return False


# --------------------------------------------------------------------------------------------------- checksums of rows

CHECKSUM, DATE_CHECKSUM, THUMBNAIL_CHECKSUM = CHECKSUMS = ("checksum", "date_checksum", "thumbnail_checksum")

_IMAGES = {
    CHECKSUM: ("path", "image_id", "size", "mtime_ns", "width", "height", "status", "reason"),
    DATE_CHECKSUM: ("path", "taken_at", "taken_at_precision", "taken_at_source"),
    THUMBNAIL_CHECKSUM: ("path", "thumbnail"),  # before schema 7
}
_THUMBNAILS = {CHECKSUM: ("image_id", "thumbnail")}
_PROMPT = {CHECKSUM: ("image_id", "embedding", "heatmap", "presence")}
_UNSTEERED = {CHECKSUM: ("image_id", "embedding", "regions")}
_SUMMED: dict[str, Mapping[str, Sequence[str]]] = {
    IMAGES: _IMAGES,
    THUMBNAILS: _THUMBNAILS,
    PROMPT: _PROMPT,
    UNSTEERED: _UNSTEERED,
}


def summed_columns(name: str) -> Mapping[str, Sequence[str]]:
    """The columns that each checksum column of this table covers."""
    return _SUMMED[name.partition("_")[0]]


def with_checksums(name: str, rows: Any) -> Any:
    """Add to rows (a pyarrow.Table) of this table the checksums whose columns are all present."""
    rows = rows.drop_columns([column for column in CHECKSUMS if column in rows.column_names])
    for checksum, columns in summed_columns(name).items():
        if set(columns) <= set(rows.column_names):
            field = pa.field(checksum, pa.int64())
            rows = rows.append_column(field, pa.array(checksums_of(rows, columns)))
    return rows


def is_sound(name: str, rows: Any, checksum: str) -> npt.NDArray[np.bool_]:
    """(n,) Whether each row matches its checksum; a row without one does not."""
    computed = checksums_of(rows, summed_columns(name)[checksum])
    sound: npt.NDArray[np.bool_] = rows.column(checksum).fill_null(-1).to_numpy() == computed
    return sound


def checksums_of(rows: Any, columns: Sequence[str]) -> npt.NDArray[np.int64]:
    """(n,) CRC-32 of these columns of each row."""
    kinds = {column: rows.schema.field(column).type for column in columns}
    arrays = {column: rows.column(column).combine_chunks() for column in sorted(columns)}
    parts = [_texts({c: a for c, a in arrays.items() if not _is_bytes(kinds[c])}, len(rows))]
    parts += [_bytes(array, pa) for column, array in arrays.items() if _is_bytes(kinds[column])]
    found = map(crc32, parts[0])
    for part in parts[1:]:
        found = map(crc32, part, found)
    return np.fromiter(found, np.int64, len(rows))


def _is_bytes(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_fixed_size_list(kind))


def _bytes(array: Any, pa: Any) -> list[bytes]:
    """Each value of a column of bytes or vectors; b"" for null."""
    if pa.types.is_binary(array.type):
        return [b"" if value is None else value for value in array.to_pylist()]
    values = array.flatten().to_numpy(zero_copy_only=False)
    matrix = np.ascontiguousarray(values).reshape(len(array), array.type.list_size)
    return [row.tobytes() for row in matrix]


def _texts(arrays: Mapping[str, Any], count: int) -> list[bytes]:
    """The other columns of each row as one text: name=value of those that are not null."""
    import pyarrow.compute as compute

    named = []
    for name, array in arrays.items():
        if pa.types.is_floating(array.type):
            array = array.view(pa.int32())  # its bits, since decimals would round
        elif pa.types.is_timestamp(array.type):
            array = array.cast(pa.int64())
        named.append(compute.binary_join_element_wise(pa.scalar(name), array.cast(pa.string()), "="))
    joined = compute.binary_join_element_wise(*named, "\0", null_handling="skip")
    found: list[bytes] = joined.cast(pa.binary()).to_pylist() if named else [b""] * count
    return found


# ----------------------------------------------------- columns as NumPy arrays; pyarrow's own way imports pandas


def numbers(column: Any, dtype: type[Number], null: float = 0) -> npt.NDArray[Number]:
    """(n,) An Arrow column of this type; null: what stands for missing ones."""
    array = _whole(column)
    itemsize = np.dtype(dtype).itemsize
    values = np.frombuffer(array.buffers()[1] or b"", dtype, len(array), itemsize * array.offset)
    return np.where(_bits(array, 0), values, np.array(null, dtype)) if array.null_count else values


def integers(values: npt.NDArray[np.int64], is_there: npt.NDArray[np.bool_] | None = None) -> Any:
    """Whole numbers (n,) as an Arrow array. is_there: (n,), where it is False a number is missing."""
    there = None if is_there is None else pa.py_buffer(np.packbits(is_there, bitorder="little"))
    values = np.ascontiguousarray(values, np.int64)
    return pa.Array.from_buffers(pa.int64(), len(values), [there, pa.py_buffer(values)])


def mask_of(column: Any) -> npt.NDArray[np.bool_]:
    """(n,) A boolean Arrow column; missing ones are False."""
    array = _whole(column)
    return _bits(array, 1) & _bits(array, 0) if array.null_count else _bits(array, 1)


def _whole(column: Any) -> Any:
    """The array of a column in chunks, or of one that is an array already."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _bits(array: Any, buffer: int) -> npt.NDArray[np.bool_]:
    """(n,) A buffer of an Arrow array that has a bit per value: 0 says which are there, 1 which are true."""
    packed = np.frombuffer(array.buffers()[buffer] or b"", np.uint8)
    return np.unpackbits(packed, bitorder="little")[array.offset : array.offset + len(array)].astype(bool)
