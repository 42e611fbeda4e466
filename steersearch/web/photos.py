"""The photos of a library by id: their properties, thumbnails and larger previews. No path is taken from a request, and
no file is sent unchanged."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from steersearch.api import Library
from steersearch.core.errors import ImageError
from steersearch.core.images.dates import CaptureDate
from steersearch.core.images.reader import read_picture
from steersearch.core.objects import real_path
from steersearch.indexer.schema import from_stored
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


class PhotoList(list[Photo]):
    """The usable photos of a library at one moment, the newest first. id: of the list; in another one photos have other
    numbers."""

    def __init__(self, id: str, photos: Iterable[Photo] = ()) -> None:
        super().__init__(photos)
        self.id = id
        self._by_id = {photo.id: photo for photo in reversed(self)}

    def photo(self, id: str) -> Photo:
        """The first photo with this content. Raises UnknownIdError."""
        if id not in self._by_id:
            raise UnknownIdError("photo", id)
        return self._by_id[id]


class Photos:
    """The usable photos of a library; read again when it changes."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._now = PhotoList("")
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
            kept = Store(self._library.place).thumbnail(photo.path)
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
            if id != self._now.id:
                self._now = PhotoList(id, _newest_first(Store(self._library.place).photos()))
            return self._now


def _newest_first(table: Any) -> Iterator[Photo]:
    """The photos of a table with PHOTO_COLUMNS, newest first; those of one date by path."""
    columns = [table.column(name).to_pylist() for name in ("image_id", "path", "width", "height")]
    rows = sorted(zip(*columns, dates_of(table), strict=True), key=lambda row: row[1])
    rows.sort(key=lambda row: "" if row[-1] is None else row[-1].iso, reverse=True)
    for number, (id, path, width, height, date) in enumerate(rows):
        yield Photo(id, number, from_stored(path), width or 1, height or 1, date)


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
