"""The kinds of things that the generated world draws, each with its looks: one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from steersearch.training.world import objects_home as home
from steersearch.training.world import objects_outside as outside
from steersearch.training.world.painting import PALETTE, Canvas, Colour, Look, pick, vary

Paint = Callable[[Canvas, Look, Colour, np.random.Generator], None]

BRIGHT = "red orange yellow green turquoise blue purple pink"
ORNAMENTS = "plain striped dotted checked zigzag"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of drawn object.

    name:     the noun, such as "remote control"
    category: a wider word, such as "toy"
    paint:    draws one on a Canvas: paint(canvas, look, main colour, rng)
    colours:  names in PALETTE that its main colour can have
    patterns: ornaments that it can have, see Pattern
    shapes:   adjectives for its variants of form; "" is the plain one
    scale:    usual size beside other objects, 1 is average
    stands:   "floor", "table", "wall" or "air"
    """

    name: str
    category: str
    paint: Paint
    colours: tuple[str, ...]
    patterns: tuple[str, ...]
    shapes: tuple[str, ...]
    scale: float
    stands: str

    def sample_look(self, rng: np.random.Generator) -> Look:
        """A random variant."""
        colour, pattern, shape = (
            pick(rng, options) for options in (self.colours, self.patterns, self.shapes)
        )
        return Look(kind=self.name, colour=colour, pattern=pattern, shape=shape)

    def draw(self, look: Look, rng: np.random.Generator, size: int = 256) -> Image.Image:
        """One object as an RGBA cutout whose longer side is at most `size`; `rng` sets its tone and small details."""
        canvas = Canvas(size)
        self.paint(canvas, look, vary(PALETTE[look.colour], rng), rng)
        return canvas.finish()


def _kind(
    name: str,
    category: str,
    paint: Paint,
    colours: str,
    patterns: str = "plain",
    shapes: str = "",
    scale: float = 1.0,
    stands: str = "table",
) -> Kind:
    """A row of the table; lists are space-separated words, and the shape "plain" has no word."""
    variants = tuple("" if shape == "plain" else shape for shape in shapes.split()) or ("",)
    return Kind(
        name=name, category=category, paint=paint, colours=tuple(colours.split()), patterns=tuple(patterns.split()),
        shapes=variants, scale=scale, stands=stands,
    )  # fmt: skip


_TABLE = (
    # indoors
    _kind("mug", "kitchenware", home.paint_mug, "red blue yellow white green black orange pink turquoise",
          patterns=ORNAMENTS, shapes="plain round tall", scale=0.5),
    _kind("teapot", "kitchenware", home.paint_teapot, "red blue white green yellow purple turquoise brown",
          patterns="plain striped dotted", shapes="plain tall", scale=0.8),
    _kind("bottle", "kitchenware", home.paint_bottle, "green blue brown red turquoise purple white",
          patterns="plain striped zigzag", shapes="plain tall round", scale=0.8),
    _kind("fruit bowl", "food", home.paint_fruit_bowl, "blue white green turquoise red brown black",
          patterns="plain striped dotted zigzag", shapes="plain tall", scale=0.9),
    _kind("cake", "food", home.paint_cake, "pink white brown yellow turquoise purple orange",
          patterns="plain dotted striped", shapes="plain tall", scale=0.8),
    _kind("book", "stationery", home.paint_book, "red blue green yellow brown purple black orange",
          patterns="plain striped dotted checked", shapes="plain thick square", scale=0.6),
    _kind("lamp", "furniture", home.paint_lamp, "yellow red blue green white pink orange purple",
          patterns="plain striped dotted zigzag", shapes="plain tall round", scale=1.1),
    _kind("clock", "furniture", home.paint_clock, "red blue green yellow black brown turquoise orange",
          patterns="plain striped checked", shapes="round square tall", scale=0.8, stands="wall"),
    _kind("armchair", "furniture", home.paint_armchair, "red blue green yellow brown purple pink gray turquoise",
          patterns="plain striped dotted checked", shapes="plain round tall", scale=2.2, stands="floor"),
    _kind("bookshelf", "furniture", home.paint_bookshelf, "brown white black blue green red gray",
          shapes="plain tall wide", scale=2.5, stands="floor"),
    _kind("cushion", "furniture", home.paint_cushion, "red blue green yellow purple pink orange turquoise gray white",
          patterns=ORNAMENTS, shapes="plain round square", scale=0.9),
    _kind("remote control", "gadget", home.paint_remote_control, "black gray white blue red yellow",
          shapes="plain round", scale=0.5),
    _kind("telephone", "gadget", home.paint_telephone, "red black green turquoise yellow pink blue white",
          scale=0.7),
    _kind("key", "tool", home.paint_key, "yellow gray red blue green brown black",
          shapes="plain round square", scale=0.4),
    _kind("guitar", "musical instrument", home.paint_guitar, "orange brown red blue yellow black white green",
          shapes="plain electric", scale=1.6, stands="floor"),
    _kind("teddy bear", "toy", home.paint_teddy_bear, "brown yellow white gray pink blue purple",
          scale=0.9),
    _kind("potted plant", "plant", home.paint_potted_plant, "orange red blue yellow white purple pink turquoise brown",
          patterns="plain striped zigzag dotted", shapes="plain spiky flowering"),
    # outdoors
    _kind("ball", "toy", outside.paint_ball, f"{BRIGHT} white",
          patterns="plain striped dotted checked", scale=0.8, stands="floor"),
    _kind("kite", "toy", outside.paint_kite, BRIGHT,
          patterns="plain striped checked zigzag", shapes="plain triangular", scale=1.1, stands="air"),
    _kind("balloon", "toy", outside.paint_balloon, BRIGHT,
          patterns="plain striped dotted", shapes="round long heart-shaped", stands="air"),
    _kind("rubber duck", "toy", outside.paint_rubber_duck, "yellow pink turquoise blue green red white",
          patterns="plain dotted striped", scale=0.7),
    _kind("umbrella", "clothing", outside.paint_umbrella, f"{BRIGHT} black",
          patterns="plain striped dotted checked", shapes="open closed", scale=1.2, stands="floor"),
    _kind("hat", "clothing", outside.paint_hat, "red yellow green blue purple brown gray black white",
          patterns="plain striped dotted zigzag", shapes="tall wide pointed", scale=0.9),
    _kind("boot", "clothing", outside.paint_boot, "red yellow green blue pink brown black",
          patterns="plain striped dotted checked", shapes="tall short", scale=0.9, stands="floor"),
    _kind("backpack", "bag", outside.paint_backpack, "red orange yellow green turquoise blue purple gray black",
          patterns="plain striped dotted zigzag", shapes="tall round", stands="floor"),
    _kind("suitcase", "bag", outside.paint_suitcase, "red yellow green turquoise blue purple brown black",
          patterns="plain striped checked", shapes="wheeled old", scale=1.1, stands="floor"),
    _kind("bicycle", "vehicle", outside.paint_bicycle, f"{BRIGHT} black", scale=1.7, stands="floor"),
    _kind("car", "vehicle", outside.paint_car, "red orange yellow green turquoise blue white black",
          patterns="plain striped dotted", shapes="plain open tall", scale=1.8, stands="floor"),
    _kind("sailboat", "vehicle", outside.paint_sailboat, "red orange yellow green turquoise blue white",
          patterns="plain striped checked zigzag", scale=1.5, stands="floor"),
    _kind("watering can", "tool", outside.paint_watering_can, "red yellow green turquoise blue pink gray",
          patterns="plain striped dotted", shapes="plain tall", stands="floor"),
    _kind("bucket", "tool", outside.paint_bucket, "red orange yellow green blue pink gray",
          patterns="plain striped dotted zigzag", shapes="plain tall", scale=0.9, stands="floor"),
    _kind("cat", "animal", outside.paint_cat, "orange black gray white brown",
          patterns="plain striped", shapes="sitting lying", scale=1.1, stands="floor"),
    _kind("bird", "animal", outside.paint_bird, "red orange yellow green turquoise blue brown white black",
          patterns="plain striped", shapes="plain flying", scale=0.7, stands="floor"),
    _kind("mushroom", "plant", outside.paint_mushroom, "red orange yellow purple brown white",
          patterns="plain dotted striped", shapes="plain flat tall", scale=0.8, stands="floor"),
)  # fmt: skip
KINDS: dict[str, Kind] = {kind.name: kind for kind in _TABLE}
