"""Decode an open file to a `Picture`, within limits. Runs on threads and in decoder processes."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from steersearch.core.errors import ImageRefusedError
from steersearch.core.images import raw
from steersearch.core.images.colour import STRIP, conversion_of, converted
from steersearch.core.images.dates import CaptureDate, capture_date
from steersearch.core.images.limits import Limits
from steersearch.core.images.picture import SIDEWAYS, Picture, orientation_of, turned_box, upright
from steersearch.core.images.pillow import decoded_bytes, opened_content, plain_reasons, refuse_memory

Reserve = Callable[[int], AbstractContextManager[object]]

LARGEST_SIDE = 200_000  # pixels: resizing a longer strip takes more memory than the strip itself
_LARGE = 4_000_000  # pixels; larger pictures are reduced
# Bytes that decoders use per pixel in addition to the picture (planes, canvases, a copy), measured and rounded up.
_DECODER_BYTES = {"WEBP": 14, "AVIF": 8, "HEIF": 8, "JPEG2000": 18}
_RAW_BYTES = 16
_WIDTH, _HEIGHT = 256, 257  # TIFF tags
_STRIP_BYTES = 64 * STRIP


def decode(path: Path, file: BinaryIO, limits: Limits, reserve: Reserve, *, at_least: int | None) -> Picture:
    """The picture in `file`, see `reader.read_picture`. Raises ImageError.

    reserve: called with the bytes that decoding needs; the context manager that it returns is held until the end.
    """
    with plain_reasons(path, limits), ExitStack() as held:
        take = partial(_take, path, limits, reserve, held)
        if raw.is_raw(path, file):
            return _developed(file, at_least, take)
        return _turned(*_decoded(path, file, at_least, take))


def decode_date(path: Path, file: BinaryIO, limits: Limits, reserve: Reserve) -> CaptureDate | None:
    """When the photo in `file` was taken, see `reader.read_date`. Raises ImageError."""
    with plain_reasons(path, limits), ExitStack() as held:
        if raw.is_raw(path, file):
            with raw.opened(file) as photo:
                return photo.date
        with opened_content(file) as image:
            if image.format == "PNG":  # its texts may follow the pixels
                _take(path, limits, reserve, held, _bytes_needed(image, image.size, 1))
                image.load()
            return capture_date(image, file)


def decode_header(
    path: Path, file: BinaryIO, limits: Limits, reserve: Reserve
) -> tuple[tuple[int, int], int]:
    """(width, height) of the picture in `file` as stored, and its EXIF orientation. Raises ImageError."""
    with plain_reasons(path, limits), opened_content(file) as image:
        tags = getattr(image, "tag_v2", None)  # Pillow's size of a TIFF is the upright one
        size = image.size if tags is None else (tags[_WIDTH], tags[_HEIGHT])
        return size, orientation_of(image)


def _take(path: Path, limits: Limits, reserve: Reserve, held: ExitStack, needed: int) -> None:
    """Reserve `needed` bytes until the end. Raises ImageRefusedError if they exceed the limit."""
    refuse_memory(path, needed, limits)
    held.enter_context(reserve(needed))


def _decoded(
    path: Path, file: BinaryIO, at_least: int | None, take: Callable[[int], None]
) -> tuple[Picture, int]:
    """The picture as stored, and its EXIF orientation. Pillow's own copy is freed on return."""
    with opened_content(file) as image:
        size = image.size
        if max(size) > LARGEST_SIDE:
            reason = f"a side of {max(size):,} pixels, more than {LARGEST_SIDE:,}"
            raise ImageRefusedError(path, reason)
        # A TIFF's EXIF block must be read before the pixels, a PNG's after them.
        date = capture_date(image) if image.format != "PNG" else None
        drafted = None if at_least is None else image.draft(None, (at_least, at_least))
        shrink = _shrink(image.size, at_least)
        take(_bytes_needed(image, size, shrink))
        image.load()
        colours = conversion_of(image, file=file)
        rgb = converted(image, colours, shrink)
        size = image.size if drafted is None else size  # some decoders turn the picture as they load it
        width, height = image.size if drafted is None else drafted[1][2:]
        orientation = orientation_of(image)
        date = date or capture_date(image, file)
        picture = Picture(rgb, size, date, (0, 0, width / shrink, height / shrink), colours.remark)
    rgb.info = {}  # else the file's comment, profile or EXIF block would be saved with thumbnails
    return picture, orientation


def _turned(stored: Picture, orientation: int) -> Picture:
    return replace(
        stored,
        image=upright(stored.image, orientation),
        size=stored.size[::-1] if orientation in SIDEWAYS else stored.size,
        box=turned_box(stored.box, stored.image.size, orientation),
    )


def _developed(file: BinaryIO, at_least: int | None, take: Callable[[int], None]) -> Picture:
    with raw.opened(file) as photo:
        take(_RAW_BYTES * photo.size[0] * photo.size[1])
        image, box, date = photo.picture(at_least)
        colours = conversion_of(image)
        rgb = converted(image, colours)
        rgb.info = {}
        return Picture(rgb, photo.size, date, box, colours.remark)


def _shrink(size: tuple[int, int], at_least: int | None) -> int:
    """The power of two by which a large picture can be reduced and keep a shorter side of twice `at_least`."""
    shrink = 1
    if at_least is not None and size[0] * size[1] > _LARGE:
        while min(size) >= 4 * at_least * shrink:
            shrink *= 2
    return shrink


def _bytes_needed(image: Image.Image, size: tuple[int, int], shrink: int) -> int:
    """Bytes for decoding and converting a picture, which a JPEG decoder may have reduced from `size`."""
    pixels = size[0] * size[1]
    decoder = _DECODER_BYTES.get(image.format or "", 0) * pixels
    if _is_in_several_scans(image):
        decoder += 2 * len(image.getbands()) * pixels  # all coefficients
    is_converted = image.mode != "RGB" or shrink > 1 or bool(image.info.get("icc_profile"))
    # A PNG's EXIF block may follow the pixels.
    is_turned = image.format == "PNG" or orientation_of(image) != 1
    result = 4 * image.width * image.height // shrink**2 if is_converted or is_turned else 0
    strip = min(_STRIP_BYTES, 16 * image.width * image.height) if is_converted else 0
    return decoded_bytes(image) + decoder + result + strip


def _is_in_several_scans(image: Image.Image) -> bool:
    """Whether a JPEG has several scans, so that its decoder keeps the whole picture in memory at any scale."""
    if image.format != "JPEG" or "progressive" in image.info:
        return "progressive" in image.info
    assert isinstance(image, JpegImageFile)
    assert image.fp is not None
    # Pillow has read the first scan's header: does it cover all components?
    image.fp.seek(-8 - 2 * image.layers, io.SEEK_CUR)
    return image.fp.read(2) != b"\xff\xda"
