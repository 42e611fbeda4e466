"""The photos of a library by id: their properties, thumbnails and larger previews. No path is taken from a request, and
no file is sent unchanged."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
from PIL import Image

from steersearch.api import Library
from steersearch.core.errors import ImageError
from steersearch.core.images.dates import PRECISIONS, CaptureDate, are_plausible
from steersearch.core.images.reader import read_picture
from steersearch.core.objects import real_path
from steersearch.indexer.checksums import DamagedFileError
from steersearch.indexer.regions import photos_of_snapshot
from steersearch.indexer.schema import from_stored, integers, mask_of, numbers
from steersearch.indexer.store import Store, dates_of, images_stamp
from steersearch.web.problem import UnknownIdError

PREVIEW_SIDE = 1600  # pixels, longer side, at most
_CACHED_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Photo:
    """One usable photo. number: in the list of photos.  path: as the tables name it; width, height: in pixels."""

    id: str
    number: int
    path: str
    width: int
    height: int
    date: CaptureDate | None

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height


class PhotoList(Sequence[Photo]):
    """The usable photos of a library at one moment, the newest first. id: of the list; in another one photos have other
    numbers.

    table: Arrow, with PHOTO_COLUMNS, in any order. A `Photo` is made when it is asked for.
    """

    def __init__(self, id: str, table: Any) -> None:
        self.id = id
        self._table = table.take(_newest_first(table))

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, at: int) -> Photo: ...
    @overload
    def __getitem__(self, at: slice) -> list[Photo]: ...
    def __getitem__(self, at: int | slice) -> Photo | list[Photo]:
        if isinstance(at, slice):
            start, stop, _ = at.indices(len(self))
            return list(_photos(self._table.slice(start, max(0, stop - start)), range(start, stop)))
        number = range(len(self))[at]
        return next(_photos(self._table.slice(number, 1), [number]))

    def __iter__(self) -> Iterator[Photo]:
        return _photos(self._table, range(len(self)))

    @property
    def image_ids(self) -> Any:
        """Arrow column, in the order of the list."""
        return self._table.column("image_id")

    @cached_property
    def _numbers(self) -> dict[str, int]:
        ids = self.image_ids.to_pylist()
        return dict(zip(reversed(ids), range(len(ids) - 1, -1, -1), strict=True))

    def photo(self, id: str) -> Photo:
        """The first photo with this content. Raises UnknownIdError."""
        return self.of([id])[0]

    def of(self, ids: Sequence[str]) -> list[Photo]:
        """The first photo with each of these contents. Raises UnknownIdError."""
        if unknown := [id for id in ids if id not in self._numbers]:
            raise UnknownIdError("photo", unknown[0])
        rows = [self._numbers[id] for id in ids]
        return list(_photos(self._table.take(integers(np.array(rows, np.int64))), rows))


def _photos(rows: Any, numbers: Sequence[int]) -> Iterator[Photo]:
    """The photos of some rows of a list, which have these numbers in it."""
    columns = [rows.column(name).to_pylist() for name in ("image_id", "path", "width", "height")]
    numbered = zip(numbers, *columns, dates_of(rows), strict=True)
    for number, id, path, width, height, date in numbered:
        yield Photo(id, number, from_stored(path), width or 1, height or 1, date)


def _newest_first(table: Any) -> Any:
    """The rows of a table with PHOTO_COLUMNS, the newest first; of dates that begin alike the more precise one, those
    of one date by path."""
    seconds = numbers(table.column("taken_at").cast(pa.int64()), np.int64).copy()
    has_own = mask_of(table.column("taken_at").is_valid())
    mtimes = numbers(table.column("mtime_ns"), np.int64)[~has_own]
    is_dated = has_own.copy()
    is_dated[~has_own] = are_plausible(mtimes)
    changed = [datetime.fromtimestamp(second) for second in (mtimes[is_dated[~has_own]] // 10**9).tolist()]
    seconds[is_dated & ~has_own] = np.array(changed, "datetime64[s]").astype(np.int64)
    precision = compute.fill_null(table.column("taken_at_precision"), "second")
    keys = pa.table(
        {
            "moment": integers(seconds, is_dated),
            "precision": compute.index_in(precision, value_set=pa.array(PRECISIONS)),
            "path": table.column("path"),
        }
    )
    order = [("moment", "descending"), ("precision", "descending"), ("path", "ascending")]
    return compute.sort_indices(keys, sort_keys=order)


class Photos:
    """The usable photos of a library; read again when it changes."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._now: PhotoList | None = None
        self._lock = threading.Lock()
        self._kept = _Cache(_CACHED_BYTES)

    def photo(self, id: str) -> Photo:
        """The photo with this content. Raises UnknownIdError."""
        return self.now().photo(id)

    def file(self, id: str) -> Path:
        """Where the photo lies. Raises UnknownIdError, and ImageError for a link that leads out of the folders."""
        file = self._library.file(self.photo(id).path)
        real = real_path(file)
        if not any(real.is_relative_to(real_path(folder)) for folder in self._library.folders):
            raise ImageError(file, "it is a link that leads out of the library's folders")
        return file

    def thumbnail(self, id: str) -> bytes:
        """JPEG, longer side at most 256 pixels. Raises UnknownIdError, ImageError."""
        photo = self.photo(id)
        kept = self._kept.get(id)
        if kept is None:
            kept = Store(self._library.place).thumbnail(id)
            if kept is None:
                raise ImageError(self._library.file(photo.path), "the library has no thumbnail of it")
            self._kept.add(id, kept)
        return kept

    def preview(self, id: str, side: int) -> bytes:
        """A new JPEG of the photo, longer side at most `side` pixels; for a photo that is gone, its thumbnail."""
        try:
            return preview_of(self.file(id), side)
        except ImageError:
            return self.thumbnail(id)

    def now(self) -> PhotoList:
        """All of them."""
        with self._lock:
            id = hashlib.sha256("\n".join(images_stamp(self._library.place)).encode()).hexdigest()[:16]
            if self._now is None or id != self._now.id:
                self._now = PhotoList(id, self._read())
            return self._now

    def _read(self) -> Any:
        """A table of all photos, where there is a current region snapshot from that."""
        if self._library.has_unsteered:
            with suppress(OSError, DamagedFileError):
                return photos_of_snapshot(self._library.place, self._library.unsteered_index().key)
        return Store(self._library.place).photos()


def preview_of(file: Path, side: int) -> bytes:
    """A photo as a new JPEG, its longer side at most `side` pixels. Raises ImageError."""
    image = read_picture(file, at_least=side).image
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return jpeg(image)


def jpeg(image: Image.Image) -> bytes:
    encoded = io.BytesIO()
    image.convert("RGB").save(encoded, "jpeg", quality=88)
    return encoded.getvalue()


class _Cache:
    """Bytes by name; the least recently used go first."""

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._items: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> bytes | None:
        with self._lock:
            if name in self._items:
                self._items.move_to_end(name)
            return self._items.get(name)

    def add(self, name: str, content: bytes) -> None:
        with self._lock:
            self._size += len(content) - len(self._items.pop(name, b""))
            self._items[name] = content
            while self._size > self._most and len(self._items) > 1:
                self._size -= len(self._items.popitem(last=False)[1])
