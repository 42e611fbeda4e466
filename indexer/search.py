"""The search snapshot: what a query needs of one prompt index, read without lancedb.

A FAISS file with the vectors and an Arrow file with (path, image_id, heatmap, presence), rows in the same order,
sorted by path. Both are named after the stamp of the tables they were made from, so a pair always belongs together
and a changed table is noticed by listing two folders. Snapshots can be deleted at any time: they are made
again.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from steersearch.indexer.faiss_index import FlatIndex
from steersearch.indexer.manifest import is_abandoned, write_atomically
from steersearch.indexer.store import Gallery, Store, stamp, unpack_heatmap

Floats = npt.NDArray[np.float32]
logger = logging.getLogger(__name__)

SNAPSHOTS = "snapshots"
_FORMAT = "with presence"  # part of their names, so that one of another form is made anew
_MISSING = b"steersearch:missing"


@dataclass(frozen=True)
class Hit:
    """One result. path: absolute; score: cosine, higher is better; rank: from 1; exact: False where some
    photos were not compared; image_id: content hash of the photo; index_key: of the prompt index asked."""

    path: Path
    score: float
    rank: int
    exact: bool
    prompt: str
    image_id: str
    index_key: str


@dataclass(frozen=True)
class Row:
    """One photo of a snapshot, with its score. path: relative to the library's folder."""

    path: str
    image_id: str
    score: float


class Snapshot:
    """The gallery of one prompt index at one moment. name: of its files; row i of both belongs together.

    missing: number of usable photos that have no vector yet and cannot be found.
    """

    def __init__(self, name: str, index: FlatIndex, table: Any) -> None:
        self.name = name
        self.index, self.table = index, table
        self.missing = int(table.schema.metadata[_MISSING])

    def __len__(self) -> int:
        return len(self.index)

    def search(self, query: Floats, k: int) -> list[Row]:
        """The k nearest photos, best first, equal scores by path; all, if there are fewer than k.

        query: (dim,) float32, unit length.
        """
        ranked = self.index.search(query, k)
        found = self._take([row for _, row in ranked], ["path", "image_id"])
        return [Row(f["path"], f["image_id"], score) for f, (score, _) in zip(found, ranked, strict=True)]

    @property
    def presence(self) -> Floats:
        """(n,) float32 in the order of the rows, which is by path; NaN where it is not known."""
        values: Floats = self.table.column("presence").to_numpy()
        return values

    def most_present(self, k: int) -> list[Row]:
        """The k photos with the highest presence, best first, equal ones by path; those without one come last.

        The score of a row is its presence.
        """
        presence = self.presence
        best = np.argsort(-presence, kind="stable")[:k].tolist()  # NaN is sorted last
        found = self._take(best, ["path", "image_id"])
        return [Row(f["path"], f["image_id"], float(presence[i])) for f, i in zip(found, best, strict=True)]

    def heatmap(self, image_id: str) -> Floats | None:
        """(Hp, Wp) float32 that sums to 1: where in this photo the prompt was found; None if not here."""
        import pyarrow.compute as compute

        row = compute.index(self.table.column("image_id"), image_id).as_py()
        return None if row < 0 else unpack_heatmap(self._take([row], ["heatmap"])[0]["heatmap"])

    def _take(self, rows: Sequence[int], columns: list[str]) -> list[dict[str, Any]]:
        return [{column: self.table.column(column)[row].as_py() for column in columns} for row in rows]


def open_snapshot(place: Path, key: str) -> Snapshot:
    """The current snapshot of a prompt index; made from the tables where it is missing or out of date."""
    name = _name(place, key)
    try:
        return _read(place, key, name)
    except (OSError, RuntimeError, ValueError):  # not there, swept away just now, or damaged
        return _make(place, key, name)


def refresh_snapshot(place: Path, key: str) -> None:
    """Leave a current snapshot on disk, so that the next query need not make it."""
    name = _name(place, key)
    if not _files(place, key, name)[1].exists():
        _make(place, key, name)


def _make(place: Path, key: str, name: str) -> Snapshot:
    gallery = Store(place).gallery(key)
    snapshot = Snapshot(name, FlatIndex.of(gallery.embeddings), _arrow_table(gallery))
    if _name(place, key) == name:  # else another process is writing, and what was read has no name
        try:
            _write(place, key, snapshot)
            _sweep(place, key, name)
        except OSError as error:  # a library that may only be read can still be searched
            logger.warning("%s: the search snapshot could not be kept: %s", place, error)
    return snapshot


def _write(place: Path, key: str, snapshot: Snapshot) -> None:
    vectors, rows = _files(place, key, snapshot.name)
    write_atomically(vectors, lambda file: file.write(snapshot.index.to_bytes()))
    write_atomically(rows, lambda file: _write_arrow(snapshot.table, file))


def _sweep(place: Path, key: str, name: str) -> None:
    """Delete older snapshots, and what killed processes left half written."""
    for path in (place / SNAPSHOTS / key).iterdir():
        abandoned = path.name.startswith(".") and is_abandoned(path)
        if abandoned or (path.stem != name and not path.name.startswith(".")):
            path.unlink(missing_ok=True)


def snapshot_is_true(place: Path, key: str) -> bool:
    """Whether the snapshot that a query would read says what the tables say. One that is not there is made from
    them when it is needed, and so is true."""
    name = _name(place, key)
    if not _files(place, key, name)[1].exists():
        return True
    try:
        kept = _read(place, key, name)
    except (OSError, RuntimeError, ValueError):
        return False
    gallery = Store(place).gallery(key)
    vectors = FlatIndex.of(gallery.embeddings).to_bytes()
    return (
        bool(kept.table.equals(_arrow_table(gallery), check_metadata=True))
        and kept.index.to_bytes() == vectors
    )


def remove_snapshot(place: Path, key: str) -> None:
    """Delete what is kept for searching a prompt index; who has it open goes on reading it."""
    shutil.rmtree(place / SNAPSHOTS / key, ignore_errors=True)


def snapshot_keys(place: Path) -> list[str]:
    """The keys for which there are snapshots, whether or not there are such prompt indexes."""
    return sorted(path.name for path in (place / SNAPSHOTS).glob("*") if path.is_dir())


def _name(place: Path, key: str) -> str:
    return hashlib.sha256("\n".join((_FORMAT, *stamp(place, key))).encode()).hexdigest()[:24]


def _files(place: Path, key: str, name: str) -> tuple[Path, Path]:
    """The FAISS file, written first, and the Arrow file, whose presence means that both are there."""
    folder = place / SNAPSHOTS / key
    return folder / f"{name}.faiss", folder / f"{name}.arrow"


def _read(place: Path, key: str, name: str) -> Snapshot:
    import pyarrow

    vectors, rows = _files(place, key, name)
    return Snapshot(
        name, FlatIndex.read(vectors), pyarrow.ipc.open_file(pyarrow.memory_map(str(rows))).read_all()
    )


def _arrow_table(gallery: Gallery) -> Any:
    import pyarrow as pa

    schema = pa.schema(
        [
            ("path", pa.string()),
            ("image_id", pa.string()),
            ("heatmap", pa.binary()),
            ("presence", pa.float32()),  # NaN where it is not known
        ]
    )
    schema = schema.with_metadata({_MISSING: str(gallery.missing)})
    columns = [gallery.paths, gallery.image_ids, gallery.heatmaps, gallery.presence]
    return pa.table(columns, schema=schema)


def _write_arrow(table: Any, file: Any) -> None:
    import pyarrow

    with pyarrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
