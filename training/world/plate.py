"""A sheet to paint background plates on: flat shapes, soft gradients, shadows and paper grain, all cheap.

Coordinates are fractions of the sheet's width (x, to the right) and height (y, down); radii and stroke widths
are fractions of its height, so that a circle stays a circle on a wide sheet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from steersearch.training.world.painting import Array, Colour, Point, mix, pick, shade, vary
from steersearch.training.world.places import Mood, Place

T = TypeVar("T")

OVERSAMPLE = 2
SHADOW = (34, 26, 52)  # shadows lean towards violet, as in watercolour

Outline = Sequence[Point] | npt.NDArray[np.float64]


def box(left: float, top: float, right: float, bottom: float) -> list[Point]:
    """The corners of an upright rectangle."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


_WAVES = np.array([2.0, 3.0, 5.0, 8.0])  # the tremor of the hand that draws a blob
_TURN = np.linspace(0, 2 * np.pi, 56, endpoint=False)
_PAPER_SIDE = 1024
_MOTTLE, _GRAIN = 0.025, 0.012  # strength of the watercolour blotches and of the paper's grain
_FLAT_BELOW = 0.08  # shapes lower than this fraction of the height show no gradient


@lru_cache(maxsize=16)
def _circle(steps: int) -> npt.NDArray[np.float64]:
    """Points on the unit circle, (steps, 2)."""
    turn = np.linspace(0, 2 * np.pi, steps, endpoint=False)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)


@lru_cache(maxsize=1)
def _paper() -> Array:
    """Paper grain to cut pieces from: (side, side), mean 0, standard deviation 1."""
    noise = np.random.default_rng(0).integers(0, 256, (_PAPER_SIDE, _PAPER_SIDE), dtype=np.uint8)
    soft = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(0.6)), np.float32)
    grain: Array = (soft - soft.mean()) / soft.std()
    return grain


def _byte(colour: Colour) -> tuple[int, int, int]:
    r, g, b = colour
    return (
        min(255, max(0, round(r * 255))),
        min(255, max(0, round(g * 255))),
        min(255, max(0, round(b * 255))),
    )


class Plate:
    """A sheet of `size` (width, height) pixels at one hour of the day; `finish` gives the picture.

    rng: decides all that varies.  places: where objects can stand, in the order in which they were painted
    """

    def __init__(self, size: tuple[int, int], rng: np.random.Generator, mood: Mood) -> None:
        self.size, self.rng, self.mood = size, rng, mood
        self.places: list[Place] = []
        self.aspect = size[0] / size[1]
        self.wide, self.high = size[0] * OVERSAMPLE, size[1] * OVERSAMPLE
        self.image = Image.new("RGB", (self.wide, self.high), (255, 255, 255))
        self.pen = ImageDraw.Draw(self.image)

    # ---- chance ------------------------------------------------------------------------------------
    def uniform(self, low: float, high: float) -> float:
        return self.rng.uniform(low, high)

    def integer(self, low: int, high: int | None = None) -> int:
        """An integer from `low` to `high` - 1, or from 0 to `low` - 1."""
        return int(self.rng.integers(low, high))

    def chance(self, odds: float) -> bool:
        return self.rng.random() < odds

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        return pick(self.rng, options)

    def tone(self, paints: Sequence[Colour], amount: float = 0.06) -> Colour:
        """A slight variation of one of the paints."""
        return vary(self.pick(paints), self.rng, amount)

    # ---- places ------------------------------------------------------------------------------------
    def on_ground(self, horizon: float, first: float, count: int = 10) -> None:
        """Places on a floor that recedes to `horizon`: rows from height `first` down, in shuffled columns."""
        columns = (self.rng.permutation(count) + self.rng.uniform(0.2, 0.8, count)) / count
        rows = first + (0.98 - first) * (np.arange(count) + self.rng.uniform(0.1, 0.9, count)) / count
        self.places += [
            Place(float(x), float(y), float(0.14 + 0.26 * (y - horizon) / (1 - horizon)), "floor")
            for x, y in zip(columns, rows, strict=True)
        ]

    def along(self, left: float, right: float, y: float, size: float, kind: str, count: int) -> None:
        """`count` places in a row from `left` to `right` at height `y`."""
        xs = left + (right - left) * (np.arange(count) + self.rng.uniform(0.3, 0.7, count)) / count
        self.places += [Place(float(x), y, size, kind) for x in xs]

    def in_air(self, lowest: float, count: int) -> None:
        """Places in the sky, one in each of `count` columns, not below height `lowest`."""
        columns = (np.arange(count) + self.rng.uniform(0.2, 0.8, count)) / count
        self.places += [Place(float(x), self.uniform(0.1, lowest), 0.18, "air") for x in columns]

    # ---- outlines ----------------------------------------------------------------------------------
    def oval(self, x: float, y: float, rx: float, ry: float | None = None, steps: int = 40) -> Outline:
        """An ellipse; both radii in fractions of the height."""
        radii = (rx / self.aspect, rx if ry is None else ry)
        outline: Outline = _circle(steps) * radii + (x, y)
        return outline

    def blob(self, x: float, y: float, rx: float, ry: float | None = None, wobble: float = 0.12) -> Outline:
        """An ellipse drawn by an unsteady hand: foliage, clouds, rocks."""
        radii = (rx / self.aspect, rx if ry is None else ry)
        amount = wobble * self.rng.normal(0, 0.8, len(_WAVES)) / np.sqrt(_WAVES)
        phase = self.rng.uniform(0, 2 * np.pi, len(_WAVES))
        reach = 1 + np.cos(_WAVES * _TURN[:, None] + phase) @ amount
        outline: Outline = _circle(len(_TURN)) * reach[:, None] * radii + (x, y)
        return outline

    def ridge(self, y: float, swing: float, waves: float) -> Outline:
        """Everything below a rolling line around height `y`: hills, dunes, hedges."""
        x = np.linspace(-0.02, 1.02, 64)
        line = np.full_like(x, y)
        for k in (0.5, 1.0, 2.3):
            phase = self.rng.uniform(0, 6.28)
            line += swing / (1 + k) * np.sin(2 * np.pi * waves * k * x * self.aspect / 1.4 + phase)
        return [*zip(x.tolist(), line.tolist(), strict=True), (1.02, 1.0), (-0.02, 1.0)]

    # ---- paint -------------------------------------------------------------------------------------
    def fill(
        self,
        outline: Outline,
        top: Colour,
        bottom: Colour | None = None,
        *,
        rim: float = 0.0,
        opacity: float = 1.0,
    ) -> None:
        """Fill with one colour, or with a gradient down to `bottom`; `rim` darkens the edge line."""
        dots = np.asarray(outline, np.float64) * (self.wide, self.high)
        middle = top if bottom is None else mix(top, bottom, 0.5)
        if opacity < 1 or (bottom is not None and np.ptp(dots[:, 1]) > _FLAT_BELOW * self.high):
            self._fill_softly(dots, top, top if bottom is None else bottom, opacity)
        else:
            self.pen.polygon(dots.ravel().tolist(), fill=_byte(middle))
        if rim > 0:
            closed = np.concatenate([dots, dots[:1]]).ravel().tolist()
            width = max(1, round(0.0045 * self.high))
            self.pen.line(closed, fill=_byte(shade(middle, 1 - rim)), width=width, joint="curve")

    def shaded(self, outline: Outline, colour: Colour, top: float, bottom: float, rim: float = 0.0) -> None:
        """Fill with a gradient of one colour, from its shade `top` down to its shade `bottom`."""
        self.fill(outline, shade(colour, top), shade(colour, bottom), rim=rim)

    def block(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """Fill an upright rectangle flatly: the quickest way to lay tiles, stones and bars."""
        corners = (left * self.wide, top * self.high, right * self.wide - 1, bottom * self.high - 1)
        if corners[2] >= corners[0] and corners[3] >= corners[1]:
            self.pen.rectangle(corners, fill=_byte(colour))

    def _fill_softly(
        self, dots: npt.NDArray[np.float64], top: Colour, bottom: Colour, opacity: float
    ) -> None:
        frame = self._frame(dots, 0)
        if frame is None:
            return
        left, upper, right, lower = frame
        first, last = float(dots[:, 1].min()), float(dots[:, 1].max())
        way = ((np.arange(upper, lower) - first) / (last - first + 1e-6))[:, None]
        start, end = np.array(_byte(top)), np.array(_byte(bottom))
        ramp = (start + (end - start) * np.clip(way, 0, 1) + 0.5).astype(np.uint8)
        size = (right - left, lower - upper)
        strip = Image.fromarray(ramp[:, None, :]).resize(size, Image.Resampling.NEAREST)
        mask = Image.new("L", size, 0)
        ImageDraw.Draw(mask).polygon((dots - (left, upper)).ravel().tolist(), fill=round(255 * opacity))
        self.image.paste(strip, (left, upper), mask)

    def _frame(self, dots: npt.NDArray[np.float64], pad: int) -> tuple[int, int, int, int] | None:
        left, upper = (math.floor(v) - pad for v in dots.min(axis=0))
        right, lower = (math.ceil(v) + pad + 1 for v in dots.max(axis=0))
        left, upper, right, lower = max(0, left), max(0, upper), min(self.wide, right), min(self.high, lower)
        return (left, upper, right, lower) if right > left and lower > upper else None

    def line(self, points: Outline, colour: Colour, width: float) -> None:
        """A stroke; at least one working pixel wide."""
        dots = (np.asarray(points, np.float64) * (self.wide, self.high)).ravel().tolist()
        self.pen.line(dots, fill=_byte(colour), width=max(1, round(width * self.high)), joint="curve")

    def shadow(self, outline: Outline, strength: float = 0.3, blur: float = 0.02) -> None:
        """Darken softly what is painted so far under `outline`."""
        dots = np.asarray(outline, np.float64) * (self.wide, self.high)
        self._soft_paste(dots, SHADOW, strength, blur)

    def light(self, outline: Outline, colour: Colour, strength: float = 0.3, blur: float = 0.02) -> None:
        """Lighten softly: a sunbeam on the floor, a glow around the sun."""
        dots = np.asarray(outline, np.float64) * (self.wide, self.high)
        self._soft_paste(dots, _byte(colour), strength, blur)

    def _soft_paste(
        self, dots: npt.NDArray[np.float64], colour: tuple[int, int, int], strength: float, blur: float
    ) -> None:
        coarse = 4  # soft edges need no fine mask
        frame = self._frame(dots, round(2.5 * blur * self.high) + coarse)
        if frame is None:
            return
        left, upper, right, lower = frame
        size = (right - left, lower - upper)
        mask = Image.new("L", (max(1, size[0] // coarse), max(1, size[1] // coarse)), 0)
        scale = (mask.width / size[0], mask.height / size[1])
        ImageDraw.Draw(mask).polygon(
            ((dots - (left, upper)) * scale).ravel().tolist(), fill=round(255 * strength)
        )
        mask = mask.filter(ImageFilter.GaussianBlur(blur * self.high / coarse))
        self.image.paste(colour, frame, mask.resize(size, Image.Resampling.BILINEAR))

    # ---- the finished picture ------------------------------------------------------------------------
    def finish(self, tint: Colour, side_light: float) -> Image.Image:
        """The sheet at its final size under a tinted light that falls off from one upper corner.

        side_light: fall-off across the picture, 0..0.4, negative for light from the right
        """
        width, height = self.size
        rows, columns = 10, max(4, round(10 * self.aspect))
        y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
        fall = 1 - side_light * (x / (columns - 1) - 0.4) - abs(side_light) * 0.5 * (y / (rows - 1) - 0.4)
        blotches = 1 + _MOTTLE * self.rng.standard_normal((rows, columns), dtype=np.float32)
        lightmap = Image.fromarray((fall * blotches).astype(np.float32)).resize(
            self.size, Image.Resampling.BICUBIC
        )
        down, along = self.rng.integers(0, _PAPER_SIDE, 2)
        texture = _paper().take(np.arange(down, down + height), axis=0, mode="wrap")
        texture = texture.take(np.arange(along, along + width), axis=1, mode="wrap")
        factor = np.asarray(lightmap, np.float32) * (1 + np.float32(_GRAIN) * texture)
        pixels = np.asarray(self.image.reduce(OVERSAMPLE), np.float32) * factor[..., None]
        pixels *= np.asarray(tint, np.float32)
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
