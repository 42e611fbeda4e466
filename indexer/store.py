"""The tables of a library, in LanceDB: the source of truth. Imports lancedb lazily.

`images` has a row per path; `thumbnails`, a table per prompt index, and one per model for unsteered features have a row
per content (image_id), written once. Keys are declared as unenforced primary keys, without which two writers could
insert a key twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steersearch.core.errors import SteerSearchError
from steersearch.core.images.dates import CaptureDate, file_dates
from steersearch.indexer.database import FOLDER, Database, commits, versions
from steersearch.indexer.file_lists import KnownFiles
from steersearch.indexer.id_map import Ids, are_first, rows_of, sorted_ids
from steersearch.indexer.long_table import LongTable, Rows
from steersearch.indexer.manifest import ROWS_CHECKED_SINCE, read_library
from steersearch.indexer.schema import (
    CHECKSUM,
    DATE_CHECKSUM,
    DATE_COLUMNS,
    IMAGES,
    PHOTO_COLUMNS,
    PRESENCE,
    THUMBNAIL_CHECKSUM,
    THUMBNAILS,
    FileRecord,
    added_columns,
    are_outside,
    date_columns,
    gallery_schema,
    images_schema,
    integers,
    is_heatmap,
    is_sound,
    numbers,
    pack_heatmap,
    paths_in,
    photos_schema,
    prompt_schema,
    prompt_table,
    summed_columns,
    table_schema,
    thumbnails_schema,
    to_stored,
    unsteered_gallery_schema,
    unsteered_schema,
    unsteered_table,
    with_checksums,
)
from steersearch.indexer.table_keys import TableKeys, hashes_of

Floats = npt.NDArray[np.float32]
T = TypeVar("T")

FILTER_LENGTH = 500  # keys per SQL filter
_BATCH = 2048  # rows that are read at once: of vectors some megabytes, and 16 of these ahead
_ROW_ID = "_rowid"  # LanceDB's
_VECTOR = ("image_id", "embedding", "heatmap", PRESENCE)
_PHOTO = (*PHOTO_COLUMNS, "status", "reason", CHECKSUM, DATE_CHECKSUM)
# A photo: its row id, and where its vector is, see `Store._places`, or its content.
_PLACES = pa.schema({"path": pa.string(), "row": pa.int64(), "place": pa.int64()})
_NOWHERE, _DAMAGED = -(2**63), -(2**63) + 1  # instead of the place of a vector
_UNIT = 1e-2  # how far a length of float16 may be from 1


@dataclass(frozen=True)
class Vector:
    """A row of a prompt index. embedding: (dim,) float32, unit length; heatmap: (Hp, Wp), sums to 1; presence: how
    surely the photo shows what the prompt names (see `Embedded`), None: unknown."""

    image_id: str
    embedding: Floats
    heatmap: Floats
    presence: float | None = None


@dataclass(frozen=True)
class UnsteeredVector:
    """A row of unsteered features. embedding: (dim,) float32, unit length; regions: see `regions.pack_regions`."""

    image_id: str
    embedding: Floats
    regions: bytes


@dataclass(frozen=True)
class UnsteeredGallery:
    """The unsteered features of the usable photos, at one moment.

    photos: reads pyarrow tables of PHOTO_COLUMNS and row (int64), sorted by path, some rows at a time, at least one.
        row: of the photo's content in the features, -1 without any.
    count: of different contents that have features.
    parts: reads them from the table, in the order of their rows, some at a time.
    """

    photos: Callable[[], Iterator[Any]]
    count: int
    parts: Callable[[], Iterator[UnsteeredPart]]


@dataclass(frozen=True)
class UnsteeredPart:
    """embeddings: (m, dim) float16, of m different contents.  regions: of the same, see `regions.pack_regions`."""

    embeddings: npt.NDArray[np.float16]
    regions: list[bytes]


@dataclass(frozen=True)
class GalleryParts:
    """As `Gallery`, with the rows to be read from the tables.

    count: of photos.  parts: given some of PHOTO_COLUMNS, embedding, heatmap and presence, pyarrow tables of these,
        sorted by path, some rows at a time, at least one table.
    """

    count: int
    missing: int
    damaged: int
    parts: Callable[[Sequence[str]], Iterator[Any]]


@dataclass(frozen=True)
class Gallery:
    """The searchable photos of one prompt index, sorted by path; row i of both belongs together.

    photos: pyarrow table of PHOTO_COLUMNS, heatmap (see `pack_heatmap`) and presence (null if unknown).
    embeddings: (n, dim) float32.
    missing: number of usable photos that are left out, since they have no vector yet or are damaged.
    damaged: of these, photos whose row or vector does not match its checksum.
    """

    photos: Any
    embeddings: Floats
    missing: int
    damaged: int = 0

    @property
    def paths(self) -> list[str]:
        """Relative to the photo folder, decoded; the table has them in stored form."""
        return paths_in(self.photos.column("path"))

    @property
    def image_ids(self) -> list[str]:
        return self._list("image_id")

    @property
    def heatmaps(self) -> list[bytes]:
        return self._list("heatmap")

    @property
    def presence(self) -> Floats:
        """(n,) float32, NaN if unknown."""
        values = self.photos.column(PRESENCE).to_numpy()
        known: Floats = np.where(np.isfinite(values), values, np.float32(np.nan))
        return known

    def _list(self, column: str) -> list[Any]:
        values: list[Any] = self.photos.column(column).to_pylist()
        return values


class Store:
    """Reads and writes the tables below `place`. Not safe after a fork: LanceDB is not."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._database = Database(place)
        self._known_keys: dict[str, tuple[tuple[Any, ...], TableKeys]] = {}  # and the tables' state, by name

    def ensure_images(self) -> None:
        """Create the tables of photos and of their thumbnails."""
        self._database.create(THUMBNAILS, thumbnails_schema())
        self._database.create(IMAGES, images_schema())

    def ensure_prompt_table(self, key: str, dim: int) -> None:
        self._database.create(prompt_table(key), prompt_schema(dim))

    def ensure_unsteered_table(self, key: str, dim: int) -> None:
        self._database.create(unsteered_table(key), unsteered_schema(dim))

    def known(self) -> KnownFiles:
        """Every file in the library, without what was computed from it; none if there is no table yet."""
        columns = ["path", "image_id", "size", "mtime_ns", "reason", "taken_at_source"]

        def inside(rows: Any) -> Any:
            return KnownFiles.part_of(rows.filter(pa.array(~are_outside(rows.column("path")))))

        return self._read(IMAGES, columns, lambda parts: KnownFiles(map(inside, parts)))

    def contents(self) -> tuple[Any, int]:
        """image_id of every usable file, an Arrow column, and how many others there are."""
        import pyarrow.compute as compute

        rows = self._rows(IMAGES, ["path", "image_id", "reason"])
        rows = rows.filter(pa.array(~are_outside(rows.column("path"))))
        usable = rows.column("image_id").filter(compute.is_null(rows.column("reason")))
        return usable, len(rows) - len(usable)

    def photos(self) -> Any:
        """The usable photos: a pyarrow.Table of PHOTO_COLUMNS."""

        def usable(parts: Iterator[Any]) -> Any:
            return pa.concat_tables([self._usable(rows)[0].select(PHOTO_COLUMNS) for rows in parts])

        return self._read(IMAGES, _PHOTO, usable)

    def records(self, image_ids: Iterable[str]) -> dict[str, FileRecord]:
        """For each of these contents that is in `images` as a usable photo, one of its rows."""
        return self._database.read_several((IMAGES,), partial(self._first_rows, set(image_ids)))

    def _first_rows(self, wanted: set[str], images: Any) -> dict[str, FileRecord]:
        """As `records`; reads no further than it must. LanceDB would hold a filter by as many contents once for each
        fragment."""
        found = dict[str, FileRecord]()
        for rows in self._batches_on(IMAGES, images, ["image_id", _ROW_ID]) if wanted else ():
            here = np.array([image_id in wanted for image_id in rows.column("image_id").to_pylist()], bool)
            if not here.any():
                continue
            named = self._rows_at(IMAGES, images, images_schema(), _row_ids(rows)[here])
            paths, *others = (self._usable(named)[0].column(name) for name in PHOTO_COLUMNS)
            for row in zip(paths_in(paths), *(column.to_pylist() for column in others), strict=True):
                found.setdefault(row[1], FileRecord(*row))
            if len(wanted := wanted - found.keys()) == 0:
                break
        return found

    def contents_with_thumbnails(self) -> Ids:
        """The contents that have a thumbnail, sorted."""
        return self._contents(THUMBNAILS)

    def thumbnail_ids(self) -> set[str]:
        """As `contents_with_thumbnails`, as a set."""
        return set(self.contents_with_thumbnails().astype(str).tolist())

    def thumbnails(self, image_ids: Iterable[str]) -> dict[str, bytes]:
        """For each of these contents that has an undamaged one, its JPEG."""
        wanted = set(image_ids)
        found: dict[str, bytes] = {}
        before_schema_7 = (IMAGES, THUMBNAIL_CHECKSUM)
        for table, checksum in ((THUMBNAILS, CHECKSUM), before_schema_7):
            columns = list(dict.fromkeys(["image_id", *summed_columns(table)[checksum]]))
            for chunk in chunks(sorted(wanted - found.keys()), FILTER_LENGTH):
                rows = self._sound(table, columns, [checksum], _one_of("image_id", chunk))
                each = zip(
                    *(rows.column(name).to_pylist() for name in ("image_id", "thumbnail")), strict=True
                )
                found |= {image_id: jpeg for image_id, jpeg in each if jpeg is not None}
        return found

    def thumbnail(self, image_id: str) -> bytes | None:
        """As `thumbnails`, of one content; None where it has none."""
        return self.thumbnails([image_id]).get(image_id)

    def write_thumbnails(self, thumbnails: Mapping[str, bytes]) -> None:
        """Insert JPEGs by content; a content that has one keeps it."""
        if not thumbnails:
            return
        rows = [{"image_id": image_id, "thumbnail": jpeg} for image_id, jpeg in thumbnails.items()]
        self._write(THUMBNAILS, "image_id", rows, thumbnails_schema(), replace=False)

    def write_images(self, records: Sequence[FileRecord]) -> None:
        """Insert or replace rows, by path; the last of several with one path counts."""
        if not records:
            return
        by_path = {record.path: record for record in records}
        rows = [
            {
                **record.as_row(),
                "path": to_stored(record.path),
                "status": "ok" if record.reason is None else "skipped",
            }
            for record in by_path.values()
        ]
        self._write(IMAGES, "path", rows, images_schema(), replace=True)

    def write_dates(self, dates: Mapping[str, CaptureDate | None]) -> None:
        """Set the dates of the rows with these paths; rows that are gone stay gone."""
        if not dates:
            return
        rows = [{"path": to_stored(path), **date_columns(date)} for path, date in dates.items()]
        schema = pa.schema([images_schema().field(name) for name in ("path", *DATE_COLUMNS)])
        dated = with_checksums(IMAGES, pa.Table.from_pylist(rows, schema=schema))
        self._database.change(
            IMAGES, lambda table: table.merge_insert("path").when_matched_update_all().execute(dated)
        )

    def remove_images(self, files: Sequence[FileRecord]) -> None:
        """Delete these rows, except those that another process has updated meanwhile."""
        for chunk in chunks(files, FILTER_LENGTH):
            self._database.delete(IMAGES, " OR ".join(map(_same_row, chunk)))

    def contents_with_vectors(self, key: str) -> Ids:
        """The contents that have a vector in this prompt index, sorted."""
        return self._contents(prompt_table(key))

    def embedded_ids(self, key: str) -> set[str]:
        """As `contents_with_vectors`, as a set."""
        return set(self.embedded(key).to_pylist())

    def embedded(self, key: str) -> Any:
        """The same as an Arrow column."""
        return self._rows(prompt_table(key), ["image_id"]).column("image_id")

    def write_vectors(self, key: str, vectors: Sequence[Vector]) -> None:
        """Insert vectors; a content that has one keeps it."""
        if not vectors:
            return
        schema = prompt_schema(len(vectors[0].embedding))
        self._write(prompt_table(key), "image_id", _vector_rows(vectors), schema, replace=False)

    def contents_with_features(self, key: str) -> Ids:
        """The contents that have unsteered features, sorted."""
        return self._contents(unsteered_table(key))

    def _contents(self, name: str) -> Ids:
        return sorted_ids(self._read(name, ["image_id"], lambda parts: np.concatenate([*map(ids_of, parts)])))

    def write_unsteered(self, key: str, vectors: Sequence[UnsteeredVector]) -> None:
        """Insert unsteered features; a content that has some keeps them."""
        if not vectors:
            return
        by_content = {vector.image_id: vector for vector in vectors}
        rows = [{**vars(v), "embedding": v.embedding.astype(np.float16)} for v in by_content.values()]
        schema = unsteered_schema(len(vectors[0].embedding))
        self._write(unsteered_table(key), "image_id", rows, schema, replace=False)

    def with_unsteered(self, key: str, use: Callable[[UnsteeredGallery], T]) -> T:
        """What `use` makes of the unsteered features of every usable photo that has some. It is called again if another
        process compacts a table meanwhile."""
        name = unsteered_table(key)

        def read(images: Any, table: Any) -> T:
            def parts() -> Iterator[Any]:
                for rows in self._batches_on(name, table, ["image_id", "embedding", "regions", CHECKSUM]):
                    is_good = np.isfinite(matrix_of(rows.column("embedding"))).all(axis=1)
                    yield rows.filter(pa.array(is_good & self._is_sound(name, rows, [CHECKSUM])))

            ids, first = _first_of(np.concatenate([np.empty(0, "S"), *map(ids_of, parts())]))
            first = np.append(first, -1)
            placed = (
                _with_places(photos, first[rows_of(ids, ids_of(photos))])
                for photos, _ in self._usable_photos(images)
            )
            found = LongTable(_PLACES, placed).sorted_by("path")
            rows = np.concatenate([np.empty(0, np.int64), *(place for _, place in _places_in(found))])
            used, rows[rows >= 0] = np.unique(rows[rows >= 0], return_inverse=True)

            def photos() -> Iterator[Any]:
                for number, (row_ids, _) in enumerate(_places_in(found)):
                    part = self._rows_at(IMAGES, images, photos_schema(), row_ids)
                    here = integers(rows[number * _BATCH :][: len(part)])
                    yield part.append_column("row", here).cast(unsteered_gallery_schema())

            def used_parts() -> Iterator[UnsteeredPart]:
                first = 0
                for part in parts():
                    chosen = (
                        used[np.searchsorted(used, first) : np.searchsorted(used, first + len(part))] - first
                    )
                    first += len(part)
                    if len(chosen):
                        some = part.take(pa.array(chosen))
                        regions = some.column("regions").to_pylist()
                        yield UnsteeredPart(matrix_of(some.column("embedding")), regions)

            return use(UnsteeredGallery(photos, len(used), used_parts))

        return self._database.read_several((IMAGES, name), read)

    def gallery(self, key: str, unkept: Sequence[Vector] = ()) -> Gallery:
        """Every usable photo that has a vector, see `with_gallery`."""

        def whole(found: GalleryParts) -> Gallery:
            parts = list(found.parts([*PHOTO_COLUMNS, "embedding", "heatmap", PRESENCE]))
            embeddings = np.concatenate([matrix_of(part.column("embedding")) for part in parts])
            photos = pa.concat_tables(parts).drop_columns("embedding").cast(gallery_schema())
            return Gallery(photos, embeddings, found.missing, found.damaged)

        return self.with_gallery(key, whole, unkept)

    def with_gallery(self, key: str, use: Callable[[GalleryParts], T], unkept: Sequence[Vector] = ()) -> T:
        """What `use` makes of every usable photo that has a vector, copies of one content under each of their paths.
        It is called again if another process compacts a table meanwhile.

        Photos whose row or vector does not match its checksum are left out, and counted. Of each photo it holds where
        the tables have it, 16 bytes, and the rest of some at a time.
        unkept: vectors that could not be written; they are treated as if they had been.
        """
        name = prompt_table(key)

        def read(images: Any, table: Any) -> T:
            dim = len(unkept[0].embedding) if unkept else 0 if table is None else _dim(table)
            new = pa.Table.from_pylist(_vector_rows(unkept), schema=prompt_schema(dim))
            found, missing, damaged = self._photos_with_vectors(images, *self._places(name, table, new))

            def parts(columns: Sequence[str]) -> Iterator[Any]:
                of_photos = pa.schema([field for field in photos_schema() if field.name in columns])
                others = set(columns) - set(PHOTO_COLUMNS)
                of_vectors = pa.schema([field for field in prompt_schema(dim) if field.name in others])
                for row_ids, place in _places_in(found):
                    photos = self._rows_at(IMAGES, images, of_photos, row_ids)
                    vectors = self._vectors(name, table, of_vectors, place, new)
                    yield pa.table(
                        [(photos if c in of_photos.names else vectors).column(c) for c in columns],
                        names=list(columns),
                    )

            return use(GalleryParts(len(found), missing, damaged, parts))

        return self._database.read_several((IMAGES, name), read)

    def _places(self, name: str, table: Any, new: Any) -> tuple[Ids, Rows]:
        """The contents of a prompt table and of `new`, sorted, and where their vectors are: LanceDB's row id, or
        -1 - row of `new`, which go first; or _DAMAGED. One place more at the end: _NOWHERE."""
        ids, damaged = [ids_of(new)], [np.empty(0, "S")]
        places = [-1 - np.arange(len(new))]
        for rows in self._batches_on(name, table, [*_VECTOR, CHECKSUM, _ROW_ID]):
            is_finite = np.isfinite(matrix_of(rows.column("embedding"))).all(axis=1)
            sound = self._is_sound(name, rows, [CHECKSUM]) & is_finite
            found = ids_of(rows)
            ids.append(found[sound])
            damaged.append(found[~sound])
            places.append(_row_ids(rows)[sound])
        places.append(np.full(sum(map(len, damaged)), _DAMAGED))
        all_ids = np.concatenate([*ids, *damaged])
        del ids, damaged
        contents, first = _first_of(all_ids)
        return contents, np.append(np.concatenate(places)[first], _NOWHERE)

    def _photos_with_vectors(self, images: Any, ids: Ids, places: Rows) -> tuple[LongTable, int, int]:
        """The usable photos that have a vector, as _PLACES, sorted by path; how many others there are, and how many of
        these are damaged. ids, places: see `_places`."""
        photos, damaged = 0, 0

        def parts() -> Iterator[Any]:
            nonlocal photos, damaged
            for rows, damaged_rows in self._usable_photos(images):
                of_rows = places[rows_of(ids, ids_of(rows))]
                photos += len(rows) + damaged_rows
                damaged += damaged_rows + int((of_rows == _DAMAGED).sum())
                yield _with_places(rows, of_rows).filter(pa.array(of_rows > _DAMAGED))

        found = LongTable(_PLACES, parts()).sorted_by("path")
        return found, photos - len(found), damaged

    def _usable_photos(self, images: Any) -> Iterator[tuple[Any, int]]:
        """As `_usable`, all rows of the table of photos, some at a time, with their row ids."""
        for rows in self._batches_on(IMAGES, images, [*_PHOTO, _ROW_ID]):
            yield self._usable(rows)

    def _usable(self, rows: Any) -> tuple[Any, int]:
        """Of rows with the columns _PHOTO those of usable photos, and how many are damaged."""
        import pyarrow.compute as compute

        is_sound = self._is_sound(IMAGES, rows, [CHECKSUM, DATE_CHECKSUM])
        is_sound &= ~are_outside(rows.column("path"))
        sound = rows.filter(pa.array(is_sound))
        return sound.filter(compute.equal(sound.column("status"), "ok")), int((~is_sound).sum())

    def _vectors(self, name: str, table: Any, schema: Any, places: Rows, new: Any) -> Any:
        """Rows of a prompt table or of `new`, by their `_places`, with the columns of this schema."""
        is_stored = places >= 0
        stored = self._rows_at(name, table, schema, places[is_stored])
        if is_stored.all():
            return stored
        row = np.empty_like(places)
        row[is_stored], row[~is_stored] = np.arange(len(stored)), len(stored) - 1 - places[~is_stored]
        return pa.concat_tables([stored, new.select(schema.names).cast(schema)]).take(integers(row))

    def _rows_at(self, name: str, table: Any, schema: Any, row_ids: Rows) -> Any:
        """The rows with these row ids, in this order; nulls for columns that the table lacks."""
        if not len(row_ids) or not len(schema):
            return schema.empty_table()
        stored = np.unique(row_ids)
        there = [column for column in schema.names if column in table.schema.names]
        with self._database.reading_on(name):
            found = table.take_row_ids(stored.tolist()).select(there).with_row_id().to_arrow()
        found = found.sort_by(_ROW_ID)
        assert np.array_equal(_row_ids(found), stored), "a row vanished from a version of a table"
        rows = integers(np.searchsorted(stored, row_ids))
        return _filled(found, schema.names).take(rows).cast(schema)

    def _sound(
        self, name: str, columns: Sequence[str], checksums: Sequence[str], where: str | None = None
    ) -> Any:
        """The undamaged rows: a table of these columns."""
        rows = self._rows(name, [*columns, *checksums], where)
        return rows.filter(pa.array(self._is_sound(name, rows, checksums))).select(columns)

    def _is_sound(self, name: str, rows: Any, checksums: Sequence[str]) -> npt.NDArray[np.bool_]:
        found = np.ones(len(rows), dtype=bool)
        for checksum in checksums if self._has_checksums else ():
            found &= is_sound(name, rows, checksum)
        return found

    @cached_property
    def _has_checksums(self) -> bool:
        """Whether rows have checksums, as in every migrated library."""
        try:
            return read_library(self._place).schema_version >= ROWS_CHECKED_SINCE
        except (FileNotFoundError, SteerSearchError):
            return True

    def _write(self, name: str, key: str, rows: list[dict[str, Any]], schema: Any, *, replace: bool) -> None:
        """Insert rows with different keys. Where a key is there, its row is replaced, or kept."""
        summed = with_checksums(name, pa.Table.from_pylist(rows, schema=schema))

        def merge(table: Any, some: Any) -> None:
            merging = table.merge_insert(key)
            if replace:
                merging = merging.when_matched_update_all()
            merging.when_not_matched_insert_all().execute(some)

        def write(table: Any) -> None:
            version, keys, hashes = table.version, self._keys(name, key, table), hashes_of(summed.column(key))
            is_new = keys.lack(hashes)
            new, old = summed.filter(pa.array(is_new)), summed.filter(pa.array(~is_new))
            if len(new):
                table.add(new)
                # Someone was first whom the lock does not reach, such as another machine by a share of this disk.
                if table.version != version + 1:
                    for chunk in chunks(new.column(key).to_pylist(), FILTER_LENGTH):
                        table.delete(_one_of(key, chunk))
                    merge(table, new)
            if len(old):
                merge(table, old)
            if table.version == version + bool(len(new)) + bool(len(old)):
                keys.take_in(hashes[is_new])
                self._known_keys[name] = self._database.state(name, table), keys

        self._database.change(
            name, write if self._database.excludes_others else lambda table: merge(table, summed)
        )

    def _keys(self, name: str, key: str, table: Any) -> TableKeys:
        """Of an open table; read unless its last commit was by this store."""
        state, keys = self._known_keys.pop(name, (None, None))
        if keys is None or state != self._database.state(name, table):
            keys = TableKeys(rows.column(key) for rows in self._batches(table, [key]))
        return keys

    def _rows(self, name: str, columns: Sequence[str], where: str | None = None) -> Any:
        """Columns of a table; nulls for columns that its schema lacks, no rows without a table."""
        return self._read(name, columns, lambda parts: pa.concat_tables([*parts]), where)

    def _read(
        self, name: str, columns: Sequence[str], use: Callable[[Iterator[Any]], T], where: str | None = None
    ) -> T:
        """As `_rows`, what `use` makes of some rows at a time; at least of an empty table."""
        if not self._database.has(name):  # of a run that ended early
            return use(iter([_filled(table_schema(name, 0).empty_table(), columns)]))
        return self._database.read(name, lambda table: use(self._batches(table, columns, where)))

    def _batches_on(self, name: str, table: Any, columns: Sequence[str]) -> Iterator[Any]:
        """As `_batches`, for `Database.read_several`; nothing of a table that does not exist."""
        if table is not None:
            with self._database.reading_on(name):
                yield from self._batches(table, columns)

    def _batches(self, table: Any, columns: Sequence[str], where: str | None = None) -> Iterator[Any]:
        """As `_rows`, some rows at a time; at least an empty table."""
        there = [column for column in columns if column in table.schema.names]
        query = table.search().select(there).with_row_id(_ROW_ID in columns)
        batches = (query if where is None else query.where(where)).to_batches(batch_size=_BATCH)
        is_empty = True
        for batch in batches:
            is_empty = False
            yield _filled(pa.Table.from_batches([batch]), columns)
        if is_empty:
            yield _filled(batches.schema.empty_table(), columns)


def _filled(rows: Any, columns: Sequence[str]) -> Any:
    """These columns of an Arrow table; nulls for those that its schema lacks."""
    has, added = rows.column_names, added_columns()
    values = [rows.column(c) if c in has else pa.nulls(len(rows), added[c].type) for c in columns]
    return pa.table(values, names=columns)


def _vector_rows(vectors: Sequence[Vector]) -> list[dict[str, Any]]:
    """Rows of a prompt table without checksums, one for each content."""
    by_content = {vector.image_id: vector for vector in vectors}
    return [
        {
            "image_id": vector.image_id,
            "embedding": vector.embedding,
            "heatmap": pack_heatmap(vector.heatmap),
            PRESENCE: vector.presence,
        }
        for vector in by_content.values()
    ]


def ids_of(rows: Any) -> Ids:
    """(n,) The contents of rows that have an image_id."""
    return np.array(rows.column("image_id").to_pylist(), dtype="S")


def _row_ids(rows: Any) -> Rows:
    """LanceDB's row ids."""
    return numbers(rows.column(_ROW_ID), np.uint64).astype(np.int64)


def _first_of(ids: Ids) -> tuple[Ids, Rows]:
    """The different contents, sorted, and where each is first."""
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    is_first = are_first(ids)
    return (ids, order) if is_first.all() else (ids[is_first], order[is_first])


def _with_places(photos: Any, places: Rows) -> Any:
    """Rows of _PLACES."""
    return pa.table([photos.column("path"), integers(_row_ids(photos)), integers(places)], schema=_PLACES)


def _places_in(found: LongTable) -> Iterator[tuple[Rows, Rows]]:
    """Row ids and places of a table of _PLACES, some at a time, at least once."""
    for start in range(0, max(len(found), 1), _BATCH):
        part = found.table.slice(start, _BATCH)
        yield numbers(part.column("row"), np.int64), numbers(part.column("place"), np.int64)


def _dim(table: Any) -> int:
    """The length of the vectors of a prompt table."""
    return int(table.schema.field("embedding").type.list_size)


def matrix_of(vectors: Any) -> npt.NDArray[Any]:
    """A column of vectors as (n, dim), of the type that it has."""
    values: npt.NDArray[Any] = vectors.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(vectors), vectors.type.list_size)


def can_be_right(rows: Any) -> npt.NDArray[np.bool_]:
    """(n,) For rows of a table without checksums: whether their vectors and heatmaps are valid."""
    found = np.ones(len(rows), dtype=bool)
    if "embedding" in rows.column_names:
        lengths = np.linalg.norm(matrix_of(rows.column("embedding")).astype(np.float64), axis=1)
        found &= np.abs(lengths - 1) < _UNIT  # never where one is not finite
    if "heatmap" in rows.column_names:
        found &= [is_heatmap(packed) for packed in rows.column("heatmap").to_pylist()]
    return found


def stamp(place: Path, key: str) -> tuple[str, ...]:
    """Changes whenever a table behind a prompt index changes; cheap, without lancedb.

    The file names in both tables' version folders, to which LanceDB adds one with each commit, and those of the newest
    commits, by which tables of another library differ.
    """
    return _stamp(place, prompt_table(key))


def images_stamp(place: Path) -> tuple[str, ...]:
    """As `stamp`, for the photos alone."""
    return (*versions(place, IMAGES), *commits(place, IMAGES))


def unsteered_stamp(place: Path, key: str) -> tuple[str, ...]:
    """As `stamp`, for unsteered features; that of `images` alone where there are none."""
    return _stamp(place, unsteered_table(key))


def _stamp(place: Path, table: str) -> tuple[str, ...]:
    names = (IMAGES, table)
    marks = (versions, commits)
    return tuple(f"{name}/{mark}" for of in marks for name in names for mark in of(place, name))


def dates_of(photos: Any) -> list[CaptureDate | None]:
    """The date of each photo in a table with PHOTO_COLUMNS, or else of its file."""
    taken = zip(*(photos.column(name).to_pylist() for name in DATE_COLUMNS), strict=True)
    changed = file_dates(numbers(photos.column("mtime_ns"), np.int64))
    return [  # "second" and "EXIF": as versions before schema 3 left it
        of_file if moment is None else CaptureDate(moment, precision or "second", source or "EXIF")
        for (moment, precision, source), of_file in zip(taken, changed, strict=True)
    ]


def date_at(photos: Any, row: int) -> CaptureDate | None:
    """As `dates_of`, of one photo."""
    return dates_of(photos.slice(row, 1))[0]


def dates_at(photos: Any, rows: npt.NDArray[np.int64]) -> list[CaptureDate | None]:
    """As `dates_of`, of the photos in these rows."""
    dated = photos.select([*DATE_COLUMNS, "mtime_ns"])
    # not `take`, which imports pyarrow.compute: a tenth of an indexed query's time
    return dates_of(pa.concat_tables([dated.slice(0, 0), *(dated.slice(row, 1) for row in rows.tolist())]))


def table_names(place: Path) -> list[str]:
    """The tables of a library, sorted; without lancedb. One without a version, just begun, is not included."""
    folders = sorted((place / FOLDER).glob("*.lance"))
    return [folder.stem for folder in folders if versions(place, folder.stem)]


def num_versions(place: Path) -> int:
    """The largest number of versions of any table; cheap, without lancedb."""
    return max((len(versions(place, name)) for name in table_names(place)), default=0)


def _same_row(file: FileRecord) -> str:
    path, image_id = quoted(to_stored(file.path)), quoted(file.image_id)
    return f"(path = {path} AND image_id = {image_id} AND mtime_ns = {file.mtime_ns})"


def _one_of(column: str, values: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(map(quoted, values))})"


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def chunks(items: Iterable[T], length: int) -> Iterator[list[T]]:
    remaining = iter(items)
    while chunk := list(islice(remaining, length)):
        yield chunk
