"""The one door to Pillow's decoders: only the formats that are listed here, only regular files, errors in plain words.

`Image.open` without `formats` hands a file to whatever Pillow has: PostScript under any suffix to Ghostscript.
"""

from __future__ import annotations

import errno
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from steersearch.core.errors import ImageError, ImageRefusedError, SteerSearchError
from steersearch.core.files import open_regular
from steersearch.core.images.limits import DEFAULT_LIMITS, Limits, in_units

# Limits of our own replace Pillow's warning; `catch_warnings` around each call would not be thread-safe.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")  # damaged EXIF: it is left out

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "HEIF")  # as Pillow calls them

_BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}  # others: 4


@contextmanager
def opened(
    source: str | Path | BinaryIO, formats: Sequence[str] = FORMATS, limits: Limits = DEFAULT_LIMITS
) -> Iterator[Image.Image]:
    """The picture in a file as Pillow has it: neither turned nor converted, decoded when its pixels are asked for.

    For sizes, masks and thumbnails; a photo is read by `reader.read_picture`.
    source: a path, or the file's content, open for reading and seeking.  formats: those that are tried.
    Raises ImageError for all that the decoder raises while the file is open, also in the caller's block:
    no such file, not a regular file, not an image, truncated; ImageRefusedError beyond `limits`.
    """
    path = Path(source) if isinstance(source, str | Path) else None
    with ExitStack() as stack:
        file = source if not isinstance(source, str | Path) else stack.enter_context(open_photo(source))
        stack.enter_context(plain_reasons(path, limits))
        image = stack.enter_context(opened_content(file, formats))
        refuse_memory(path, decoded_bytes(image), limits)
        yield image


def open_photo(path: str | Path) -> io.BufferedReader:
    """The regular file `path`, open for reading. Raises ImageError with the reason."""
    try:
        file = open_regular(path)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        if error.errno == errno.EINVAL:  # a pipe, a device, a socket
            reason = f"{reason}; save it to a file first"
        raise ImageError(path, reason or "cannot be read") from error
    if os.fstat(file.fileno()).st_size == 0:  # some of them, in /proc, never end
        file.close()
        raise ImageError(path, "the file is empty")
    return file


def opened_content(file: BinaryIO, formats: Sequence[str] = FORMATS) -> Image.Image:
    """Pillow's picture of an open file. Raises what Pillow raises."""
    try:
        Image.preinit()
        return Image.open(file, formats=_loaded(formats))
    except UnidentifiedImageError:
        Image.init()  # all plugins, which takes a tenth of a second
        _register_heic()
        return Image.open(file, formats=_loaded(formats))


@cache
def _register_heic() -> None:
    """Make Pillow read HEIC, with the extra `heic`."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def _loaded(formats: Sequence[str]) -> list[str]:
    """Those that this build of Pillow knows by now."""
    return [name for name in formats if name in Image.OPEN]


@contextmanager
def plain_reasons(path: Path | None, limits: Limits) -> Iterator[None]:
    """Whatever a decoder raises, as an ImageError that says what is wrong with the file."""
    try:
        yield
    except UnidentifiedImageError:
        raise ImageError(path, "not an image, or of a kind that cannot be read") from None
    except Image.DecompressionBombError as error:
        raise ImageRefusedError(path, f"too large for this process ({error})") from None
    except MemoryError:
        raise ImageRefusedError(path, f"too large: more than {in_units(limits.memory)} of memory") from None
    except SteerSearchError:
        raise
    except Exception as error:  # decoders fail in ways of their own
        raise ImageError(path, f"truncated or damaged ({error})") from error


def refuse_memory(path: Path | None, needed: float, limits: Limits) -> None:
    """Raise ImageRefusedError if so many bytes are more than a photo may take."""
    if needed > limits.memory:
        raise ImageRefusedError(
            path,
            f"too large: decoding takes {in_units(needed)} of memory, at most {in_units(limits.memory)} are used; "
            f"--limit memory={in_units(1.2 * needed).replace(' ', '')} lifts that",
        )


def decoded_bytes(image: Image.Image) -> int:
    """What the decoded pixels take in Pillow."""
    return image.width * image.height * _BYTES_PER_PIXEL.get(image.mode, 4)


# ---------------------------------------------------------------------------------------------- what Pillow leaves out

_MOST_CHUNKS = 10_000
_MOST_BYTES = 1000


def png_chunk(file: BinaryIO, kind: bytes) -> bytes | None:
    """The content of the first chunk of this kind, at most its first 1000 bytes; None if there is none.

    Leaves the file where it is.
    """
    place = file.tell()
    try:
        file.seek(8)
        for _ in range(_MOST_CHUNKS):
            length, found = int.from_bytes(file.read(4)), file.read(4)
            if found == kind:
                return file.read(min(length, _MOST_BYTES))
            if len(found) < 4 or found == b"IEND":
                return None
            file.seek(length + 4, 1)
        return None
    finally:
        file.seek(place)
