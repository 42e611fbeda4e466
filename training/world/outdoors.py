"""Plates of places outdoors: street, garden and beach."""

from __future__ import annotations

import numpy as np

from steersearch.training.world.fixtures import draw_bricks, draw_door, draw_rug, draw_table, draw_window
from steersearch.training.world.painting import Colour, Point, mix, shade, trapezoid, vary
from steersearch.training.world.places import BLOSSOMS, FRONTS, LEAVES, PAINTS, WOODS, Place
from steersearch.training.world.plate import Plate, box


def _sky(p: Plate, bottom: float) -> None:
    """Sky with sun or moon and clouds, down to `bottom`."""
    p.fill(box(0, 0, 1, bottom + 0.02), vary(p.mood.zenith, p.rng, 0.04), p.mood.haze)
    x, y = p.uniform(0.08, 0.92), p.uniform(0.08, bottom * 0.6)
    sun = (1.0, 0.95, 0.72) if not p.mood.evening else (1.0, 0.86, 0.62)
    if p.chance(0.6):
        r = p.uniform(0.035, 0.07)
        p.light(p.oval(x, y, 2.6 * r), sun, 0.5, 1.1 * r)
        p.fill(p.oval(x, y, r), sun)
    for _ in range(p.integer(0, 6)):
        _cloud(p, p.uniform(0, 1), p.uniform(0.04, bottom * 0.75), p.uniform(0.03, 0.08))


def _cloud(p: Plate, x: float, y: float, r: float) -> None:
    white = mix((1, 1, 1), p.mood.haze, 0.35)
    puffs = [
        (x + d * r * 0.95 / p.aspect, y - r * 0.4 * p.rng.random() * (2 - abs(d)), r * (1 - 0.22 * abs(d)))
        for d in (-2, -1, 0, 1, 2)
    ]
    for cx, cy, size in puffs:
        p.fill(p.oval(cx, cy + 0.3 * size, size, size * 0.62, steps=24), mix(white, p.mood.zenith, 0.28))
    for cx, cy, size in puffs:
        p.fill(p.oval(cx, cy, size * 0.96, size * 0.66, steps=24), white)


def _foliage(p: Plate, x: float, y: float, rx: float, ry: float, green: Colour) -> None:
    """A crown or a bush: overlapping tufts, darker below, with dabs of light."""
    p.shaded(p.blob(x, y, rx, ry, 0.10), green, 0.92, 0.70)
    for _ in range(5):
        turn, reach = p.rng.uniform(0, 6.28), p.rng.uniform(0.2, 0.62)
        cx, cy = x + reach * rx * np.cos(turn) / p.aspect, y + reach * ry * np.sin(turn) - 0.1 * ry
        lift = 0.96 + 0.2 * (y - cy) / ry
        p.fill(p.blob(float(cx), float(cy), rx * 0.42, ry * 0.38), shade(green, lift))
    for _ in range(9):
        turn, reach = p.rng.uniform(0, 6.28), p.rng.uniform(0.1, 0.85)
        cx, cy = x + reach * rx * np.cos(turn) / p.aspect, y + reach * ry * np.sin(turn)
        tone = shade(green, p.uniform(0.78, 1.3))
        p.fill(p.oval(float(cx), float(cy), rx * 0.07, ry * 0.05, steps=10), tone)


def _tree(p: Plate, x: float, foot: float, high: float) -> None:
    """A round or a pointed tree standing at (x, foot)."""
    bark, green = p.tone(WOODS[:4]), p.tone(LEAVES)
    w = 0.05 * high / p.aspect
    p.shadow(p.oval(x, foot, high * 0.28, high * 0.045), 0.3, 0.015)
    p.shaded(trapezoid(x, foot - high * 0.6, foot, w * 0.7, w), bark, 0.8, 1, rim=0.2)
    if p.chance(0.3):
        for k in range(4):
            top, span = foot - high * (1 - 0.17 * k), high * (0.15 + 0.055 * k) / p.aspect
            low = top + high * 0.32
            p.shaded([(x, top), (x + span, low), (x, low + 0.012), (x - span, low)], green, 1.05, 0.72)
    else:
        _foliage(p, x, foot - high * 0.68, high * 0.32, high * 0.33, green)


def _fence(p: Plate, foot: float, high: float) -> None:
    """Palings or rails across the whole width."""
    paint = p.tone((PAINTS[0], PAINTS[0], WOODS[0], WOODS[3], PAINTS[1], PAINTS[4]))
    step = p.uniform(0.05, 0.085)
    solid, pointed = p.chance(0.3), p.chance(0.6)
    p.shadow(box(-0.1, foot - 0.01, 1.1, foot + 0.03), 0.25, 0.015)
    for y in (0.75, 0.3):
        p.block(0, foot - high * y - 0.012, 1, foot - high * y + 0.012, shade(paint, 0.8))
    for i in range(int(p.aspect / step) + 2):
        x, w = i * step / p.aspect, step * (0.97 if solid else 0.6) / p.aspect
        tip = foot - high
        top: list[Point] = (
            [(x, tip + 0.02), (x + w / 2, tip), (x + w, tip + 0.02)] if pointed else [(x, tip), (x + w, tip)]
        )
        p.shaded([*top, (x + w, foot), (x, foot)], paint, p.uniform(0.98, 1.08), 0.84, rim=0.18)


def _grass(p: Plate, top: float, green: Colour) -> None:
    """Tufts, larger towards the viewer."""
    for depth in np.sort(p.rng.random(60)):
        x, y = p.rng.random(), top + (1 - top) * float(depth)
        high = 0.008 + 0.022 * float(depth)
        tone = shade(green, p.pick((0.82, 0.9, 1.12, 1.2)))
        dx = high * 0.5 / p.aspect
        p.line([(x - dx, y - high), (x, y), (x + dx * 0.2, y - high * 1.2)], tone, 0.004)


def _flowers(p: Plate, area: tuple[float, float, float, float], count: int) -> None:
    left, top, right, bottom = area
    kinds = (p.pick(BLOSSOMS), p.pick(BLOSSOMS))
    for depth in np.sort(p.rng.random(count)):
        x, y = p.uniform(left, right), top + (bottom - top) * float(depth)
        r = 0.008 + 0.007 * y
        p.line([(x, y), (x, y + 3 * r)], (0.30, 0.48, 0.26), 0.005)
        p.fill(p.oval(x, y, r, r * 0.8, steps=10), p.tone(kinds))
        p.fill(p.oval(x, y, r * 0.4, r * 0.35, steps=8), (0.98, 0.86, 0.42))


def paint_street(p: Plate) -> None:
    ground = p.uniform(0.56, 0.68)
    _sky(p, 0.45)
    left = -p.uniform(0, 0.15)
    while left < 1:
        wide = p.uniform(0.22, 0.40) * (1.2 if p.aspect < 1 else 1.0)
        if p.chance(0.14) and left > 0:
            wide *= 0.6
            p.shaded(box(left, ground - 0.16, left + wide, ground), FRONTS[8], 1, 0.85)
            _tree(p, left + wide / 2, ground, p.uniform(0.3, 0.42))
        else:
            _house(p, left, left + wide, p.uniform(0.02, 0.2), ground)
            p.places.append(Place(left + wide / 2, ground - 0.27, 0.17, "wall"))
        left += wide
    kerb = ground + p.uniform(0.10, 0.17)
    stone = p.tone(((0.74, 0.72, 0.70), (0.80, 0.74, 0.66), (0.66, 0.68, 0.72)))
    p.shaded(box(0, ground, 1, kerb), stone, 0.92, 1.08)
    p.shadow(box(-0.1, ground - 0.005, 1.1, ground + 0.02), 0.35, 0.02)
    for i in range(-2, 18):
        x = i * 0.09
        p.line([(0.5 + (x - 0.5) * 0.9, ground), (0.5 + (x - 0.5) * 1.15, kerb)], shade(stone, 0.82), 0.004)
    p.line([(0, (ground + kerb) / 2), (1, (ground + kerb) / 2)], shade(stone, 0.84), 0.004)
    p.shaded(box(0, kerb, 1, kerb + 0.025), stone, 1.2, 0.75)
    _road(p, kerb + 0.025)
    if p.chance(0.6):
        for x in p.rng.uniform(0.05, 0.95, p.integer(1, 3)):
            _tree(p, float(x), kerb - 0.02, p.uniform(0.42, 0.6))
    if p.chance(0.5):
        _bench(p, p.uniform(0.2, 0.8), kerb - 0.03)
    p.in_air(0.2, 2)
    p.on_ground(ground - 0.15, ground + 0.05, 10)


def _house(p: Plate, left: float, right: float, top: float, ground: float) -> None:
    """A house front with roof, rows of windows, a door or a shop window."""
    colour, tiles = p.tone(FRONTS), p.tone(((0.70, 0.36, 0.28), (0.45, 0.42, 0.46), (0.55, 0.40, 0.32)))
    eaves, middle = top + p.uniform(0.06, 0.12), (left + right) / 2
    ridge = [(middle, top - 0.05)] if p.chance(0.5) else [(left + 0.03, top), (right - 0.03, top)]
    p.shaded([(left - 0.01, eaves), *ridge, (right + 0.01, eaves)], tiles, 1, 0.85, rim=0.2)
    if p.chance(0.25):
        draw_bricks(p, (left, eaves, right, ground), colour, 0.022)
    else:
        p.shaded(box(left, eaves, right, ground), colour, 1.08, 0.88, rim=0.15)
    p.shadow(box(left, eaves, right, eaves + 0.012), 0.35, 0.012)
    lit = p.mood.evening and p.chance(0.8)
    storey = ground - 0.22
    columns = max(2, round((right - left) * p.aspect / 0.15))
    frame = p.tone((PAINTS[0], PAINTS[1], WOODS[3]))
    rows = max(1, int((storey - eaves) / 0.15))
    for row in range(rows):
        y = eaves + 0.035 + row * (storey - eaves - 0.02) / rows
        for i in range(columns):
            x = left + (right - left) * (i + 0.5) / columns
            w = 0.035 / p.aspect
            pane = (1.0, 0.86, 0.52) if lit and p.chance(0.5) else mix(p.mood.zenith, (0.35, 0.42, 0.5), 0.45)
            p.fill(box(x - w * 1.2, y - 0.008, x + w * 1.2, y + 0.098), frame, rim=0.2)
            p.shaded(box(x - w, y, x + w, y + 0.088), pane, 1, 1.2)
            p.line([(x, y), (x, y + 0.088)], frame, 0.006)
            p.line([(x - w, y + 0.04), (x + w, y + 0.04)], frame, 0.006)
            p.block(x - w * 1.4, y + 0.095, x + w * 1.4, y + 0.107, shade(frame, 1.15))
    if p.chance(0.45):
        _shop(p, left, right, storey, ground)
    else:
        x = left + (right - left) * p.pick((0.22, 0.5))
        draw_door(p, x, storey + 0.03, ground)
        p.block(left, storey - 0.006, right, storey + 0.006, shade(colour, 1.25))


def _shop(p: Plate, left: float, right: float, top: float, ground: float) -> None:
    """A shop window under a striped awning."""
    wood, glass = p.tone(PAINTS), mix(p.mood.zenith, (0.3, 0.36, 0.42), 0.4)
    glass = (0.98, 0.84, 0.55) if p.mood.evening else glass
    inset = 0.02
    p.fill(box(left + inset, top + 0.03, right - inset, ground), shade(wood, 0.9), rim=0.2)
    for a, b in ((0.1, 0.48), (0.54, 0.92)):
        x0, x1 = left + (right - left) * a, left + (right - left) * b
        p.shaded(box(x0, top + 0.08, x1, ground - 0.04), glass, 1, 1.2, rim=0.2)
        gleam = [(x0, top + 0.08), (x0 + (x1 - x0) * 0.5, top + 0.08), (x0, ground - 0.05)]
        p.light(gleam, (1, 1, 1), 0.25, 0.006)
    stripe, foot = p.tone(FRONTS[:1] + PAINTS[1:]), top + 0.075
    for i in range(8):
        x0, x1 = left + (right - left) * i / 8, left + (right - left) * (i + 1) / 8
        tone = stripe if i % 2 else (0.95, 0.93, 0.88)
        p.shaded([(x0, top), (x1, top), (x1 + 0.004, foot), (x0 - 0.004, foot)], tone, 1.05, 0.86)
        p.fill(p.oval((x0 + x1) / 2, foot, (x1 - x0) * p.aspect / 2, 0.014, steps=16), shade(tone, 0.86))


def _road(p: Plate, top: float) -> None:
    """Asphalt with a broken line, or cobbles."""
    colour = p.tone(((0.46, 0.46, 0.50), (0.58, 0.54, 0.50), (0.40, 0.42, 0.47)))
    p.shaded(box(0, top, 1, 1), colour, 0.88, 1.1)
    if p.chance(0.45):
        y, row = top, 0
        while y < 1:
            high = 0.018 + 0.05 * (y - top)
            wide = high * 1.8 / p.aspect
            for i in range(int(1 / wide) + 2):
                x = (i - 0.5 * (row % 2)) * wide
                tone = shade(colour, p.uniform(0.94, 1.14))
                p.block(x + wide * 0.06, y + high * 0.08, x + wide * 0.94, y + high * 0.92, tone)
            y, row = y + high, row + 1
    elif p.chance(0.7):
        y = top + (1 - top) * 0.55
        for i in range(5):
            x = i * 0.25 + 0.03
            p.fill([(x + 0.01, y), (x + 0.13, y), (x + 0.12, y + 0.022), (x, y + 0.022)], (0.90, 0.88, 0.80))


def _bench(p: Plate, x: float, foot: float) -> None:
    wood = p.tone(WOODS + PAINTS[1:4])
    w = 0.17 / p.aspect
    p.shadow(p.oval(x, foot, 0.18, 0.02), 0.35, 0.012)
    for dx in (-0.8, 0.8):
        p.fill(box(x + dx * w - 0.007, foot - 0.16, x + dx * w + 0.007, foot), (0.28, 0.27, 0.3))
    for y in (0.165, 0.13, 0.075, 0.055):
        p.shaded(box(x - w, foot - y, x + w, foot - y + 0.024), wood, 1.1, 0.85, rim=0.25)
    p.places += [Place(x + dx * w, foot - 0.05, 0.16, "table") for dx in (-0.45, 0.45)]


def paint_garden(p: Plate) -> None:
    horizon = p.uniform(0.36, 0.5)
    ground = horizon + p.uniform(0.06, 0.12)
    _sky(p, horizon)
    green = p.tone(LEAVES[:3])
    for i in range(p.integer(1, 4)):
        far = mix(green, p.mood.haze, 0.6 - 0.2 * i)
        p.shaded(p.ridge(horizon - 0.10 + 0.05 * i, 0.07, waves=0.8), far, 1, 0.9)
    for x in p.rng.uniform(0, 1, p.integer(2, 5)):
        _tree(p, float(x), ground, p.uniform(0.34, 0.6))
    lawn = shade(mix(green, (0.62, 0.76, 0.34), 0.45), 1.0)
    p.shaded(box(0, ground, 1, 1), lawn, 0.9, 1.08)
    border = p.pick(("fence", "fence", "hedge", "wall"))
    if border == "fence":
        _fence(p, ground + 0.02, p.uniform(0.14, 0.22))
    elif border == "wall":
        draw_bricks(p, (0, ground - 0.13, 1, ground + 0.015), p.tone(FRONTS), 0.03)
        p.shadow(box(-0.1, ground, 1.1, ground + 0.035), 0.25, 0.015)
    if p.chance(0.45):
        _shed(p, p.uniform(0.03, 0.2), ground + 0.06)
    if p.chance(0.6):
        _path(p, ground + 0.02)
    if p.chance(0.3):
        x, y = p.uniform(0.3, 0.7), p.uniform(ground + 0.16, 0.85)
        p.fill(p.blob(x, y, 0.25, 0.07), (0.55, 0.60, 0.52), (0.62, 0.66, 0.56), rim=0.15)
        far, near = mix(p.mood.zenith, (0.3, 0.5, 0.6), 0.4), mix(p.mood.haze, (0.5, 0.7, 0.75), 0.5)
        p.fill(p.blob(x, y, 0.22, 0.055), far, near)
    shrub = p.tone(LEAVES)
    count = 8 if border == "hedge" else p.integer(1, 5)
    for x in (np.arange(count) + p.rng.uniform(0.2, 0.8, count)) / count:
        r = p.uniform(0.07, 0.12)
        p.shadow(p.oval(float(x), ground + 0.035, r, 0.02), 0.25, 0.012)
        wide = r * (1.35 if border == "hedge" else 1.0)
        _foliage(p, float(x), ground - r * 0.45, wide, r * 0.9, vary(shrub, p.rng))
    _grass(p, ground + 0.05, lawn)
    for _ in range(p.integer(1, 4)):
        x, y = p.uniform(0, 0.8), p.uniform(ground + 0.03, 0.85)
        _flowers(p, (x, y, x + 0.22, y + 0.09), p.integer(8, 22))
    if p.chance(0.4):
        draw_table(p, p.uniform(0.25, 0.75), p.uniform(0.62, 0.7), p.uniform(0.2, 0.28), 0.04, 0.17)
    p.in_air(horizon - 0.08, 3)
    p.on_ground(ground - 0.15, ground + 0.1, 10)


def _shed(p: Plate, left: float, foot: float) -> None:
    """A wooden garden house."""
    wood, roof = p.tone(PAINTS + WOODS), p.tone(FRONTS)
    wide, eaves = 0.36 / p.aspect, foot - 0.28
    p.shadow(box(left, foot - 0.01, left + wide + 0.03, foot + 0.025), 0.3, 0.015)
    p.shaded(box(left, eaves, left + wide, foot), wood, 1.05, 0.85, rim=0.2)
    for i in range(1, 9):
        x = left + wide * i / 9
        p.line([(x, eaves), (x, foot)], shade(wood, 0.8), 0.004)
    peak = left + wide / 2
    gable = [(left - 0.03, eaves + 0.01), (peak, eaves - 0.16), (left + wide + 0.03, eaves + 0.01)]
    p.shaded(gable, roof, 0.95, 0.78, rim=0.25)
    draw_door(p, left + wide * 0.12, foot - 0.22, foot)
    draw_window(p, (left + wide * 0.62, foot - 0.2, left + wide * 0.88, foot - 0.11), False)
    p.places += [Place(peak, eaves - 0.05, 0.15, "wall")]


def _path(p: Plate, top: float) -> None:
    """A winding path of sand or stepping stones."""
    colour = p.tone(((0.86, 0.78, 0.62), (0.72, 0.70, 0.68), (0.80, 0.66, 0.54)))
    way = np.linspace(0, 1, 16)
    start, end, bend = p.rng.uniform(0.3, 0.7), p.rng.uniform(0.15, 0.85), p.rng.uniform(-0.15, 0.15)
    x = start + (end - start) * way + bend * np.sin(np.pi * 1.3 * way)
    y = top + (1.02 - top) * way**1.3
    half = (0.02 + 0.11 * way) / p.aspect
    if p.chance(0.5):
        outline = np.concatenate([np.stack([x - half, y], axis=1), np.stack([x + half, y], axis=1)[::-1]])
        p.shaded(outline, colour, 0.94, 1.06, rim=0.12)
    else:
        for i in range(1, 16, 2):
            stone = p.blob(float(x[i]), float(y[i]), float(half[i]) * p.aspect, 0.012 + 0.022 * float(way[i]))
            p.shaded(stone, colour, 1.05, 0.9, rim=0.2)


def paint_beach(p: Plate) -> None:
    horizon = p.uniform(0.30, 0.44)
    shore = horizon + p.uniform(0.10, 0.20)
    _sky(p, horizon)
    sea = _sea(p, horizon, shore)
    sand = _sand(p, shore, sea)
    if p.chance(0.6):
        _dune(p, sand, shore)
    if p.chance(0.55):
        _rocks(p, p.uniform(0.05, 0.95), shore + 0.02)
    if p.chance(0.35):
        _jetty(p, horizon, shore)
    if p.chance(0.45):
        _beach_huts(p, shore)
    if p.chance(0.4):
        draw_rug(p, p.uniform(0.2, 0.8), p.uniform(0.78, 0.9), 0.2, 0.05)
    p.in_air(horizon - 0.06, 3)
    p.on_ground(shore - 0.2, shore + 0.09, 10)


def _sea(p: Plate, horizon: float, shore: float) -> Colour:
    """Paint open water with glints and perhaps a headland; returns its colour."""
    if p.chance(0.5):
        far = mix((0.45, 0.55, 0.5), p.mood.haze, 0.5)
        x0 = p.uniform(-0.2, 0.7)
        x = np.linspace(x0, x0 + p.uniform(0.3, 0.6), 30)
        rise = p.uniform(0.03, 0.10)
        line = horizon - rise * np.sin(np.pi * np.linspace(0, 1, 30)) * (0.8 + 0.2 * np.sin(x * 25))
        coast = np.concatenate([np.stack([x, line], axis=1), [(x[-1], horizon), (x[0], horizon)]])
        p.shaded(coast, far, 1, 0.88)
    sea = mix(p.tone(((0.22, 0.52, 0.66), (0.24, 0.60, 0.64), (0.30, 0.46, 0.60))), p.mood.zenith, 0.25)
    p.fill(box(0, horizon, 1, 1), shade(sea, 0.92), mix(sea, (0.72, 0.90, 0.86), 0.7))
    for _ in range(26):
        y = horizon + (shore - horizon) * p.rng.random()
        left, w = p.rng.random(), p.uniform(0.02, 0.10) * (0.4 + (y - horizon) / 0.15)
        p.line([(left, y), (left + w, y)], mix(sea, (1, 1, 1), p.uniform(0.15, 0.5)), 0.004)
    return sea


def _sand(p: Plate, shore: float, sea: Colour) -> Colour:
    """Paint the beach with lines of foam along a curved shore; returns the sand's colour."""
    sand = p.tone(((0.93, 0.83, 0.62), (0.90, 0.78, 0.60), (0.95, 0.89, 0.75), (0.84, 0.74, 0.60)), 0.04)
    coast = np.asarray(p.ridge(shore, 0.035, waves=0.6))
    slope = np.array([0.0, p.uniform(-0.10, 0.10)])
    coast = coast + slope * (coast[:, :1] - 0.5) * (coast[:, 1:] < 1)
    for lift, tone in (
        (-0.022, (0.96, 0.98, 0.97)),
        (-0.010, mix(sea, (0.9, 0.95, 0.9), 0.6)),
        (-0.004, (0.97, 0.98, 0.97)),
        (0.006, shade(sand, 0.80)),
    ):
        p.fill(np.add(coast, (0, lift)), tone)
    p.shaded(np.add(coast, (0, 0.03)), sand, 0.97, 1.12)
    _ripples(p, sand, shore)
    return sand


def _ripples(p: Plate, sand: Colour, shore: float) -> None:
    """Grains and wind lines on the sand."""
    for _ in range(60):
        y = shore + 0.08 + (0.92 - shore) * p.rng.random()
        grain = p.oval(p.rng.random(), y, 0.003 + 0.004 * y, 0.003, steps=8)
        p.fill(grain, shade(sand, p.pick((0.8, 0.88, 1.3))))
    for _ in range(8):
        x, y, w = p.rng.random(), p.uniform(shore + 0.1, 0.98), p.uniform(0.06, 0.2)
        ripple = [(x, y), (x + w / 3, y - 0.008), (x + w * 0.7, y - 0.004), (x + w, y + 0.004)]
        p.line(ripple, shade(sand, 0.92), 0.005)


def _dune(p: Plate, sand: Colour, shore: float) -> None:
    """A dune running in from one side, with marram grass."""
    reach = p.uniform(0.3, 0.6)
    x = np.linspace(-0.02, reach, 30)
    crest = shore + 0.12 - p.uniform(0.16, 0.26) * np.cos(np.clip(x / reach, 0, 1) * np.pi / 2) ** 1.5
    dune = np.concatenate([np.stack([x, crest], axis=1), [(reach, shore + 0.12), (-0.02, shore + 0.24)]])
    p.shaded(dune, sand, 1.15, 0.92)
    for _ in range(36):
        i = p.integer(0, 24)
        left, foot = float(x[i]), float(crest[i]) + p.uniform(0, 0.05)
        lean, high = p.uniform(-0.02, 0.03), p.uniform(0.03, 0.08)
        blade = [(left, foot), (left + lean * 0.4, foot - high * 0.6), (left + lean, foot - high)]
        p.line(blade, shade((0.58, 0.62, 0.36), p.uniform(0.8, 1.15)), 0.005)


def _rocks(p: Plate, x: float, foot: float) -> None:
    stone = p.tone(((0.50, 0.48, 0.48), (0.58, 0.50, 0.44), (0.42, 0.45, 0.50)))
    for _ in range(p.integer(2, 6)):
        r = p.uniform(0.035, 0.09)
        cx, cy = x + p.uniform(-0.13, 0.13), foot + p.uniform(-0.01, 0.05)
        p.shadow(p.oval(cx, cy + r * 0.45, r * 1.1, r * 0.2), 0.35, 0.01)
        p.shaded(p.blob(cx, cy, r, r * 0.62, 0.2), stone, 1.15, 0.72, rim=0.2)
        gleam = p.blob(cx - 0.2 * r / p.aspect, cy - r * 0.22, r * 0.5, r * 0.22, 0.2)
        p.fill(gleam, shade(stone, 1.3), opacity=0.7)


def _jetty(p: Plate, horizon: float, shore: float) -> None:
    """A plank walk out to sea."""
    wood = p.tone(WOODS)
    x, far = p.uniform(0.2, 0.8), horizon + (shore - horizon) * 0.25
    near, drift = shore + 0.06, p.uniform(-0.15, 0.15)
    a, b = 0.02 / p.aspect, 0.075 / p.aspect
    for t in (0.1, 0.35, 0.6, 0.85):
        cx, w, y = x + drift * t, a + (b - a) * t, far + (near - far) * t
        for post in (cx - w, cx + w):
            p.line(
                [(post, y - 0.01 - 0.02 * t), (post, y + 0.02 + 0.012 * t)],
                shade(wood, 0.6),
                0.006 + 0.01 * t,
            )
    planks = [(x - a, far), (x + a, far), (x + drift + b, near), (x + drift - b, near)]
    p.shaded(planks, wood, 0.95, 1.15, rim=0.2)
    for t in np.linspace(0.05, 0.95, 14) ** 1.4:
        cx, w, y = x + drift * t, a + (b - a) * t, far + (near - far) * t
        p.line([(cx - w, y), (cx + w, y)], shade(wood, 0.76), 0.004)


def _beach_huts(p: Plate, shore: float) -> None:
    """A few painted huts on the sand at one side."""
    wide, foot = 0.20 / p.aspect, shore + 0.10
    for i in range(p.integer(1, 4)):
        colour, roof = p.tone(FRONTS + PAINTS), p.tone(FRONTS)
        left = 1 - (i + 1) * (wide + 0.02)
        eaves = foot - 0.19
        p.shadow(box(left, foot - 0.015, left + wide + 0.02, foot + 0.02), 0.3, 0.012)
        p.shaded(box(left, eaves, left + wide, foot), colour, 1.1, 0.9, rim=0.2)
        for k in range(1, 7):
            y = eaves + (foot - eaves) * k / 7
            p.line([(left, y), (left + wide, y)], shade(colour, 0.86), 0.003)
        peak = (left + wide / 2, eaves - 0.11)
        gable = [(left - 0.012, eaves + 0.01), peak, (left + wide + 0.012, eaves + 0.01)]
        p.shaded(gable, roof, 1, 0.82, rim=0.25)
        p.shaded(box(left + wide * 0.3, foot - 0.15, left + wide * 0.7, foot), colour, 0.7, 0.62, rim=0.25)
        p.places.append(Place(left + wide / 2, foot + 0.03, 0.17, "floor"))
