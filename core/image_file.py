"""A picture in a file, decoded as a viewer would show it, or refused with the reason. Pillow and optional decoders."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from steersearch.core import raw_photo
from steersearch.core.capture_date import CaptureDate, capture_date
from steersearch.core.errors import ImageError, ImageRefusedError, MissingExtraError
from steersearch.core.exif import SIDEWAYS, orientation_of, upright
from steersearch.core.pillow_file import open_photo, opened_content

HEIC_SUFFIXES = (".heic", ".heif", ".hif")
PILLOW_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif", ".jp2", ".j2k",
)  # fmt: skip
SUFFIXES = (*PILLOW_SUFFIXES, *HEIC_SUFFIXES, *raw_photo.SUFFIXES)
MAX_MEGAPIXELS = 170.0  # half a gigabyte as RGB; Pillow's own limit is 179

_LARGE_MEGAPIXELS = 50.0  # of such, one at a time is decoded in a process, whatever the number of its threads
_large = threading.Lock()
# An honest progressive JPEG has about ten scans, and each costs a pass over the picture: so many, and so many times
# its megapixels, are decoded.
_MAX_SCANS, _MAX_SCANNED_MEGAPIXELS = 100, 2500.0
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

# All that Pillow's decoders are known to raise at damaged files; RuntimeError is the AVIF decoder's.
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, RuntimeError, struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A decoded file.

    image: upright RGB, perhaps at a reduced scale.  size: (width, height) in pixels of the whole picture, upright.
    taken_at: when, as the file says, see `capture_date`; None where it does not.
    """

    image: Image.Image
    size: tuple[int, int]
    taken_at: CaptureDate | None


def read_picture(
    path: str | Path,
    file: BinaryIO | None = None,
    *,
    at_least: int | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> Picture:
    """The picture in `path`, as a viewer would show it.

    EXIF orientation is applied first; 16-bit grey is scaled, not clipped; transparency lies on white; of an
    animation or a file with several pages the first is taken. Of a RAW photo that is the camera's own preview
    where it is large enough.

    file: the file's content, open for reading and seeking, if the caller has it; None opens `path`.
    at_least: a JPEG far larger than needed is decoded at a half, a quarter or an eighth of its scale, which is
        several times faster, as long as its shorter side keeps this many pixels; None decodes all of it.
    max_megapixels: the largest picture that is decoded; a small file can hold one that fills all memory. Above
        about 179, Pillow's limit for this process is lifted with it.
    Raises ImageError with the reason in plain words: missing, empty, not an image, truncated; ImageRefusedError
    where a higher limit or an optional decoder would help.
    """
    path = Path(path)
    require_decoder(path)
    if file is None:
        with open_photo(path) as opened:
            if os.fstat(opened.fileno()).st_size == 0:
                raise ImageError(path, "the file is empty")
            return read_picture(path, opened, at_least=at_least, max_megapixels=max_megapixels)
    _lift_pillows_limit(max_megapixels)
    with _plain_reasons(path, max_megapixels):
        if is_raw(path):
            return _read_raw(path, file, at_least, max_megapixels)
        return _read_with_pillow(path, file, at_least, max_megapixels)


def read_date(path: Path) -> CaptureDate | None:
    """When the photo in `path` was taken, see `capture_date`, as far as possible without decoding it.

    Raises ImageError, ImageRefusedError.
    """
    require_decoder(path)
    with open_photo(path) as file, _plain_reasons(path, MAX_MEGAPIXELS):
        if is_raw(path):
            with raw_photo.opened(file) as raw:
                return raw.date
        if _is_heic(file):
            _register_heic()
        with opened_content(file) as image:
            _refuse_large(path, image.size, MAX_MEGAPIXELS)
            if image.format == "PNG":  # whose texts may stand behind the pixels
                image.load()
            return capture_date(image, file)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as RGB: 16-bit and float grey scaled to 8 bits, transparency composited on white."""
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
        return _grey_to_rgb(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # no copy: a large photo is 50 MB and more


def is_raw(path: Path) -> bool:
    """Whether the name is one of a RAW photo. Its content would not tell: most are TIFF files."""
    return path.suffix.lower() in raw_photo.SUFFIXES


def require_decoder(path: Path) -> None:
    """Raise ImageRefusedError if files of this name need an optional package that is not installed."""
    suffix = path.suffix.lower()
    if suffix in HEIC_SUFFIXES and not _register_heic():
        raise ImageRefusedError(path, str(MissingExtraError("pillow-heif", "heic", "a HEIC photo")))
    if suffix in raw_photo.SUFFIXES and not raw_photo.is_supported():
        raise ImageRefusedError(path, str(MissingExtraError("rawpy", "raw", "a RAW photo")))


def _read_with_pillow(path: Path, file: BinaryIO, at_least: int | None, max_megapixels: float) -> Picture:
    if _is_heic(file) and not _register_heic():
        raise ImageRefusedError(path, str(MissingExtraError("pillow-heif", "heic", "a HEIC photo")))
    with opened_content(file) as image:
        size = image.size
        _refuse_large(path, size, max_megapixels)
        _refuse_many_scans(path, image, file)
        # A TIFF's EXIF block cannot be read after the pixels, a PNG's not before them.
        date = capture_date(image) if image.format != "PNG" else None
        with _one_at_a_time(size):
            is_reduced = at_least is not None and image.draft(None, (at_least, at_least)) is not None
            image.load()
            size = size if is_reduced else image.size  # some decoders turn the picture while they load it
            orientation = orientation_of(image)
            picture = to_rgb(upright(image, orientation))
        date = date or capture_date(image, file)
        return Picture(picture, size[::-1] if orientation in SIDEWAYS else size, date)


def _read_raw(path: Path, file: BinaryIO, at_least: int | None, max_megapixels: float) -> Picture:
    with raw_photo.opened(file) as raw:
        _refuse_large(path, raw.size, max_megapixels)
        with _one_at_a_time(raw.size):
            image, date = raw.picture(at_least)
            return Picture(to_rgb(image), raw.size, date)


@contextmanager
def _plain_reasons(path: Path, max_megapixels: float) -> Iterator[None]:
    """Whatever a decoder raises, as an ImageError that says what is wrong with the file."""
    try:
        yield
    except UnidentifiedImageError:
        raise ImageError(path, "not an image, or of a kind that cannot be read") from None
    except Image.DecompressionBombError as error:  # raised by Image.open, before our own look at the size
        raise ImageRefusedError(path, _too_large(_pixels_in(error) / 1e6, max_megapixels)) from None
    except MemoryError:
        raise ImageError(path, "too large for the memory of this machine") from None
    except _DECODER_ERRORS as error:
        raise ImageError(path, f"truncated or damaged ({error})") from error


def _refuse_large(path: Path, size: tuple[int, int], max_megapixels: float) -> None:
    megapixels = size[0] * size[1] / 1e6
    if megapixels > max_megapixels:
        raise ImageRefusedError(path, _too_large(megapixels, max_megapixels))


def _too_large(megapixels: float, limit: float) -> str:
    return f"too large: {megapixels:,.0f} megapixels, at most {limit:g} are read; --max-megapixels lifts the limit"


def _pixels_in(error: Image.DecompressionBombError) -> int:
    """Pillow says "Image size (N pixels) exceeds limit of ..."."""
    return int(str(error).partition("(")[2].partition(" ")[0])


def _lift_pillows_limit(max_megapixels: float) -> None:
    """Pillow refuses what has twice its limit before we see the size; its limit holds for the whole process."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and max_megapixels * 1e6 > 2 * limit and max_megapixels > MAX_MEGAPIXELS:
        Image.MAX_IMAGE_PIXELS = int(max_megapixels * 1e6)


def _refuse_many_scans(path: Path, image: Image.Image, file: BinaryIO) -> None:
    if image.info.get("progressive"):
        place = file.tell()
        file.seek(0)
        scans = file.read().count(b"\xff\xda")  # cannot occur in compressed data, where 0 follows each 255
        file.seek(place)
        if scans > _MAX_SCANS or scans * image.width * image.height > _MAX_SCANNED_MEGAPIXELS * 1e6:
            raise ImageError(path, f"a JPEG in {scans:,} scans, which would take very long to decode")


def _one_at_a_time(size: tuple[int, int]) -> threading.Lock | nullcontext[None]:
    return _large if size[0] * size[1] > _LARGE_MEGAPIXELS * 1e6 else nullcontext()


def _is_heic(file: BinaryIO) -> bool:
    head = file.read(64)
    file.seek(0)
    return head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS and b"avif" not in head


@cache
def _register_heic() -> bool:
    """Make Pillow read HEIC, with the extra `heic`; whether it can."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _grey_to_rgb(image: Image.Image) -> Image.Image:
    """16-bit grey by its fixed range; 32-bit integer and float grey, which have none, by their own."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16"):
        low, high = 0.0, 65535.0
    elif image.mode == "I" and low >= 0 and high <= 65535:  # 8- or 16-bit values in a wide container
        low, high = 0.0, 255.0 if high <= 255 else 65535.0
    grey = (values - low) * (255.0 / (high - low if high > low else 1.0))
    return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
