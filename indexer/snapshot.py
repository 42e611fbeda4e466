"""The search snapshot: what a query needs of one prompt index, read without lancedb.

Its files are named after the version stamps of their tables, so that they belong together, and listing two folders
shows whether they are current. Row i of all is one photo, sorted by path:
  <name>.npy     the embeddings, (n, dim) float32
  <name>.faiss   an IVF index of them, for galleries of APPROXIMATE_FROM photos and more, if its recall is good
  <name>.sample  embeddings of SAMPLE photos drawn at random, for these galleries: (SAMPLE, dim) float32 as .npy
  <name>.arrow   what `schema.PHOTO_COLUMNS` are, heatmap, presence
Snapshots can be deleted at any time: they are rebuilt. Those of a library in a bucket: see `snapshot_cache`.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steersearch.core.errors import LibraryDamagedError, LibraryPlaceError
from steersearch.core.objects import ObjectPath, ObjectStoreError
from steersearch.indexer.checksums import (
    CheckedArray,
    CheckedFile,
    DamagedFileError,
    read_array,
    read_table,
    write_array,
    write_checked,
    write_rows,
    write_table,
)
from steersearch.indexer.database import FOLDER
from steersearch.indexer.faiss_index import FlatIndex, IVFIndex
from steersearch.indexer.place import ASIDE, delete_inside, set_aside, sweep
from steersearch.indexer.recall import LEAST_RECALL, Gated, first_good
from steersearch.indexer.schema import (
    from_stored,
    gallery_schema,
    is_heatmap,
    is_outside,
    numbers,
    prompt_table,
    to_stored,
    unpack_heatmap,
)
from steersearch.indexer.snapshot_cache import fetch, home_of, is_published, publish
from steersearch.indexer.store import Gallery, GalleryParts, Store, Vector, matrix_of, stamp

Floats = npt.NDArray[np.float32]
logger = logging.getLogger(__name__)

# Photos. Comparing one of 768 numbers takes .31 µs of a processor (engineering/search_scale.py): up to here all take
# no more than 60 ms, which nobody notices; beyond, an IVF index is worth minutes of building and missed neighbours.
APPROXIMATE_FROM = 200_000
SAMPLE = 1024
_ROWS = 2048  # read at once
SNAPSHOTS = "snapshots"
_FORMAT = "vectors as npy, with checksums, dates with sources, recall"  # part of file names: a new format, new files
_MISSING, _DAMAGED, _RECALL = b"steersearch:missing", b"steersearch:damaged", b"steersearch:recall"
_OWN_FILE = re.compile(r"[0-9a-f]{24}\.")
_SEED = 1234
_UNREADABLE = (OSError, RuntimeError, DamagedFileError)


class Snapshot:
    """The gallery of one prompt index at one moment. name: of its files.

    flat: the embeddings, for exact search.  table: of the Arrow file.
    ivf, sample: of a large gallery whose index passed `recall.first_good`, else None.
    recall: of that index, or of the best that did not pass; None: the gallery is too small for one.
    missing: number of usable photos that cannot be found, because they have no vector or a damaged one.
    damaged: of these, photos whose row or vector is damaged.
    """

    def __init__(self, name: str, flat: FlatIndex, table: Any, ivf: IVFIndex | None, sample: Floats | None):
        self.name = name
        self.flat, self.table = flat, table
        self.ivf, self.sample = ivf, sample
        self.missing, self.damaged = (
            int(table.schema.metadata.get(name, 0)) for name in (_MISSING, _DAMAGED)
        )
        recall = table.schema.metadata.get(_RECALL)
        self.recall = None if recall is None else float(recall)

    def __len__(self) -> int:
        return len(self.flat)

    def row_at(self, path: str) -> int | None:
        """The row of the photo at this path relative to the photo folder."""
        paths, path = self.table.column("path"), to_stored(path)
        row = bisect_left(range(len(paths)), path, key=lambda row: paths[row].as_py())
        return row if row < len(paths) and paths[row].as_py() == path else None

    def row_of(self, image_id: str, near: str | None = None) -> int | None:
        """A row of a photo with this content hash: that of the photo at the path `near`, if it has it, which is found
        in no time."""
        import pyarrow.compute as compute

        at = None if near is None else self.row_at(near)
        if at is not None and self.value("image_id", at) == image_id:
            return at
        row: int = compute.index(self.table.column("image_id"), _scalar(image_id)).as_py()
        return None if row < 0 else row

    def value(self, column: str, row: int) -> Any:
        """One value of the table; a path as Python represents it. Raises LibraryDamagedError for an invalid path."""
        value = self.table.column(column)[row].as_py()
        if column != "path":
            return value
        if is_outside(value):
            raise self._damaged(f"it names the file {value!r}")
        return from_stored(value)

    def presence_at(self, row: int | None) -> float:
        """The presence of the photo in this row; NaN where it is not known."""
        value = None if row is None else self.value("presence", row)
        return value if value is not None and math.isfinite(value) else math.nan

    @property
    def presence(self) -> Floats:
        """(n,) float32, NaN where unknown."""
        values = numbers(self.table.column("presence"), np.float32, math.nan)
        known: Floats = np.where(np.isfinite(values), values, np.float32(np.nan))
        return known

    def heatmap_at(self, row: int) -> Floats:
        """(Hp, Wp) float32, sums to 1: where in this photo the prompt was found. Raises LibraryDamagedError."""
        packed = self.value("heatmap", row)
        if not is_heatmap(packed):
            raise self._damaged(f"the heatmap of {self.value('path', row)} is invalid")
        return unpack_heatmap(packed)

    def _damaged(self, reason: str) -> LibraryDamagedError:
        """For invalid values that match their checksum: they were written so."""
        return LibraryDamagedError(
            f"{self.name}.arrow", reason, "check the library: steersearch verify --repair"
        )


def _scalar(text: str) -> Any:
    """As `pa.scalar(text)`, which imports pandas where that is installed."""
    raw = text.encode()
    offsets = np.array([0, len(raw)], dtype=np.int32)
    return pa.StringArray.from_buffers(1, pa.py_buffer(offsets), pa.py_buffer(raw))[0]


def snapshot_name(place: Path, key: str) -> str:
    """The name of the current snapshot."""
    return name_of(place, home_of(place) / SNAPSHOTS / key, _FORMAT, stamp(place, key))


def name_of(place: Path, folder: Path, form: str, stamp: Sequence[str]) -> str:
    """The name of the snapshot in this folder and form, of tables with this stamp.

    Names were once made of versions alone; one that has such a name is still used.
    """
    marks = (stamp, [mark for mark in stamp if mark.endswith(".manifest")])
    name, earlier = (hashlib.sha256("\n".join((form, *of)).encode()).hexdigest()[:24] for of in marks)
    is_earlier = not isinstance(place, ObjectPath) and (folder / f"{earlier}.arrow").exists()
    return earlier if is_earlier and not (folder / f"{name}.arrow").exists() else name


def open_snapshot(place: Path, key: str, dim: int | None = None) -> Snapshot:
    """The current snapshot of a prompt index; built from the tables if it is missing, stale or damaged.

    dim: of its embeddings, as its manifest says. Raises LibraryDamagedError, LibraryUnreadableError.
    """
    name = snapshot_name(place, key)
    try:
        fetch(place, _files(place, key, name))
        snapshot = _read(place, key, name, dim)
    except ObjectStoreError:
        raise
    except DamagedFileError as error:
        logger.warning("the search snapshot was damaged and is rebuilt from the tables: %s", error)
        snapshot = _make(place, key, name, dim)
    except (OSError, RuntimeError):  # missing, just swept away, or unreadable
        snapshot = _make(place, key, name, dim)
    if snapshot.damaged:
        logger.warning(
            "%s of the photos cannot be found, because their vectors are damaged: steersearch verify --repair",
            f"{snapshot.damaged:,}",
        )
    return snapshot


def snapshot_with(place: Path, key: str, dim: int, unkept: Sequence[Vector]) -> Snapshot:
    """A current snapshot in memory that adds vectors which could not be written to the table."""
    return _made(place, key, snapshot_name(place, key), dim, unkept)


def snapshot_of_vectors(name: str, photos: Any, vectors: Floats, missing: int) -> Snapshot:
    """A gallery in memory without heatmaps and presence. photos: pyarrow table of PHOTO_COLUMNS, sorted by path."""
    for column in ("heatmap", "presence"):
        field = gallery_schema().field(column)
        photos = photos.append_column(field, pa.nulls(photos.num_rows, field.type))
    table = photos.replace_schema_metadata({_MISSING: str(missing), _DAMAGED: "0"})
    return Snapshot(name, FlatIndex(vectors), table, None, None)


def refresh_snapshot(place: Path, key: str) -> None:
    """Write a current snapshot, so that the next query need not build it."""
    name = snapshot_name(place, key)
    files = _files(place, key, name)
    if not is_published(place, files[-1]):
        if not files[-1].exists():
            _write(place, key, name, None)
        publish(place, files)


def _made(place: Path, key: str, name: str, dim: int | None, unkept: Sequence[Vector] = ()) -> Snapshot:
    """In memory."""
    gallery = Store(place).gallery(key, unkept)
    vectors = gallery.embeddings
    if _is_none_of(place, key, vectors, dim):
        vectors = np.empty((0, dim or 0), dtype=np.float32)
    gated = _gated(place, key, vectors)
    recall, ivf = (None, None) if gated is None else (gated.recall, gated.ivf)
    sample = None if ivf is None else _sample(vectors)
    table = gallery.photos.replace_schema_metadata(_about(gallery, recall))
    return Snapshot(name, FlatIndex(vectors), table, ivf, sample)


def _is_none_of(place: Path, key: str, vectors: Floats, dim: int | None) -> bool:
    """Whether there are no vectors, and none of this length. Raises LibraryDamagedError for some of another length."""
    if dim is None or vectors.shape[1] == dim:
        return False
    if len(vectors):
        reason = f"holds vectors of length {vectors.shape[1]}, its manifest says {dim}"
        raise LibraryDamagedError(place / FOLDER / f"{prompt_table(key)}.lance", reason)
    return True


def _gated(place: Path, key: str, vectors: Floats) -> Gated | None:
    """The approximate index of a large gallery; None for a small one."""
    if len(vectors) < APPROXIMATE_FROM:
        return None
    earlier = partial(_in_earlier_cells, home_of(place) / SNAPSHOTS / key, vectors)
    gated = first_good(vectors, [partial(IVFIndex.of, vectors), earlier])
    if remark := gated.remark():
        logger.warning("%s: %s", key, remark)
    return gated


def _in_earlier_cells(folder: Path, vectors: Floats) -> IVFIndex | None:
    """The vectors in the cells of the index that the folder has, which passed the gate; None if there is none."""
    for path in sorted(folder.glob("*.faiss")):
        with suppress(*_UNREADABLE, ValueError):
            CheckedFile(path).check()
            return IVFIndex.in_cells_of(path, vectors)
    return None


def _make(place: Path, key: str, name: str, dim: int | None) -> Snapshot:
    """The files of the snapshot, read back; in memory if they cannot be written."""
    if _write(place, key, name, dim):
        with suppress(*_UNREADABLE):  # swept away by another process
            return _read(place, key, name, dim)
    return _made(place, key, name, dim)


def _about(gallery: Gallery | GalleryParts, recall: float | None = None) -> dict[bytes, str]:
    """The metadata of the Arrow table."""
    about = {_MISSING: str(gallery.missing), _DAMAGED: str(gallery.damaged)}
    return about if recall is None else about | {_RECALL: repr(recall)}


def _sample(vectors: Floats) -> Floats:
    chosen = np.random.default_rng(_SEED).choice(len(vectors), min(SAMPLE, len(vectors)), replace=False)
    return vectors[np.sort(chosen)]


def _write(place: Path, key: str, name: str, dim: int | None) -> bool:
    """Write the files of the snapshot, some rows at a time; False if it cannot be done, or if another process has
    written meanwhile, so that `name` may be wrong. The Arrow file comes last: its presence means that all are complete.
    """
    npy, faiss, sample, arrow = _files(place, key, name)
    home = home_of(place)

    def write(gallery: GalleryParts) -> bool:
        write_rows(
            home, npy, gallery.count, (matrix_of(p.column("embedding")) for p in gallery.parts(["embedding"]))
        )
        vectors = read_array(npy)
        if _is_none_of(place, key, vectors, dim):
            write_array(home, npy, np.empty((0, dim or 0), dtype=np.float32))
        gated = _gated(place, key, vectors)
        if gated is not None and gated.ivf is not None:
            write_checked(home, faiss, gated.ivf.write)
            write_array(home, sample, _sample(vectors))
        if snapshot_name(place, key) != name:
            return False
        schema = gallery_schema().with_metadata(_about(gallery, None if gated is None else gated.recall))
        write_table(home, arrow, schema, gallery.parts(schema.names))
        return True

    try:
        if snapshot_name(place, key) != name or not Store(place).with_gallery(key, write):
            return False
        sweep_snapshots(home, home / SNAPSHOTS / key, name)
        return True
    except LibraryPlaceError as error:  # a read-only library can still be searched
        logger.warning("%s: the search snapshot could not be written: it %s", place, error.reason)
        return False


def measured_recall(place: Path, key: str) -> float | None:
    """`Snapshot.recall` of the current snapshot; None also where there is none, or it cannot be read now."""
    with suppress(*_UNREADABLE):
        arrow = _files(place, key, snapshot_name(place, key))[-1]
        recall = read_table(arrow, gallery_schema()).schema.metadata.get(_RECALL)
        return None if recall is None else float(recall)
    return None


def sweep_snapshots(place: Path, folder: Path, name: str) -> None:
    """Delete snapshots of other names than `name`, and drafts that killed processes left."""
    sweep(place, folder, lambda file: bool(_OWN_FILE.match(file)) and not file.startswith(f"{name}."))


def snapshot_is_true(place: Path, key: str) -> bool:
    """Whether the snapshot agrees with the tables; so does a missing one, which a query would build from them.

    Raises OSError if it cannot be read now; LibraryDamagedError, LibraryUnreadableError for the tables.
    """
    name = snapshot_name(place, key)
    try:
        fetch(place, _files(place, key, name))
    except FileNotFoundError:
        return True
    if not _files(place, key, name)[-1].exists():
        return True
    try:
        kept = _read(place, key, name, None)
    except (FileNotFoundError, RuntimeError, DamagedFileError):
        return False
    return Store(place).with_gallery(key, partial(_agrees, kept))


def _agrees(kept: Snapshot, gallery: GalleryParts) -> bool:
    """Whether a snapshot holds these photos."""
    schema = gallery_schema().with_metadata(_about(gallery, kept.recall))
    if len(kept) != gallery.count or not kept.table.schema.equals(schema, check_metadata=True):
        return False
    start = 0
    for part in gallery.parts([*schema.names, "embedding"]):
        rows = slice(start, start + len(part))
        if not np.array_equal(kept.flat.all[rows], matrix_of(part.column("embedding"))):
            return False
        if not kept.table.slice(start, len(part)).equals(
            part.drop_columns("embedding").cast(gallery_schema())
        ):
            return False
        start += len(part)
    return True


def kept_vectors(place: Path, key: str) -> Iterator[Any]:
    """Rows of a prompt table, without checksums, some at a time, from every intact snapshot, set aside or not. Even old
    ones are valid, since a content's vector under a prompt never changes."""

    for folder in (place, *sorted((place / ASIDE).glob("*"), reverse=True)):
        for arrow in sorted((folder / SNAPSHOTS / key).glob("*.arrow")):
            with suppress(*_UNREADABLE):
                kept = _read(folder, key, arrow.stem, None)
                vectors = kept.flat.all
                if not vectors.size:
                    continue
                embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
                rows = kept.table.select(["image_id", "heatmap", "presence"])
                rows = rows.append_column("embedding", embedding)
                yield from (rows.slice(start, _ROWS) for start in range(0, len(rows), _ROWS))


def remove_snapshot(place: Path, key: str) -> None:
    """Delete the snapshots of a prompt index; readers keep their open files."""
    for home in {place, home_of(place)}:
        with suppress(LibraryPlaceError):  # a leftover only takes space
            delete_inside(home, home / SNAPSHOTS / key)


def set_snapshot_aside(place: Path, key: str) -> None:
    """Set the snapshots of a prompt index aside; `kept_vectors` still finds them."""
    if (folder := place / SNAPSHOTS / key).exists():
        set_aside(place, folder)
    if (home := home_of(place)) != place:
        delete_inside(home, home / SNAPSHOTS / key)


def snapshot_keys(place: Path) -> list[str]:
    """The keys that have snapshots, with or without a prompt index."""
    return sorted(path.name for path in (place / SNAPSHOTS).glob("*") if path.is_dir())


def _files(place: Path, key: str, name: str) -> tuple[Path, ...]:
    """Where they are read from: on this machine."""
    folder = home_of(place) / SNAPSHOTS / key
    return tuple(folder / f"{name}.{kind}" for kind in ("npy", "faiss", "sample", "arrow"))


def _read(place: Path, key: str, name: str, dim: int | None) -> Snapshot:
    npy, faiss, sample, arrow = _files(place, key, name)
    photos, vectors = read_table(arrow, gallery_schema()), CheckedArray(npy)
    if not {_MISSING, _DAMAGED} <= set(photos.schema.metadata or {}):
        raise DamagedFileError(arrow, "it does not say how many photos are missing")
    shape = (photos.num_rows, dim if dim is not None else vectors.shape[-1])
    if vectors.shape != shape or vectors.dtype != np.float32:
        raise DamagedFileError(npy, f"holds {vectors.shape} of {vectors.dtype}, not {shape} of float32")
    if len(vectors) < APPROXIMATE_FROM or float(photos.schema.metadata.get(_RECALL, 0)) < LEAST_RECALL:
        return Snapshot(name, FlatIndex(vectors.values), photos, None, None)
    CheckedFile(faiss).check()
    return Snapshot(name, FlatIndex(vectors), photos, IVFIndex.read(faiss), read_array(sample))


# ----------------------------------------------------------------------------------------------------------- galleries

logger = logging.getLogger(__name__)
