"""The generated world: photos of scenes with several things in them, and the exact mask of each.

A photo is a scene's background plate with things standing on its places, nearer ones in front. The random generator
that is passed in determines everything, so the same seed gives the same photo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageOps

from steersearch.training.world.painting import pick
from steersearch.training.world.places import Place
from steersearch.training.world.scenes import Scene
from steersearch.training.world.things import Thing

Mask = npt.NDArray[np.bool_]

MIN_VISIBLE = 0.45  # share of a thing; one that would show less is placed elsewhere


@dataclass(frozen=True)
class Placed:
    """A thing in a photo. mask: (H, W), True where it is visible; box: (left, top, right, bottom) in pixels."""

    thing: Thing
    mask: Mask
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Photo:
    """A composed picture (RGB), the family of its scene, and the things in it from back to front."""

    image: Image.Image
    family: str
    placed: tuple[Placed, ...]

    def mask(self, name: str) -> Mask:
        """(H, W), True where a thing that bears `name` is visible: the union over all of them."""
        found = [p.mask for p in self.placed if name in p.thing.names]
        empty = np.zeros((self.image.height, self.image.width), np.bool_)
        return np.logical_or.reduce(found) if found else empty


@dataclass(frozen=True)
class Spot:
    """Position and size of a thing: bottom centre in unit coordinates, longer side as a share of the height."""

    x: float
    y: float
    size: float
    flip: bool = False
    angle: float = 0.0  # degrees
    hangs: bool = False  # its centre, not its foot, is at (x, y), and it throws no shadow


def choose_spot(
    thing: Thing,
    places: Sequence[Place],
    rng: np.random.Generator,
    size: tuple[float, float],
    loose: float = 0.25,
) -> Spot:
    """A spot on one of the scene's places that suit the thing; with probability `loose`, anywhere in the picture.

    size: range of the longer side, as a share of the picture's height
    """
    side = rng.uniform(*size) * float(np.clip(thing.scale, 0.8, 1.25))
    hanging = thing.stands in ("wall", "air")
    suited = [p for p in places if (p.kind in ("wall", "air")) == hanging]
    flip, anywhere = rng.random() < 0.5, not suited or rng.random() < loose
    angle = float(rng.normal(0, 5 if anywhere else 1.5))  # standing things are nearly upright
    if anywhere:
        x, y = rng.uniform(0.1, 0.9), float(rng.uniform(min(0.98, side + 0.02), 0.98))
        return Spot(x, y, side, flip, angle, hangs=False)
    place = pick(rng, suited)
    x = float(np.clip(place.x + rng.normal(0, 0.03), 0.06, 0.94))
    y = float(np.clip(place.y + rng.normal(0, 0.015), 0.1, 0.99))
    return Spot(x, y, side, flip, angle, hangs=hanging)


def compose(scene: Scene, wanted: Sequence[tuple[Thing, Spot]]) -> Photo:
    """Put the things into the scene. The lower a thing's foot, the nearer it is; nearer things hide others."""
    image = scene.image.copy()
    masks = _Masks(image.size)
    order = _back_to_front(wanted)
    for i in order:
        thing, spot = wanted[i]
        cutout = _resized(thing.picture.convert("RGBa"), spot, image.height).convert("RGBA")
        corner = _corner(cutout.size, spot, image.size)
        if not spot.hangs:
            _throw_shadow(image, spot, cutout.size)
        image.paste(cutout, corner, cutout)
        masks.add(cutout.getchannel("A"), corner)
    things = [wanted[i][0] for i in order]
    return Photo(image, scene.family, tuple(map(Placed, things, masks.visible, masks.boxes)))


def visible_masks(size: tuple[int, int], wanted: Sequence[tuple[Thing, Spot]]) -> list[tuple[Thing, Mask]]:
    """The masks of `compose`, from back to front, without painting the picture, whose (width, height) is `size`."""
    masks = _Masks(size)
    order = _back_to_front(wanted)
    for i in order:
        thing, spot = wanted[i]
        alpha = _resized(thing.picture.getchannel("A"), spot, size[1])
        masks.add(alpha, _corner(alpha.size, spot, size))
    return [(wanted[i][0], mask) for i, mask in zip(order, masks.visible, strict=True)]


def _back_to_front(wanted: Sequence[tuple[Thing, Spot]]) -> list[int]:
    return sorted(range(len(wanted)), key=lambda i: (not wanted[i][1].hangs, wanted[i][1].y))


def _corner(cutout: tuple[int, int], spot: Spot, size: tuple[int, int]) -> tuple[int, int]:
    """The upper left corner in the picture, in pixels, of a cutout of this size."""
    left = round(spot.x * size[0] - cutout[0] / 2)
    return left, round(spot.y * size[1] - (cutout[1] / 2 if spot.hangs else cutout[1]))


class _Masks:
    """The visible parts of the things put into a picture so far; each hides parts of earlier ones."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.visible: list[Mask] = []
        self.boxes: list[tuple[int, int, int, int]] = []

    def add(self, alpha: Image.Image, corner: tuple[int, int]) -> None:
        (width, height), (left, top) = self.size, corner
        mask = np.zeros((height, width), np.bool_)
        box = (max(0, left), max(0, top), min(width, left + alpha.width), min(height, top + alpha.height))
        if box[0] < box[2] and box[1] < box[3]:
            inside = (slice(box[1], box[3]), slice(box[0], box[2]))
            opaque = np.asarray(alpha) > 127
            mask[inside] = opaque[box[1] - top : box[3] - top, box[0] - left : box[2] - left]
            for other in self.visible:
                other[inside] &= ~mask[inside]
        self.visible.append(mask)
        self.boxes.append(box)


def place_things(
    scene: Scene,
    things: Sequence[Thing],
    rng: np.random.Generator,
    size: tuple[float, float] = (0.17, 0.45),
    standing: Sequence[tuple[Thing, Spot]] = (),
    loose: float = 0.25,
) -> list[tuple[Thing, Spot]]:
    """Find a spot for each thing so that all of them, and those already `standing`, stay visible.

    A thing for which no such spot is found in a dozen tries is left out.
    """
    placed = list(standing)
    for thing in things:
        for _ in range(12):
            spot = choose_spot(thing, scene.places, rng, size, loose)
            if _all_visible([*placed, (thing, spot)], scene.image.size):
                placed.append((thing, spot))
                break
    return placed


def _all_visible(wanted: Sequence[tuple[Thing, Spot]], size: tuple[int, int]) -> bool:
    """Whether each thing's box keeps MIN_VISIBLE of its area outside the newest one's and inside the picture."""
    aspect = size[0] / size[1]

    def box(thing: Thing, spot: Spot) -> tuple[float, float, float, float]:
        scale = spot.size / max(thing.picture.size)
        w, h = thing.picture.width * scale / aspect, thing.picture.height * scale
        bottom = spot.y + h / 2 if spot.hangs else spot.y
        return spot.x - w / 2, bottom - h, spot.x + w / 2, bottom

    newest = box(*wanted[-1])
    inside = _overlap(newest, (0, 0, 1, 1)) / _area(newest)
    if inside < 0.8:
        return False
    for other in wanted[:-1]:
        there = box(*other)
        shared = _overlap(newest, there)
        if shared > (1 - MIN_VISIBLE) * min(_area(there), _area(newest)):
            return False
    return True


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _resized(picture: Image.Image, spot: Spot, height: int) -> Image.Image:
    """The cutout as it appears in the photo: scaled, mirrored and rotated as the spot says.

    In colour it must be RGBa: premultiplied colours leave no dark or light fringe when resized.
    """
    scale = spot.size * height / max(picture.size)
    size = (max(2, round(picture.width * scale)), max(2, round(picture.height * scale)))
    cutout = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    if spot.flip:
        cutout = ImageOps.mirror(cutout)
    if abs(spot.angle) > 0.5:
        cutout = cutout.rotate(spot.angle, Image.Resampling.BILINEAR, expand=True)
    return cutout


def _throw_shadow(image: Image.Image, spot: Spot, size: tuple[int, int]) -> None:
    """A soft ellipse under the thing's foot."""
    width, depth = max(3, round(size[0] * 1.15)), max(2, round(size[0] * 0.22))
    left, top = round(spot.x * image.width - width / 2), round(spot.y * image.height - depth * 0.62)
    image.paste((25, 20, 30), (left, top), _shadow(width, depth))


@lru_cache(maxsize=512)
def _shadow(width: int, depth: int) -> Image.Image:
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, depth))
    soft = np.clip(1 - np.hypot(x, y), 0, 1) ** 0.8 * 110
    return Image.fromarray(soft.astype(np.uint8))


def relight(image: Image.Image, rng: np.random.Generator, amount: float = 0.18) -> Image.Image:
    """The same photo in another light: brightness, contrast and saturation each vary by about `amount`."""
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhancer(image).enhance(float(np.clip(rng.normal(1, amount), 0.55, 1.5)))
    return image
