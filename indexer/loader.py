"""From a file name to a photo in memory, on threads that read a bounded way ahead and deliver in order."""

from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from steersearch.core.errors import ImageError
from steersearch.core.preprocess import open_image

THUMBNAIL_SIDE = 256  # pixels, longer side
_ATTEMPTS = 3  # at reading a file that changes while it is read
_EXIF_FOLDER, _EXIF_TAKEN_AT = 0x8769, 0x9003

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(
    items: Iterable[T], read: Callable[[T], R], *, threads: int, look_ahead: int
) -> Generator[R, None, None]:
    """read(item) for each item, in order, on `threads` threads.

    At most `look_ahead` results are being read or wait for the caller, so memory stays bounded however slow
    the caller is. An exception of `read` is raised at its item's turn; then, as when the caller stops early,
    nothing further is read.
    """
    remaining = iter(items)
    ahead: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="steersearch-read")
    try:
        ahead.extend(pool.submit(read, item) for item in islice(remaining, look_ahead))
        while ahead:
            result = ahead.popleft().result()
            ahead.extend(pool.submit(read, item) for item in islice(remaining, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class FileState:
    """A file at the moment it was read. image_id: hash of its content, "" where it could not be read."""

    path: str
    size: int
    mtime_ns: int
    image_id: str


@dataclass(frozen=True)
class Photo:
    """A decoded photo. pixels: (3, H, W) float32, or None where no prompt needs them; width, height as seen
    by a viewer (EXIF orientation applied); thumbnail: JPEG, longer side at most 256 pixels."""

    file: FileState
    width: int
    height: int
    taken_at: datetime | None
    thumbnail: bytes
    pixels: npt.NDArray[np.float32] | None


@dataclass(frozen=True)
class KnownPhoto:
    """A photo whose content the library knows, vectors included: it was hashed, not decoded."""

    file: FileState


@dataclass(frozen=True)
class BadFile:
    """A file that cannot be used as a photo, and why."""

    file: FileState
    reason: str


class PhotoReader:
    """Reads one photo. Called from several threads at once.

    is_known:   image_id -> nothing about this content is left to compute
    bad_reason: image_id -> why this content cannot be decoded, if that was tried before
    needs_pixels: image_id -> some prompt has no vector for this content
    preprocess: RGB picture -> (3, H, W) float32
    """

    def __init__(
        self,
        root: Path,
        *,
        is_known: Callable[[str], bool],
        bad_reason: Callable[[str], str | None],
        needs_pixels: Callable[[str], bool],
        preprocess: Callable[[Image.Image], npt.NDArray[np.float32]],
    ) -> None:
        self._root = root
        self._is_known, self._bad_reason, self._needs_pixels = is_known, bad_reason, needs_pixels
        self._preprocess = preprocess

    def __call__(self, path: str) -> Photo | KnownPhoto | BadFile:
        """Hash the file at the relative `path` and, where that leaves something to compute, decode it."""
        full = self._root / path
        file = FileState(path, 0, 0, "")
        for _ in range(_ATTEMPTS):
            try:
                before = os.stat(full)
                file = FileState(path, before.st_size, before.st_mtime_ns, content_hash(full))
                result = self._read(full, file)
                after = os.stat(full)
            except OSError as error:
                return BadFile(FileState(path, 0, 0, ""), _plain(error))
            if (after.st_size, after.st_mtime_ns) == (file.size, file.mtime_ns):
                return result
        return BadFile(FileState(path, 0, 0, ""), "it changes while it is read; index again later")

    def _read(self, full: Path, file: FileState) -> Photo | KnownPhoto | BadFile:
        reason = self._bad_reason(file.image_id)
        if reason is not None:
            return BadFile(file, reason)
        if self._is_known(file.image_id):
            return KnownPhoto(file)
        try:
            image = open_image(full)
        except ImageError as error:
            return BadFile(file, error.reason)
        except Exception as error:  # decoders fail in ways of their own; one file must not end the run
            return BadFile(file, f"damaged ({error})")
        pixels = self._preprocess(image) if self._needs_pixels(file.image_id) else None
        return Photo(file, image.width, image.height, _taken_at(full), _thumbnail(image), pixels)


def content_hash(path: Path) -> str:
    """128 bits of the SHA-256 of the whole file, as 32 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _thumbnail(image: Image.Image) -> bytes:
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    jpeg = io.BytesIO()
    small.save(jpeg, "JPEG", quality=85)
    return jpeg.getvalue()


def _taken_at(path: Path) -> datetime | None:
    """When the camera says the photo was taken (EXIF DateTimeOriginal, local time without a zone)."""
    try:
        with Image.open(path) as image:
            text = image.getexif().get_ifd(_EXIF_FOLDER).get(_EXIF_TAKEN_AT)
        return None if text is None else datetime.strptime(str(text).strip("\0 "), "%Y:%m:%d %H:%M:%S")
    except Exception:  # a damaged EXIF block makes Pillow raise anything; the picture itself is fine
        return None


def _plain(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "it vanished before it could be read"
    return f"it cannot be read ({error.strerror or type(error).__name__})"
