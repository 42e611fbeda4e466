"""The search snapshot: what a query needs of one prompt index, read without lancedb.

Its files are named after the stamp of the tables they were made from, so they always belong together and a changed
table is noticed by listing two folders. Row i of all of them is one photo, sorted by path:
  <name>.npy     the embeddings, (n, dim) float32
  <name>.faiss   the same in cells, for galleries of APPROXIMATE_FROM photos and more
  <name>.sample  embeddings of SAMPLE photos drawn at random, for these galleries: (SAMPLE, dim) float32 as .npy
  <name>.arrow   path, image_id, what filters need (size, mtime_ns, width, height, taken_at), heatmap,
                 presence
Snapshots can be deleted at any time: they are made again.
"""

from __future__ import annotations

import hashlib
import logging
import re
from bisect import bisect_left
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from steersearch.core.errors import LibraryPlaceError
from steersearch.indexer.faiss_index import CellIndex, FlatIndex
from steersearch.indexer.place import delete_inside, sweep, write_inside
from steersearch.indexer.store import Gallery, Store, stamp, unpack_heatmap
from steersearch.indexer.stored_path import from_stored, to_stored

Floats = npt.NDArray[np.float32]
logger = logging.getLogger(__name__)

# Photos. Comparing one of 768 numbers takes .31 µs of a processor (benchmarks/search_scale.py): up to here all take
# no more than 60 ms, which nobody notices; beyond, cells are worth the minutes of their building and missed neighbours.
APPROXIMATE_FROM = 200_000
SAMPLE = 1024
SNAPSHOTS = "snapshots"
_FORMAT = "vectors as npy"  # part of their names, so that one of another form is made anew
_MISSING = b"steersearch:missing"
_OWN_FILE = re.compile(r"[0-9a-f]{24}\.")
_SEED = 1234
_UNREADABLE = (OSError, RuntimeError, ValueError)


class Snapshot:
    """The gallery of one prompt index at one moment. name: of its files; row i of all belongs together.

    flat: the embeddings, to be compared one by one.  table: of the Arrow file.
    cells, sample: for a large gallery, else None.
    missing: number of usable photos that have no vector yet and cannot be found.
    """

    def __init__(
        self, name: str, flat: FlatIndex, table: Any, cells: CellIndex | None, sample: Floats | None
    ):
        self.name = name
        self.flat, self.table = flat, table
        self.cells, self.sample = cells, sample
        self.missing = int(table.schema.metadata[_MISSING])

    def __len__(self) -> int:
        return len(self.flat)

    def row_at(self, path: str) -> int | None:
        """The row of the photo at this path, relative to the library's folder."""
        paths, path = self.table.column("path"), to_stored(path)
        row = bisect_left(range(len(paths)), path, key=lambda row: paths[row].as_py())
        return row if row < len(paths) and paths[row].as_py() == path else None

    def row_of(self, image_id: str) -> int | None:
        """A row with this content."""
        import pyarrow.compute as compute

        row: int = compute.index(self.table.column("image_id"), image_id).as_py()
        return None if row < 0 else row

    def value(self, column: str, row: int) -> Any:
        """One value of the table; a path as Python gives file names."""
        value = self.table.column(column)[row].as_py()
        return from_stored(value) if column == "path" else value

    @property
    def presence(self) -> Floats:
        """(n,) float32 in the order of the rows, which is by path; NaN where it is not known."""
        values: Floats = self.table.column("presence").to_numpy()
        return values

    def heatmap(self, image_id: str) -> Floats | None:
        """(Hp, Wp) float32 that sums to 1: where in this photo the prompt was found; None if not here."""
        row = self.row_of(image_id)
        return None if row is None else unpack_heatmap(self.value("heatmap", row))


def snapshot_name(place: Path, key: str) -> str:
    """The name of the snapshot that is current now."""
    return hashlib.sha256("\n".join((_FORMAT, *stamp(place, key))).encode()).hexdigest()[:24]


def open_snapshot(place: Path, key: str) -> Snapshot:
    """The current snapshot of a prompt index; made from the tables where it is missing or out of date."""
    name = snapshot_name(place, key)
    try:
        return _read(place, key, name)
    except _UNREADABLE:  # not there, swept away just now, or damaged
        return _make(place, key, name)


def refresh_snapshot(place: Path, key: str) -> None:
    """Leave a current snapshot on disk, so that the next query need not make it."""
    name = snapshot_name(place, key)
    if not _file(place, key, name, "arrow").exists():
        _make(place, key, name)


def _make(place: Path, key: str, name: str) -> Snapshot:
    gallery = Store(place).gallery(key)
    vectors = gallery.embeddings
    is_large = len(vectors) >= APPROXIMATE_FROM
    cells = CellIndex.of(vectors) if is_large else None
    snapshot = Snapshot(
        name, FlatIndex(vectors), _table(gallery), cells, _sample(vectors) if is_large else None
    )
    if snapshot_name(place, key) == name:  # else another process is writing, and what was read has no name
        try:
            _write(place, key, snapshot)
            sweep_snapshots(place, place / SNAPSHOTS / key, name)
        except LibraryPlaceError as error:  # a library that may only be read can still be searched
            logger.warning("%s: the search snapshot could not be kept: it %s", place, error.reason)
    return snapshot


def _table(gallery: Gallery) -> Any:
    return gallery.photos.replace_schema_metadata({_MISSING: str(gallery.missing)})


def _sample(vectors: Floats) -> Floats:
    chosen = np.random.default_rng(_SEED).choice(len(vectors), min(SAMPLE, len(vectors)), replace=False)
    return vectors[np.sort(chosen)]


def _write(place: Path, key: str, snapshot: Snapshot) -> None:
    """The Arrow file is the last: where it is, all are."""

    def write(kind: str, content: Any) -> None:
        write_inside(place, _file(place, key, snapshot.name, kind), content)

    write("npy", lambda file: np.save(file, snapshot.flat.vectors))
    if snapshot.cells is not None and snapshot.sample is not None:
        write("faiss", snapshot.cells.write)
        write("sample", lambda file: np.save(file, snapshot.sample))
    write("arrow", lambda file: _write_arrow(snapshot.table, file))


def sweep_snapshots(place: Path, folder: Path, name: str) -> None:
    """Delete snapshots of other names than `name`, and what killed processes left half written."""
    sweep(place, folder, lambda file: bool(_OWN_FILE.match(file)) and not file.startswith(f"{name}."))


def snapshot_is_true(place: Path, key: str) -> bool:
    """Whether the snapshot that a query would read says what the tables say. One that is not there is made from
    them when it is needed, and so is true."""
    name = snapshot_name(place, key)
    if not _file(place, key, name, "arrow").exists():
        return True
    try:
        kept = _read(place, key, name)
    except _UNREADABLE:
        return False
    gallery = Store(place).gallery(key)
    return bool(kept.table.equals(_table(gallery), check_metadata=True)) and np.array_equal(
        kept.flat.vectors, gallery.embeddings
    )


def remove_snapshot(place: Path, key: str) -> None:
    """Delete what is kept for searching a prompt index; who has it open goes on reading it."""
    with suppress(LibraryPlaceError):  # what cannot be deleted is only in the way
        delete_inside(place, place / SNAPSHOTS / key)


def snapshot_keys(place: Path) -> list[str]:
    """The keys for which there are snapshots, whether or not there are such prompt indexes."""
    return sorted(path.name for path in (place / SNAPSHOTS).glob("*") if path.is_dir())


def _file(place: Path, key: str, name: str, kind: str) -> Path:
    return place / SNAPSHOTS / key / f"{name}.{kind}"


def _read(place: Path, key: str, name: str) -> Snapshot:
    import pyarrow

    with pyarrow.memory_map(str(_file(place, key, name, "arrow"))) as mapped:
        photos = pyarrow.ipc.open_file(mapped).read_all()
    vectors = np.load(_file(place, key, name, "npy"), mmap_mode="r").view(np.ndarray)
    if len(vectors) != photos.num_rows:
        raise ValueError("files that do not belong together")
    cells, sample = None, None
    if len(vectors) >= APPROXIMATE_FROM:
        cells = CellIndex.read(_file(place, key, name, "faiss"))
        sample = np.load(_file(place, key, name, "sample"))
    return Snapshot(name, FlatIndex(vectors), photos, cells, sample)


def _write_arrow(table: Any, file: IO[bytes]) -> None:
    import pyarrow

    with pyarrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
