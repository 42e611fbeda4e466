"""The only access to Pillow's decoders: listed formats, regular files, translated errors.

`Image.open` without `formats` tries every plugin: PostScript under any suffix would go to Ghostscript.
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
from typing import Any, BinaryIO

from PIL import Image, UnidentifiedImageError

from steersearch.core.errors import ImageError, ImageRefusedError, SteerSearchError
from steersearch.core.files import open_regular
from steersearch.core.images.limits import DEFAULT_LIMITS, Limits, in_units
from steersearch.core.objects import as_place

# Our own limits replace Pillow's warning; `catch_warnings` around each call would not be thread-safe.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")  # damaged EXIF is ignored

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "HEIF")  # Pillow's names

_BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}  # others: 4


@contextmanager
def opened(
    source: str | Path | BinaryIO, formats: Sequence[str] = FORMATS, limits: Limits = DEFAULT_LIMITS
) -> Iterator[Image.Image]:
    """Open a picture with Pillow, neither turned nor converted, decoded on first access to its pixels.

    For sizes, masks and thumbnails; `reader.read_picture` reads photos.
    source: a path, or the file's content, open for reading and seeking.  formats: the ones to try.
    Translates errors of the decoder, also in the caller's block, into ImageError (missing, not a regular file, not an
    image, truncated), or ImageRefusedError beyond `limits`.
    """
    path = as_place(source) if isinstance(source, str | Path) else None
    with ExitStack() as stack:
        file = source if not isinstance(source, str | Path) else stack.enter_context(open_photo(source))
        stack.enter_context(plain_reasons(path, limits))
        image = stack.enter_context(opened_content(file, formats))
        refuse_memory(path, decoded_bytes(image), limits)
        yield image


def open_photo(path: str | Path) -> io.BufferedReader:
    """Open the regular file `path` for reading. Raises ImageError."""
    try:
        file = open_regular(path)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        if error.errno == errno.EINVAL:  # a pipe, a device, a socket
            reason = f"{reason}; save it to a file first"
        raise ImageError(path, reason or "cannot be read") from error
    except ValueError as error:  # a NUL character
        raise ImageError(path, f"not a path ({error})") from error
    if os.fstat(file.fileno()).st_size == 0:  # files in /proc may have this size and never end
        file.close()
        raise ImageError(path, "the file is empty")
    return file


def opened_content(file: BinaryIO, formats: Sequence[str] = FORMATS) -> Image.Image:
    """Pillow's picture of an open file. Raises what Pillow raises."""
    try:
        Image.preinit()
        image = Image.open(file, formats=_loaded(formats))
    except UnidentifiedImageError:
        Image.init()  # all plugins, which takes a tenth of a second
        _register_heic()
        image = Image.open(file, formats=_loaded(formats))
    if image.format == "TIFF":
        _choose_page(image)
        _decode_planes(image)
    elif image.format == "PNG":
        _scale_transparent_grey(image)
    return image


@cache
def _register_heic() -> None:
    """Make Pillow read HEIC, with the extra `heic`."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def _loaded(formats: Sequence[str]) -> list[str]:
    """Those of `formats` that this build of Pillow has loaded."""
    return [name for name in formats if name in Image.OPEN]


@contextmanager
def plain_reasons(path: Path | None, limits: Limits) -> Iterator[None]:
    """Translate whatever a decoder raises into an ImageError."""
    try:
        yield
    except UnidentifiedImageError:
        raise ImageError(path, "not an image, or not of a supported format") from None
    except Image.DecompressionBombError as error:
        raise ImageRefusedError(path, f"too large for this process ({error})") from None
    except MemoryError:
        raise ImageRefusedError(path, f"too large: more than {in_units(limits.memory)} of memory") from None
    except SteerSearchError:
        raise
    except Exception as error:  # decoders raise many types
        raise ImageError(path, f"truncated or damaged ({error})") from error


def refuse_memory(path: Path | None, needed: float, limits: Limits) -> None:
    """Raise ImageRefusedError if `needed` bytes exceed the limit."""
    if needed > limits.memory:
        raise ImageRefusedError(
            path,
            f"too large: decoding takes {in_units(needed)} of memory, more than {in_units(limits.memory)}; "
            f"--limit memory={in_units(1.2 * needed).replace(' ', '')} allows it",
        )


def decoded_bytes(image: Image.Image) -> int:
    """Bytes of the decoded pixels in Pillow."""
    return image.width * image.height * _BYTES_PER_PIXEL.get(image.mode, 4)


# ---------------------------------------------------------------------------------------------- what Pillow leaves out

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _PLANAR = 254, 256, 257, 258, 284  # TIFF tags
_THUMBNAIL = 1  # a bit of the first


def _choose_page(image: Any) -> None:
    """Turn to the first page of a TIFF that is not a thumbnail of another."""
    pages = range(image.n_frames if image.tag_v2.get(_SUBFILE, 0) & _THUMBNAIL else 0)
    for page in pages:
        image.seek(page)
        if not image.tag_v2.get(_SUBFILE, 0) & _THUMBNAIL:
            return
    if pages:
        image.seek(0)


def _decode_planes(image: Any) -> None:
    """Have planes of an uncompressed TIFF decoded rightly: Pillow takes their samples for 8 bits."""
    tags = image.tag_v2
    if tags.get(_PLANAR) != 2 or not image.tile or image.tile[0].codec_name != "raw":
        return
    if len(image.getbands()) == 1:  # one plane is no different
        tags[_PLANAR], image.tile = 1, []
        image._setup()
        return
    mode = "".join(dict.fromkeys(tile.args[0] for tile in image.tile)) + (
        ";16N" if max(tags[_BITS]) == 16 else ""
    )
    whole = {"extents": (0, 0, tags[_WIDTH], tags[_HEIGHT]), "offset": 0, "args": (mode, False, tags.offset)}
    image.tile, image.use_load_libtiff = [image.tile[0]._replace(codec_name="libtiff", **whole)], True


def _scale_transparent_grey(image: Any) -> None:
    """The transparent grey of a PNG with 2 or 4 bits, which Pillow leaves unscaled."""
    grey = image.info.get("transparency")
    depth = {"L;2": 2, "L;4": 4}.get(image.tile[0].args if image.tile else "")
    if depth and isinstance(grey, int):
        image.info["transparency"] = grey * 255 // (2**depth - 1)


_MOST_CHUNKS = 10_000
_MOST_BYTES = 1000


def png_chunk(file: BinaryIO, kind: bytes) -> bytes | None:
    """The first 1000 bytes of the first chunk of this kind; None if there is none. Keeps the file's position."""
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
