"""A decoded picture: upright, with what its file says of it."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from steersearch.core.images.dates import CaptureDate


@dataclass(frozen=True)
class Picture:
    """A decoded file.

    image: upright RGB in sRGB, perhaps at a reduced scale.
    size: (width, height) in pixels of the whole picture, upright.
    taken_at: when, as the file says, see `capture_date`; None where it does not.
    box: left, top, right, bottom of the whole picture in `image`. At a reduced scale its sides need not be whole
        numbers; what is resized from other sides is shifted by up to a pixel.
    remark: what could not be done as a viewer would, in words for the user.
    """

    image: Image.Image
    size: tuple[int, int]
    taken_at: CaptureDate | None
    box: tuple[float, float, float, float]
    remark: str | None = None


def image_of(picture: Picture | Image.Image) -> Image.Image:
    """The image alone, for those that do without the box."""
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
SIDEWAYS = (5, 6, 7, 8)  # orientations under which width and height change places


def orientation_of(image: Image.Image) -> int:
    """How the picture is stored, 1 (upright) to 8; 1 where nothing says so or the EXIF block is damaged."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
        return int(value) if value in _TURNS else 1
    except Exception:  # Pillow's EXIF parser raises whatever the damage leads it to
        return 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as a viewer shows one that is stored under this orientation."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def turned_box(
    box: tuple[float, float, float, float], size: tuple[int, int], orientation: int
) -> tuple[float, float, float, float]:
    """Where a box (left, top, right, bottom) in a picture of `size`, as it is stored, lies in the upright one."""
    left, top, right, bottom = box
    width, height = size
    if orientation in SIDEWAYS:
        left, top, right, bottom, width, height = top, left, bottom, right, height, width
    if orientation in (2, 3, 6, 7):
        left, right = width - right, width - left
    if orientation in (3, 4, 7, 8):
        top, bottom = height - bottom, height - top
    return left, top, right, bottom
