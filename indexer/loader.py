"""Read photos ahead on threads, with bounded memory, in order."""

from __future__ import annotations

import errno
import hashlib
import io
import math
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from steersearch.core.errors import ImageError, ImageRefusedError
from steersearch.core.files import open_regular
from steersearch.core.images.limits import DEFAULT_LIMITS, Limits
from steersearch.core.images.picture import Picture
from steersearch.core.images.reader import read_picture, refuse_large_file, require_decoder
from steersearch.core.objects import ObjectPath, ObjectStatus, ObjectStoreError, opened_object
from steersearch.indexer.folders import Folders
from steersearch.indexer.scan import changed_at
from steersearch.indexer.schema import FileRecord, date_columns

Status = os.stat_result | ObjectStatus
THUMBNAIL_SIDE = 256  # pixels, longer side
RACY_NS = 3 * 10**9  # file systems record times in steps of up to two seconds
_IN_MEMORY = 64 * 2**20  # bytes; a larger file is hashed and decoded from the disk
_PART = 2**20  # bytes hashed at a time
_ATTEMPTS = 3  # to read a file that changes meanwhile

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(
    items: Iterable[T], read: Callable[[T], R], *, threads: int, look_ahead: int | Callable[[], int]
) -> Generator[R, None, None]:
    """read(item) for each item, in order, on `threads` threads.

    At most `look_ahead` results are in progress or waiting, which bounds memory; a function is called before each
    result. An exception of `read` is raised at its item's turn; after it, or if the caller stops, nothing more is read.
    """
    remaining = iter(items)
    ahead: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="steersearch-read")

    def read_on() -> None:
        bound = look_ahead() if callable(look_ahead) else look_ahead
        ahead.extend(pool.submit(read, item) for item in islice(remaining, max(0, bound - len(ahead))))

    try:
        read_on()
        while ahead:
            result = ahead.popleft().result()
            read_on()
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Photo:
    """A decoded photo. thumbnail: JPEG, longer side at most 256 pixels.  pixels: (3, H, W) float32; None if no prompt
    needs them."""

    file: FileRecord
    thumbnail: bytes
    pixels: npt.NDArray[np.float32] | None


@dataclass(frozen=True)
class KnownPhoto:
    """A photo whose content the library has with all vectors: hashed, not decoded."""

    file: FileRecord


@dataclass(frozen=True)
class BadFile:
    """An unusable file, with the reason. is_gone: it no longer exists."""

    file: FileRecord
    reason: str
    is_gone: bool = False


class PhotoReader:
    """Reads one photo. Called from several threads at once.

    root:       the folder of the relative paths
    is_known:   image_id -> whether everything is computed for this content
    bad_reason: image_id -> why this content cannot be decoded, if known
    needs_pixels: image_id -> whether some prompt lacks a vector of this content
    preprocess: picture -> (3, H, W) float32; its exceptions count as faults of the photo
    prepare: called before `preprocess`; its exceptions are raised
    at_least: pixels of the shorter side that `preprocess` needs, see `read_picture`; None: all
    limits: photos beyond them are not decoded
    """

    def __init__(
        self,
        root: Path | Folders,
        *,
        is_known: Callable[[str], bool],
        bad_reason: Callable[[str], str | None],
        needs_pixels: Callable[[str], bool],
        preprocess: Callable[[Picture], npt.NDArray[np.float32]],
        prepare: Callable[[], object] = lambda: None,
        at_least: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._root = root
        self._is_known, self._bad_reason, self._needs_pixels = is_known, bad_reason, needs_pixels
        self._preprocess, self._prepare, self._at_least = preprocess, prepare, at_least
        self._limits = limits

    def __call__(self, path: str) -> Photo | KnownPhoto | BadFile:
        """Hash the file at this relative path and, if necessary, decode the same bytes."""
        full = self._root / path
        unread = FileRecord(path, "", 0, 0)
        try:
            for _ in range(_ATTEMPTS):
                if (result := self._attempt(path, full)) is not None:
                    return result
        except ImageError as error:
            return BadFile(_unread(path, full), error.reason)
        except FileNotFoundError:
            return BadFile(unread, "it vanished before it could be read", is_gone=True)
        except ObjectStoreError as error:
            if not error.is_of_one_object:
                raise
            return BadFile(unread, f"it cannot be read ({error.strerror})")
        except OSError as error:
            return BadFile(unread, f"it cannot be read ({error.strerror or type(error).__name__})")
        return BadFile(unread, "it changes while it is read; index again later")

    def _attempt(self, path: str, full: Path) -> Photo | KnownPhoto | BadFile | None:
        """Read it once; None if it changes meanwhile."""
        began = time.time_ns()
        try:
            with _opened(full, self._limits) as (file, before):
                require_decoder(full, file)
                is_small = before.st_size <= _IN_MEMORY
                content = io.BytesIO(file.read(before.st_size)) if is_small else file
                state = _state(path, before, _hash_of(content, before.st_size), began)
                result = self._read(full, content, state)
                after = before if isinstance(before, ObjectStatus) else os.fstat(file.fileno())
        except ObjectStoreError as error:
            if error.is_of_a_change:
                return None
            raise
        is_same = (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        return result if is_same else None

    def _read(self, full: Path, content: BinaryIO, file: FileRecord) -> Photo | KnownPhoto | BadFile:
        reason = self._bad_reason(file.image_id)
        if reason is not None:
            return BadFile(file, reason)
        if self._is_known(file.image_id):
            return KnownPhoto(file)
        is_needed = self._needs_pixels(file.image_id)
        at_least = self._at_least if is_needed else THUMBNAIL_SIDE
        try:
            picture = read_picture(full, content, at_least=at_least, limits=self._limits)
        except ImageRefusedError as error:
            return BadFile(replace(file, image_id=""), error.reason)
        except ImageError as error:
            return BadFile(file, error.reason)
        except Exception as error:  # decoders raise many types; one file must not end the run
            return BadFile(file, f"damaged ({error})")
        if is_needed:
            self._prepare()
        try:
            pixels = self._preprocess(picture) if is_needed else None
            width, height = picture.size
            whole = replace(file, width=width, height=height, **date_columns(picture.taken_at))
            return Photo(whole, _thumbnail(picture.image), pixels)
        except Exception as error:  # one file must not end the run
            reason = f"it cannot be prepared for the model ({error or type(error).__name__})"
            return BadFile(replace(file, image_id=""), reason)


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[tuple[io.BufferedReader, Status]]:
    """A photo open for reading, and its status; of an object this version is fetched, unless it is too large.

    Raises OSError, ImageRefusedError.
    """
    if isinstance(path, ObjectPath):
        status = path.stat()
        refuse_large_file(path, status.st_size, limits)
        with opened_object(path, status) as file:
            yield file, status
    else:
        with open_regular(path) as file:
            of_file = os.fstat(file.fileno())
            refuse_large_file(path, of_file.st_size, limits)
            yield file, of_file


def content_hash(path: Path, at_most: float = math.inf) -> str:
    """128 bits of the SHA-256 of the whole file, as 32 hex digits. Raises OSError, also above `at_most` bytes."""
    if isinstance(path, ObjectPath) and path.stat().st_size > at_most:  # before it is fetched
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > at_most:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return _hash_of(file, size)


def _hash_of(content: io.BufferedReader | io.BytesIO, size: int) -> str:
    """Hash the first `size` bytes, since files in /proc may never end. Rewinds the content."""
    digest = hashlib.sha256()
    while size > 0 and (part := content.read(min(size, _PART))):
        digest.update(part)
        size -= len(part)
    content.seek(0)
    return digest.hexdigest()[:32]


def _state(path: str, status: Status, image_id: str, read_at: int) -> FileRecord:
    """The record of a file with this status when reading began, at `read_at` in ns since 1970."""
    mtime_ns = changed_at(status)
    if isinstance(status, ObjectStatus):  # which holds its version
        return FileRecord(path, image_id, status.st_size, mtime_ns)
    is_racy = mtime_ns > read_at - RACY_NS
    if mtime_ns > read_at + RACY_NS:  # the clock of a camera or file server is ahead
        is_racy = status.st_ctime_ns > read_at - RACY_NS  # no program can set this time
    if mtime_ns != status.st_mtime_ns:  # limited: a later time may become the same
        is_racy = True
    return FileRecord(path, image_id, status.st_size, mtime_ns - is_racy)


def _unread(path: str, full: Path) -> FileRecord:
    """A file that was not opened."""
    try:
        status = full.stat()
    except OSError:
        return FileRecord(path, "", 0, 0)
    return FileRecord(path, "", status.st_size, changed_at(status))


def _thumbnail(image: Image.Image) -> bytes:
    scale = THUMBNAIL_SIDE / max(image.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.reduce(max(1, int(1 / scale))).resize((width, height), Image.Resampling.HAMMING)
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=85)
    return jpeg.getvalue()
