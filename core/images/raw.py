"""RAW photos: the embedded preview, or a development. The only file that imports rawpy, of the extra `raw`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from steersearch.core.images.dates import CaptureDate, capture_date, parse_date
from steersearch.core.images.picture import SIDEWAYS, orientation_of, turned_box, upright
from steersearch.core.images.pillow import opened_content

SUFFIXES = (
    ".dng", ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".erf", ".fff", ".gpr", ".iiq", ".kdc", ".mef",
    ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
)  # fmt: skip
Box = tuple[float, float, float, float]
_NEVER_RAW = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF")  # how JPEG, PNG, GIF and WebP begin
_LEAST_PREVIEW = 1024  # pixels of the shorter side, unless `at_least` is given
_ORIENTATIONS = {3: 3, 5: 8, 6: 6}  # LibRaw's code of a turn -> EXIF's


def is_supported() -> bool:
    """Whether rawpy is installed."""
    return find_spec("rawpy") is not None


def is_raw(path: Path, file: BinaryIO) -> bool:
    """Whether the name is that of a RAW photo, unless the content is that of another format. The content alone would
    not tell: most are TIFF files."""
    if path.suffix.lower() not in SUFFIXES:
        return False
    file.seek(0)
    head = file.read(32)
    file.seek(0)
    is_heif = head[4:8] == b"ftyp" and head[8:12] != b"crx "  # Canon's CR3
    return not (head.startswith(_NEVER_RAW) or is_heif)


@dataclass(frozen=True)
class RawPhoto:
    """An opened RAW file. size: (width, height) in pixels of the developed, upright picture."""

    size: tuple[int, int]
    _raw: Any

    def picture(self, at_least: int | None) -> tuple[Image.Image, Box, CaptureDate | None]:
        """The upright picture in any mode, its box (see `Picture`) and date.

        Takes the embedded preview, which is what the camera shows and ten times as fast; develops the sensor data, with
        the camera's white balance, if there is none or its shorter side is below `at_least` pixels.
        """
        image, box, date = self._preview(at_least) or (None, None, None)
        if image is None or box is None or min(image.size) < min(at_least or _LEAST_PREVIEW, *self.size):
            image = Image.fromarray(self._raw.postprocess(use_camera_wb=True))
            box = (0, 0, *image.size)
        return image, box, self._better(date)

    def _preview(self, at_least: int | None) -> tuple[Image.Image, Box, CaptureDate | None] | None:
        import rawpy

        try:
            found = self._raw.extract_thumb()
        except rawpy.LibRawError:  # missing, or LibRaw cannot extract it
            return None
        turn = _ORIENTATIONS.get(self._raw.sizes.flip, 1)
        if found.format != rawpy.ThumbFormat.JPEG:
            bitmap = upright(Image.fromarray(found.data), turn)
            return bitmap, (0, 0, *bitmap.size), None
        try:
            with opened_content(io.BytesIO(found.data), ["JPEG"]) as image:
                date, stored = capture_date(image), orientation_of(image)
                drafted = None if at_least is None else image.draft(None, (at_least, at_least))
                image.load()
                width, height = image.size if drafted is None else drafted[1][2:]
                turn = stored if stored != 1 else turn
                return upright(image, turn), turned_box((0, 0, width, height), image.size, turn), date
        except (OSError, SyntaxError, ValueError):  # damaged; the sensor data may be intact
            return None

    @property
    def date(self) -> CaptureDate | None:
        """When it was taken, according to the preview or else LibRaw."""
        return self._better((self._preview(1) or (None, None, None))[2])

    def _better(self, date: CaptureDate | None) -> CaptureDate | None:
        """LibRaw's date, unless the preview has the date of the shot."""
        return date if date is not None and not date.is_change else self._date() or date

    def _date(self) -> CaptureDate | None:
        date = parse_date(self._raw.other.timestamp)
        return None if date is None else replace(date, source="RAW timestamp")


@contextmanager
def opened(file: BinaryIO) -> Iterator[RawPhoto]:
    """The RAW photo in `file`. Raises OSError for a damaged file or another format."""
    import rawpy

    try:
        with rawpy.imread(file) as raw:
            width, height = raw.sizes.width, raw.sizes.height
            sideways = _ORIENTATIONS.get(raw.sizes.flip, 1) in SIDEWAYS
            yield RawPhoto((height, width) if sideways else (width, height), raw)
    except rawpy.LibRawError as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise OSError(reason) from error
