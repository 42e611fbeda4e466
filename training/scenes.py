"""Background plates of the generated world: six sorts of places, each drawn anew from a random generator.

A plate shows only fixtures (counters, windows, fences, hills). Nothing that the world places later as an object is
ever painted into one, so that a prompt about an object is true of a photo only where the object was placed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter, ImageOps

from steersearch.training.drawing import Colour, Pattern, Point, mix, shade, vary
from steersearch.training.plate import Outline, Plate, box

T = TypeVar("T")

FAMILIES = ("kitchen", "living room", "bathroom", "street", "garden", "beach")

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

    x, y: fractions of the picture's width and height; the object's bottom centre for kind "floor" and "table",
          its centre for "wall" and "air"
    size: a sensible height of an average object there, as a fraction of the picture's height
    """

    x: float
    y: float
    size: float
    kind: str


@dataclass(frozen=True)
class Scene:
    """A background plate with the spots that objects can take in it."""

    family: str
    image: Image.Image
    places: tuple[Place, ...]


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


def draw_scene(family: str, rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """A new plate of one of FAMILIES.

    size: (width, height) in pixels, aspect between 3:4 and 16:9. Raises KeyError for an unknown family.
    """
    painter = _PAINTERS[family]
    plate = Plate(size, rng)
    mood = pick(rng, MOODS)
    places = painter(plate, mood, rng)
    image = plate.finish(mood.tint, side_light=float(rng.uniform(-0.28, 0.28)))
    if rng.random() < 0.5:
        image = ImageOps.mirror(image)
        places = [replace(place, x=1 - place.x) for place in places]
    return Scene(family, image, tuple(_fit(place, plate.aspect) for place in places))


def _fit(place: Place, aspect: float) -> Place:
    """The place moved so that an object about as wide as it is high lies inside the picture."""
    size = float(np.clip(place.size, 0.15, 0.45))
    half = 0.5 * size / aspect
    above, below = (0.5 * size, 0.5 * size) if place.kind in ("wall", "air") else (size, 0.0)
    x = float(np.clip(place.x, half, 1 - half))
    y = float(np.clip(place.y, above + 0.005, 0.99 - below))
    return Place(x, y, size, place.kind)


def _points(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> list[Point]:
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _on_ground(rng: np.random.Generator, horizon: float, first: float, count: int = 10) -> list[Place]:
    """Spots on a floor that recedes to `horizon`, on rows from height `first` down, shuffled across the width."""
    columns = (rng.permutation(count) + rng.uniform(0.2, 0.8, count)) / count
    rows = first + (0.98 - first) * (np.arange(count) + rng.uniform(0.1, 0.9, count)) / count
    return [
        Place(float(x), float(y), float(0.14 + 0.26 * (y - horizon) / (1 - horizon)), "floor")
        for x, y in zip(columns, rows, strict=True)
    ]


def _along(
    rng: np.random.Generator, left: float, right: float, y: float, size: float, kind: str, count: int
) -> list[Place]:
    """`count` spots in a row from `left` to `right` at height `y`."""
    xs = left + (right - left) * (np.arange(count) + rng.uniform(0.3, 0.7, count)) / count
    return [Place(float(x), y, size, kind) for x in xs]


# ---- indoors: walls, floors, openings --------------------------------------------------------------------


def _papered_wall(p: Plate, rng: np.random.Generator, bottom: float) -> Colour:
    """A painted or papered wall from the top edge down to `bottom`; gives its colour."""
    colour = vary(pick(rng, WALLS), rng, 0.05)
    p.fill(box(0, 0, 1, bottom), shade(colour, 1.08), shade(colour, 0.92))
    ornament = shade(colour, float(rng.choice([0.88, 0.92, 1.25, 1.45])))
    style = int(rng.integers(6))
    step = float(rng.uniform(0.06, 0.13))
    across = int(p.aspect / step) + 2
    if style == 0:
        for i in range(across):
            left = i * step / p.aspect
            p.fill(box(left, 0, left + step * 0.5 / p.aspect, bottom), ornament, opacity=0.55)
    elif style in (1, 2):
        petals = style == 2
        for row in range(int(bottom / step) + 1):
            for i in range(across):
                x, y = (i + 0.5 * (row % 2)) * step / p.aspect, (row + 0.5) * step
                if y > bottom - 0.02:
                    continue
                if petals:
                    for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                        r = step * 0.13
                        p.fill(p.oval(x + dx * r / p.aspect, y + dy * r, r, steps=8), ornament)
                else:
                    p.fill(p.oval(x, y, step * 0.14, steps=12), ornament)
    elif style == 3:
        for i in range(-across, 2 * across):
            x = i * step * 1.6 / p.aspect
            for lean in (-1, 1):
                p.line([(x, 0), (x + lean * bottom * 0.8 / p.aspect, bottom)], ornament, 0.004)
    return colour


def _wainscot(p: Plate, rng: np.random.Generator, top: float, bottom: float, colour: Colour) -> None:
    """Boards along the lower wall."""
    p.fill(box(0, top, 1, bottom), shade(colour, 1.05), shade(colour, 0.88))
    step = float(rng.uniform(0.07, 0.16))
    for i in range(int(p.aspect / step) + 2):
        x = i * step / p.aspect
        p.line([(x, top), (x, bottom)], shade(colour, 0.82), 0.004)
    p.fill(box(0, top - 0.012, 1, top + 0.012), shade(colour, 1.3), shade(colour, 0.9))


def _tiled(
    p: Plate, rng: np.random.Generator, area: tuple[float, float, float, float], colour: Colour
) -> None:
    """Wall tiles in one of several sizes and bonds, some of them in another tone."""
    left, top, right, bottom = area
    joint = mix(shade(colour, 0.80), (0.9, 0.9, 0.9), 0.3)
    p.block(*area, joint)
    high = float(rng.uniform(0.05, 0.10))
    wide = high / p.aspect * float(rng.choice([1.0, 1.0, 2.0]))
    bonded, second = rng.random() < 0.4, vary(pick(rng, WALLS), rng)
    scheme = int(rng.integers(4))
    gap_y = 0.006
    gap_x = gap_y / p.aspect
    for row in range(int((bottom - top) / high) + 1):
        y = top + row * high
        shift = 0.5 * wide * (row % 2) if bonded else 0.0
        for i in range(-1, int((right - left) / wide) + 2):
            x0, x1 = max(left, left + i * wide + shift), min(right, left + (i + 1) * wide + shift - gap_x)
            y1 = min(bottom, y + high - gap_y)
            if x1 <= x0 or y1 <= y:
                continue
            other = (scheme == 1 and (row + i) % 2 == 0) or (scheme == 2 and row == 2)
            other = other or (scheme == 3 and rng.random() < 0.1)
            tone = shade(second if other else colour, float(rng.uniform(0.95, 1.05)))
            p.block(x0, y, x1, y1, tone)


def _floor(p: Plate, rng: np.random.Generator, top: float, style: str) -> None:
    """A floor seen in perspective: "boards", "tiles" or "carpet"."""
    eye = (float(rng.uniform(0.3, 0.7)), top - float(rng.uniform(0.25, 0.5)))
    wood = vary(pick(rng, WOODS if style == "boards" else PAINTS), rng, 0.05)
    p.fill(box(0, top, 1, 1), shade(wood, 0.88), shade(wood, 1.08))

    def at(x: float, y: float) -> float:
        """Where a line through (x, bottom edge) towards the eye's vanishing point crosses height y."""
        return eye[0] + (x - eye[0]) * (y - eye[1]) / (1 - eye[1])

    step = float(rng.uniform(0.10, 0.2)) / p.aspect
    reach = range(-int(1.2 / step), int(2.2 / step))
    if style == "boards":
        for i in reach:
            x = i * step
            corners = [(at(x, top), top), (at(x + step, top), top), (x + step, 1.0), (x, 1.0)]
            p.fill(corners, wood, opacity=float(rng.uniform(0, 0.5))) if rng.random() < 0.3 else None
            p.line([(at(x, top), top), (x, 1.0)], shade(wood, 0.78), 0.004)
            y = float(rng.uniform(top, 1))
            p.line([(at(x, y), y), (at(x + step, y), y)], shade(wood, 0.78), 0.004)
    elif style == "tiles":
        second = mix(wood, pick(rng, PAINTS), 0.6) if rng.random() < 0.7 else shade(wood, 0.85)
        rows = [top + (1 - top) * ((k / 6) ** 1.5) for k in range(7)]
        for k in range(6):
            for i in reach:
                if (i + k) % 2:
                    continue
                y0, y1 = rows[k], rows[k + 1]
                x0, x1 = i * step * 1.5, (i + 1) * step * 1.5
                p.fill([(at(x0, y0), y0), (at(x1, y0), y0), (at(x1, y1), y1), (at(x0, y1), y1)], second)
    p.shadow(box(-0.1, top - 0.005, 1.1, top + 0.015), 0.3, 0.02)


def _skirting(p: Plate, y: float, colour: Colour) -> None:
    p.fill(box(0, y - 0.035, 1, y), shade(colour, 1.2), shade(colour, 0.85), rim=0.15)


def _view(p: Plate, mood: Mood, rng: np.random.Generator, area: tuple[float, float, float, float]) -> None:
    """What is seen through a window: sky and a hill."""
    left, top, right, bottom = area
    p.fill(box(*area), mood.zenith, mood.haze)
    green = mix(pick(rng, LEAVES), mood.zenith, 0.45)
    x = np.linspace(left, right, 20)
    for rise in (0.35, 0.2):
        wave = bottom - (bottom - top) * (rise + 0.1 * np.sin(6 * x / (right - left) + rng.uniform(0, 6)))
        p.fill(np.concatenate([np.stack([x, wave], axis=1), [(right, bottom), (left, bottom)]]), green)
        green = shade(green, 0.86)


def _window(
    p: Plate, mood: Mood, rng: np.random.Generator, area: tuple[float, float, float, float], curtains: bool
) -> None:
    """A framed window with bars, a sill and perhaps curtains."""
    left, top, right, bottom = area
    frame = vary(pick(rng, (PAINTS[0], WOODS[0], WOODS[3], PAINTS[1])), rng, 0.04)
    edge, thin = 0.02, 0.012
    p.shadow(box(left - 0.01, top, right + 0.01, bottom + 0.03), 0.3, 0.02)
    p.fill(box(left - edge / p.aspect, top - edge, right + edge / p.aspect, bottom + edge), frame, rim=0.25)
    _view(p, mood, rng, area)
    for i in range(1, int(rng.integers(1, 4))):
        x = left + (right - left) * i / 2 if i < 2 else left + (right - left) * 0.5
        p.block(x - thin / 2 / p.aspect, top, x + thin / 2 / p.aspect, bottom, frame)
    y = top + (bottom - top) * float(rng.choice([0.35, 0.5]))
    p.block(left, y - thin / 2, right, y + thin / 2, frame)
    p.light([(left, top), (left + (right - left) * 0.4, top), (left, bottom)], (1, 1, 1), 0.25, 0.01)
    sill = 0.03 / p.aspect
    p.fill(
        box(left - sill, bottom + 0.01, right + sill, bottom + 0.04),
        shade(frame, 1.2),
        shade(frame, 0.9),
        rim=0.2,
    )
    if curtains:
        _curtains(p, rng, area)


def _curtains(p: Plate, rng: np.random.Generator, area: tuple[float, float, float, float]) -> None:
    left, top, right, bottom = area
    cloth = vary(pick(rng, WALLS + PAINTS), rng)
    fall = bottom + float(rng.uniform(0.0, 0.12))
    width = (right - left) * float(rng.uniform(0.2, 0.34))
    over = 0.04 / p.aspect
    for side in (-1, 1):
        outer = left - over if side < 0 else right + over
        for fold in range(4):
            near, far = outer - side * width * fold / 4, outer - side * width * (fold + 1.15) / 4
            pull = side * width * 0.08 * fold
            shape = [(near, top - 0.03), (far, top - 0.03), (far + pull, fall), (near + pull * 0.6, fall)]
            p.fill(shape, shade(cloth, 1.08 - 0.07 * (fold % 2)), shade(cloth, 0.86 - 0.05 * (fold % 2)))
    p.line([(left - 2 * over, top - 0.035), (right + 2 * over, top - 0.035)], shade(WOODS[1], 0.9), 0.014)


def _door(p: Plate, rng: np.random.Generator, x: float, top: float, bottom: float) -> None:
    """A panelled door standing on the floor line, `x` is its left edge."""
    colour = vary(pick(rng, PAINTS + WOODS), rng)
    wide = (bottom - top) * 0.46 / p.aspect
    rim = 0.022
    p.fill(
        box(x - rim / p.aspect, top - rim, x + wide + rim / p.aspect, bottom), shade(colour, 1.35), rim=0.2
    )
    p.fill(box(x, top, x + wide, bottom), shade(colour, 1.05), shade(colour, 0.88), rim=0.25)
    for upper, lower in ((0.08, 0.46), (0.54, 0.92)):
        for inner, outer in ((0.12, 0.45), (0.55, 0.88)):
            high = bottom - top
            p.fill(
                box(x + wide * inner, top + high * upper, x + wide * outer, top + high * lower),
                shade(colour, 0.9), shade(colour, 1.05), rim=0.18,
            )  # fmt: skip
    p.fill(p.oval(x + wide * 0.92, top + (bottom - top) * 0.52, 0.013, steps=12), (0.85, 0.72, 0.4), rim=0.3)


def _cupboards(
    p: Plate, area: tuple[float, float, float, float], count: int, colour: Colour, drawers: bool = False
) -> None:
    """A row of cupboard fronts with knobs."""
    left, top, right, bottom = area
    p.fill(box(*area), shade(colour, 0.95), shade(colour, 0.82))
    wide, gap = (right - left) / count, 0.010
    for i in range(count):
        x0, x1 = left + i * wide + gap / p.aspect, left + (i + 1) * wide - gap / p.aspect
        start = top
        if drawers:
            start = top + (bottom - top) * 0.28
            p.fill(box(x0, top + gap, x1, start - gap), shade(colour, 1.08), shade(colour, 0.98), rim=0.22)
            p.fill(p.oval((x0 + x1) / 2, (top + start) / 2, 0.009, steps=10), shade(colour, 0.55))
        p.fill(box(x0, start + gap, x1, bottom - gap), shade(colour, 1.08), shade(colour, 0.92), rim=0.22)
        inset_x, inset_y = 0.022 / p.aspect, 0.03
        if x1 - x0 > 3 * inset_x and bottom - start > 3 * inset_y:
            panel = box(x0 + inset_x, start + inset_y, x1 - inset_x, bottom - inset_y)
            p.fill(panel, shade(colour, 0.96), shade(colour, 1.02), rim=0.12)
        knob = x1 - 0.016 / p.aspect if i % 2 == 0 else x0 + 0.016 / p.aspect
        p.fill(p.oval(knob, (start + bottom) / 2, 0.009, steps=10), shade(colour, 0.55))


def _rug(p: Plate, rng: np.random.Generator, x: float, y: float, rx: float, ry: float) -> None:
    """A round or square rug with borders, seen at an angle."""
    colour, second = vary(pick(rng, FRONTS), rng), vary(pick(rng, WALLS + PAINTS), rng)
    square = rng.random() < 0.5
    p.shadow(p.oval(x, y + 0.008, rx, ry), 0.2, 0.012)
    for i, scale in enumerate((1.0, 0.86, 0.72, 0.36)):
        tone = second if i % 2 else colour
        a, b = rx * scale / p.aspect, ry * scale
        outline: Outline = p.oval(x, y, rx * scale, b)
        if square:
            outline = [
                (x - a * 0.85, y - b * 0.9),
                (x + a * 0.85, y - b * 0.9),
                (x + a * 1.1, y + b),
                (x - a * 1.1, y + b),
            ]
        p.fill(outline, shade(tone, 0.95), shade(tone, 1.06))


def _table(
    p: Plate, rng: np.random.Generator, x: float, y: float, rx: float, ry: float, legs: float
) -> list[Place]:
    """A table standing free; (x, y) is the middle of its top, `legs` their length. Gives spots on it."""
    colour = vary(pick(rng, WOODS + PAINTS[:2]), rng)
    half, thick = rx / p.aspect, 0.025
    p.shadow(p.oval(x, min(1.02, y + legs + 0.02), rx * 1.05, ry * 0.8), 0.35, 0.03)
    for dx, drop in ((-0.72, 0.0), (0.72, 0.0), (-0.8, ry), (0.8, ry)):
        cx, w = x + dx * half, 0.02 / p.aspect
        foot = y + legs + drop * 0.6
        p.fill(
            [(cx - w, y), (cx + w, y), (cx + w * 0.6, foot), (cx - w * 0.6, foot)],
            shade(colour, 0.82),
            shade(colour, 0.66),
        )
    rounded = rng.random() < 0.5
    back, front = half * 0.86, half

    def top_at(drop: float) -> Outline:
        if rounded:
            return p.oval(x, y + drop, rx, ry)
        return [
            (x - back, y - ry + drop),
            (x + back, y - ry + drop),
            (x + front, y + ry + drop),
            (x - front, y + ry + drop),
        ]

    p.fill(top_at(thick), shade(colour, 0.72))
    p.fill(top_at(0.0), shade(colour, 0.98), shade(colour, 1.14), rim=0.12)
    return [
        Place(x + d * half * 0.55, y + e * ry * 0.5, 0.2 + 0.12 * max(0.0, y - 0.5), "table")
        for d, e in ((-1, 0.2), (0, -0.5), (0.1, 0.9), (1, 0.1))
    ]


def _frame_on_wall(p: Plate, mood: Mood, rng: np.random.Generator, x: float, y: float, high: float) -> None:
    """A small framed landscape."""
    wide = high * float(rng.choice([0.75, 1.0, 1.4])) / p.aspect
    colour = vary(pick(rng, WOODS), rng)
    p.shadow(box(x - wide / 2, y - high / 2 + 0.01, x + wide / 2 + 0.01, y + high / 2 + 0.015), 0.3, 0.012)
    p.fill(box(x - wide / 2, y - high / 2, x + wide / 2, y + high / 2), colour, rim=0.3)
    bx, by = 0.016 / p.aspect, 0.016
    _view(
        p,
        replace(mood, zenith=pick(rng, WALLS)),
        rng,
        (x - wide / 2 + bx, y - high / 2 + by, x + wide / 2 - bx, y + high / 2 - by),
    )


def _sunbeam(p: Plate, mood: Mood, rng: np.random.Generator, x: float, top: float) -> None:
    """Window light lying on the floor."""
    if mood.evening and rng.random() < 0.7:
        return
    lean = float(rng.uniform(-0.25, 0.25))
    for k in (0.0, 0.13):
        left = x + k
        beam = [
            (left, top + 0.05),
            (left + 0.11, top + 0.05),
            (left + 0.15 + lean, 0.97),
            (left + lean, 0.97),
        ]
        p.light(beam, mix(mood.haze, (1, 1, 0.9), 0.5), 0.30, 0.012)


# ---- the rooms ---------------------------------------------------------------------------------------------


def _kitchen(p: Plate, mood: Mood, rng: np.random.Generator) -> list[Place]:
    back = float(rng.uniform(0.46, 0.60))  # far edge of the worktop
    front = back + float(rng.uniform(0.07, 0.12))
    base = float(rng.uniform(0.84, 0.91))
    _papered_wall(p, rng, back)
    tiles_from = back - float(rng.uniform(0.14, 0.26))
    if rng.random() < 0.8:
        _tiled(p, rng, (0, tiles_from, 1, back), vary(pick(rng, WALLS + PAINTS[:2]), rng))
    _floor(p, rng, base, pick(rng, ("tiles", "tiles", "boards")))

    fronts, top = vary(pick(rng, PAINTS + WOODS), rng), vary(pick(rng, WOODS + PAINTS[:1]), rng)
    middle = float(rng.uniform(0.25, 0.75))
    half = float(rng.uniform(0.13, 0.2))
    places: list[Place] = []
    _window(
        p,
        mood,
        rng,
        (middle - half, 0.08, middle + half, tiles_from - 0.06 if tiles_from > 0.28 else 0.3),
        rng.random() < 0.6,
    )
    sides = ((0.0, middle - half - 0.06), (middle + half + 0.06, 1.0))
    for left, right in sides:
        if right - left < 0.14:
            continue
        if rng.random() < 0.6:
            low = float(rng.uniform(0.2, 0.27))
            p.shadow(box(left, 0, right, low + 0.03), 0.3, 0.02)
            _cupboards(p, (left, -0.03, right, low), max(1, round((right - left) * p.aspect / 0.24)), fronts)
        elif rng.random() < 0.6:
            y = float(rng.uniform(0.24, 0.3))
            p.shadow(box(left, y, right, y + 0.035), 0.3, 0.015)
            p.fill(box(left, y, right, y + 0.022), shade(top, 1.1), shade(top, 0.85), rim=0.2)
            places += _along(rng, left, right, y, 0.16, "table", 2)
        else:
            places += _along(rng, left, right, 0.2, 0.18, "wall", 1)

    p.shadow(box(0, back - 0.02, 1, back + 0.01), 0.3, 0.015)
    _cupboards(
        p, (-0.02, front, 1.02, base), int(rng.integers(4, 8)), fronts, drawers=bool(rng.random() < 0.6)
    )
    p.block(0, base - 0.03, 1, base, shade(fronts, 0.45))
    p.fill(box(0, back, 1, front), shade(top, 0.96), shade(top, 1.14))
    p.fill(box(0, front, 1, front + 0.022), shade(top, 0.86), shade(top, 0.72))
    p.shadow(box(-0.1, front + 0.02, 1.1, front + 0.045), 0.3, 0.012)
    _sink(p, middle, back, front)
    stove = middle + float(rng.choice([-1, 1])) * float(rng.uniform(0.3, 0.36))
    stove = stove if 0.15 < stove < 0.85 else 1 - stove
    _stove(p, rng, stove, back, front, base)
    for left, right in (
        (0.02, min(middle, stove) - 0.09),
        (min(middle, stove) + 0.1, max(middle, stove) - 0.1),
        (max(middle, stove) + 0.09, 0.98),
    ):
        if right - left > 0.08:
            places += _along(rng, left, right, front - 0.025, 0.2, "table", 2 if right - left > 0.2 else 1)
    places += _on_ground(rng, base - 0.35, base + 0.03, 4)
    if rng.random() < 0.5:
        places += _table(
            p, rng, float(rng.uniform(0.25, 0.75)), 0.83, float(rng.uniform(0.32, 0.42)), 0.055, 0.3
        )
    else:
        places += [Place(float(rng.uniform(0.1, 0.9)), 0.98, 0.34, "floor") for _ in range(2)]
    places += [Place(middle + side * (half + 0.16), tiles_from + 0.02, 0.17, "wall") for side in (-1, 1)]
    return places + [Place(float(rng.uniform(0.1, 0.9)), front - 0.02, 0.22, "table") for _ in range(2)]


def _sink(p: Plate, x: float, back: float, front: float) -> None:
    """A basin let into the worktop, with a tap."""
    w, steel = 0.13 / p.aspect, (0.80, 0.82, 0.84)
    y0, y1 = back + (front - back) * 0.3, front - (front - back) * 0.15
    p.fill(
        [(x - w, y0), (x + w, y0), (x + w * 1.1, y1), (x - w * 1.1, y1)],
        shade(steel, 0.62),
        shade(steel, 0.9),
        rim=0.3,
    )
    arch = [
        (x, y0),
        (x, y0 - 0.08),
        (x + 0.012 / p.aspect, y0 - 0.1),
        (x + 0.045 / p.aspect, y0 - 0.1),
        (x + 0.055 / p.aspect, y0 - 0.07),
    ]
    p.line(arch, shade(steel, 0.7), 0.016)
    p.line(arch, shade(steel, 1.3), 0.006)


def _stove(p: Plate, rng: np.random.Generator, x: float, back: float, front: float, base: float) -> None:
    """A cooker with an oven door, and a hood above it."""
    w = 0.15 / p.aspect
    body = vary(pick(rng, (PAINTS[0], (0.62, 0.64, 0.66), (0.3, 0.31, 0.34), PAINTS[1], PAINTS[6])), rng)
    p.fill(box(x - w, back, x + w, front), (0.24, 0.24, 0.27), (0.34, 0.34, 0.37), rim=0.3)
    for dx in (-0.5, 0.5):
        p.fill(
            p.oval(x + dx * w, (back + front) / 2, 0.05, (front - back) * 0.28, steps=24),
            (0.16, 0.16, 0.18),
            rim=0.0,
        )
        p.fill(
            p.oval(x + dx * w, (back + front) / 2, 0.03, (front - back) * 0.16, steps=24), (0.4, 0.36, 0.36)
        )
    p.fill(box(x - w, front, x + w, base - 0.02), shade(body, 1.05), shade(body, 0.85), rim=0.3)
    for i in range(4):
        p.fill(p.oval(x + w * (-0.6 + 0.4 * i), front + 0.028, 0.013, steps=12), shade(body, 0.55))
    p.fill(
        box(x - w * 0.76, front + 0.085, x + w * 0.76, base - 0.06),
        (0.22, 0.2, 0.22),
        (0.44, 0.34, 0.28),
        rim=0.2,
    )
    p.line([(x - w * 0.76, front + 0.065), (x + w * 0.76, front + 0.065)], shade(body, 0.6), 0.012)
    if rng.random() < 0.6:
        hood = [
            (x - w * 0.45, -0.01),
            (x + w * 0.45, -0.01),
            (x + w * 0.45, 0.12),
            (x + w * 1.1, 0.25),
            (x - w * 1.1, 0.25),
            (x - w * 0.45, 0.12),
        ]
        p.shadow([(a + 0.01, b + 0.02) for a, b in hood], 0.3, 0.02)
        p.fill(hood, shade(body, 1.08), shade(body, 0.84), rim=0.25)


def _living_room(p: Plate, mood: Mood, rng: np.random.Generator) -> list[Place]:
    ground = float(rng.uniform(0.56, 0.68))
    wall = _papered_wall(p, rng, ground)
    trim = mix(wall, (1, 1, 1), 0.5) if rng.random() < 0.6 else vary(pick(rng, WOODS), rng)
    if rng.random() < 0.35:
        _wainscot(p, rng, ground - 0.2, ground, mix(wall, pick(rng, PAINTS), 0.7))
    _floor(p, rng, ground, pick(rng, ("boards", "boards", "carpet")))
    _skirting(p, ground, trim)
    places: list[Place] = []
    slots = rng.permutation(3)
    centres = (np.array([0.17, 0.5, 0.83]) + rng.uniform(-0.03, 0.03, 3))[slots]
    wide = float(rng.uniform(0.11, 0.145))
    low = float(rng.uniform(0.40, 0.46))
    _window(p, mood, rng, (centres[0] - wide, 0.1, centres[0] + wide, low), rng.random() < 0.85)
    second = pick(rng, ("fireplace", "sideboard", "sideboard", "window"))
    if second == "fireplace":
        places += _fireplace(p, mood, rng, float(centres[1]), ground)
    elif second == "sideboard":
        places += _sideboard(p, mood, rng, float(centres[1]), ground)
    else:
        _window(p, mood, rng, (centres[1] - wide, 0.1, centres[1] + wide, low), True)
    third = pick(rng, ("door", "shelf", "pictures"))
    x = float(centres[2])
    if third == "door":
        _door(p, rng, x - 0.11, 0.1, ground)
    elif third == "shelf":
        board = vary(pick(rng, WOODS), rng)
        for y in (0.25, 0.43):
            p.shadow(box(x - 0.12, y + 0.01, x + 0.12, y + 0.045), 0.3, 0.015)
            p.fill(box(x - 0.13, y, x + 0.13, y + 0.022), shade(board, 1.1), shade(board, 0.85), rim=0.25)
            places += _along(rng, x - 0.13, x + 0.13, y, 0.16, "table", 2)
    else:
        for dx, y in ((-0.06, 0.16), (0.07, 0.30)):
            _frame_on_wall(p, mood, rng, x + dx, y, float(rng.uniform(0.13, 0.18)))
        places += [Place(x, 0.46, 0.16, "wall")]
    if rng.random() < 0.75:
        _rug(
            p,
            rng,
            float(rng.uniform(0.35, 0.65)),
            (ground + 1) / 2 + 0.05,
            float(rng.uniform(0.32, 0.5)),
            float(rng.uniform(0.08, 0.12)),
        )
    _sunbeam(p, mood, rng, float(centres[0]) - 0.1, ground)
    places += _on_ground(rng, ground - 0.1, ground + 0.07, 8)
    if rng.random() < 0.45:
        places += _table(
            p, rng, float(rng.uniform(0.25, 0.75)), ground + 0.16, float(rng.uniform(0.22, 0.3)), 0.045, 0.15
        )
    middle = float(np.sort(centres)[1])
    places += [
        Place(x, 0.14 + 0.06 * float(rng.random()), 0.17, "wall") for x in (middle - 0.17, middle + 0.17)
    ]
    return places


def _fireplace(p: Plate, mood: Mood, rng: np.random.Generator, x: float, ground: float) -> list[Place]:
    stone = vary(pick(rng, FRONTS), rng)
    w, top = 0.16 / p.aspect, ground - 0.27
    p.shadow(box(x - w, top, x + w + 0.02, ground + 0.02), 0.3, 0.02)
    _bricks(p, rng, (x - w, top, x + w, ground), stone, 0.045)
    p.fill(
        box(x - w * 0.58, top + 0.08, x + w * 0.58, ground), (0.16, 0.12, 0.12), (0.26, 0.17, 0.14), rim=0.3
    )
    if mood.evening or rng.random() < 0.3:
        p.light(p.oval(x, ground - 0.04, 0.11, 0.09), (1.0, 0.6, 0.2), 0.6, 0.03)
        for dx, high in ((-0.03, 0.09), (0.0, 0.13), (0.03, 0.08)):
            cx, r = x + dx / p.aspect, 0.025 / p.aspect
            flame = [(cx - r, ground - 0.02), (cx, ground - high), (cx + r, ground - 0.02)]
            p.fill(flame, (1.0, 0.86, 0.4), (0.95, 0.5, 0.16))
    shelf = shade(vary(pick(rng, WOODS), rng), 0.9)
    p.fill(box(x - w * 1.15, top - 0.03, x + w * 1.15, top), shade(shelf, 1.15), shade(shelf, 0.85), rim=0.25)
    return _along(rng, x - w, x + w, top - 0.022, 0.18, "table", 2)


def _sideboard(p: Plate, mood: Mood, rng: np.random.Generator, x: float, ground: float) -> list[Place]:
    colour = vary(pick(rng, WOODS + PAINTS), rng)
    w, top = 0.15, ground - float(rng.uniform(0.14, 0.22))
    base = ground + 0.035
    p.shadow(box(x - w, base - 0.03, x + w + 0.02, base + 0.02), 0.4, 0.02)
    _cupboards(
        p,
        (x - w, top + 0.02, x + w, base - 0.02),
        int(rng.integers(2, 4)),
        colour,
        drawers=bool(rng.random() < 0.5),
    )
    for dx in (-0.9, 0.9):
        p.block(x + dx * w - 0.01, base - 0.02, x + dx * w + 0.01, base + 0.02, shade(colour, 0.6))
    p.fill(
        [(x - w, top - 0.012), (x + w, top - 0.012), (x + w * 1.06, top + 0.02), (x - w * 1.06, top + 0.02)],
        shade(colour, 1.2),
        rim=0.2,
    )
    if rng.random() < 0.6:
        _frame_on_wall(p, mood, rng, x, 0.2, float(rng.uniform(0.15, 0.2)))
    return _along(rng, x - w, x + w, top + 0.008, 0.19, "table", 3)


def _bathroom(p: Plate, mood: Mood, rng: np.random.Generator) -> list[Place]:
    ground = float(rng.uniform(0.62, 0.72))
    _papered_wall(p, rng, ground)
    tile = vary(
        pick(
            rng,
            (
                (0.85, 0.92, 0.93),
                (0.72, 0.85, 0.84),
                (0.95, 0.93, 0.88),
                (0.82, 0.86, 0.94),
                (0.93, 0.82, 0.80),
                (0.62, 0.76, 0.80),
            ),
        ),
        rng,
        0.04,
    )
    tiles_from = float(rng.choice([0.0, 0.18, 0.3]))
    _tiled(p, rng, (0, tiles_from, 1, ground), tile)
    if tiles_from > 0:
        p.fill(box(0, tiles_from - 0.012, 1, tiles_from + 0.012), shade(tile, 0.7), rim=0.2)
    _floor(p, rng, ground, pick(rng, ("tiles", "tiles", "boards")))
    places: list[Place] = []

    tub_left, tub_right = 0.03, float(rng.uniform(0.50, 0.60))
    basin = float(rng.uniform(0.76, 0.84))
    _window(
        p,
        mood,
        rng,
        (0.12, 0.08, 0.12 + float(rng.uniform(0.16, 0.26)), float(rng.uniform(0.28, 0.36))),
        rng.random() < 0.3,
    )
    places += _washstand(p, mood, rng, basin, ground)
    places += _bathtub(p, rng, tub_left, tub_right, ground)
    if rng.random() < 0.6:
        y, x = 0.44, 0.62
        p.line([(x - 0.07, y - 0.09), (x + 0.05, y - 0.09)], (0.6, 0.6, 0.62), 0.012)
        cloth = vary(pick(rng, FRONTS), rng)
        p.fill(box(x - 0.055, y - 0.09, x + 0.035, y + 0.1), shade(cloth, 1.1), shade(cloth, 0.9), rim=0.15)
        p.block(x - 0.055, y + 0.05, x + 0.035, y + 0.065, shade(cloth, 1.5))
    if rng.random() < 0.7:
        _rug(p, rng, float(rng.uniform(0.5, 0.75)), 0.91, float(rng.uniform(0.2, 0.3)), 0.05)
    places += [Place(0.5, 0.2, 0.17, "wall"), Place(0.08, 0.45, 0.16, "wall"), Place(0.58, 0.4, 0.17, "wall")]
    return places + _on_ground(rng, ground - 0.15, 0.88, 7)


def _bathtub(p: Plate, rng: np.random.Generator, left: float, right: float, ground: float) -> list[Place]:
    """A tub against the wall, its rim wide enough to put things on."""
    white = vary(
        pick(rng, ((0.96, 0.96, 0.95), (0.96, 0.96, 0.95), (0.80, 0.88, 0.88), (0.94, 0.85, 0.82))), rng, 0.02
    )
    rim, base = ground - 0.12, ground + 0.13
    p.shadow(box(left, base - 0.04, right + 0.02, base + 0.025), 0.4, 0.025)
    outside = vary(pick(rng, PAINTS), rng) if rng.random() < 0.4 else white
    if rng.random() < 0.5:
        bulge = [
            (left + 0.01, rim),
            (right - 0.01, rim),
            (right - 0.03, base - 0.06),
            (right - 0.08, base - 0.02),
            (left + 0.08, base - 0.02),
            (left + 0.03, base - 0.06),
        ]
        p.fill(bulge, shade(outside, 1.0), shade(outside, 0.74), rim=0.2)
        for x in (left + 0.09, right - 0.09):
            p.fill(p.oval(x, base - 0.01, 0.025, 0.03, steps=16), (0.72, 0.6, 0.4), rim=0.3)
    else:
        p.fill(box(left, rim, right, base), shade(outside, 1.0), shade(outside, 0.8), rim=0.2)
    middle, r = (left + right) / 2, (right - left) / 2
    p.fill(p.oval(middle, rim, r * p.aspect * 1.02, 0.05), shade(white, 1.4), shade(white, 0.95), rim=0.2)
    p.fill(p.oval(middle, rim + 0.004, r * p.aspect * 0.9, 0.034), shade(white, 0.72), shade(white, 0.88))
    if rng.random() < 0.6:
        p.fill(p.oval(middle, rim + 0.012, r * p.aspect * 0.84, 0.024), (0.62, 0.82, 0.86), (0.75, 0.9, 0.92))
        for _ in range(14):
            x = middle + r * float(rng.uniform(-0.7, 0.7))
            p.fill(
                p.oval(x, rim + float(rng.uniform(-0.005, 0.02)), float(rng.uniform(0.008, 0.022)), steps=14),
                (0.97, 0.98, 1.0),
                (0.86, 0.92, 0.96),
            )
    tap = left + 0.05
    p.line(
        [(tap, rim - 0.12), (tap, rim - 0.14), (tap + 0.035, rim - 0.14), (tap + 0.035, rim - 0.1)],
        (0.66, 0.68, 0.7),
        0.018,
    )
    return [Place(middle + d * r, rim + 0.035, 0.17, "table") for d in (-0.55, 0.05, 0.6)]


def _washstand(p: Plate, mood: Mood, rng: np.random.Generator, x: float, ground: float) -> list[Place]:
    """A cabinet with a basin, a mirror above."""
    colour = vary(pick(rng, PAINTS + WOODS), rng)
    w, top, base = 0.15, ground - 0.22, ground + 0.06
    p.shadow(box(x - w, base - 0.03, x + w, base + 0.02), 0.4, 0.02)
    _cupboards(p, (x - w, top + 0.03, x + w, base), 2, colour)
    p.fill(
        [(x - w, top - 0.02), (x + w, top - 0.02), (x + w * 1.08, top + 0.03), (x - w * 1.08, top + 0.03)],
        (0.97, 0.97, 0.96),
        (0.88, 0.89, 0.9),
        rim=0.2,
    )
    p.fill(p.oval(x, top + 0.004, 0.09, 0.017), (0.66, 0.74, 0.78), (0.88, 0.92, 0.94), rim=0.1)
    p.line(
        [(x, top - 0.012), (x, top - 0.06), (x + 0.02, top - 0.06), (x + 0.02, top - 0.04)],
        (0.66, 0.68, 0.7),
        0.014,
    )
    high = float(rng.uniform(0.12, 0.15))
    y = top - 0.10 - high
    edge = vary(pick(rng, WOODS + PAINTS), rng)
    glass = mix(mood.haze, (0.72, 0.82, 0.86), 0.6)
    if rng.random() < 0.5:
        p.fill(p.oval(x, y, high * 0.9, high * 1.1), edge, rim=0.25)
        p.fill(p.oval(x, y, high * 0.78, high * 0.98), shade(glass, 1.15), shade(glass, 0.88))
    else:
        a = high * 0.95 / p.aspect
        p.fill(box(x - a, y - high, x + a, y + high), edge, rim=0.25)
        p.fill(
            box(x - a * 0.88, y - high * 0.88, x + a * 0.88, y + high * 0.88),
            shade(glass, 1.15),
            shade(glass, 0.88),
        )
    for k in (-0.2, 0.1):
        a = high / p.aspect
        p.light(
            [
                (x + a * k, y - high * 0.6),
                (x + a * (k + 0.16), y - high * 0.6),
                (x + a * (k - 0.2), y + high * 0.5),
                (x + a * (k - 0.36), y + high * 0.5),
            ],
            (1, 1, 1),
            0.35,
            0.005,
        )
    return [Place(x - 0.11, top + 0.018, 0.17, "table"), Place(x + 0.115, top + 0.018, 0.17, "table")]


# ---- outdoors: sky, plants, walls --------------------------------------------------------------------------


def _sky(p: Plate, mood: Mood, rng: np.random.Generator, bottom: float) -> None:
    """Sky with sun or moon and clouds, down to `bottom`."""
    p.fill(box(0, 0, 1, bottom + 0.02), vary(mood.zenith, rng, 0.04), mood.haze)
    x, y = float(rng.uniform(0.08, 0.92)), float(rng.uniform(0.08, bottom * 0.6))
    sun = (1.0, 0.95, 0.72) if not mood.evening else (1.0, 0.86, 0.62)
    if rng.random() < 0.6:
        r = float(rng.uniform(0.035, 0.07))
        p.light(p.oval(x, y, 2.6 * r), sun, 0.5, 1.1 * r)
        p.fill(p.oval(x, y, r), sun)
    for _ in range(int(rng.integers(0, 6))):
        _cloud(
            p,
            mood,
            rng,
            float(rng.uniform(0, 1)),
            float(rng.uniform(0.04, bottom * 0.75)),
            float(rng.uniform(0.03, 0.08)),
        )


def _cloud(p: Plate, mood: Mood, rng: np.random.Generator, x: float, y: float, r: float) -> None:
    white = mix((1, 1, 1), mood.haze, 0.35)
    puffs = [
        (
            x + d * r * 0.95 / p.aspect,
            y - r * 0.4 * float(rng.random()) * (2 - abs(d)),
            r * (1 - 0.22 * abs(d)),
        )
        for d in (-2, -1, 0, 1, 2)
    ]
    for cx, cy, size in puffs:
        p.fill(p.oval(cx, cy + 0.3 * size, size, size * 0.62, steps=24), mix(white, mood.zenith, 0.28))
    for cx, cy, size in puffs:
        p.fill(p.oval(cx, cy, size * 0.96, size * 0.66, steps=24), white)


def _foliage(
    p: Plate, rng: np.random.Generator, x: float, y: float, rx: float, ry: float, green: Colour
) -> None:
    """A crown or a bush: overlapping tufts, darker below, with dabs of light."""
    p.fill(p.blob(x, y, rx, ry, 0.10), shade(green, 0.92), shade(green, 0.70))
    for _ in range(5):
        turn, reach = rng.uniform(0, 6.28), rng.uniform(0.2, 0.62)
        cx, cy = x + reach * rx * np.cos(turn) / p.aspect, y + reach * ry * np.sin(turn) - 0.1 * ry
        lift = 1.0 + 0.14 * (y - cy) / ry
        p.fill(
            p.blob(float(cx), float(cy), rx * 0.42, ry * 0.38),
            shade(green, lift + 0.06),
            shade(green, lift - 0.12),
        )
    for _ in range(9):
        turn, reach = rng.uniform(0, 6.28), rng.uniform(0.1, 0.85)
        cx, cy = x + reach * rx * np.cos(turn) / p.aspect, y + reach * ry * np.sin(turn)
        tone = shade(green, float(rng.uniform(0.78, 1.3)))
        p.fill(p.oval(float(cx), float(cy), rx * 0.07, ry * 0.05, steps=10), tone)


def _tree(p: Plate, rng: np.random.Generator, x: float, foot: float, high: float) -> None:
    """A round or a pointed tree standing at (x, foot)."""
    bark, green = vary(pick(rng, WOODS[:4]), rng), vary(pick(rng, LEAVES), rng)
    w = 0.05 * high / p.aspect
    p.shadow(p.oval(x, foot, high * 0.28, high * 0.045), 0.3, 0.015)
    p.fill(
        [(x - w * 0.7, foot - high * 0.6), (x + w * 0.7, foot - high * 0.6), (x + w, foot), (x - w, foot)],
        shade(bark, 0.8),
        bark,
        rim=0.2,
    )
    if rng.random() < 0.3:
        for k in range(4):
            top, span = foot - high * (1 - 0.17 * k), high * (0.15 + 0.055 * k) / p.aspect
            low = top + high * 0.32
            p.fill(
                [(x, top), (x + span, low), (x, low + 0.012), (x - span, low)],
                shade(green, 1.05),
                shade(green, 0.72),
            )
    else:
        _foliage(p, rng, x, foot - high * 0.68, high * 0.32, high * 0.33, green)


def _fence(p: Plate, rng: np.random.Generator, foot: float, high: float) -> None:
    """Palings or rails across the whole width."""
    paint = vary(pick(rng, (PAINTS[0], PAINTS[0], WOODS[0], WOODS[3], PAINTS[1], PAINTS[4])), rng)
    step = float(rng.uniform(0.05, 0.085))
    solid, pointed = rng.random() < 0.3, rng.random() < 0.6
    p.shadow(box(-0.1, foot - 0.01, 1.1, foot + 0.03), 0.25, 0.015)
    for y in (0.75, 0.3):
        p.block(0, foot - high * y - 0.012, 1, foot - high * y + 0.012, shade(paint, 0.8))
    for i in range(int(p.aspect / step) + 2):
        x, w = i * step / p.aspect, step * (0.97 if solid else 0.6) / p.aspect
        tip = foot - high
        top: list[Point] = (
            [(x, tip + 0.02), (x + w / 2, tip), (x + w, tip + 0.02)] if pointed else [(x, tip), (x + w, tip)]
        )
        p.fill(
            [*top, (x + w, foot), (x, foot)],
            shade(paint, float(rng.uniform(0.98, 1.08))),
            shade(paint, 0.84),
            rim=0.18,
        )


def _bricks(
    p: Plate, rng: np.random.Generator, area: tuple[float, float, float, float], colour: Colour, high: float
) -> None:
    """Courses of bricks with joints, a few of them in other tones."""
    left, top, right, bottom = area
    p.fill(box(*area), shade(colour, 1.02), shade(colour, 0.86))
    joint, wide = shade(colour, 0.8), 2.2 * high / p.aspect
    for row in range(int((bottom - top) / high) + 1):
        y = top + row * high
        p.line([(left, y), (right, y)], joint, 0.003)
        for i in range(int((right - left) / wide) + 1):
            x = left + (i + 0.5 * (row % 2)) * wide
            if x < right:
                p.line([(x, y), (x, min(bottom, y + high))], joint, 0.003)
                if rng.random() < 0.12:
                    p.fill(
                        box(x, y, min(right, x + wide), min(bottom, y + high)),
                        shade(colour, float(rng.uniform(0.8, 1.15))),
                        opacity=0.6,
                    )


def _grass(p: Plate, rng: np.random.Generator, top: float, green: Colour, count: int = 90) -> None:
    """Tufts, larger towards the viewer."""
    for depth in np.sort(rng.random(count)):
        x, y = float(rng.random()), top + (1 - top) * float(depth)
        high = 0.008 + 0.022 * float(depth)
        tone = shade(green, float(rng.choice([0.82, 0.9, 1.12, 1.2])))
        dx = high * 0.5 / p.aspect
        p.line([(x - dx, y - high), (x, y), (x + dx * 0.2, y - high * 1.2)], tone, 0.004)


def _flowers(p: Plate, rng: np.random.Generator, area: tuple[float, float, float, float], count: int) -> None:
    left, top, right, bottom = area
    kinds = (pick(rng, BLOSSOMS), pick(rng, BLOSSOMS))
    for depth in np.sort(rng.random(count)):
        x, y = float(rng.uniform(left, right)), top + (bottom - top) * float(depth)
        r = 0.008 + 0.007 * y
        p.line([(x, y), (x, y + 3 * r)], (0.30, 0.48, 0.26), 0.005)
        p.fill(p.oval(x, y, r, r * 0.8, steps=10), vary(pick(rng, kinds), rng))
        p.fill(p.oval(x, y, r * 0.4, r * 0.35, steps=8), (0.98, 0.86, 0.42))


# ---- places outdoors ---------------------------------------------------------------------------------------


def _street(p: Plate, mood: Mood, rng: np.random.Generator) -> list[Place]:
    ground = float(rng.uniform(0.56, 0.68))
    _sky(p, mood, rng, 0.45)
    left, places = -float(rng.uniform(0, 0.15)), []
    while left < 1:
        wide = float(rng.uniform(0.22, 0.40)) * (1.2 if p.aspect < 1 else 1.0)
        if rng.random() < 0.14 and left > 0:
            wide *= 0.6
            p.fill(box(left, ground - 0.16, left + wide, ground), FRONTS[8], shade(FRONTS[8], 0.85))
            _tree(p, rng, left + wide / 2, ground, float(rng.uniform(0.3, 0.42)))
        else:
            _house(p, mood, rng, left, left + wide, float(rng.uniform(0.02, 0.2)), ground)
            places.append(Place(left + wide / 2, ground - 0.27, 0.17, "wall"))
        left += wide
    kerb = ground + float(rng.uniform(0.10, 0.17))
    stone = vary(pick(rng, ((0.74, 0.72, 0.70), (0.80, 0.74, 0.66), (0.66, 0.68, 0.72))), rng)
    p.fill(box(0, ground, 1, kerb), shade(stone, 0.92), shade(stone, 1.08))
    p.shadow(box(-0.1, ground - 0.005, 1.1, ground + 0.02), 0.35, 0.02)
    for i in range(-2, 18):
        x = i * 0.09
        p.line([(0.5 + (x - 0.5) * 0.9, ground), (0.5 + (x - 0.5) * 1.15, kerb)], shade(stone, 0.82), 0.004)
    p.line([(0, (ground + kerb) / 2), (1, (ground + kerb) / 2)], shade(stone, 0.84), 0.004)
    p.fill(box(0, kerb, 1, kerb + 0.025), shade(stone, 1.2), shade(stone, 0.75))
    _road(p, rng, kerb + 0.025)
    if rng.random() < 0.6:
        for x in rng.uniform(0.05, 0.95, int(rng.integers(1, 3))):
            _tree(p, rng, float(x), kerb - 0.02, float(rng.uniform(0.42, 0.6)))
    if rng.random() < 0.5:
        places += _bench(p, rng, float(rng.uniform(0.2, 0.8)), kerb - 0.03)
    places += [
        Place(float(rng.uniform(0.1, 0.9)), float(rng.uniform(0.1, 0.2)), 0.18, "air") for _ in range(2)
    ]
    return places + _on_ground(rng, ground - 0.15, ground + 0.05, 10)


def _house(
    p: Plate, mood: Mood, rng: np.random.Generator, left: float, right: float, top: float, ground: float
) -> None:
    """A house front with roof, rows of windows, a door or a shop window."""
    colour, roof = (
        vary(pick(rng, FRONTS), rng),
        vary(pick(rng, ((0.70, 0.36, 0.28), (0.45, 0.42, 0.46), (0.55, 0.40, 0.32))), rng),
    )
    eaves, middle = top + float(rng.uniform(0.06, 0.12)), (left + right) / 2
    over = 0.01
    if rng.random() < 0.5:
        p.fill(
            [(left - over, eaves), (middle, top - 0.05), (right + over, eaves)],
            roof,
            shade(roof, 0.85),
            rim=0.2,
        )
    else:
        p.fill(
            [(left - over, eaves), (left + 0.03, top), (right - 0.03, top), (right + over, eaves)],
            roof,
            shade(roof, 0.85),
            rim=0.2,
        )
    if rng.random() < 0.25:
        _bricks(p, rng, (left, eaves, right, ground), colour, 0.022)
    else:
        p.fill(box(left, eaves, right, ground), shade(colour, 1.08), shade(colour, 0.88), rim=0.15)
    p.shadow(box(left, eaves, right, eaves + 0.012), 0.35, 0.012)
    lit = mood.evening and rng.random() < 0.8
    storey = ground - 0.22
    columns = max(2, round((right - left) * p.aspect / 0.15))
    frame = vary(pick(rng, (PAINTS[0], PAINTS[1], WOODS[3])), rng)
    rows = max(1, int((storey - eaves) / 0.15))
    for row in range(rows):
        y = eaves + 0.035 + row * (storey - eaves - 0.02) / rows
        for i in range(columns):
            x = left + (right - left) * (i + 0.5) / columns
            w = 0.035 / p.aspect
            pane = (
                (1.0, 0.86, 0.52) if lit and rng.random() < 0.5 else mix(mood.zenith, (0.35, 0.42, 0.5), 0.45)
            )
            p.fill(box(x - w * 1.2, y - 0.008, x + w * 1.2, y + 0.098), frame, rim=0.2)
            p.fill(box(x - w, y, x + w, y + 0.088), pane, shade(pane, 1.2))
            p.line([(x, y), (x, y + 0.088)], frame, 0.006)
            p.line([(x - w, y + 0.04), (x + w, y + 0.04)], frame, 0.006)
            p.block(x - w * 1.4, y + 0.095, x + w * 1.4, y + 0.107, shade(frame, 1.15))
    if rng.random() < 0.45:
        _shop(p, mood, rng, left, right, storey, ground)
    else:
        x = left + (right - left) * float(rng.choice([0.22, 0.5]))
        _door(p, rng, x, storey + 0.03, ground)
        p.block(left, storey - 0.006, right, storey + 0.006, shade(colour, 1.25))


def _shop(
    p: Plate, mood: Mood, rng: np.random.Generator, left: float, right: float, top: float, ground: float
) -> None:
    """A shop window under a striped awning."""
    wood, glass = vary(pick(rng, PAINTS), rng), mix(mood.zenith, (0.3, 0.36, 0.42), 0.4)
    glass = (0.98, 0.84, 0.55) if mood.evening else glass
    inset = 0.02
    p.fill(box(left + inset, top + 0.03, right - inset, ground), shade(wood, 0.9), rim=0.2)
    for a, b in ((0.1, 0.48), (0.54, 0.92)):
        x0, x1 = left + (right - left) * a, left + (right - left) * b
        p.fill(box(x0, top + 0.08, x1, ground - 0.04), glass, shade(glass, 1.2), rim=0.2)
        p.light(
            [(x0, top + 0.08), (x0 + (x1 - x0) * 0.5, top + 0.08), (x0, ground - 0.05)],
            (1, 1, 1),
            0.25,
            0.006,
        )
    stripe = vary(pick(rng, FRONTS[:1] + PAINTS[1:]), rng)
    count = 8
    for i in range(count):
        x0, x1 = left + (right - left) * i / count, left + (right - left) * (i + 1) / count
        tone = stripe if i % 2 else (0.95, 0.93, 0.88)
        p.fill(
            [(x0, top), (x1, top), (x1 + 0.004, top + 0.075), (x0 - 0.004, top + 0.075)],
            shade(tone, 1.05),
            shade(tone, 0.86),
        )
        p.fill(
            p.oval((x0 + x1) / 2, top + 0.075, (x1 - x0) * p.aspect / 2, 0.014, steps=16), shade(tone, 0.86)
        )


def _road(p: Plate, rng: np.random.Generator, top: float) -> None:
    """Asphalt with a broken line, or cobbles."""
    colour = vary(pick(rng, ((0.46, 0.46, 0.50), (0.58, 0.54, 0.50), (0.40, 0.42, 0.47))), rng)
    p.fill(box(0, top, 1, 1), shade(colour, 0.88), shade(colour, 1.1))
    if rng.random() < 0.45:
        y, row = top, 0
        while y < 1:
            high = 0.018 + 0.05 * (y - top)
            wide = high * 1.8 / p.aspect
            for i in range(int(1 / wide) + 2):
                x = (i - 0.5 * (row % 2)) * wide
                tone = shade(colour, float(rng.uniform(0.94, 1.14)))
                p.block(x + wide * 0.06, y + high * 0.08, x + wide * 0.94, y + high * 0.92, tone)
            y, row = y + high, row + 1
    elif rng.random() < 0.7:
        y = top + (1 - top) * 0.55
        for i in range(5):
            x = i * 0.25 + 0.03
            p.fill([(x + 0.01, y), (x + 0.13, y), (x + 0.12, y + 0.022), (x, y + 0.022)], (0.90, 0.88, 0.80))


def _bench(p: Plate, rng: np.random.Generator, x: float, foot: float) -> list[Place]:
    wood = vary(pick(rng, WOODS + PAINTS[1:4]), rng)
    w = 0.17 / p.aspect
    p.shadow(p.oval(x, foot, 0.18, 0.02), 0.35, 0.012)
    for dx in (-0.8, 0.8):
        p.fill(box(x + dx * w - 0.007, foot - 0.16, x + dx * w + 0.007, foot), (0.28, 0.27, 0.3))
    for y in (0.165, 0.13, 0.075, 0.055):
        p.fill(box(x - w, foot - y, x + w, foot - y + 0.024), shade(wood, 1.1), shade(wood, 0.85), rim=0.25)
    return [Place(x + dx * w, foot - 0.05, 0.16, "table") for dx in (-0.45, 0.45)]


def _garden(p: Plate, mood: Mood, rng: np.random.Generator) -> list[Place]:
    horizon = float(rng.uniform(0.36, 0.5))
    ground = horizon + float(rng.uniform(0.06, 0.12))
    _sky(p, mood, rng, horizon)
    green = vary(pick(rng, LEAVES[:3]), rng)
    for i in range(int(rng.integers(1, 4))):
        far = mix(green, mood.haze, 0.6 - 0.2 * i)
        p.fill(p.ridge(horizon - 0.10 + 0.05 * i, 0.07, waves=0.8), far, shade(far, 0.9))
    for x in rng.uniform(0, 1, int(rng.integers(2, 5))):
        _tree(p, rng, float(x), ground, float(rng.uniform(0.34, 0.6)))
    lawn = shade(mix(green, (0.62, 0.76, 0.34), 0.45), 1.0)
    p.fill(box(0, ground, 1, 1), shade(lawn, 0.9), shade(lawn, 1.08))
    border = pick(rng, ("fence", "fence", "hedge", "wall"))
    if border == "fence":
        _fence(p, rng, ground + 0.02, float(rng.uniform(0.14, 0.22)))
    elif border == "wall":
        _bricks(p, rng, (0, ground - 0.13, 1, ground + 0.015), vary(pick(rng, FRONTS), rng), 0.03)
        p.shadow(box(-0.1, ground, 1.1, ground + 0.035), 0.25, 0.015)
    places: list[Place] = []
    if rng.random() < 0.45:
        places += _shed(p, mood, rng, float(rng.uniform(0.03, 0.2)), ground + 0.06)
    if rng.random() < 0.6:
        _path(p, rng, ground + 0.02)
    if rng.random() < 0.3:
        x, y = float(rng.uniform(0.3, 0.7)), float(rng.uniform(ground + 0.16, 0.85))
        p.fill(p.blob(x, y, 0.25, 0.07), (0.55, 0.60, 0.52), (0.62, 0.66, 0.56), rim=0.15)
        p.fill(
            p.blob(x, y, 0.22, 0.055),
            mix(mood.zenith, (0.3, 0.5, 0.6), 0.4),
            mix(mood.haze, (0.5, 0.7, 0.75), 0.5),
        )
    shrub = vary(pick(rng, LEAVES), rng)
    count = 9 if border == "hedge" else int(rng.integers(1, 5))
    for x in (np.arange(count) + rng.uniform(0.2, 0.8, count)) / count:
        r = float(rng.uniform(0.07, 0.12))
        p.shadow(p.oval(float(x), ground + 0.035, r, 0.02), 0.25, 0.012)
        _foliage(
            p,
            rng,
            float(x),
            ground - r * 0.45,
            r * (1.35 if border == "hedge" else 1.0),
            r * 0.9,
            vary(shrub, rng),
        )
    _grass(p, rng, ground + 0.05, lawn)
    for _ in range(int(rng.integers(1, 4))):
        x, y = float(rng.uniform(0, 0.8)), float(rng.uniform(ground + 0.03, 0.85))
        _flowers(p, rng, (x, y, x + 0.22, y + 0.09), int(rng.integers(8, 22)))
    if rng.random() < 0.4:
        places += _table(
            p,
            rng,
            float(rng.uniform(0.25, 0.75)),
            float(rng.uniform(0.62, 0.7)),
            float(rng.uniform(0.2, 0.28)),
            0.04,
            0.17,
        )
    places += [
        Place(float(rng.uniform(0.1, 0.9)), float(rng.uniform(0.1, horizon - 0.08)), 0.18, "air")
        for _ in range(3)
    ]
    return places + _on_ground(rng, ground - 0.15, ground + 0.1, 10)


def _shed(p: Plate, mood: Mood, rng: np.random.Generator, left: float, foot: float) -> list[Place]:
    """A wooden garden house."""
    wood, roof = vary(pick(rng, PAINTS + WOODS), rng), vary(pick(rng, FRONTS), rng)
    wide, eaves = 0.36 / p.aspect, foot - 0.28
    p.shadow(box(left, foot - 0.01, left + wide + 0.03, foot + 0.025), 0.3, 0.015)
    p.fill(box(left, eaves, left + wide, foot), shade(wood, 1.05), shade(wood, 0.85), rim=0.2)
    for i in range(1, 9):
        x = left + wide * i / 9
        p.line([(x, eaves), (x, foot)], shade(wood, 0.8), 0.004)
    peak = left + wide / 2
    p.fill(
        [(left - 0.03, eaves + 0.01), (peak, eaves - 0.16), (left + wide + 0.03, eaves + 0.01)],
        shade(roof, 0.95),
        shade(roof, 0.78),
        rim=0.25,
    )
    _door(p, rng, left + wide * 0.12, foot - 0.22, foot)
    _window(p, mood, rng, (left + wide * 0.62, foot - 0.2, left + wide * 0.88, foot - 0.11), False)
    return [Place(peak, eaves - 0.05, 0.15, "wall")]


def _path(p: Plate, rng: np.random.Generator, top: float) -> None:
    """A winding path of sand or stepping stones."""
    colour = vary(pick(rng, ((0.86, 0.78, 0.62), (0.72, 0.70, 0.68), (0.80, 0.66, 0.54))), rng)
    way = np.linspace(0, 1, 16)
    start, end, bend = rng.uniform(0.3, 0.7), rng.uniform(0.15, 0.85), rng.uniform(-0.15, 0.15)
    x = start + (end - start) * way + bend * np.sin(np.pi * 1.3 * way)
    y = top + (1.02 - top) * way**1.3
    half = (0.02 + 0.11 * way) / p.aspect
    if rng.random() < 0.5:
        outline = np.concatenate([np.stack([x - half, y], axis=1), np.stack([x + half, y], axis=1)[::-1]])
        p.fill(outline, shade(colour, 0.94), shade(colour, 1.06), rim=0.12)
    else:
        for i in range(1, 16, 2):
            p.fill(
                p.blob(float(x[i]), float(y[i]), float(half[i]) * p.aspect, 0.012 + 0.022 * float(way[i])),
                shade(colour, 1.05),
                shade(colour, 0.9),
                rim=0.2,
            )


def _beach(p: Plate, mood: Mood, rng: np.random.Generator) -> list[Place]:
    horizon = float(rng.uniform(0.30, 0.44))
    shore = horizon + float(rng.uniform(0.10, 0.20))
    _sky(p, mood, rng, horizon)
    sea = _sea(p, mood, rng, horizon, shore)
    sand = _sand(p, rng, shore, sea)
    places: list[Place] = []
    if rng.random() < 0.6:
        _dune(p, rng, sand, shore)
    if rng.random() < 0.55:
        _rocks(p, rng, float(rng.uniform(0.05, 0.95)), shore + 0.02)
    if rng.random() < 0.35:
        _jetty(p, rng, horizon, shore)
    if rng.random() < 0.45:
        places += _beach_huts(p, rng, shore)
    if rng.random() < 0.4:
        _rug(p, rng, float(rng.uniform(0.2, 0.8)), float(rng.uniform(0.78, 0.9)), 0.2, 0.05)
    places += [
        Place(float(rng.uniform(0.1, 0.9)), float(rng.uniform(0.1, horizon - 0.06)), 0.18, "air")
        for _ in range(3)
    ]
    places += [Place(float(rng.uniform(0.1, 0.9)), horizon + (shore - horizon) * 0.55, 0.15, "floor")]
    return places + _on_ground(rng, shore - 0.2, shore + 0.09, 10)


def _sea(p: Plate, mood: Mood, rng: np.random.Generator, horizon: float, shore: float) -> Colour:
    """Open water with glints and perhaps a headland; gives its colour."""
    if rng.random() < 0.5:
        far = mix((0.45, 0.55, 0.5), mood.haze, 0.5)
        x0 = float(rng.uniform(-0.2, 0.7))
        x = np.linspace(x0, x0 + float(rng.uniform(0.3, 0.6)), 30)
        rise = float(rng.uniform(0.03, 0.10))
        line = horizon - rise * np.sin(np.pi * np.linspace(0, 1, 30)) * (0.8 + 0.2 * np.sin(x * 25))
        p.fill(
            [*_points(x, line), (float(x[-1]), horizon), (float(x[0]), horizon)],
            far,
            shade(far, 0.88),
        )
    sea = mix(
        vary(pick(rng, ((0.22, 0.52, 0.66), (0.24, 0.60, 0.64), (0.30, 0.46, 0.60))), rng), mood.zenith, 0.25
    )
    p.fill(box(0, horizon, 1, 1), shade(sea, 0.92), mix(sea, (0.72, 0.90, 0.86), 0.7))
    for _ in range(26):
        y = horizon + (shore - horizon) * float(rng.random())
        left, w = float(rng.random()), float(rng.uniform(0.02, 0.10)) * (0.4 + (y - horizon) / 0.15)
        p.line([(left, y), (left + w, y)], mix(sea, (1, 1, 1), float(rng.uniform(0.15, 0.5))), 0.004)
    return sea


def _sand(p: Plate, rng: np.random.Generator, shore: float, sea: Colour) -> Colour:
    """The beach with lines of foam along a curved shore; gives the sand's colour."""
    sand = vary(
        pick(rng, ((0.93, 0.83, 0.62), (0.90, 0.78, 0.60), (0.95, 0.89, 0.75), (0.84, 0.74, 0.60))), rng, 0.04
    )
    coast = np.asarray(p.ridge(shore, 0.035, waves=0.6))
    slope = np.array([0.0, float(rng.uniform(-0.10, 0.10))])
    coast = coast + slope * (coast[:, :1] - 0.5) * (coast[:, 1:] < 1)
    for lift, tone in (
        (-0.022, (0.96, 0.98, 0.97)),
        (-0.010, mix(sea, (0.9, 0.95, 0.9), 0.6)),
        (-0.004, (0.97, 0.98, 0.97)),
        (0.006, shade(sand, 0.80)),
    ):
        p.fill(np.add(coast, (0, lift)), tone)
    p.fill(np.add(coast, (0, 0.03)), shade(sand, 0.97), shade(sand, 1.12))
    _ripples(p, rng, sand, shore)
    return sand


def _ripples(p: Plate, rng: np.random.Generator, sand: Colour, shore: float) -> None:
    """Grains and wind lines on the sand."""
    for _ in range(60):
        y = shore + 0.08 + (0.92 - shore) * float(rng.random())
        p.fill(
            p.oval(float(rng.random()), y, 0.003 + 0.004 * y, 0.003, steps=8),
            shade(sand, float(rng.choice([0.8, 0.88, 1.3]))),
        )
    for _ in range(8):
        x, y, w = float(rng.random()), float(rng.uniform(shore + 0.1, 0.98)), float(rng.uniform(0.06, 0.2))
        p.line(
            [(x, y), (x + w / 3, y - 0.008), (x + w * 0.7, y - 0.004), (x + w, y + 0.004)],
            shade(sand, 0.92),
            0.005,
        )


def _dune(p: Plate, rng: np.random.Generator, sand: Colour, shore: float) -> None:
    """A dune running in from one side, with marram grass."""
    reach = float(rng.uniform(0.3, 0.6))
    x = np.linspace(-0.02, reach, 30)
    crest = (
        shore + 0.12 - float(rng.uniform(0.16, 0.26)) * np.cos(np.clip(x / reach, 0, 1) * np.pi / 2) ** 1.5
    )
    p.fill(
        np.concatenate([np.stack([x, crest], axis=1), [(reach, shore + 0.12), (-0.02, shore + 0.24)]]),
        shade(sand, 1.15),
        shade(sand, 0.92),
    )
    for _ in range(36):
        i = int(rng.integers(0, 24))
        foot = float(crest[i]) + float(rng.uniform(0, 0.05))
        lean, high = float(rng.uniform(-0.02, 0.03)), float(rng.uniform(0.03, 0.08))
        p.line(
            [
                (float(x[i]), foot),
                (float(x[i]) + lean * 0.4, foot - high * 0.6),
                (float(x[i]) + lean, foot - high),
            ],
            shade((0.58, 0.62, 0.36), float(rng.uniform(0.8, 1.15))),
            0.005,
        )


def _rocks(p: Plate, rng: np.random.Generator, x: float, foot: float) -> None:
    stone = vary(pick(rng, ((0.50, 0.48, 0.48), (0.58, 0.50, 0.44), (0.42, 0.45, 0.50))), rng)
    for _ in range(int(rng.integers(2, 6))):
        r = float(rng.uniform(0.035, 0.09))
        cx, cy = x + float(rng.uniform(-0.13, 0.13)), foot + float(rng.uniform(-0.01, 0.05))
        p.shadow(p.oval(cx, cy + r * 0.45, r * 1.1, r * 0.2), 0.35, 0.01)
        p.fill(p.blob(cx, cy, r, r * 0.62, 0.2), shade(stone, 1.15), shade(stone, 0.72), rim=0.2)
        p.fill(
            p.blob(cx - 0.2 * r / p.aspect, cy - r * 0.22, r * 0.5, r * 0.22, 0.2),
            shade(stone, 1.3),
            opacity=0.7,
        )


def _jetty(p: Plate, rng: np.random.Generator, horizon: float, shore: float) -> None:
    """A plank walk out to sea."""
    wood = vary(pick(rng, WOODS), rng)
    x, far = float(rng.uniform(0.2, 0.8)), horizon + (shore - horizon) * 0.25
    near, drift = shore + 0.06, float(rng.uniform(-0.15, 0.15))
    a, b = 0.02 / p.aspect, 0.075 / p.aspect
    for t in (0.1, 0.35, 0.6, 0.85):
        cx, w, y = x + drift * t, a + (b - a) * t, far + (near - far) * t
        for side in (-1, 1):
            p.line(
                [(cx + side * w, y - 0.01 - 0.02 * t), (cx + side * w, y + 0.03 + 0.03 * t)],
                shade(wood, 0.6),
                0.006 + 0.01 * t,
            )
    p.fill(
        [(x - a, far), (x + a, far), (x + drift + b, near), (x + drift - b, near)],
        shade(wood, 0.95),
        shade(wood, 1.15),
        rim=0.2,
    )
    for t in np.linspace(0.05, 0.95, 14) ** 1.4:
        cx, w, y = x + drift * t, a + (b - a) * t, far + (near - far) * t
        p.line([(cx - w, y), (cx + w, y)], shade(wood, 0.76), 0.004)


def _beach_huts(p: Plate, rng: np.random.Generator, shore: float) -> list[Place]:
    """A few painted huts on the sand at one side."""
    wide, foot, places = 0.20 / p.aspect, shore + 0.10, []
    for i in range(int(rng.integers(1, 4))):
        colour, roof = vary(pick(rng, FRONTS + PAINTS), rng), vary(pick(rng, FRONTS), rng)
        left = 1 - (i + 1) * (wide + 0.02)
        eaves = foot - 0.19
        p.shadow(box(left, foot - 0.015, left + wide + 0.02, foot + 0.02), 0.3, 0.012)
        p.fill(box(left, eaves, left + wide, foot), shade(colour, 1.1), shade(colour, 0.9), rim=0.2)
        for k in range(1, 7):
            y = eaves + (foot - eaves) * k / 7
            p.line([(left, y), (left + wide, y)], shade(colour, 0.86), 0.003)
        p.fill(
            [
                (left - 0.012, eaves + 0.01),
                (left + wide / 2, eaves - 0.11),
                (left + wide + 0.012, eaves + 0.01),
            ],
            roof,
            shade(roof, 0.82),
            rim=0.25,
        )
        p.fill(
            box(left + wide * 0.3, foot - 0.15, left + wide * 0.7, foot),
            shade(colour, 0.7),
            shade(colour, 0.62),
            rim=0.25,
        )
        places.append(Place(left + wide / 2, foot + 0.03, 0.17, "floor"))
    return places


_PAINTERS: dict[str, Callable[[Plate, Mood, np.random.Generator], list[Place]]] = {
    "kitchen": _kitchen,
    "living room": _living_room,
    "bathroom": _bathroom,
    "street": _street,
    "garden": _garden,
    "beach": _beach,
}


# ---- backgrounds that show no place ------------------------------------------------------------------------


def draw_texture(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A background without a scene, RGB: a gradient, noise, an ornament, plaid or blurred blots."""
    width, height = size
    palette = WALLS + PAINTS + FRONTS + LEAVES + WOODS
    first, second = vary(pick(rng, palette), rng, 0.1), vary(pick(rng, palette), rng, 0.1)
    style = int(rng.integers(5))
    if style == 4:
        return _blots(rng, size, palette)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / height
    turn = float(rng.uniform(0, np.pi))
    way = x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn))
    if style == 0:
        weight = (way - way.min()) / max(1e-6, float(way.max() - way.min()))
    elif style == 1:
        coarse = int(rng.integers(4, 40))
        grid = rng.random((coarse, coarse), dtype=np.float32)
        weight = np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC), np.float32)
    elif style == 2:
        name = pick(rng, ("striped", "dotted", "checked", "zigzag"))
        weight = Pattern(name, second, float(rng.uniform(0.05, 0.25)), turn).weight(x, y)
    else:
        step = np.float32(rng.uniform(0.1, 0.3))
        weight = 0.5 * (np.mod(x, step) < 0.4 * step) + 0.5 * (np.mod(y, step) < 0.4 * step)
    pixels = np.asarray(first, np.float32) + weight[..., None] * (np.asarray(second, np.float32) - first)
    pixels += rng.normal(0, 0.015, (height, width, 1)).astype(np.float32)
    return Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))


def _blots(rng: np.random.Generator, size: tuple[int, int], palette: tuple[Colour, ...]) -> Image.Image:
    """Colour blots, blurred into one another."""
    plate = Plate(size, rng)
    plate.fill(box(0, 0, 1, 1), pick(rng, palette))
    for _ in range(14):
        x, y, r = float(rng.random()), float(rng.random()), float(rng.uniform(0.08, 0.35))
        plate.fill(plate.blob(x, y, r, wobble=0.25), vary(pick(rng, palette), rng, 0.1))
    soft = plate.finish((1.0, 1.0, 1.0), 0.1)
    return soft.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.0, 0.05)) * size[1]))
