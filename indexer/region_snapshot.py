"""What a query of a focus that nobody indexed needs of the gallery, read without lancedb: the region snapshot.

NumPy files that are mapped into memory, and an Arrow file that says which photo each row belongs to. As with the
search snapshot they are named after the stamp of the tables they were made from, and can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from steersearch.indexer.embedder import Floats
from steersearch.indexer.manifest import write_atomically
from steersearch.indexer.regions import unpack_regions
from steersearch.indexer.search import SNAPSHOTS, sweep_snapshots
from steersearch.indexer.store import FrozenGallery, Store, frozen_stamp

logger = logging.getLogger(__name__)

_COLUMNS = ("path", "image_id", "row")


@dataclass(frozen=True)
class RegionArrays:
    """n contents in regions, R each. A region's vector is its centred one at unit length: vectors / 127 · scale.

    vectors: (n, R, dim) int8; photos with fewer regions repeat one.  scale: (1,) float32
    patches: (n, Hp, Wp) uint8, the region of each patch.  mean: (dim,) float32, the mean patch token, subtracted
    embeddings: (n, dim) float16, unit length, of the whole photo
    """

    vectors: npt.NDArray[np.int8]
    scale: Floats
    patches: npt.NDArray[np.uint8]
    mean: Floats
    embeddings: npt.NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.vectors)

    def centred(self, tokens: Floats) -> Floats:
        """Patch tokens (..., dim) of any photo as the vectors are: centred, at unit length."""
        return _unit(tokens - self.mean)


@dataclass(frozen=True)
class RegionSnapshot:
    """What the frozen trunk says of the usable photos at one moment. name: of its files.

    paths, image_ids, rows: one entry per photo, sorted by path; the row is that of its content in `arrays`, and -1
    for a content of which nothing is known yet. arrays: None where that is so for all.
    """

    name: str
    paths: list[str]
    image_ids: list[str]
    rows: npt.NDArray[np.int64]
    arrays: RegionArrays | None

    def __len__(self) -> int:
        return len(self.paths)


def open_region_snapshot(place: Path, key: str) -> RegionSnapshot:
    """The current region snapshot of a model; made from the tables where it is missing or out of date."""
    name = _name(place, key)
    try:
        return _read(place, key, name)
    except (OSError, ValueError):  # not there, swept away just now, or damaged
        return _make(place, key, name)


def refresh_region_snapshot(place: Path, key: str) -> None:
    """Leave a current snapshot on disk, so that the next query need not make it."""
    name = _name(place, key)
    if not _table_file(place, key, name).exists():
        _make(place, key, name)


def _make(place: Path, key: str, name: str) -> RegionSnapshot:
    gallery = Store(place).frozen_gallery(key)
    snapshot = _snapshot(name, gallery)
    if _name(place, key) == name:  # else another process is writing, and what was read has no name
        try:
            _write(place, key, snapshot)
            sweep_snapshots(_folder(place, key), name)
        except OSError as error:  # a library that may only be read can still be searched
            logger.warning("%s: the region snapshot could not be kept: %s", place, error)
    return snapshot


def _snapshot(name: str, gallery: FrozenGallery) -> RegionSnapshot:
    rows_of = {image_id: row for row, image_id in enumerate(dict.fromkeys(gallery.image_ids))}
    arrays = _arrays(gallery, rows_of) if rows_of else None
    photos = sorted([*zip(gallery.paths, gallery.image_ids, strict=True), *gallery.missing])
    paths, image_ids = [path for path, _ in photos], [image_id for _, image_id in photos]
    rows = np.array([rows_of.get(image_id, -1) for image_id in image_ids], dtype=np.int64)
    return RegionSnapshot(name, paths, image_ids, rows, arrays)


def _arrays(gallery: FrozenGallery, rows_of: dict[str, int]) -> RegionArrays:
    first = np.unique(np.array([rows_of[i] for i in gallery.image_ids]), return_index=True)[1]
    regions = [unpack_regions(gallery.regions[int(i)]) for i in first]
    weights = [np.bincount(r.patches.ravel(), minlength=len(r.vectors)) for r in regions]
    total = np.sum([w @ r.vectors for w, r in zip(weights, regions, strict=True)], axis=0)
    mean: Floats = (total / sum(int(w.sum()) for w in weights)).astype(np.float32)
    count = max(len(r.vectors) for r in regions)
    unit = np.empty((len(regions), count, len(mean)), dtype=np.float16)
    for row, found in enumerate(regions):
        unit[row, : len(found.vectors)] = _unit(found.vectors - mean)
        unit[row, len(found.vectors) :] = unit[row, 0]
    scale = np.array([max(float(np.abs(unit).max()), 1e-6)], dtype=np.float32)
    vectors = np.empty(unit.shape, dtype=np.int8)
    for row, values in enumerate(unit):  # photo by photo: the whole in float32 would not fit for many photos
        vectors[row] = np.rint(values * (127 / scale))
    patches = np.stack([r.patches for r in regions])
    return RegionArrays(vectors, scale, patches, mean, gallery.embeddings[first])


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Floats = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit


# --------------------------------------------------------------------------------------------------- files


def _folder(place: Path, key: str) -> Path:
    return place / SNAPSHOTS / f"frozen_{key}"


def _name(place: Path, key: str) -> str:
    return hashlib.sha256("\n".join(frozen_stamp(place, key)).encode()).hexdigest()[:24]


def _table_file(place: Path, key: str, name: str) -> Path:
    """The last file to be written: its presence means that the arrays are there."""
    return _folder(place, key) / f"{name}.arrow"


def _array_files(place: Path, key: str, name: str) -> dict[str, Path]:
    return {f.name: _folder(place, key) / f"{name}.{f.name}.npy" for f in fields(RegionArrays)}


def _write(place: Path, key: str, snapshot: RegionSnapshot) -> None:
    if snapshot.arrays is not None:
        for field, path in _array_files(place, key, snapshot.name).items():
            write_atomically(path, partial(np.save, arr=getattr(snapshot.arrays, field)))
    columns = (snapshot.paths, snapshot.image_ids, snapshot.rows)
    write_atomically(_table_file(place, key, snapshot.name), partial(_write_arrow, columns))


def _read(place: Path, key: str, name: str) -> RegionSnapshot:
    import pyarrow

    table = pyarrow.ipc.open_file(pyarrow.memory_map(str(_table_file(place, key, name)))).read_all()
    paths, image_ids, rows = (table.column(column) for column in _COLUMNS)
    numbers = rows.to_numpy()
    arrays = None
    if (numbers >= 0).any():
        files = _array_files(place, key, name)
        arrays = RegionArrays(**{field: np.load(path, mmap_mode="r") for field, path in files.items()})
    return RegionSnapshot(name, paths.to_pylist(), image_ids.to_pylist(), numbers, arrays)


def _write_arrow(columns: Sequence[Any], file: Any) -> None:
    import pyarrow

    table = pyarrow.table(list(columns), names=list(_COLUMNS))
    with pyarrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
