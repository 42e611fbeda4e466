"""Plates of places outdoors: street, garden and beach."""

from __future__ import annotations

import numpy as np

from steersearch.training.world.fixtures import draw_bricks, draw_door, draw_rug, draw_table, draw_window
from steersearch.training.world.painting import Colour, Point, mix, shade, vary
from steersearch.training.world.places import (
    BLOSSOMS,
    FRONTS,
    LEAVES,
    PAINTS,
    WOODS,
    Mood,
    Place,
    in_air,
    on_ground,
    pick,
    points,
)
from steersearch.training.world.plate import Plate, box


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
        lift = 0.96 + 0.2 * (y - cy) / ry
        p.fill(p.blob(float(cx), float(cy), rx * 0.42, ry * 0.38), shade(green, lift))
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


def _grass(p: Plate, rng: np.random.Generator, top: float, green: Colour, count: int = 60) -> None:
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


def paint_street(p: Plate, mood: Mood, rng: np.random.Generator) -> list[Place]:
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
    places += in_air(rng, 0.2, 2)
    return places + on_ground(rng, ground - 0.15, ground + 0.05, 10)


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
        draw_bricks(p, rng, (left, eaves, right, ground), colour, 0.022)
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
        draw_door(p, rng, x, storey + 0.03, ground)
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


def paint_garden(p: Plate, mood: Mood, rng: np.random.Generator) -> list[Place]:
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
        draw_bricks(p, rng, (0, ground - 0.13, 1, ground + 0.015), vary(pick(rng, FRONTS), rng), 0.03)
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
    count = 8 if border == "hedge" else int(rng.integers(1, 5))
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
        places += draw_table(
            p,
            rng,
            float(rng.uniform(0.25, 0.75)),
            float(rng.uniform(0.62, 0.7)),
            float(rng.uniform(0.2, 0.28)),
            0.04,
            0.17,
        )
    places += in_air(rng, horizon - 0.08, 3)
    return places + on_ground(rng, ground - 0.15, ground + 0.1, 10)


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
    draw_door(p, rng, left + wide * 0.12, foot - 0.22, foot)
    draw_window(p, mood, rng, (left + wide * 0.62, foot - 0.2, left + wide * 0.88, foot - 0.11), False)
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


def paint_beach(p: Plate, mood: Mood, rng: np.random.Generator) -> list[Place]:
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
        draw_rug(p, rng, float(rng.uniform(0.2, 0.8)), float(rng.uniform(0.78, 0.9)), 0.2, 0.05)
    places += in_air(rng, horizon - 0.06, 3)
    return places + on_ground(rng, shore - 0.2, shore + 0.09, 10)


def _sea(p: Plate, mood: Mood, rng: np.random.Generator, horizon: float, shore: float) -> Colour:
    """Open water with glints and perhaps a headland; gives its colour."""
    if rng.random() < 0.5:
        far = mix((0.45, 0.55, 0.5), mood.haze, 0.5)
        x0 = float(rng.uniform(-0.2, 0.7))
        x = np.linspace(x0, x0 + float(rng.uniform(0.3, 0.6)), 30)
        rise = float(rng.uniform(0.03, 0.10))
        line = horizon - rise * np.sin(np.pi * np.linspace(0, 1, 30)) * (0.8 + 0.2 * np.sin(x * 25))
        p.fill(
            [*points(x, line), (float(x[-1]), horizon), (float(x[0]), horizon)],
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
                [(cx + side * w, y - 0.01 - 0.02 * t), (cx + side * w, y + 0.02 + 0.012 * t)],
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
