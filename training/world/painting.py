"""A small picture-book painter: anti-aliased shapes with soft, rounded shading, on Pillow and NumPy.

Coordinates are those of the unit square, x to the right and y down, so a drawing is independent of its size.
A shape is a mask (`L` image of the canvas' working size); `Canvas.paint` fills it as if it were a softly inflated
body lit from the upper left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

Point: TypeAlias = tuple[float, float]
Colour: TypeAlias = tuple[float, float, float]  # RGB in 0..1
Array: TypeAlias = npt.NDArray[np.float32]
T = TypeVar("T")

PALETTE: dict[str, Colour] = {
    "red": (0.85, 0.18, 0.16),
    "orange": (0.95, 0.53, 0.13),
    "yellow": (0.97, 0.82, 0.22),
    "green": (0.27, 0.62, 0.30),
    "turquoise": (0.20, 0.69, 0.67),
    "blue": (0.20, 0.41, 0.78),
    "purple": (0.52, 0.31, 0.68),
    "pink": (0.94, 0.55, 0.68),
    "brown": (0.53, 0.34, 0.20),
    "white": (0.95, 0.94, 0.90),
    "gray": (0.56, 0.58, 0.60),
    "black": (0.16, 0.16, 0.19),
}
# Of parts that keep their own colour, whatever the look names.
INK: Colour = (0.14, 0.12, 0.13)
JET: Colour = (0.13, 0.12, 0.14)
TYRE: Colour = (0.20, 0.20, 0.22)
STEEL: Colour = (0.72, 0.74, 0.77)
IRON: Colour = (0.70, 0.72, 0.75)
BRASS: Colour = (0.83, 0.65, 0.28)
WOOD: Colour = (0.55, 0.36, 0.20)
PINE: Colour = (0.66, 0.46, 0.28)
LEAF: Colour = (0.24, 0.56, 0.25)
CREAM: Colour = (0.98, 0.95, 0.86)
WHITE: Colour = (0.97, 0.97, 0.95)
GLASS: Colour = (0.72, 0.86, 0.92)
BEAK: Colour = (0.96, 0.56, 0.14)

OVERSAMPLE = 2
LIGHT = (-0.55, -0.83)  # direction towards the light, in the picture plane


def shade(colour: Colour, factor: float) -> Colour:
    """`colour` made darker (factor < 1) or mixed towards white (factor > 1, 2 is white)."""
    if factor <= 1:
        return (colour[0] * factor, colour[1] * factor, colour[2] * factor)
    return mix(colour, (1.0, 1.0, 1.0), factor - 1)


def mix(first: Colour, second: Colour, amount: float) -> Colour:
    """Linear blend, `amount` 0 is `first` and 1 is `second`."""
    blended = [a + (b - a) * amount for a, b in zip(first, second, strict=True)]
    return (blended[0], blended[1], blended[2])


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, all equally likely."""
    return options[int(rng.integers(len(options)))]


def trapezoid(x: float, top: float, foot: float, upper: float, lower: float) -> list[Point]:
    """The corners of a trapezoid that is symmetrical about `x`; `upper`, `lower`: half its width there."""
    return [(x - upper, top), (x + upper, top), (x + lower, foot), (x - lower, foot)]


def vary(colour: Colour, rng: np.random.Generator, amount: float = 0.06) -> Colour:
    """A slight variation of the colour."""
    brightness = 1 + rng.normal(0, amount)
    r, g, b = (float(np.clip(c * brightness + rng.normal(0, amount / 3), 0, 1)) for c in colour)
    return (r, g, b)


def near(rng: np.random.Generator, value: float, spread: float = 0.08) -> float:
    """`value`, varied by at most the share `spread`."""
    return value * (1 + rng.uniform(-spread, spread))


def chance(rng: np.random.Generator, odds: float = 0.5) -> bool:
    return rng.random() < odds


def luminance(colour: Colour) -> float:
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]


def is_dark(colour: Colour) -> bool:
    return luminance(colour) < 0.5


def distance(first: Colour, second: Colour) -> float:
    """Sum of the differences of the three channels, 0..3."""
    return sum(abs(a - b) for a, b in zip(first, second, strict=True))


def accent(colour: Colour, rng: np.random.Generator) -> Colour:
    """A second colour for patterns that stands out against `colour`."""
    dark = luminance(colour) < 0.55
    choices = ("white", "yellow", "pink", "turquoise") if dark else ("red", "blue", "black", "green")
    candidate = PALETTE[pick(rng, choices)]
    return candidate if distance(candidate, colour) > 0.45 else PALETTE["white" if dark else "black"]


@dataclass(frozen=True)
class Pattern:
    """A repeated ornament. `name`: plain, striped, dotted, checked, zigzag; `scale` is its period on the canvas.

    sparse: the ornament covers less than half, so that the colour below still names the object
    """

    name: str
    colour: Colour
    scale: float = 0.13
    angle: float = 0.0
    sparse: bool = False

    def weight(self, x: Array, y: Array) -> Array:
        """Coverage by the pattern's colour at (x, y) in unit coordinates, 0..1."""
        c, s = math.cos(self.angle), math.sin(self.angle)
        u, v = (x * c + y * s) / self.scale, (y * c - x * s) / self.scale
        if self.name == "striped":
            wave, less = np.cos(2 * np.pi * v), 0.35
        elif self.name == "dotted":
            row = np.floor(v)
            du, dv = u + 0.5 * (row % 2) - np.floor(u + 0.5 * (row % 2)) - 0.5, v - row - 0.5
            wave, less = (0.30 - np.hypot(du, dv)) * 3, 0.0
        elif self.name == "checked":
            wave, less = np.sin(np.pi * u) * np.sin(np.pi * v) * 1.5, 0.22
        elif self.name == "zigzag":
            wave, less = np.cos(2 * np.pi * (v + np.abs(2 * (u - np.floor(u)) - 1) * 0.5)), 0.35
        else:
            return np.zeros_like(x)
        sharpness = 3.5
        return np.clip(0.5 + (wave - less * self.sparse) * sharpness, 0, 1).astype(np.float32)


class Canvas:
    """A transparent square to paint on; `finish` gives the picture, cropped to what was painted."""

    def __init__(self, size: int = 256) -> None:
        self.side = size * OVERSAMPLE
        self.rgb: Array = np.zeros((self.side, self.side, 3), np.float32)
        self.alpha: Array = np.zeros((self.side, self.side), np.float32)

    # ---- shapes: each gives a mask ----------------------------------------------------------------
    def blank(self) -> Image.Image:
        return Image.new("L", (self.side, self.side), 0)

    def _px(self, points: Sequence[Point]) -> list[tuple[float, float]]:
        return [(x * self.side, y * self.side) for x, y in points]

    def polygon(self, points: Sequence[Point]) -> Image.Image:
        mask = self.blank()
        ImageDraw.Draw(mask).polygon(self._px(points), fill=255)
        return mask

    def blob(self, points: Sequence[Point], steps: int = 12) -> Image.Image:
        """A smooth closed curve through `points` (Catmull-Rom)."""
        return self.polygon(smooth(points, closed=True, steps=steps))

    def ellipse(
        self, cx: float, cy: float, rx: float, ry: float | None = None, angle: float = 0.0
    ) -> Image.Image:
        ry = rx if ry is None else ry
        c, s = math.cos(angle), math.sin(angle)
        turn = [2 * math.pi * i / 72 for i in range(72)]
        dots = [(rx * math.cos(t), ry * math.sin(t)) for t in turn]
        return self.polygon([(cx + x * c - y * s, cy + x * s + y * c) for x, y in dots])

    def box(self, left: float, top: float, right: float, bottom: float, radius: float = 0.0) -> Image.Image:
        mask = self.blank()
        area = [left * self.side, top * self.side, right * self.side, bottom * self.side]
        ImageDraw.Draw(mask).rounded_rectangle(area, radius * self.side, fill=255)
        return mask

    def line(self, points: Sequence[Point], width: float, smoothly: bool = False) -> Image.Image:
        """A stroke with round ends through `points`; `smoothly` bends it into a curve."""
        path = smooth(points, closed=False) if smoothly else list(points)
        mask = self.blank()
        pen = ImageDraw.Draw(mask)
        dots, w = self._px(path), max(1.0, width * self.side)
        pen.line(dots, fill=255, width=round(w), joint="curve")
        for x, y in dots:
            pen.ellipse([x - w / 2, y - w / 2, x + w / 2, y + w / 2], fill=255)
        return mask

    def ring(self, cx: float, cy: float, rx: float, ry: float, width: float) -> Image.Image:
        outer, inner = self.ellipse(cx, cy, rx, ry), self.ellipse(cx, cy, rx - width, ry - width)
        return ImageChops.subtract(outer, inner)

    def union(self, *masks: Image.Image) -> Image.Image:
        result = masks[0]
        for mask in masks[1:]:
            result = ImageChops.lighter(result, mask)
        return result

    def cut(self, mask: Image.Image, *holes: Image.Image) -> Image.Image:
        for hole in holes:
            mask = ImageChops.subtract(mask, hole)
        return mask

    def within(self, mask: Image.Image, other: Image.Image) -> Image.Image:
        return ImageChops.darker(mask, other)

    # ---- paint -------------------------------------------------------------------------------------
    def paint(
        self,
        mask: Image.Image,
        colour: Colour,
        *,
        volume: float = 0.05,
        relief: float = 1.0,
        shine: float = 0.0,
        pattern: Pattern | None = None,
        outline: float = 0.35,
        opacity: float = 1.0,
        fade: float = 0.12,
    ) -> None:
        """Fill `mask` as a softly rounded body.

        volume:  radius of the rounding of its edges, unit lengths; 0 paints flat
        relief:  strength of the light and dark sides
        shine:   strength of a glossy highlight, 0..1
        outline: how much darker the rim is, 0..1
        fade:    how much darker the foot is than the top, 0..1
        """
        found = mask.getbbox()
        if found is None:
            return
        pad = round(volume * self.side * 1.5) + 2
        left, top = max(0, found[0] - pad), max(0, found[1] - pad)
        right, bottom = min(self.side, found[2] + pad), min(self.side, found[3] + pad)
        part = mask.crop((left, top, right, bottom))
        cover: Array = np.asarray(part, np.float32) / np.float32(255)
        y, x = np.mgrid[top:bottom, left:right].astype(np.float32) / self.side

        body = np.empty((*cover.shape, 3), np.float32)
        body[:] = colour
        if pattern is not None and pattern.name != "plain":
            weight = pattern.weight(x, y)[..., None]
            body = body * (1 - weight) + np.asarray(pattern.colour, np.float32) * weight

        height = (y - found[1] / self.side) / max(1e-6, (found[3] - found[1]) / self.side)
        lit = 1 + fade * (0.5 - np.clip(height, 0, 1))
        if volume > 0:
            lit = lit + relief * _slope_light(cover, volume * self.side)
        rim = np.asarray(part.filter(ImageFilter.GaussianBlur(max(1.0, self.side * 0.004))), np.float32) / 255
        lit = lit * (1 - outline * np.clip(2 * (1 - rim), 0, 1))
        body = np.where(
            lit[..., None] <= 1, body * lit[..., None], body + (1 - body) * (lit[..., None] - 1) * 0.9
        )
        if shine > 0:
            body = _add_highlight(body, x, y, found, self.side, shine)

        self._blend(slice(top, bottom), slice(left, right), np.clip(body, 0, 1), cover * opacity)

    def _blend(self, rows: slice, columns: slice, colour: Array, cover: Array) -> None:
        below, under = self.rgb[rows, columns], self.alpha[rows, columns]
        total = cover + under * (1 - cover)
        safe = np.where(total > 0, total, 1)[..., None]
        self.rgb[rows, columns] = (
            colour * cover[..., None] + below * (under * (1 - cover))[..., None]
        ) / safe
        self.alpha[rows, columns] = total

    def shadow(self, mask: Image.Image, strength: float = 0.35, blur: float = 0.02) -> None:
        """Darken what is painted under the blurred `mask`; nothing is added outside of it."""
        soft = np.asarray(mask.filter(ImageFilter.GaussianBlur(blur * self.side)), np.float32) / 255
        self.rgb *= 1 - strength * soft[..., None]

    def finish(self) -> Image.Image:
        """The painting as an RGBA picture, cropped to its visible part."""
        pixels = np.dstack([self.rgb * self.alpha[..., None], self.alpha])
        k = OVERSAMPLE
        small = np.mean([pixels[i::k, j::k] for i in range(k) for j in range(k)], axis=0)
        opaque = np.where(small[..., 3:] > 0, small[..., 3:], 1)
        small[..., :3] /= opaque
        picture = Image.fromarray((np.clip(small, 0, 1) * 255 + 0.5).astype(np.uint8), "RGBA")
        visible = picture.getchannel("A").point(lambda a: 255 if a > 8 else 0).getbbox()
        return picture.crop(visible) if visible else picture


class Tilted:
    """Shapes of a canvas turned by `angle` radians about its middle, and mirrored left to right if asked."""

    def __init__(self, canvas: Canvas, angle: float = 0.0, mirror: bool = False) -> None:
        self.canvas = canvas
        self.cos, self.sin = math.cos(angle), math.sin(angle)
        self.sign = -1.0 if mirror else 1.0

    def at(self, points: Sequence[Point]) -> list[Point]:
        moved = [(self.sign * (x - 0.5), y - 0.5) for x, y in points]
        return [(0.5 + x * self.cos - y * self.sin, 0.5 + x * self.sin + y * self.cos) for x, y in moved]

    def polygon(self, points: Sequence[Point]) -> Image.Image:
        return self.canvas.polygon(self.at(points))

    def blob(self, points: Sequence[Point]) -> Image.Image:
        return self.canvas.blob(self.at(points), steps=8)

    def line(self, points: Sequence[Point], width: float, smoothly: bool = False) -> Image.Image:
        return self.canvas.line(self.at(points), width, smoothly)

    def ellipse(self, cx: float, cy: float, rx: float, ry: float | None = None) -> Image.Image:
        ry = rx if ry is None else ry
        turn = [2 * math.pi * i / 40 for i in range(40)]
        return self.polygon([(cx + rx * math.cos(t), cy + ry * math.sin(t)) for t in turn])

    def box(self, left: float, top: float, right: float, bottom: float, radius: float = 0.0) -> Image.Image:
        corners = [
            (right - radius, top + radius, -90),
            (right - radius, bottom - radius, 0),
            (left + radius, bottom - radius, 90),
            (left + radius, top + radius, 180),
        ]
        return self.polygon(
            [dot for x, y, start in corners for dot in arc(x, y, radius, radius, start, start + 90, 6)]
        )


def path(text: str) -> list[Point]:
    """Points as SVG writes them, in hundredths of the canvas: "50,2 84,30" is [(0.5, 0.02), (0.84, 0.3)]."""
    pairs = (pair.split(",") for pair in text.split())
    return [(float(x) / 100, float(y) / 100) for x, y in pairs]


def arc(cx: float, cy: float, rx: float, ry: float, start: float, end: float, steps: int = 24) -> list[Point]:
    """Points on an ellipse from angle `start` to `end`, in degrees clockwise from the right."""
    turns = [math.radians(start + (end - start) * i / steps) for i in range(steps + 1)]
    return [(cx + rx * math.cos(t), cy + ry * math.sin(t)) for t in turns]


def polar(x: float, y: float, radius: float, angle: float) -> Point:
    """The point at `radius` from (x, y), `angle` in radians clockwise from the right."""
    return x + radius * math.cos(angle), y + radius * math.sin(angle)


def mirrored(half: Sequence[Point]) -> list[Point]:
    """The outline whose right `half` runs from top to bottom; points on the middle line are not doubled."""
    return [*half, *((1 - x, y) for x, y in reversed(half) if x != 0.5)]


def smooth(points: Sequence[Point], closed: bool, steps: int = 12) -> list[Point]:
    """A Catmull-Rom curve through `points`."""
    count = len(points)
    dots = np.asarray(points, np.float64)
    curve: list[Point] = []
    for i in range(count if closed else count - 1):
        wrap = [(i - 1) % count, i, (i + 1) % count, (i + 2) % count]
        if not closed:
            wrap = [max(0, i - 1), i, i + 1, min(count - 1, i + 2)]
        p0, p1, p2, p3 = (dots[j] for j in wrap)
        for step in range(steps):
            t = step / steps
            p = 0.5 * (
                2 * p1
                + (p2 - p0) * t
                + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
                + (3 * p1 - p0 - 3 * p2 + p3) * t**3
            )
            curve.append((float(p[0]), float(p[1])))
    if not closed:
        curve.append((float(dots[-1][0]), float(dots[-1][1])))
    return curve


def _slope_light(cover: Array, radius: float) -> Array:
    """Shading of the inflated shape, light minus dark: its blurred mask as a height field, lit from LIGHT."""
    field = _blur(cover, radius)
    dy, dx = np.gradient(field)
    away = np.asarray((dx * LIGHT[0] + dy * LIGHT[1]) * radius, np.float32)
    light: Array = np.clip(-away * 1.1, -0.42, 0.32)
    return light


def _blur(field: Array, radius: float) -> Array:
    """Two box blurs along each axis: close to a Gaussian, and in floats, so that slopes show no bands."""
    width = max(1, round(radius))
    for axis in (0, 1, 0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (width + 1, width)
        total = np.cumsum(np.pad(field, pad, mode="constant"), axis=axis, dtype=np.float64)
        upper = np.take(total, np.arange(2 * width + 1, total.shape[axis]), axis=axis)
        lower = np.take(total, np.arange(0, total.shape[axis] - 2 * width - 1), axis=axis)
        field = ((upper - lower) / (2 * width + 1)).astype(np.float32)
    return field


def _add_highlight(
    body: Array, x: Array, y: Array, found: tuple[int, int, int, int], side: int, strength: float
) -> Array:
    """A soft glint in the upper left third of the shape's box."""
    left, top, right, bottom = (v / side for v in found)
    width, height = right - left, bottom - top
    glint = np.exp(
        -(
            ((x - left - 0.30 * width) / (0.14 * width + 1e-6)) ** 2
            + ((y - top - 0.24 * height) / (0.12 * height + 1e-6)) ** 2
        )
    )
    return body + (1 - body) * (strength * 0.85 * glint)[..., None].astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What distinguishes an object from others of its kind. `shape`: one of the kind's own words, or empty."""

    kind: str
    colour: str
    pattern: str = "plain"
    shape: str = ""

    @property
    def phrase(self) -> str:
        """The noun phrase, such as "round striped red cushion"."""
        words = [self.shape, "" if self.pattern == "plain" else self.pattern, self.colour, self.kind]
        return " ".join(word for word in words if word)
