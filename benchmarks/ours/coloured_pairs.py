"""Pairs of cutouts that differ only in colour, on photographs: a red mug beside a blue one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from steersearch.benchmarks.paper.core_photographs import is_photographic, part_of
from steersearch.benchmarks.paper.core_world import stamp_stock
from steersearch.training.data.mask_codec import Mask
from steersearch.training.world import composition
from steersearch.training.world.photo_stock import ALIVE
from steersearch.training.world.recolour import has_one_colour, recolour
from steersearch.training.world.scenes import Scene
from steersearch.training.world.stamps import HELD_OUT_NOUNS
from steersearch.training.world.things import Thing

# The colours of `recolour.COLOURS` that cannot be confused.
APART = ("red", "yellow", "green", "blue", "white", "black", "orange", "purple", "pink")
SIZE = (0.25, 0.4)  # of a cutout, as part of the picture's height


@dataclass(frozen=True)
class Pair:
    """A photograph with two cutouts. said: "red mug", "blue mug".  masks (H, W): the visible part of each."""

    picture: Image.Image
    said: tuple[str, str]
    masks: tuple[Mask, Mask]


def coloured_pairs(grounds: Sequence[Image.Image], count: int, rng: np.random.Generator) -> Iterator[Pair]:
    """Pairs of cutouts; every second one is of a noun held out from training. Raises StampsMissingError."""
    stock = [thing for thing in (*stamp_stock(repeated=False), *stamp_stock(repeated=True)) if _fits(thing)]
    held_out = [thing for thing in stock if thing.noun in HELD_OUT_NOUNS]
    for number in range(count):
        things = held_out if number % 2 else stock
        pair = None
        while pair is None:
            pair = _pair(things[int(rng.integers(len(things)))], grounds, rng)
        yield pair


def _fits(thing: Thing) -> bool:
    return thing.category not in ALIVE and is_photographic(thing) and has_one_colour(thing.picture)


def _pair(thing: Thing, grounds: Sequence[Image.Image], rng: np.random.Generator) -> Pair | None:
    """None if there is no room for both."""
    first, second = map(str, rng.choice(APART, 2, replace=False))
    a, b = (replace(thing, picture=recolour(thing.picture, colour, rng)) for colour in (first, second))
    plate = Scene("", part_of(grounds[int(rng.integers(len(grounds)))], rng), ())
    photo = composition.compose(plate, composition.place_things(plate, [a, b], rng, SIZE, loose=1.0))
    masks = {id(placed.thing): placed.mask for placed in photo.placed}
    if id(a) not in masks or id(b) not in masks:
        return None
    return Pair(
        photo.image, (f"{first} {thing.noun}", f"{second} {thing.noun}"), (masks[id(a)], masks[id(b)])
    )
