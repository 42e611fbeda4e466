"""A decoded picture, upright, with its size and date."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from steersearch.core.images.dates import CaptureDate


@dataclass(frozen=True)
class Picture:
    """A decoded file.

    image: upright RGB in sRGB, perhaps at a reduced scale.
    size: (width, height) in pixels of the whole picture, upright.
    taken_at: see `capture_date`; None if the file has no date.
    box: left, top, right, bottom of the whole picture in `image`, perhaps fractional at a reduced scale. Resizing from
        rounded sides would shift by up to a pixel.
    remark: for the user, how it differs from what a viewer shows.
    """

    image: Image.Image
    size: tuple[int, int]
    taken_at: CaptureDate | None
    box: tuple[float, float, float, float]
    remark: str | None = None


def image_of(picture: Picture | Image.Image) -> Image.Image:
    """The image without its box."""
    return picture.image if isinstance(picture, Picture) else picture


# ---------------------------------------------------------------------------------------------------- which side is up

_ORIENTATION = 0x0112

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; 1 without one, or if the EXIF block is damaged."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
        return int(value) if value in _TURNS else 1
    except Exception:  # Pillow's EXIF parser raises many types for a damaged block
        return 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn a picture that is stored in this orientation."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def turned_box(
    box: tuple[float, float, float, float], size: tuple[int, int], orientation: int
) -> tuple[float, float, float, float]:
    """A box (left, top, right, bottom) in a stored picture of `size`, in coordinates of the upright one."""
    left, top, right, bottom = box
    width, height = size
    if orientation in SIDEWAYS:
        left, top, right, bottom, width, height = top, left, bottom, right, height, width
    if orientation in (2, 3, 6, 7):
        left, right = width - right, width - left
    if orientation in (3, 4, 7, 8):
        top, bottom = height - bottom, height - top
    return left, top, right, bottom
