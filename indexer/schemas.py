"""The tables of a library: their names, columns and schemas.

The keys are declared as unenforced primary keys: without that, two writers that insert the same new key leave it twice.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from steersearch.indexer.row_checksums import CHECKSUM, CHECKSUMS

PRESENCE = "presence"  # a column of prompt tables that those of schema 1 lack
IMAGES = "images"
_KEY = {b"lance-schema:unenforced-primary-key": b"true"}
DATE_COLUMNS = ("taken_at", "taken_at_precision", "taken_at_source")
PHOTO_COLUMNS = ("path", "image_id", "size", "mtime_ns", "width", "height", *DATE_COLUMNS)


def prompt_table(key: str) -> str:
    return f"prompt_{key}"


def frozen_table(key: str) -> str:
    return f"frozen_{key}"


def photos_schema() -> Any:
    """Of a table of photos, with PHOTO_COLUMNS."""
    return pa.schema([images_schema().field(name).remove_metadata() for name in PHOTO_COLUMNS])


def gallery_schema() -> Any:
    """Of `Gallery.photos`, but for its metadata."""
    return photos_schema().append(pa.field("heatmap", pa.binary())).append(pa.field(PRESENCE, pa.float32()))


def frozen_gallery_schema() -> Any:
    """Of `FrozenGallery.photos`."""
    return photos_schema().append(pa.field("row", pa.int64()))


def added_columns() -> dict[str, Any]:
    """The fields that tables of older schemas lack, by name."""
    names = {PRESENCE: pa.float32(), "taken_at_precision": pa.string(), "taken_at_source": pa.string()}
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
            pa.field("thumbnail", pa.binary()),
            pa.field("status", pa.string(), nullable=False),  # ok, skipped
            pa.field("reason", pa.string()),  # of a skipped file
            *(added[name] for name in CHECKSUMS),
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


def frozen_schema(dim: int) -> Any:
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
    kind = name.partition("_")[0]
    return images_schema() if kind == IMAGES else (prompt_schema if kind == "prompt" else frozen_schema)(dim)
