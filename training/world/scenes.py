"""Background plates of the generated world: six families of scenes, every plate drawn from a random generator.

A plate shows only fixtures (counters, windows, fences, hills). Nothing that the world places later as an
object is ever painted into one, so a prompt about an object is true only where the object was placed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from steersearch.training.world.outdoors import paint_beach, paint_garden, paint_street
from steersearch.training.world.painting import Colour, Pattern, pick, vary
from steersearch.training.world.places import FRONTS, LEAVES, MOODS, PAINTS, WALLS, WOODS, Place
from steersearch.training.world.plate import Plate, box
from steersearch.training.world.rooms import paint_bathroom, paint_kitchen, paint_living_room

_PAINTERS: dict[str, Callable[[Plate], None]] = {
    "kitchen": paint_kitchen,
    "living room": paint_living_room,
    "bathroom": paint_bathroom,
    "street": paint_street,
    "garden": paint_garden,
    "beach": paint_beach,
}
FAMILIES = tuple(_PAINTERS)


@dataclass(frozen=True)
class Scene:
    """A background plate with the spots that objects can take in it."""

    family: str
    image: Image.Image
    places: tuple[Place, ...]


def draw_scene(family: str, rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """A new plate of one of FAMILIES.

    size: (width, height) in pixels, aspect between 3:4 and 16:9. Raises KeyError for an unknown family.
    """
    paint = _PAINTERS[family]
    plate = Plate(size, rng, pick(rng, MOODS))
    paint(plate)
    image, places = plate.finish(plate.mood.tint, side_light=plate.uniform(-0.28, 0.28)), plate.places
    if plate.chance(0.5):
        image = ImageOps.mirror(image)
        places = [replace(place, x=1 - place.x) for place in places]
    return Scene(family, image, tuple(_fit(place, plate.aspect) for place in places))


def _fit(place: Place, aspect: float) -> Place:
    """The place, moved so that a square object lies inside the picture."""
    size = float(np.clip(place.size, 0.15, 0.45))
    half = 0.5 * size / aspect
    above, below = (0.5 * size, 0.5 * size) if place.kind in ("wall", "air") else (size, 0.0)
    x = float(np.clip(place.x, half, 1 - half))
    y = float(np.clip(place.y, above + 0.005, 0.99 - below))
    return Place(x, y, size, place.kind)


def draw_texture(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A background without a scene, RGB: a gradient, noise, an ornament, plaid or blurred blots."""
    width, height = size
    palette = WALLS + PAINTS + FRONTS + LEAVES + WOODS
    first, second = vary(pick(rng, palette), rng, 0.1), vary(pick(rng, palette), rng, 0.1)
    style = int(rng.integers(5))
    if style == 4:
        return _blots(rng, size, palette)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / height
    turn = rng.uniform(0, np.pi)
    way = x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn))
    if style == 0:
        weight = (way - way.min()) / max(1e-6, float(way.max() - way.min()))
    elif style == 1:
        coarse = int(rng.integers(4, 40))
        grid = rng.random((coarse, coarse), dtype=np.float32)
        weight = np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC), np.float32)
    elif style == 2:
        name = pick(rng, ("striped", "dotted", "checked", "zigzag"))
        weight = Pattern(name, second, rng.uniform(0.05, 0.25), turn).weight(x, y)
    else:
        step = np.float32(rng.uniform(0.1, 0.3))
        weight = 0.5 * (np.mod(x, step) < 0.4 * step) + 0.5 * (np.mod(y, step) < 0.4 * step)
    pixels = np.asarray(first, np.float32) + weight[..., None] * (np.asarray(second, np.float32) - first)
    pixels += rng.normal(0, 0.015, (height, width, 1)).astype(np.float32)
    return Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))


def _blots(rng: np.random.Generator, size: tuple[int, int], palette: tuple[Colour, ...]) -> Image.Image:
    """Colour blots, blurred into one another."""
    plate = Plate(size, rng, MOODS[0])
    plate.fill(box(0, 0, 1, 1), plate.pick(palette))
    for _ in range(14):
        blot = plate.blob(rng.random(), rng.random(), rng.uniform(0.08, 0.35), wobble=0.25)
        plate.fill(blot, plate.tone(palette, 0.1))
    soft = plate.finish((1.0, 1.0, 1.0), 0.1)
    return soft.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 0.05) * size[1]))
