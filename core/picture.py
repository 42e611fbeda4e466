"""A decoded file: the upright picture, and what its file says of it."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from steersearch.core.capture_date import CaptureDate


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
