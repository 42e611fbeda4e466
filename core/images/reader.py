"""Read a photo as a viewer would show it, or refuse it with the reason."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from steersearch.core.errors import ImageError, ImageRefusedError, MissingExtraError
from steersearch.core.images import raw
from steersearch.core.images.dates import CaptureDate
from steersearch.core.images.decoding import decode, decode_date, decode_header
from steersearch.core.images.limits import DEFAULT_LIMITS, Budget, Limits, in_units
from steersearch.core.images.picture import Picture
from steersearch.core.images.pillow import open_photo
from steersearch.core.images.plain import is_plain
from steersearch.core.objects import ObjectPath, as_place

logger = logging.getLogger(__name__)
R = TypeVar("R")

HEIC_SUFFIXES = (".heic", ".heif", ".hif")
PILLOW_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif",
    ".jp2", ".j2k",
)  # fmt: skip
JXL_SUFFIXES = (".jxl",)  # cannot be read, but whoever searches should know
SUFFIXES = (*PILLOW_SUFFIXES, *HEIC_SUFFIXES, *JXL_SUFFIXES, *raw.SUFFIXES)

_JXL_HEADS = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")  # a bare codestream, and one in boxes
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_memory = Budget(DEFAULT_LIMITS.memory)  # for all pictures being decoded
_warned: set[str] = set()


def read_picture(
    path: str | Path,
    file: BinaryIO | None = None,
    *,
    at_least: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Picture:
    """The picture in `path`, as a viewer would show it.

    Upright, in sRGB; 16-bit grey is scaled, not clipped; transparency becomes white; of an animation or several pages
    the first is taken; of a RAW photo the camera's preview, if it is large enough.

    file: the file's content, open for reading and seeking; None opens `path`.
    at_least: pixels that the shorter side needs. A larger JPEG is decoded at 1/2, 1/4 or 1/8 scale, which is several
        times faster; other pictures above 4 megapixels are reduced in the conversion, to at least twice as many. None
        decodes all pixels.
    limits: a file that is not certain to decode quickly is decoded by a process, which is killed beyond them.
    Raises ImageError (missing, not a regular file, empty, not an image, truncated); ImageRefusedError if higher limits
    or an optional decoder would help.
    """
    path = as_place(path)
    if file is None:
        if isinstance(path, ObjectPath) and path.is_file():
            refuse_large_file(path, path.stat().st_size, limits)  # before it is fetched
        with open_photo(path) as opened:
            return read_picture(path, opened, at_least=at_least, limits=limits)
    picture = _read(decode, path, file, limits, at_least=at_least)
    if picture.remark is not None:
        _warn_once(picture.remark, path)
    return picture


def read_date(path: Path, limits: Limits = DEFAULT_LIMITS) -> CaptureDate | None:
    """When the photo in `path` was taken, see `capture_date`; decodes it only if necessary.

    Raises ImageError, ImageRefusedError.
    """
    with open_photo(path) as file:
        return _read(decode_date, path, file, limits)


def read_header(path: Path, limits: Limits = DEFAULT_LIMITS) -> tuple[tuple[int, int], int]:
    """(width, height) of the picture in `path` as stored, and its EXIF orientation, without decoding it.

    Raises ImageError, ImageRefusedError.
    """
    with open_photo(path) as file:
        (width, height), orientation = _read(decode_header, path, file, limits)
    return (width, height), orientation


def _read(task: Callable[..., R], path: Path, file: BinaryIO, limits: Limits, **options: Any) -> R:
    """Run the task here for a file that is certain to decode quickly, else in a process."""
    size = file.seek(0, io.SEEK_END)
    refuse_large_file(path, size, limits)
    if size == 0:
        raise ImageError(path, "the file is empty")
    require_decoder(path, file)
    if os.name == "posix" and (raw.is_raw(path, file) or not is_plain(file)):
        # Importing it takes 30 ms, and most programs never need it.
        from steersearch.core.images.decoder_process import run_apart

        return run_apart(task, path, file, limits, _memory.reserved, **options)
    return task(path, file, limits, _memory.reserved, **options)


def refuse_large_file(path: Path, size: int, limits: Limits) -> None:
    """Raise ImageRefusedError for a file beyond the limit."""
    if size > limits.file:
        reason = f"too large: {in_units(size)}, more than {in_units(limits.file)}"
        raise ImageRefusedError(
            path, f"{reason}; --limit file={in_units(1.2 * size).replace(' ', '')} allows it"
        )


def require_decoder(path: Path, file: BinaryIO) -> None:
    """Raise ImageRefusedError if this photo needs an optional package that is not installed, or JPEG XL's decoder."""
    if _head(file).startswith(_JXL_HEADS):
        raise ImageRefusedError(path, "JPEG XL cannot be read yet; save it in another format, such as AVIF")
    if _is_heic(file) and not _reads_heic():
        raise ImageRefusedError(path, str(MissingExtraError("pillow-heif", "heic", "a HEIC photo")))
    if raw.is_raw(path, file) and not raw.is_supported():
        raise ImageRefusedError(path, str(MissingExtraError("rawpy", "raw", "a RAW photo")))


def _head(file: BinaryIO) -> bytes:
    file.seek(0)
    head = file.read(64)
    file.seek(0)
    return head


def _is_heic(file: BinaryIO) -> bool:
    head = _head(file)
    return head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS and b"avif" not in head


def _reads_heic() -> bool:
    return find_spec("pillow_heif") is not None


def _warn_once(remark: str, path: Path) -> None:
    if remark not in _warned:
        _warned.add(remark)
        logger.warning("%s: %s (said once for all such photos)", path, remark)
