"""What all places share: paints, hours of the day, and the spots where objects can stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from steersearch.training.world.painting import Colour, Point

T = TypeVar("T")

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
    size: a sensible height of an average object there, as a fraction of the picture's height
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


def pick(rng: np.random.Generator, options: tuple[T, ...]) -> T:
    """One of the options, all equally likely."""
    return options[int(rng.integers(len(options)))]


def points(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> list[Point]:
    return list(zip(x.tolist(), y.tolist(), strict=True))


def on_ground(rng: np.random.Generator, horizon: float, first: float, count: int = 10) -> list[Place]:
    """Spots on a floor that recedes to `horizon`: rows from height `first` down, in shuffled columns."""
    columns = (rng.permutation(count) + rng.uniform(0.2, 0.8, count)) / count
    rows = first + (0.98 - first) * (np.arange(count) + rng.uniform(0.1, 0.9, count)) / count
    return [
        Place(float(x), float(y), float(0.14 + 0.26 * (y - horizon) / (1 - horizon)), "floor")
        for x, y in zip(columns, rows, strict=True)
    ]


def along(
    rng: np.random.Generator, left: float, right: float, y: float, size: float, kind: str, count: int
) -> list[Place]:
    """`count` spots in a row from `left` to `right` at height `y`."""
    xs = left + (right - left) * (np.arange(count) + rng.uniform(0.3, 0.7, count)) / count
    return [Place(float(x), y, size, kind) for x in xs]


def in_air(rng: np.random.Generator, lowest: float, count: int) -> list[Place]:
    """Spots in the sky, one in each of `count` columns, not below height `lowest`."""
    columns = (np.arange(count) + rng.uniform(0.2, 0.8, count)) / count
    return [Place(float(x), float(rng.uniform(0.1, lowest)), 0.18, "air") for x in columns]
