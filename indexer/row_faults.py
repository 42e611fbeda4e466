"""What is wrong with the rows of a table: what cannot be right, and what is not what its checksum was made of."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steersearch.core.errors import ImageError
from steersearch.core.images.pillow import opened
from steersearch.indexer.packed_heatmap import unpacks
from steersearch.indexer.regions import unpacks as unpacks_regions
from steersearch.indexer.row_checksums import (
    CHECKSUM,
    DATE_CHECKSUM,
    THUMBNAIL_CHECKSUM,
    is_sound,
    summed_columns,
)
from steersearch.indexer.schemas import IMAGES, PRESENCE
from steersearch.indexer.store import matrix_of
from steersearch.indexer.stored_path import are_outside

_UNIT = {np.dtype(np.float32): 1e-3, np.dtype(np.float16): 1e-2}  # how far a length may be from 1
_OTHER = "other values than its checksum was made of"

Mask = npt.NDArray[np.bool_]


@dataclass
class Rows:
    """What a table holds. keys: how often each occurs; faults: what is wrong -> the keys of the rows it is wrong in."""

    keys: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[str]] = field(default_factory=dict)

    @property
    def bad_keys(self) -> set[str]:
        return {key for keys in self.faults.values() for key in keys}

    @property
    def twice(self) -> list[str]:
        """The keys of sound rows that occur several times."""
        return [key for key, number in self.keys.items() if number > 1 and key not in self.bad_keys]

    def add(self, keys: npt.NDArray[np.object_], faults: Iterable[tuple[str, Mask]]) -> Mask:
        """Note a part of the rows; of several faults in one row the first counts. Returns which rows have none."""
        self.keys.update(keys)
        is_sound = np.ones(len(keys), dtype=bool)
        for what, is_bad in faults:
            if bad := keys[is_bad & is_sound].tolist():
                self.faults.setdefault(what, []).extend(bad)
            is_sound &= ~is_bad
        return is_sound


def check_images(batches: Iterable[Any], has_checksums: bool) -> tuple[Rows, set[str]]:
    """The rows of `images`, and the contents of those that are usable photos and sound."""
    rows, usable = Rows(), set()
    for part in _parts(batches):
        is_sound = rows.add(_objects(part, "path"), _image_faults(part, has_checksums))
        is_photo = _objects(part, "status") == "ok"
        usable.update(_objects(part, "image_id")[is_sound & is_photo].tolist())
    return rows, usable


def check_vectors(name: str, batches: Iterable[Any], has_checksums: bool) -> Rows:
    """The rows of a prompt table or a frozen one."""
    rows = Rows()
    for part in _parts(batches):
        rows.add(_objects(part, "image_id"), _vector_faults(name, part, has_checksums))
    return rows


def sound_parts(name: str, batches: Iterable[Any]) -> Iterator[Any]:
    """The sound rows of a table that has checksums, as many pyarrow.Tables."""
    for part in _parts(batches):
        faults = _image_faults(part, True) if name == IMAGES else _vector_faults(name, part, True)
        is_bad = np.zeros(len(part), dtype=bool)
        for _, mask in faults:
            is_bad |= mask
        yield part.filter(pa.array(~is_bad))


def _image_faults(part: Any, has_checksums: bool) -> list[tuple[str, Mask]]:
    status, is_photo = _objects(part, "status"), _objects(part, "status") != "skipped"
    width, height = (part.column(name).fill_null(0).to_numpy() for name in ("width", "height"))
    sums = _not_sound(IMAGES, part, has_checksums)
    thumbnails = zip(part.column("thumbnail").to_pylist(), sums[THUMBNAIL_CHECKSUM] & is_photo, strict=True)
    undecoded = np.array([is_bad and not _decodes(thumbnail) for thumbnail, is_bad in thumbnails], bool)
    others = sorted({*status} - {"ok", "skipped"})
    return [
        ("a path that is no file name", are_outside(part.column("path"))),
        *((f'the status "{other}"', status == other) for other in others),
        ("no content hash", is_photo & (_objects(part, "image_id") == "")),
        ("no size in pixels", is_photo & ((width <= 0) | (height <= 0))),
        ("a thumbnail that does not decode", undecoded),
        *((_OTHER, is_bad) for is_bad in sums.values() if has_checksums),
    ]


def _vector_faults(name: str, part: Any, has_checksums: bool) -> list[tuple[str, Mask]]:
    stored = matrix_of(part.column("embedding"))
    vectors = stored.astype(np.float64)
    is_finite = np.isfinite(vectors).all(axis=1)
    with np.errstate(invalid="ignore"):
        is_unit = np.abs(np.linalg.norm(vectors, axis=1) - 1) < _UNIT[stored.dtype]
    faults = [
        ("a vector that is not finite", ~is_finite),
        ("a vector whose length is not 1", is_finite & ~is_unit),
    ]
    if "heatmap" in part.column_names:
        heatmaps = part.column("heatmap").to_pylist()
        faults.append(("a damaged heatmap", np.array([not unpacks(packed) for packed in heatmaps], bool)))
    if "regions" in part.column_names:
        regions = part.column("regions").to_pylist()
        faults.append(
            ("damaged regions", np.array([not unpacks_regions(packed) for packed in regions], bool))
        )
    if PRESENCE in part.column_names:
        presence = part.column(PRESENCE).fill_null(0).to_numpy()
        faults.append(("a presence that is not finite", ~np.isfinite(presence)))
    if has_checksums:
        faults.append((_OTHER, _not_sound(name, part, has_checksums)[CHECKSUM]))
    return faults


def _parts(batches: Iterable[Any]) -> Iterable[Any]:
    return (pa.Table.from_batches([batch]) for batch in batches)


def _not_sound(name: str, part: Any, has_checksums: bool) -> dict[str, Mask]:
    """For each column of checksums whether a row does not fit it; every row, in a table that has none."""
    if not has_checksums:
        return dict.fromkeys((CHECKSUM, DATE_CHECKSUM, THUMBNAIL_CHECKSUM), np.ones(len(part), dtype=bool))
    return {checksum: ~is_sound(name, part, checksum) for checksum in summed_columns(name)}


def _objects(part: Any, column: str) -> npt.NDArray[np.object_]:
    values = np.empty(len(part), dtype=object)
    values[:] = part.column(column).to_pylist()
    return values


def _decodes(thumbnail: bytes | None) -> bool:
    try:
        with opened(io.BytesIO(thumbnail or b""), ["JPEG"]) as image:
            image.load()
    except ImageError:
        return False
    return True
