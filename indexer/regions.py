"""Unsteered features of a photo, compressed to a vector per region, so that every photo can have them.

They depend on no prompt, so they serve to search under a focus without an index. k-means groups the patch tokens of a
photo into a few regions; a region's vector is the mean of its patches, as int8.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steersearch.core.errors import LibraryDamagedError, LibraryPlaceError
from steersearch.core.objects import ObjectStoreError
from steersearch.core.vectors import Floats, product
from steersearch.indexer.checksums import (
    CheckedArray,
    DamagedFileError,
    read_array,
    read_table,
    write_array,
    write_rows,
    write_table,
)
from steersearch.indexer.database import FOLDER
from steersearch.indexer.manifest import UnsteeredIndex
from steersearch.indexer.schema import are_outside, unsteered_gallery_schema, unsteered_table
from steersearch.indexer.snapshot import SNAPSHOTS, Snapshot, name_of, snapshot_of_vectors, sweep_snapshots
from steersearch.indexer.snapshot_cache import fetch, home_of, is_published, publish
from steersearch.indexer.store import Store, UnsteeredGallery, unsteered_stamp

T = TypeVar("T")

NUMBERS = 8192  # per photo, of 8 bits: regions × their length; all of the mini's 64 patches
_ROUNDS = 6  # of k-means; more change almost nothing
_ROWS = 1024  # converted at once; they stay in the processor's caches


@dataclass(frozen=True)
class Regions:
    """A photo in regions. vectors: (R, dim) float32; patches: (Hp, Wp) uint8, the region each patch belongs to."""

    vectors: Floats
    patches: npt.NDArray[np.uint8]


def regions_of(patches: Floats, count: int | None = None) -> Regions:
    """Group patch tokens (Hp, Wp, dim) into at most `count` regions by k-means, seeded evenly over the picture.

    count: at most 256; None: as many as NUMBERS allows, at least 8.
    Empty regions are dropped; if there are no more patches than regions, each patch is one.
    """
    tokens = patches.reshape(-1, patches.shape[-1])
    count = count or min(256, max(8, NUMBERS // tokens.shape[1]))
    if len(tokens) <= count:
        return Regions(tokens, np.arange(len(tokens), dtype=np.uint8).reshape(patches.shape[:2]))
    centres = tokens[np.linspace(0, len(tokens) - 1, count).round().astype(int)]
    for _ in range(_ROUNDS):
        nearest = (product(tokens, centres.T) - (centres**2).sum(axis=1) / 2).argmax(axis=1)
        used, nearest = np.unique(nearest, return_inverse=True)
        members = (nearest == np.arange(len(used))[:, None]).astype(np.float32)  # (R, N)
        centres = product(members, tokens) / members.sum(axis=1, keepdims=True)
    return Regions(centres, nearest.astype(np.uint8).reshape(patches.shape[:2]))


def pack_regions(regions: Regions) -> bytes:
    """Hp, Wp, R, dim as uint16; the region of each patch; per region a float16 scale and dim int8."""
    scales = np.maximum(np.abs(regions.vectors).max(axis=1, keepdims=True) / 127, 1e-4).astype("<f2")
    values = np.clip(np.rint(regions.vectors / scales), -127, 127).astype(np.int8)
    shape = np.array([*regions.patches.shape, *regions.vectors.shape], dtype="<u2")
    return b"".join(part.tobytes() for part in (shape, regions.patches, scales, values))


def unpack_regions(packed: bytes) -> Regions:
    """Inverse of `pack_regions`, up to rounding."""
    height, width, count, dim = (int(n) for n in np.frombuffer(packed, dtype="<u2", count=4))
    end = 8 + height * width
    patches = np.frombuffer(packed, dtype=np.uint8, count=height * width, offset=8).reshape(height, width)
    scales = np.frombuffer(packed, dtype="<f2", count=count, offset=end).astype(np.float32)
    values = np.frombuffer(packed, dtype=np.int8, offset=end + 2 * count).reshape(count, dim)
    return Regions(values * scales[:, None], patches)


def are_regions(packed: bytes) -> bool:
    """Whether these bytes are the regions of a photo."""
    try:
        regions = unpack_regions(packed)
    except ValueError:
        return False
    patches = regions.patches
    return (
        bool(np.isfinite(regions.vectors).all())
        and patches.size > 0
        and int(patches.max()) < len(regions.vectors)
    )


# ------------------------------------------------------------------------------------------------- the region snapshot

logger = logging.getLogger(__name__)
_TOGETHER = 256  # photos whose regions are in memory as float32, 32 kB each
_IN_CACHE = 16  # the same, of a processor's cache
_FORMAT = "with checksums, dates with sources"  # part of the file names: a new format makes new files


@dataclass(frozen=True)
class RegionArrays:
    """The regions of n photos, R each. A region's vector, centred and at unit length, is vectors / 127 · scale.

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

    def unit_vectors(self, rows: npt.NDArray[np.int64]) -> Floats:
        """(len(rows), R, dim) float32: the region vectors of these rows, centred, at unit length."""
        vectors: Floats = self.vectors[rows].astype(np.float32)
        vectors *= self.scale / 127
        return vectors

    def products(self, rows: npt.NDArray[np.int64], vectors: Floats) -> Floats:
        """(len(rows), R, q) float32: the `unit_vectors` of these rows by each of `vectors` (q, dim)."""
        factors = np.ascontiguousarray(vectors.T * (self.scale / 127), dtype=np.float32)
        shape = self.vectors.shape[1], len(rows), len(vectors)
        found = np.empty(shape, dtype=np.float32).swapaxes(0, 1)  # whose maximum over R is found fast
        for start in range(0, len(rows), _IN_CACHE):
            some = slice(start, start + _IN_CACHE)
            np.matmul(self.vectors[rows[some]].astype(np.float32), factors, out=found[some])
        return found

    def match(self, row: int, vectors: Floats) -> Floats:
        """(Hp, Wp) that sums to 1: where in the content of this row patches look like one of `vectors` (q, dim), which
        are centred: the more the further their likeness lies above the mean."""
        likeness = self.products(np.array([row]), vectors)[0].max(axis=1)[self.patches[row]]
        above = np.maximum(likeness - likeness.mean(), 0) ** 2 + 1e-12
        found: Floats = above / above.sum()
        return found

    def centred(self, tokens: Floats) -> Floats:
        """Centre patch tokens (..., dim) and scale them to unit length, like the region vectors."""
        return _unit(tokens - self.mean)


@dataclass(frozen=True)
class RegionSnapshot:
    """The unsteered features of the usable photos at one moment. name: of its files.

    photos: as in `UnsteeredGallery`.  arrays: the rows that `photos` refers to; None if no photo has features.
    """

    name: str
    photos: Any
    arrays: RegionArrays | None

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """(photos,): the row of each photo in `arrays`, -1 for a photo without features."""
        rows: npt.NDArray[np.int64] = self.photos.column("row").to_numpy()
        return rows


def open_region_snapshot(place: Path, key: str) -> RegionSnapshot:
    """The current region snapshot of a model; built from the tables if it is missing, stale or damaged.

    Raises LibraryDamagedError, LibraryUnreadableError.
    """
    name = region_snapshot_name(place, key)
    try:
        fetch(place, _files(place, key, name))
        return _read(place, key, name)
    except ObjectStoreError:
        raise
    except DamagedFileError as error:
        logger.warning("the region snapshot was damaged and is rebuilt from the tables: %s", error)
    except OSError:  # missing, just swept away, or unreadable
        pass
    return _make(place, key, name)


def unsteered_snapshot(place: Path, index: UnsteeredIndex, kept: RegionSnapshot | None = None) -> Snapshot:
    """The unsteered embeddings of whole photos as a gallery; photos without one are missing. Row i is the photo whose
    regions are in row `kept.rows[kept.rows >= 0][i]` of the arrays.

    kept: its region snapshot, if the caller has it; else the regions, which are most of it, are not read.
    Raises LibraryDamagedError, LibraryUnreadableError.
    """
    name, photos, embeddings = _whole_photos(place, index.key, kept)
    rows = photos.column("row").to_numpy()
    has = rows >= 0
    vectors = np.empty((0, index.dim), dtype=np.float32)
    if embeddings is not None:
        if embeddings.shape[1] != index.dim:
            reason = f"holds vectors of length {embeddings.shape[1]}, its record says {index.dim}"
            raise LibraryDamagedError(place / FOLDER / f"{unsteered_table(index.key)}.lance", reason)
        vectors = _unit_rows(embeddings, rows[has])
    with_vector = photos.drop_columns("row").filter(pa.array(has))
    return snapshot_of_vectors(name, with_vector, vectors, int((~has).sum()))


def _whole_photos(place: Path, key: str, kept: RegionSnapshot | None) -> tuple[str, Any, Any]:
    """Name, `photos` and embeddings of the current region snapshot; None for the latter if no photo has features."""
    name = region_snapshot_name(place, key)
    if kept is None:
        with suppress(OSError, DamagedFileError):  # `open_region_snapshot` makes it anew
            fetch(place, _files(place, key, name))
            photos = _read_photos(place, key, name)
            rows = photos.column("row").to_numpy()
            if rows.max(initial=-1) < 0:
                return name, photos, None
            embeddings = read_array(_array_files(place, key, name)["embeddings"])
            if embeddings.dtype == np.float16 and embeddings.ndim == 2 and rows.max() < len(embeddings):
                return name, photos, embeddings
    kept = kept or open_region_snapshot(place, key)
    return kept.name, kept.photos, None if kept.arrays is None else kept.arrays.embeddings


def photos_of_snapshot(place: Path, key: str) -> Any:
    """`RegionSnapshot.photos` of the current region snapshot, of which nothing else is read.

    Raises OSError where there is none, DamagedFileError.
    """
    name = region_snapshot_name(place, key)
    fetch(place, _files(place, key, name))
    return _read_photos(place, key, name)


def sampled_embeddings(place: Path, key: str, count: int) -> Floats:
    """(n, dim) unsteered vectors of at most `count` contents, evenly spread; none where nothing is known of any.

    Of a large library only these are read. Raises LibraryDamagedError, LibraryUnreadableError.
    """
    name = region_snapshot_name(place, key)
    file = _array_files(place, key, name)["embeddings"]
    try:
        fetch(place, _files(place, key, name))
        kept = CheckedArray(file)
        sampled = kept[_spread(len(kept), count)]
    except ObjectStoreError:
        raise
    except (OSError, DamagedFileError):  # it was not made yet, or is made again
        arrays = open_region_snapshot(place, key).arrays
        if arrays is None:
            return np.empty((0, 0), np.float32)
        sampled = arrays.embeddings[_spread(len(arrays), count)]
    return _unit(sampled.astype(np.float32))


def patch_grid(place: Path, key: str) -> tuple[int, int] | None:
    """(Hp, Wp) of every photo's patches; None where nothing is known of any photo. Raises as `sampled_embeddings`."""
    file = _array_files(place, key, region_snapshot_name(place, key))["patches"]
    try:
        _, rows, columns = CheckedArray(file).shape
    except (OSError, DamagedFileError):  # it was not made yet, or is made again
        arrays = open_region_snapshot(place, key).arrays
        if arrays is None:
            return None
        _, rows, columns = arrays.patches.shape
    return rows, columns


def _spread(total: int, count: int) -> npt.NDArray[np.int64]:
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(np.int64))


def refresh_region_snapshot(place: Path, key: str) -> None:
    """Write a current snapshot, so that the next query need not build it."""
    name = region_snapshot_name(place, key)
    files = _files(place, key, name)
    if not is_published(place, files[-1]):
        if not files[-1].exists():
            _write(place, key, name)
        publish(place, files)


def region_snapshot_is_true(place: Path, key: str) -> bool:
    """As `snapshot.snapshot_is_true`, for a region snapshot."""
    name = region_snapshot_name(place, key)
    try:
        fetch(place, _files(place, key, name))
    except FileNotFoundError:
        return True
    if not _table_file(place, key, name).exists():
        return True
    try:
        kept = _read(place, key, name)
    except (FileNotFoundError, DamagedFileError):
        return False
    return _with_gallery(place, key, partial(_agrees, kept))


def _agrees(kept: RegionSnapshot, gallery: UnsteeredGallery) -> bool:
    """Whether a snapshot holds these features."""
    arrays, made = kept.arrays, _Arrays(gallery)
    if (arrays is None) != (gallery.count == 0) or not _are_rows(kept.photos, gallery.photos()):
        return False
    return arrays is None or (
        _are(arrays.patches, made.patches())
        and _are(arrays.vectors, made.vectors())
        and _are(arrays.embeddings, (part.embeddings for part in gallery.parts()))
        and np.array_equal(arrays.mean, made.mean)
        and np.array_equal(arrays.scale, made.scale)
    )


def _are(rows: npt.NDArray[Any], parts: Iterable[npt.NDArray[Any]]) -> bool:
    """Whether the parts, one after the other, are these rows."""
    start = 0
    for part in parts:
        if not np.array_equal(rows[start : start + len(part)], part):
            return False
        start += len(part)
    return start == len(rows)


def _are_rows(table: Any, parts: Iterable[Any]) -> bool:
    """As `_are`, of pyarrow.Tables."""
    start = 0
    for part in parts:
        if not table.slice(start, len(part)).equals(part):
            return False
        start += len(part)
    return start == len(table)


def _make(place: Path, key: str, name: str) -> RegionSnapshot:
    """The files of the snapshot, read back; in memory if they cannot be written."""
    if _write(place, key, name):
        with suppress(OSError, DamagedFileError):  # swept away by another process
            return _read(place, key, name)
    return _in_memory(place, key, name)


def _in_memory(place: Path, key: str, name: str) -> RegionSnapshot:
    def made(gallery: UnsteeredGallery) -> RegionSnapshot:
        if not gallery.count:
            return RegionSnapshot(name, pa.concat_tables(gallery.photos()), None)
        made = _Arrays(gallery)
        patches = np.concatenate(list(made.patches()))
        embeddings = np.concatenate([part.embeddings for part in gallery.parts()])
        vectors = np.concatenate(list(made.vectors()))
        return RegionSnapshot(
            name,
            pa.concat_tables(gallery.photos()),
            RegionArrays(vectors, made.scale, patches, made.mean, embeddings),
        )

    return _with_gallery(place, key, made)


def _with_gallery(place: Path, key: str, use: Callable[[UnsteeredGallery], T]) -> T:
    def used(gallery: UnsteeredGallery) -> T:
        try:
            return use(gallery)
        except ValueError as error:  # invalid or mixed shapes; the checksums fit, so they were written so
            table = place / FOLDER / f"{unsteered_table(key)}.lance"
            raise LibraryDamagedError(table, f"no regions ({error})") from error

    return Store(place).with_unsteered(key, used)


class _Arrays:
    """Makes `RegionArrays` of a gallery, a part at a time: all in float32 may not fit into memory.

    Call `patches` to its end first, then `vectors`.  mean, scale: see `RegionArrays`; known from then on.
    """

    mean: Floats
    scale: Floats

    def __init__(self, gallery: UnsteeredGallery) -> None:
        self._gallery = gallery
        self._most = 0  # regions of a photo

    def patches(self) -> Iterator[npt.NDArray[np.uint8]]:
        """(m, Hp, Wp) of some photos."""
        total: Any = 0
        weight, shape = 0, None
        for some in self._regions():
            for found in some:
                of_regions = np.bincount(found.patches.ravel(), minlength=len(found.vectors))
                total = total + of_regions @ found.vectors
                weight += int(of_regions.sum())
                self._most = max(self._most, len(found.vectors))
            patches = np.stack([found.patches for found in some])
            shape = shape or patches.shape[1:]
            if patches.shape[1:] != shape:
                raise ValueError(f"{patches.shape[1:]} patches, and {shape} elsewhere")
            yield patches
        self.mean = (total / weight).astype(np.float32)

    def vectors(self) -> Iterator[npt.NDArray[np.int8]]:
        """(m, R, dim) of some photos."""
        largest = max(float(np.abs(unit).max()) for unit in self._units())
        self.scale = np.array([max(largest, 1e-6)], dtype=np.float32)
        for unit in self._units():
            yield np.rint(unit * (127 / self.scale)).astype(np.int8)

    def _units(self) -> Iterator[npt.NDArray[np.float16]]:
        """(m, R, dim) centred, at unit length; photos with fewer regions repeat their first."""
        for some in self._regions():
            units = np.empty((len(some), self._most, len(self.mean)), dtype=np.float16)
            for unit, found in zip(units, some, strict=True):
                unit[: len(found.vectors)] = _unit(found.vectors - self.mean)
                unit[len(found.vectors) :] = unit[0]
            yield units

    def _regions(self) -> Iterator[list[Regions]]:
        for part in self._gallery.parts():
            for start in range(0, len(part.regions), _TOGETHER):
                yield [unpack_regions(packed) for packed in part.regions[start : start + _TOGETHER]]


def _unit_rows(embeddings: npt.NDArray[np.float16], rows: npt.NDArray[np.int64]) -> Floats:
    """These rows as float32 at unit length. Block by block: with all at once, the memory of each step would take longer
    than the step."""
    found = np.empty((len(rows), embeddings.shape[1]), dtype=np.float32)
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        found[start : start + len(part)] = _unit(embeddings[part].astype(np.float32))
    return found


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Floats = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32, copy=False)
    return unit


# --------------------------------------------------------------------------------------------------- files


def _folder(place: Path, key: str) -> Path:
    """Where it is read from: on this machine."""
    return home_of(place) / SNAPSHOTS / unsteered_table(key)


def region_snapshot_name(place: Path, key: str) -> str:
    """The name of the current region snapshot."""
    return name_of(place, _folder(place, key), _FORMAT, unsteered_stamp(place, key))


def _table_file(place: Path, key: str, name: str) -> Path:
    """Written last: its presence means that the arrays are complete."""
    return _folder(place, key) / f"{name}.arrow"


def _array_files(place: Path, key: str, name: str) -> dict[str, Path]:
    return {f.name: _folder(place, key) / f"{name}.{f.name}.npy" for f in fields(RegionArrays)}


def _files(place: Path, key: str, name: str) -> list[Path]:
    return [*_array_files(place, key, name).values(), _table_file(place, key, name)]


def _write(place: Path, key: str, name: str) -> bool:
    """Write the files of the snapshot; False if it cannot be done, or if another process has written meanwhile, so that
    `name` may be wrong."""
    home, files = home_of(place), _array_files(place, key, name)

    def write(gallery: UnsteeredGallery) -> bool:
        if gallery.count:
            made = _Arrays(gallery)
            write_rows(home, files["patches"], gallery.count, made.patches())
            write_rows(home, files["vectors"], gallery.count, made.vectors())
            embeddings = (part.embeddings for part in gallery.parts())
            write_rows(home, files["embeddings"], gallery.count, embeddings)
            write_array(home, files["mean"], made.mean)
            write_array(home, files["scale"], made.scale)
        if region_snapshot_name(place, key) != name:
            return False
        write_table(home, _table_file(place, key, name), unsteered_gallery_schema(), gallery.photos())
        return True

    try:
        if region_snapshot_name(place, key) != name or not _with_gallery(place, key, write):
            return False
        sweep_snapshots(home, _folder(place, key), name)
        return True
    except LibraryPlaceError as error:  # a read-only library can still be searched
        logger.warning("%s: the region snapshot could not be written: it %s", place, error.reason)
        return False


def _read_photos(place: Path, key: str, name: str) -> Any:
    """Their table alone."""
    path = _table_file(place, key, name)
    table = read_table(path, unsteered_gallery_schema())
    if are_outside(table.column("path")).any():
        raise DamagedFileError(path, "it names files outside of the photo folder")
    return table


def _read(place: Path, key: str, name: str) -> RegionSnapshot:
    table, path = _read_photos(place, key, name), _table_file(place, key, name)
    rows = table.column("row").to_numpy()
    if rows.max(initial=-1) < 0:
        return RegionSnapshot(name, table, None)
    files = _array_files(place, key, name)
    arrays = RegionArrays(**{field: read_array(file) for field, file in files.items()})
    count, regions, dim = arrays.vectors.shape if arrays.vectors.ndim == 3 else (0, 0, 0)
    expected: dict[str, tuple[type, tuple[int, ...]]] = {
        "vectors": (np.int8, (count, regions, dim)),
        "scale": (np.float32, (1,)),
        "patches": (np.uint8, (count, *arrays.patches.shape[1:3])),
        "mean": (np.float32, (dim,)),
        "embeddings": (np.float16, (count, arrays.embeddings.shape[-1])),
    }
    for name_, (kind, shape) in expected.items():
        found = getattr(arrays, name_)
        if found.dtype != kind or found.shape != shape:
            raise DamagedFileError(
                files[name_], f"holds {found.shape} of {found.dtype}, not {shape} of {kind}"
            )
    if rows.max() >= count or rows.min() < -1 or arrays.patches.max(initial=0) >= regions:
        raise DamagedFileError(path, "names rows or regions that do not exist")
    return RegionSnapshot(name, table, arrays)
