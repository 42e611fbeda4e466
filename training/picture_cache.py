"""The pictures of a source, decoded once, stored at the training size and memory-mapped.

Decoding a photo of 0.3 megapixels costs as much as its augmentation, one of 12 several training steps. The price:
crops are cut from the squashed S × S picture, so one of two thirds of the area is enlarged by a fifth, and objects that
`augment.cut_out` enlarges are coarse. Masks keep their resolution. A picture takes S × S × 3 bytes; the paper's 162,000
at 336 × 336 take 55 GB.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock
from PIL import Image

from steersearch.core.errors import DataError, ImageError, SampleError
from steersearch.core.files import never_a_link, require_regular
from steersearch.training.data.samples import Source

CHUNK = 64  # pictures in one task of a worker
_FORMAT = 2  # increase it when pictures are made differently

Bytes = npt.NDArray[np.uint8]


class PictureCache:
    """Pictures of one source, by row; rows of the same picture share it.  size: S, side in pixels

    The folder's name is a hash of the source's pictures, their sizes and modification times, and of S, so that any
    change leads to another folder.
    """

    def __init__(self, folder: Path, source: Source, size: int) -> None:
        self._source, self.size = source, size
        self._number, self._first = _pictures(source)
        self.folder = folder / f"{_identity(source, self._first, size)[:24]}-{size}"
        self._pixels: Bytes | None = None
        self._made: Bytes | None = None

    def __len__(self) -> int:
        """Number of different pictures."""
        return len(self._first)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pixels": None, "_made": None}  # mapped again, as a pickle would copy them

    def fill(self, workers: int = 1, progress: Callable[[int, int], None] | None = None) -> None:
        """Make the missing pictures with `workers` processes; an interrupted call can be continued.

        Of concurrent callers, one works and the others wait. Unusable pictures are left out.
        progress: called with pictures done and in all.  Raises DataError for a full disk.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock"):
            missing = np.flatnonzero(self._made_before() == 0)
            self._refuse_full_disk(len(missing))
            self._make_files()
            chunks = [missing[i : i + CHUNK] for i in range(0, len(missing), CHUNK)]
            done = len(self) - len(missing)
            for chunk in _mapped(partial(_make, self), chunks, workers):
                done += chunk
                if progress is not None:
                    progress(done, len(self))
        self._pixels = self._made = None

    def picture(self, row: int) -> Image.Image | None:
        """The squashed picture of a row, RGB, S × S; None if it was not made. Raises DataError for damaged files."""
        if self._pixels is None or self._made is None:
            if not (self.folder / "made").is_file():
                return None
            shape = (len(self), self.size, self.size, 3)
            try:
                pixels, made = (require_regular(self.folder / name) for name in ("pictures.u8", "made"))
                self._pixels = np.memmap(pixels, np.uint8, "r", shape=shape)
                self._made = np.memmap(made, np.uint8, "r", shape=(len(self),))
            except (OSError, ValueError) as error:
                raise DataError(self.folder, f"damaged ({error}); delete it, it will be rebuilt") from error
        number = int(self._number[row])
        return Image.fromarray(np.array(self._pixels[number])) if self._made[number] else None

    def _made_before(self) -> Bytes:
        """Which pictures exist, (P,) 0 or 1; none if a file has the wrong size."""
        sizes = {"pictures.u8": len(self) * self.size**2 * 3, "made": len(self)}
        try:
            if all(
                require_regular(self.folder / name).stat().st_size == size for name, size in sizes.items()
            ):
                return np.fromfile(self.folder / "made", np.uint8)
        except FileNotFoundError:
            pass
        for name in sizes:
            (self.folder / name).unlink(missing_ok=True)
        return np.zeros(len(self), np.uint8)

    def _make_files(self) -> None:
        for name, size in (("pictures.u8", len(self) * self.size**2 * 3), ("made", len(self))):
            with open(self.folder / name, "ab", opener=never_a_link) as file:
                file.truncate(size)  # sparse zeros

    def _refuse_full_disk(self, missing: int) -> None:
        needed, free = missing * self.size**2 * 3, shutil.disk_usage(self.folder).free
        if needed > free:
            reason = f"its pictures need {needed / 1e9:.1f} GB at {self.size} × {self.size}, {free / 1e9:.1f} are free"
            raise DataError(self.folder, f"{reason}; train with data.cache_pictures=false")


def _make(cache: PictureCache, numbers: npt.NDArray[np.int64]) -> int:
    """Make these pictures, and mark each once it is written; returns their number."""
    side = cache.size
    pixels, made = (never_a_link(str(cache.folder / name), os.O_WRONLY) for name in ("pictures.u8", "made"))
    try:
        for number in numbers.tolist():
            try:
                picture = cache._source.picture(int(cache._first[number]))
            except (ImageError, SampleError):  # reported when the row is read
                continue
            small = picture.resize((side, side), Image.Resampling.BICUBIC)
            _write(pixels, np.asarray(small).tobytes(), number * side * side * 3)
            _write(made, b"\1", number)
    finally:
        os.close(pixels)
        os.close(made)
    return len(numbers)


def _write(file: int, content: bytes, offset: int) -> None:
    while content:
        written = os.pwrite(file, content, offset)
        content, offset = content[written:], offset + written


def _mapped(
    make: Callable[[npt.NDArray[np.int64]], int], chunks: list[npt.NDArray[np.int64]], workers: int
) -> Iterator[int]:
    if workers <= 1 or len(chunks) <= 1:
        yield from map(make, chunks)
        return
    with ProcessPoolExecutor(
        workers, mp_context=get_context("fork"), initializer=_hold, initargs=(make,)
    ) as pool:
        try:
            yield from pool.map(_make_held, chunks)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


# In a worker: the source is large, so it is sent once.
_held: list[Callable[[npt.NDArray[np.int64]], int]] = []


def _hold(make: Callable[[npt.NDArray[np.int64]], int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends its workers
    _held[:] = [make]


def _make_held(numbers: npt.NDArray[np.int64]) -> int:
    return _held[0](numbers)


def _pictures(source: Source) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """The number of each row's picture, in order of first occurrence, and the first row of each picture."""
    rows = range(len(source))
    keys = np.fromiter((_key(os.fsencode(source.row(i).image)) for i in rows), np.uint64, len(source))
    _, first, number = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return place[number], first[order]


def _identity(source: Source, first: npt.NDArray[np.int64], size: int) -> str:
    """A hash of the pictures in order. A generated picture is identified by its row."""
    identity = hashlib.sha256(f"{_FORMAT} {source.name} {source.reading.frame} {size} {len(first)}".encode())
    for index in first.tolist():
        row = source.row(index)
        try:
            status = row.image.stat()
            found = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            found = f"{row.image_id} {row.row} {row.expression}"
        identity.update(os.fsencode(row.image) + b"\0" + found.encode("utf-8", "surrogatepass") + b"\n")
    return identity.hexdigest()


def _key(name: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")
