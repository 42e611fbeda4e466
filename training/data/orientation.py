"""Masks and boxes under EXIF orientation: drawn on the picture as stored or as shown, and needed on either.

A camera stores what its sensor saw and notes how to turn it. Viewers apply that note, most tools for data sets do not,
so both kinds of masks exist. Where the two sizes differ, the mask's size tells which; else the format must say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from steersearch.core.errors import ImageError, SampleError
from steersearch.core.images import reader
from steersearch.core.images.picture import SIDEWAYS
from steersearch.training.data.mask_codec import MaskError

Frame: TypeAlias = Literal["stored", "shown"]
Array: TypeAlias = npt.NDArray[Any]
BoxArray: TypeAlias = npt.NDArray[np.float32]  # (K, 4): left, top, width, height in pixels

# What EXIF's orientations do to an array (H, W, …) to show what is stored.
_TURNS: dict[int, Callable[[Array], Array]] = {
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: np.rot90,
}
_BACK = {6: 8, 8: 6}  # the others undo themselves


@dataclass(frozen=True)
class Header:
    """A picture's header. stored: (H, W) in pixels;  orientation: EXIF's, 1 is upright."""

    stored: tuple[int, int]
    orientation: int

    @property
    def shown(self) -> tuple[int, int]:
        """(H, W) of the picture as a viewer shows it."""
        return self.stored[::-1] if self.orientation in SIDEWAYS else self.stored

    def size(self, frame: Frame) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.shown if frame == "shown" else self.stored


def read_header(picture: Path) -> Header:
    """Of a picture file, without decoding it. Raises SampleError."""
    try:
        (width, height), orientation = reader.read_header(picture)
        return Header((height, width), orientation)
    except ImageError as error:
        reason = "no such picture" if error.reason == "no such file" else error.reason
        raise SampleError(picture, "", reason) from error


def turn(array: Array, orientation: int, wanted: Frame = "shown") -> Array:
    """(H, W, …) as stored -> as shown; or back, if "stored" is wanted."""
    number = orientation if wanted == "shown" else _BACK.get(orientation, orientation)
    return np.ascontiguousarray(_TURNS[number](array)) if number in _TURNS else array


def fit(mask: Array, header: Header, drawn_on: Frame, wanted: Frame) -> Array:
    """The mask (H, W) in the frame that is wanted. Raises MaskError if it has neither size.

    drawn_on: the frame it was drawn in, unless its size says otherwise
    """
    if mask.shape not in (header.stored, header.shown):
        sizes = [f"{size[1]} × {size[0]}" for size in (mask.shape, header.size(wanted))]
        raise MaskError(f"its mask is {sizes[0]} pixels, its picture {sizes[1]}")
    if header.stored != header.shown:
        drawn_on = "shown" if mask.shape == header.shown else "stored"
    return mask if drawn_on == wanted else turn(mask, header.orientation, wanted)


def turn_boxes(boxes: BoxArray, header: Header) -> BoxArray:
    """Boxes on the picture as stored -> as shown."""
    height, width = header.stored
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    x, y = corners[:, [0, 2]], corners[:, [1, 3]]
    if header.orientation in (2, 3, 7, 8):
        x = width - x[:, ::-1]
    if header.orientation in (3, 4, 6, 7):
        y = height - y[:, ::-1]
    if header.orientation in SIDEWAYS:
        x, y = y, x
    return np.stack([x[:, 0], y[:, 0], x[:, 1] - x[:, 0], y[:, 1] - y[:, 0]], axis=1)
