"""What a camera wrote beside the picture: which side is up, and when it was taken."""

from __future__ import annotations

from datetime import datetime

from PIL import Image

_ORIENTATION, _CHANGED_AT = 0x0112, 0x0132
_CAMERA, _TAKEN_AT, _DIGITISED_AT = 0x8769, 0x9003, 0x9004

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


def taken_at(image: Image.Image) -> datetime | None:
    """When the photo was taken, as its EXIF block says: local time without a zone; None where it does not.

    Where the time of the shot (DateTimeOriginal) is missing, the next best is taken: when it was digitised, then
    when the file was last changed by a camera or an editor (DateTime). A damaged block is none.
    """
    try:
        exif = image.getexif()
        camera = exif.get_ifd(_CAMERA)
    except Exception:  # as above
        return None
    texts = (camera.get(_TAKEN_AT), camera.get(_DIGITISED_AT), exif.get(_CHANGED_AT))
    return next((time for time in map(_time, texts) if time is not None), None)


def _time(text: object) -> datetime | None:
    try:
        return datetime.strptime(str(text).strip("\0 ")[:19], "%Y:%m:%d %H:%M:%S")
    except ValueError:  # missing, blank, or "0000:00:00 00:00:00" of a camera whose clock was never set
        return None
