"""Maintenance of a library's tables: check, repair, migrate, compact. `store` reads and writes their rows.

Whatever changes or deletes files here needs the exclusive lock (`writers.alone`).
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steersearch.core.errors import ImageError, LibraryDamagedError, SteerSearchError
from steersearch.core.images.pillow import opened
from steersearch.core.objects import ObjectPath
from steersearch.indexer.checksums import REPAIRED, damaged_files, seal
from steersearch.indexer.database import Database
from steersearch.indexer.heap import freed_at_once
from steersearch.indexer.id_map import Ids, sorted_ids
from steersearch.indexer.leases import kept_versions
from steersearch.indexer.place import delete_inside, is_panic, move_inside, set_aside, writing_to
from steersearch.indexer.regions import are_regions
from steersearch.indexer.schema import (
    CHECKSUM,
    IMAGES,
    PRESENCE,
    THUMBNAIL_CHECKSUM,
    THUMBNAILS,
    added_columns,
    are_outside,
    images_schema,
    is_heatmap,
    is_sound,
    summed_columns,
    table_schema,
    thumbnails_schema,
    with_checksums,
)
from steersearch.indexer.store import (
    FILTER_LENGTH,
    can_be_right,
    chunks,
    ids_of,
    matrix_of,
    quoted,
    table_names,
)

T = TypeVar("T")

_BATCH = 512  # rows; of thumbnails some megabytes
_COPIED = 3  # batches


class Tables:
    """The tables below `place`. Not safe after a fork: LanceDB is not."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._database = Database(place)

    def names(self, prefix: str = "") -> list[str]:
        """The tables whose names start with `prefix`, sorted."""
        return [name for name in table_names(self._place) if name.startswith(prefix)]

    def has(self, name: str) -> bool:
        """Whether the table exists. Raises LibraryUnreadableError if its versions are missing."""
        return self._database.has(name)

    def add_columns(self, name: str, columns: Iterable[str]) -> None:
        """Add those of `schema.added_columns` that a table of an older schema lacks, filled with null."""

        def add(table: Any) -> None:
            missing = [added_columns()[column] for column in columns if column not in table.schema.names]
            if missing:
                table.add_columns(missing)

        self._database.change(name, add)

    def sum_up(self, name: str) -> None:
        """Give the rows of a table of an older schema checksums, except invalid ones."""
        key = "path" if name == IMAGES else "image_id"
        checksums = list(summed_columns(name))

        def summed(table: Any) -> list[Any]:
            batches = table.search().to_batches(batch_size=_BATCH)
            parts = []
            for batch in batches:
                rows = with_checksums(name, pa.Table.from_batches([batch]))
                parts.append(rows.select([key, *checksums]).filter(pa.array(can_be_right(rows))))
            return parts

        if parts := self._database.read(name, summed):
            rows = pa.concat_tables(parts)
            once = {value: row for row, value in enumerate(rows.column(key).to_pylist())}
            rows = rows.take(list(once.values()))  # a merge takes each key once
            self._database.change(
                name, lambda table: table.merge_insert(key).when_matched_update_all().execute(rows)
            )

    @freed_at_once()
    def move_thumbnails(self) -> None:
        """Copy what the table of photos of schema 6 has of thumbnails to their own, and write that of photos without.

        A damaged one is left out: the next index makes it again. No other process may write.
        """
        self._database.create(THUMBNAILS, thumbnails_schema())
        moved = set(self.inspect(THUMBNAILS, ["image_id"], contents_of).astype(str).tolist())
        columns = ["image_id", *summed_columns(IMAGES)[THUMBNAIL_CHECKSUM], THUMBNAIL_CHECKSUM]
        copy = partial(self._copy, THUMBNAILS, thumbnails_schema(), moved)
        with self._in_spite_of_damage(IMAGES):
            self.inspect(IMAGES, columns, lambda batches: copy(_old_thumbnails(batches)))
        with self._in_spite_of_damage(IMAGES):
            self._database.narrow(IMAGES, images_schema())
            self.compact(IMAGES)

    @contextmanager
    def _in_spite_of_damage(self, name: str) -> Iterator[None]:
        """Errors end the block, but are not raised where it is proved that the table is damaged: `verify --repair`
        sees to it."""
        try:
            yield
        except SteerSearchError as error:
            damaged, unsealed = self.damaged_files(name)
            is_damage = isinstance(error, LibraryDamagedError)
            if not ((damaged and (is_damage or is_panic(error))) or (unsealed and is_damage)):
                raise

    def inspect(self, name: str, columns: Sequence[str] | None, check: Callable[[Iterable[Any]], T]) -> T:
        """Call `check` with the rows of a table as Arrow record batches, unordered, and return its result.

        columns: None is all; columns that the table lacks are left out. If another process compacts the table
        meanwhile, `check` is called again. Raises LibraryUnreadableError, LibraryDamagedError.
        """

        def read(table: Any) -> T:
            names = table.schema.names
            there = names if columns is None else [column for column in columns if column in names]
            return check(table.search().select(there).to_batches(batch_size=_BATCH))

        return self._database.read(name, read)

    def dim(self, name: str) -> int:
        """Length of the embeddings in a table; 0 for a table without embeddings."""
        return self._database.read(name, _dim)

    def drop_rows(self, name: str, column: str, keys: Iterable[str]) -> None:
        """Delete the rows with these keys."""
        for chunk in chunks(sorted(set(keys)), FILTER_LENGTH):
            self._database.delete(name, f"{column} IN ({', '.join(map(quoted, chunk))})")

    def folder(self, name: str) -> Path:
        """The folder of a table's files."""
        return self._database.folder(name)

    def damaged_files(self, name: str) -> tuple[list[str], list[str]]:
        """See `checksums.damaged_files`."""
        return damaged_files(self._database.folder(name))

    @freed_at_once()
    def rebuild(self, name: str, dim: int, kept: Sequence[Any], *, keep_rows: bool) -> None:
        """Rebuild a table from its intact rows, one per key, and from rows of `kept` with other keys; set the old
        one aside.

        dim: length of its vectors; 0 keeps it, and makes no table if no vector is readable.
        keep_rows: whether the old table is readable.
        """
        folder, draft = self._database.folder(name), f"{REPAIRED}{name}"
        if not folder.exists() and self._database.has(
            draft
        ):  # a repair was killed after it built this table, before it renamed it
            move_inside(self._place, self._database.folder(draft), folder)
            keep_rows = True
        self.drop(draft)
        dim = dim or (self.dim(name) if keep_rows else max(map(_dim, kept), default=0))
        if name in (IMAGES, THUMBNAILS) or dim:
            self._database.create(draft, table_schema(name, dim))
            copy = partial(self._copy, draft, table_schema(name, dim), set[str]())
            if keep_rows:
                self.inspect(name, None, lambda batches: copy(sound_parts(name, batches)))
            copy(with_checksums(name, rows) for rows in kept if _dim(rows) == dim)
        if folder.exists():
            set_aside(self._place, folder)
        if self._database.has(draft):
            move_inside(self._place, self._database.folder(draft), folder)

    def _copy(self, name: str, schema: Any, seen: set[str], parts: Iterable[Any]) -> None:
        """Add the rows whose keys are not in `seen`."""
        remaining = iter(parts)
        while some := list(islice(remaining, _COPIED)):
            rows = pa.concat_tables(some)
            keys = rows.column(schema.field(0).name).to_pylist()
            once = {key: row for row, key in reversed(list(enumerate(keys))) if key not in seen}
            if not once:
                continue
            seen.update(once)
            new = rows.take(sorted(once.values())).select(schema.names).cast(schema)
            self._database.change(name, partial(_add, rows=new))

    @freed_at_once()
    def compact(self, name: str) -> None:
        """Merge a table's files into few; delete older versions and what killed writers left.

        Readers that have the table open must reopen it, as `Database.read` does; LanceDB's warning about this can be
        ignored. Raises LibraryDamagedError.
        """
        damaged, _ = self.damaged_files(name)
        if damaged:
            raise LibraryDamagedError(
                self._database.folder(name) / damaged[0], "it does not match its checksum"
            )
        # In a bucket a writer that was paused or cut off for a while may go on, with files of the last days.
        is_ours, kept = not isinstance(self._place, ObjectPath), kept_versions(self._place)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            self._database.change(
                name, lambda table: table.optimize(cleanup_older_than=kept, delete_unverified=is_ours)
            )
        with writing_to(self._place):
            seal(self._place, self._database.folder(name), forget=True)

    def drop(self, name: str) -> None:
        """Delete a table if it exists, even one that cannot be opened. The caller holds the exclusive lock."""
        delete_inside(self._place, self._database.folder(name))
        delete_inside(self._place, self._database.lock(name))


def _add(table: Any, rows: Any) -> None:
    table.add(rows)


def _dim(rows: Any) -> int:
    """Length of the embeddings in a LanceDB or Arrow table; 0 for a table without embeddings."""
    return int(rows.schema.field("embedding").type.list_size) if "embedding" in rows.schema.names else 0


# -------------------------------------------------------------------------------------------------------- damaged rows

_UNIT = {np.dtype(np.float32): 1e-3, np.dtype(np.float16): 1e-2}  # how far a length may be from 1
_OTHER = "values that do not match its checksum"

Mask = npt.NDArray[np.bool_]


@dataclass
class Rows:
    """Keys and faults of a table's rows. keys: how often each occurs; faults: description -> keys of the bad rows."""

    keys: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[str]] = field(default_factory=dict)

    @property
    def bad_keys(self) -> set[str]:
        return {key for keys in self.faults.values() for key in keys}

    @property
    def twice(self) -> list[str]:
        """The duplicate keys among intact rows."""
        return [key for key, number in self.keys.items() if number > 1 and key not in self.bad_keys]

    def add(self, keys: npt.NDArray[np.object_], faults: Iterable[tuple[str, Mask]]) -> Mask:
        """Add some rows; a row counts under its first fault. Returns the mask of rows without fault."""
        self.keys.update(keys)
        is_sound = np.ones(len(keys), dtype=bool)
        for what, is_bad in faults:
            if bad := keys[is_bad & is_sound].tolist():
                self.faults.setdefault(what, []).extend(bad)
            is_sound &= ~is_bad
        return is_sound


def check_images(batches: Iterable[Any], has_checksums: bool) -> tuple[Rows, set[str]]:
    """The rows of `images`, and the image_ids of intact rows of usable photos."""
    rows, usable = Rows(), set()
    for part in _parts(batches):
        is_sound = rows.add(_objects(part, "path"), _image_faults(part, has_checksums))
        is_photo = _objects(part, "status") == "ok"
        usable.update(_objects(part, "image_id")[is_sound & is_photo].tolist())
    return rows, usable


def check_contents(name: str, batches: Iterable[Any], has_checksums: bool) -> Rows:
    """The rows of a table that has one for each content: thumbnails, vectors of a prompt, or unsteered features."""
    rows = Rows()
    for part in _parts(batches):
        rows.add(_objects(part, "image_id"), _faults(name, part, has_checksums))
    return rows


def sound_parts(name: str, batches: Iterable[Any]) -> Iterator[Any]:
    """The intact rows of a table with checksums, as pyarrow.Tables."""
    for part in _parts(batches):
        is_bad = np.zeros(len(part), dtype=bool)
        for _, mask in _faults(name, part, True):
            is_bad |= mask
        yield part.filter(pa.array(~is_bad))


def contents_of(batches: Iterable[Any]) -> Ids:
    """The contents that these rows are of, sorted."""
    return sorted_ids(np.concatenate([np.empty(0, "S"), *map(ids_of, batches)]))


def _old_thumbnails(batches: Iterable[Any]) -> Iterator[Any]:
    """Rows of the table of thumbnails, from sound ones of the table of photos of schema 6."""
    for part in _parts(batches):
        if "thumbnail" in part.column_names:
            is_kept = (
                is_sound(IMAGES, part, THUMBNAIL_CHECKSUM) & part.column("thumbnail").is_valid().to_numpy()
            )
            kept = part.filter(pa.array(is_kept)).select(["image_id", "thumbnail"])
            yield with_checksums(THUMBNAILS, kept)


def _faults(name: str, part: Any, has_checksums: bool) -> list[tuple[str, Mask]]:
    """For each fault the rows that have it."""
    if name == IMAGES:
        return _image_faults(part, has_checksums)
    if name == THUMBNAILS:
        is_other = _not_sound(name, part, has_checksums)[CHECKSUM]
        return [_undecoded(part, is_other), (_OTHER, is_other)]
    return _vector_faults(name, part, has_checksums)


def _undecoded(part: Any, is_suspect: Mask) -> tuple[str, Mask]:
    """A fault of thumbnails; those that match their checksum are not decoded."""
    thumbnails = zip(part.column("thumbnail").to_pylist(), is_suspect, strict=True)
    undecoded = [is_bad and not _decodes(thumbnail) for thumbnail, is_bad in thumbnails]
    return "a thumbnail that does not decode", np.array(undecoded, bool)


def _image_faults(part: Any, has_checksums: bool) -> list[tuple[str, Mask]]:
    status, is_photo = _objects(part, "status"), _objects(part, "status") != "skipped"
    width, height = (part.column(name).fill_null(0).to_numpy() for name in ("width", "height"))
    sums = _not_sound(IMAGES, part, has_checksums)
    others = sorted({*status} - {"ok", "skipped"})
    return [
        ("a path that is not a file name", are_outside(part.column("path"))),
        *((f'the status "{other}"', status == other) for other in others),
        ("no content hash", is_photo & (_objects(part, "image_id") == "")),
        ("no size in pixels", is_photo & ((width <= 0) | (height <= 0))),
        *([_undecoded(part, sums[THUMBNAIL_CHECKSUM] & is_photo)] if THUMBNAIL_CHECKSUM in sums else ()),
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
        faults.append(("a damaged heatmap", np.array([not is_heatmap(packed) for packed in heatmaps], bool)))
    if "regions" in part.column_names:
        regions = part.column("regions").to_pylist()
        faults.append(("damaged regions", np.array([not are_regions(packed) for packed in regions], bool)))
    if PRESENCE in part.column_names:
        presence = part.column(PRESENCE).fill_null(0).to_numpy()
        faults.append(("a presence that is not finite", ~np.isfinite(presence)))
    if has_checksums:
        faults.append((_OTHER, _not_sound(name, part, has_checksums)[CHECKSUM]))
    return faults


def _parts(batches: Iterable[Any]) -> Iterable[Any]:
    return (pa.Table.from_batches([batch]) for batch in batches)


def _not_sound(name: str, part: Any, has_checksums: bool) -> dict[str, Mask]:
    """For each checksum whose columns are there the rows that do not fit it; all rows of a table without checksums."""
    summed = summed_columns(name).items()
    names = [checksum for checksum, columns in summed if {*columns} <= {*part.column_names}]
    if not has_checksums:
        return dict.fromkeys(names, np.ones(len(part), dtype=bool))
    return {checksum: ~is_sound(name, part, checksum) for checksum in names}


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
