"""Shared by all scenes: paints, hours of the day, and places where objects can stand."""

from __future__ import annotations

from dataclasses import dataclass

from steersearch.training.world.painting import Colour

WALLS: tuple[Colour, ...] = (
    (0.96, 0.90, 0.76), (0.78, 0.87, 0.84), (0.93, 0.80, 0.74), (0.80, 0.84, 0.92), (0.90, 0.87, 0.82),
    (0.72, 0.80, 0.68), (0.95, 0.86, 0.62), (0.62, 0.72, 0.78), (0.86, 0.74, 0.80), (0.74, 0.62, 0.56),
    (0.50, 0.60, 0.62), (0.88, 0.66, 0.52),
)  # fmt: skip
WOODS: tuple[Colour, ...] = (
    (0.76, 0.57, 0.38), (0.60, 0.41, 0.27), (0.85, 0.70, 0.50), (0.46, 0.32, 0.24), (0.70, 0.62, 0.54),
)  # fmt: skip
PAINTS: tuple[Colour, ...] = (
    (0.93, 0.91, 0.86), (0.55, 0.68, 0.66), (0.42, 0.53, 0.62), (0.70, 0.75, 0.60), (0.83, 0.62, 0.50),
    (0.90, 0.82, 0.66), (0.66, 0.47, 0.42), (0.36, 0.47, 0.44),
)  # fmt: skip
FRONTS: tuple[Colour, ...] = (
    (0.88, 0.66, 0.52), (0.93, 0.83, 0.62), (0.72, 0.80, 0.82), (0.80, 0.55, 0.48), (0.85, 0.80, 0.74),
    (0.66, 0.74, 0.62), (0.62, 0.60, 0.70), (0.94, 0.90, 0.84), (0.76, 0.47, 0.38),
)  # fmt: skip
LEAVES: tuple[Colour, ...] = (
    (0.42, 0.60, 0.30), (0.32, 0.52, 0.34), (0.55, 0.64, 0.28), (0.38, 0.56, 0.44), (0.74, 0.58, 0.26),
)  # fmt: skip
BLOSSOMS: tuple[Colour, ...] = (
    (0.93, 0.50, 0.54), (0.97, 0.85, 0.45), (0.95, 0.94, 0.92), (0.66, 0.52, 0.80), (0.95, 0.62, 0.34),
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A spot where an object can be put.

    x, y: fractions of the picture's width and height; for kind "floor" and "table" the object's bottom
          centre, for "wall" and "air" its centre
    size: usual height of an average object there, as a fraction of the picture's height
    """

    x: float
    y: float
    size: float
    kind: str


@dataclass(frozen=True)
class Mood:
    """The hour and weather: `tint` multiplies the finished picture, the sky runs from `zenith` to `haze`."""

    tint: Colour
    zenith: Colour
    haze: Colour
    evening: bool = False


MOODS = (
    Mood((1.00, 1.00, 0.98), (0.45, 0.68, 0.90), (0.85, 0.93, 0.96)),
    Mood((1.03, 0.99, 0.92), (0.55, 0.75, 0.90), (0.98, 0.93, 0.80)),
    Mood((0.95, 0.97, 1.00), (0.66, 0.73, 0.78), (0.86, 0.88, 0.88)),
    Mood((1.04, 0.94, 0.86), (0.62, 0.58, 0.74), (1.00, 0.78, 0.58), evening=True),
    Mood((0.84, 0.85, 0.98), (0.22, 0.27, 0.48), (0.62, 0.55, 0.66), evening=True),
    Mood((1.02, 0.97, 0.96), (0.50, 0.74, 0.84), (0.98, 0.86, 0.84)),
)
