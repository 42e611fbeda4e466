"""Instances in photographs: what they are and where, by the photograph's noun, salient mask and boxes.

The instance of a noun is all that is salient; that of a box is what is salient inside the box, or an ellipse if that
is too little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image

from steersearch.core.errors import DataError, ImageError
from steersearch.core.preprocess import open_image
from steersearch.training.photographs.detection import Detection
from steersearch.training.photographs.folder import Labelled
from steersearch.training.world.things import Thing

SIDE = 900  # pixels, the longer side at which photographs are held
LEAST_SALIENT = 0.01  # part of the picture
LEAST_BOXED = 0.002
LEAST_INSIDE = 0.25  # share of a box that must be salient
# Classes with false detections in these photographs; all were inspected.
UNRELIABLE = frozenset(
    "airplane|apple|banana|baseball bat|bear|bed|bowl|cake|cell phone|clock|frisbee|kite|knife|mouse|pizza|scissors|"
    "skis|sports ball|teddy bear|toothbrush|vase".split("|")
)
ANIMALS = frozenset({"bird", "cat", "cow", "dog", "horse", "sheep"})  # for these a noun says more

Names = Callable[[str], frozenset[str]]


@dataclass(frozen=True)
class Instance:
    """names: all that are true of it.  alpha: L, of the photograph's size: how surely each pixel belongs to it"""

    noun: str
    names: frozenset[str]
    alpha: Image.Image

    @cached_property
    def mask(self) -> npt.NDArray[np.bool_]:
        """(H, W)"""
        return np.asarray(self.alpha) > 127


@dataclass(frozen=True)
class Photograph:
    """image: RGB.  shows_one: whether its first instance is the one thing that it shows"""

    image: Image.Image
    instances: tuple[Instance, ...]
    shows_one: bool


def read_photograph(labelled: Labelled, names: Names) -> Photograph:
    """The photograph with its instances. Raises DataError."""
    try:
        image = open_image(labelled.photograph)
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        if labelled.mask is None:
            return Photograph(image, (), False)
        salient = open_image(labelled.mask).convert("L").resize(image.size, Image.Resampling.BILINEAR)
    except ImageError as error:
        raise DataError(error.path or labelled.photograph, error.reason) from error
    found = []
    if labelled.noun and (np.asarray(salient) > 127).mean() > LEAST_SALIENT:
        found.append(Instance(labelled.noun, names(labelled.noun), salient))
    shows_one = bool(found)
    taken = (
        UNRELIABLE | (found[0].names if found else frozenset()) | (ANIMALS if labelled.noun else frozenset())
    )
    for name in dict.fromkeys(box.name for box in labelled.boxes):
        alpha = _inside([box for box in labelled.boxes if box.name == name], salient)
        if name not in taken and (np.asarray(alpha) > 127).mean() > LEAST_BOXED:
            found.append(Instance(name, names(name), alpha))
    return Photograph(image, tuple(found), shows_one)


def cutout(photograph: Photograph, instance: Instance, size: int) -> Thing:
    """The instance as a thing, its longer side at most `size` pixels."""
    picture = photograph.image.copy()
    picture.putalpha(instance.alpha)
    picture = picture.crop(instance.alpha.point(lambda alpha: 255 if alpha > 127 else 0).getbbox())
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    return Thing(
        picture=picture, noun=instance.noun, phrase=instance.noun, category="", names=instance.names, source="photo",
        stands="floor",
    )  # fmt: skip


def _inside(boxes: Sequence[Detection], salient: Image.Image) -> Image.Image:
    """The salient pixels inside the boxes, which are of one class."""
    sure = np.asarray(salient)
    height, width = sure.shape
    alpha = np.zeros((height, width), np.uint8)
    for box in boxes:
        left, right = (int(side * width) for side in box.box[::2])
        top, bottom = (int(side * height) for side in box.box[1::2])
        if right <= left or bottom <= top:
            continue
        inside = sure[top:bottom, left:right] > 100
        if inside.mean() <= LEAST_INSIDE:
            y, x = np.mgrid[-1 : 1 : (bottom - top) * 1j, -1 : 1 : (right - left) * 1j]
            inside = y**2 + x**2 < 0.9
        alpha[top:bottom, left:right][inside] = 255
    return Image.fromarray(alpha)
