"""Plates of rooms: kitchen, living room and bathroom."""

from __future__ import annotations

import numpy as np

from steersearch.training.world.fixtures import (
    draw_bricks,
    draw_cupboards,
    draw_door,
    draw_frame_on_wall,
    draw_rug,
    draw_table,
    draw_window,
)
from steersearch.training.world.painting import Colour, mix, shade, trapezoid
from steersearch.training.world.places import FRONTS, PAINTS, WALLS, WOODS, Place
from steersearch.training.world.plate import Plate, box

STEEL: Colour = (0.80, 0.82, 0.84)
TAP: Colour = (0.66, 0.68, 0.70)
TILES: tuple[Colour, ...] = (
    (0.85, 0.92, 0.93), (0.72, 0.85, 0.84), (0.95, 0.93, 0.88), (0.82, 0.86, 0.94), (0.93, 0.82, 0.80),
    (0.62, 0.76, 0.80),
)  # fmt: skip
ENAMEL: tuple[Colour, ...] = ((0.96, 0.96, 0.95), (0.96, 0.96, 0.95), (0.80, 0.88, 0.88), (0.94, 0.85, 0.82))


def _papered_wall(p: Plate, bottom: float) -> Colour:
    """Paint a plain or papered wall from the top edge down to `bottom`; returns its colour."""
    colour = p.tone(WALLS, 0.05)
    p.shaded(box(0, 0, 1, bottom), colour, 1.08, 0.92)
    ornament = shade(colour, p.pick((0.88, 0.92, 1.25, 1.45)))
    style = p.integer(6)
    step = p.uniform(0.06, 0.13)
    across = int(p.aspect / step) + 2
    if style == 0:
        for i in range(across):
            left = i * step / p.aspect
            p.fill(box(left, 0, left + step * 0.5 / p.aspect, bottom), ornament, opacity=0.55)
    elif style in (1, 2):
        dots = [
            ((i + 0.5 * (row % 2)) * step / p.aspect, (row + 0.5) * step)
            for row in range(int(bottom / step) + 1)
            for i in range(across)
        ]
        for x, y in dots:
            if y > bottom - 0.02:
                continue
            if style == 1:
                p.fill(p.oval(x, y, step * 0.14, steps=12), ornament)
                continue
            r = step * 0.13
            for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1)):  # petals
                p.fill(p.oval(x + dx * r / p.aspect, y + dy * r, r, steps=8), ornament)
    elif style == 3:
        for i in range(-across, 2 * across):
            x = i * step * 1.6 / p.aspect
            for lean in (-1, 1):
                p.line([(x, 0), (x + lean * bottom * 0.8 / p.aspect, bottom)], ornament, 0.004)
    return colour


def _wainscot(p: Plate, top: float, bottom: float, colour: Colour) -> None:
    """Boards along the lower wall."""
    p.shaded(box(0, top, 1, bottom), colour, 1.05, 0.88)
    step = p.uniform(0.07, 0.16)
    for i in range(int(p.aspect / step) + 2):
        x = i * step / p.aspect
        p.line([(x, top), (x, bottom)], shade(colour, 0.82), 0.004)
    p.shaded(box(0, top - 0.012, 1, top + 0.012), colour, 1.3, 0.9)


def _tiled(p: Plate, area: tuple[float, float, float, float], colour: Colour) -> None:
    """Wall tiles in one of several sizes and bonds, some of them in another tone."""
    left, top, right, bottom = area
    joint = mix(shade(colour, 0.80), (0.9, 0.9, 0.9), 0.3)
    p.block(*area, joint)
    high = p.uniform(0.05, 0.10)
    wide = high / p.aspect * p.pick((1.0, 1.0, 2.0))
    bonded, second = p.chance(0.4), p.tone(WALLS)
    scheme = p.integer(4)
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
            other = other or (scheme == 3 and p.chance(0.1))
            tone = shade(second if other else colour, p.uniform(0.95, 1.05))
            p.block(x0, y, x1, y1, tone)


def _floor(p: Plate, top: float, style: str) -> None:
    """A floor seen in perspective: "boards", "tiles" or "carpet"."""
    eye = (p.uniform(0.3, 0.7), top - p.uniform(0.25, 0.5))
    wood = p.tone(WOODS if style == "boards" else PAINTS, 0.05)
    p.shaded(box(0, top, 1, 1), wood, 0.88, 1.08)

    def at(x: float, y: float) -> float:
        """The x at which the line from (x, bottom edge) to the vanishing point crosses height y."""
        return eye[0] + (x - eye[0]) * (y - eye[1]) / (1 - eye[1])

    step = p.uniform(0.10, 0.2) / p.aspect
    reach = range(-int(1.2 / step), int(2.2 / step))
    if style == "boards":
        for i in reach:
            x = i * step
            corners = [(at(x, top), top), (at(x + step, top), top), (x + step, 1.0), (x, 1.0)]
            if p.chance(0.3):
                p.fill(corners, wood, opacity=p.uniform(0, 0.5))
            p.line([(at(x, top), top), (x, 1.0)], shade(wood, 0.78), 0.004)
            y = p.uniform(top, 1)
            p.line([(at(x, y), y), (at(x + step, y), y)], shade(wood, 0.78), 0.004)
    elif style == "tiles":
        second = mix(wood, p.pick(PAINTS), 0.6) if p.chance(0.7) else shade(wood, 0.85)
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
    p.shaded(box(0, y - 0.035, 1, y), colour, 1.2, 0.85, rim=0.15)


def _sunbeam(p: Plate, x: float, top: float) -> None:
    """Window light lying on the floor."""
    if p.mood.evening and p.chance(0.7):
        return
    lean = p.uniform(-0.25, 0.25)
    for left in (x + 0.0, x + 0.13):
        far, near = (left, left + 0.11), (left + 0.15 + lean, left + lean)
        beam = [(far[0], top + 0.05), (far[1], top + 0.05), (near[0], 0.97), (near[1], 0.97)]
        p.light(beam, mix(p.mood.haze, (1, 1, 0.9), 0.5), 0.30, 0.012)


def paint_kitchen(p: Plate) -> None:
    back = p.uniform(0.46, 0.60)  # far edge of the worktop
    front = back + p.uniform(0.07, 0.12)
    base = p.uniform(0.84, 0.91)
    _papered_wall(p, back)
    tiles_from = back - p.uniform(0.14, 0.26)
    if p.chance(0.8):
        _tiled(p, (0, tiles_from, 1, back), p.tone(WALLS + PAINTS[:2]))
    _floor(p, base, p.pick(("tiles", "tiles", "boards")))

    fronts, top = p.tone(PAINTS + WOODS), p.tone(WOODS + PAINTS[:1])
    middle = p.uniform(0.25, 0.75)
    half = p.uniform(0.13, 0.2)
    sill = tiles_from - 0.06 if tiles_from > 0.28 else 0.3
    draw_window(p, (middle - half, 0.08, middle + half, sill), p.chance(0.6))
    for left, right in ((0.0, middle - half - 0.06), (middle + half + 0.06, 1.0)):
        if right - left >= 0.14:
            _wall_unit(p, left, right, fronts, top)
    _worktop(p, middle, (back, front, base), fronts, top)
    p.on_ground(base - 0.35, base + 0.02, 6)
    if p.chance(0.5):
        draw_table(p, p.uniform(0.25, 0.75), 0.83, p.uniform(0.32, 0.42), 0.055, 0.3)
    p.places += [Place(middle + side * (half + 0.16), tiles_from + 0.02, 0.17, "wall") for side in (-1, 1)]


def _board(p: Plate, left: float, right: float, y: float, wood: Colour, rim: float) -> None:
    """A shelf board with room for two things."""
    p.shaded(box(left, y, right, y + 0.022), wood, 1.1, 0.85, rim=rim)
    p.along(left, right, y, 0.16, "table", 2)


def _wall_unit(p: Plate, left: float, right: float, fronts: Colour, top: Colour) -> None:
    """A hanging cupboard, a board or bare wall beside the window."""
    if p.chance(0.6):
        low = p.uniform(0.2, 0.27)
        p.shadow(box(left, 0, right, low + 0.03), 0.3, 0.02)
        draw_cupboards(p, (left, -0.03, right, low), max(1, round((right - left) * p.aspect / 0.24)), fronts)
    elif p.chance(0.6):
        y = p.uniform(0.24, 0.3)
        p.shadow(box(left, y, right, y + 0.035), 0.3, 0.015)
        _board(p, left, right, y, top, rim=0.2)
    else:
        p.along(left, right, 0.2, 0.18, "wall", 1)


def _worktop(p: Plate, middle: float, rows: tuple[float, float, float], fronts: Colour, top: Colour) -> None:
    """The counter with sink and stove; `rows`: heights of its far edge, its near edge and its foot."""
    back, front, base = rows
    p.shadow(box(0, back - 0.02, 1, back + 0.01), 0.3, 0.015)
    draw_cupboards(p, (-0.02, front, 1.02, base), p.integer(4, 8), fronts, drawers=p.chance(0.6))
    p.block(0, base - 0.03, 1, base, shade(fronts, 0.45))
    p.shaded(box(0, back, 1, front), top, 0.96, 1.14)
    p.shaded(box(0, front, 1, front + 0.022), top, 0.86, 0.72)
    p.shadow(box(-0.1, front + 0.02, 1.1, front + 0.045), 0.3, 0.012)
    _sink(p, middle, back, front)
    stove = middle + p.pick((-1, 1)) * p.uniform(0.3, 0.36)
    stove = stove if 0.15 < stove < 0.85 else 1 - stove
    _stove(p, stove, back, front, base)
    first, last = min(middle, stove), max(middle, stove)
    for left, right in ((0.02, first - 0.09), (first + 0.1, last - 0.1), (last + 0.09, 0.98)):
        if right - left > 0.08:
            p.along(left, right, front - 0.025, 0.2, "table", 2 if right - left > 0.2 else 1)


def _sink(p: Plate, x: float, back: float, front: float) -> None:
    """A basin let into the worktop, with a tap."""
    w = min(0.13 / p.aspect, 0.11)
    y0, y1 = back + (front - back) * 0.3, front - (front - back) * 0.15
    p.shaded(trapezoid(x, y0, y1, w, w * 1.1), STEEL, 0.62, 0.9, rim=0.3)
    bends = ((0.0, 0.0), (0.0, 0.08), (0.012, 0.1), (0.045, 0.1), (0.055, 0.07))
    tap = [(x + dx / p.aspect, y0 - rise) for dx, rise in bends]
    p.line(tap, shade(STEEL, 0.7), 0.016)
    p.line(tap, shade(STEEL, 1.3), 0.006)


def _stove(p: Plate, x: float, back: float, front: float, base: float) -> None:
    """A cooker with an oven door, and a hood above it."""
    w = min(0.15 / p.aspect, 0.14)
    body = p.tone((PAINTS[0], (0.62, 0.64, 0.66), (0.3, 0.31, 0.34), PAINTS[1], PAINTS[6]))
    p.fill(box(x - w, back, x + w, front), (0.24, 0.24, 0.27), (0.34, 0.34, 0.37), rim=0.3)
    for cx in (x + -0.5 * w, x + 0.5 * w):
        for r, depth, tone in ((0.05, 0.28, (0.16, 0.16, 0.18)), (0.03, 0.16, (0.4, 0.36, 0.36))):
            p.fill(p.oval(cx, (back + front) / 2, r, (front - back) * depth, steps=24), tone)
    p.shaded(box(x - w, front, x + w, base - 0.02), body, 1.05, 0.85, rim=0.3)
    for i in range(4):
        p.fill(p.oval(x + w * (-0.6 + 0.4 * i), front + 0.028, 0.013, steps=12), shade(body, 0.55))
    left, right = x - w * 0.76, x + w * 0.76
    p.fill(box(left, front + 0.085, right, base - 0.06), (0.22, 0.2, 0.22), (0.44, 0.34, 0.28), rim=0.2)
    p.line([(left, front + 0.065), (right, front + 0.065)], shade(body, 0.6), 0.012)
    if p.chance(0.6):
        left, right = x - w * 0.45, x + w * 0.45
        hood = [
            (left, -0.01),
            (right, -0.01),
            (right, 0.12),
            (x + w * 1.1, 0.25),
            (x - w * 1.1, 0.25),
            (left, 0.12),
        ]
        p.shadow([(a + 0.01, b + 0.02) for a, b in hood], 0.3, 0.02)
        p.shaded(hood, body, 1.08, 0.84, rim=0.25)


def paint_living_room(p: Plate) -> None:
    ground = p.uniform(0.56, 0.68)
    wall = _papered_wall(p, ground)
    trim = mix(wall, (1, 1, 1), 0.5) if p.chance(0.6) else p.tone(WOODS)
    if p.chance(0.35):
        _wainscot(p, ground - 0.2, ground, mix(wall, p.pick(PAINTS), 0.7))
    _floor(p, ground, p.pick(("boards", "boards", "carpet")))
    _skirting(p, ground, trim)
    slots = p.rng.permutation(3)
    centres = (np.array([0.17, 0.5, 0.83]) + p.rng.uniform(-0.03, 0.03, 3))[slots]
    wide = p.uniform(0.11, 0.145)
    low = p.uniform(0.40, 0.46)
    draw_window(p, (centres[0] - wide, 0.1, centres[0] + wide, low), p.chance(0.85))
    second = p.pick(("fireplace", "sideboard", "sideboard", "window"))
    if second == "fireplace":
        _fireplace(p, float(centres[1]), ground)
    elif second == "sideboard":
        _sideboard(p, float(centres[1]), ground)
    else:
        draw_window(p, (centres[1] - wide, 0.1, centres[1] + wide, low), True)
    third = p.pick(("door", "shelf", "pictures"))
    x = float(centres[2])
    if third == "door":
        high = min(ground - 0.1, 0.5 * p.aspect)
        draw_door(p, x - 0.23 * high / p.aspect, ground - high, ground)
    elif third == "shelf":
        board = p.tone(WOODS)
        for y in (0.25, 0.43):
            p.shadow(box(x - 0.12, y + 0.01, x + 0.12, y + 0.045), 0.3, 0.015)
            _board(p, x - 0.13, x + 0.13, y, board, rim=0.25)
    else:
        for dx, y in ((-0.06, 0.16), (0.07, 0.30)):
            draw_frame_on_wall(p, x + dx, y, p.uniform(0.13, 0.18))
        p.places += [Place(x, 0.46, 0.16, "wall")]
    if p.chance(0.75):
        x, y = p.uniform(0.35, 0.65), (ground + 1) / 2 + 0.05
        draw_rug(p, x, y, p.uniform(0.32, 0.5), p.uniform(0.08, 0.12))
    _sunbeam(p, float(centres[0]) - 0.1, ground)
    p.on_ground(ground - 0.1, ground + 0.07, 8)
    if p.chance(0.45):
        draw_table(p, p.uniform(0.25, 0.75), ground + 0.16, p.uniform(0.22, 0.3), 0.045, 0.15)
    middle = float(np.sort(centres)[1])
    for x in (middle - 0.17, middle + 0.17):
        p.places.append(Place(x, 0.14 + 0.06 * p.rng.random(), 0.17, "wall"))


def _fireplace(p: Plate, x: float, ground: float) -> None:
    stone = p.tone(FRONTS)
    w, top = 0.16 / p.aspect, ground - 0.27
    p.shadow(box(x - w, top, x + w + 0.02, ground + 0.02), 0.3, 0.02)
    draw_bricks(p, (x - w, top, x + w, ground), stone, 0.045)
    hearth = box(x - w * 0.58, top + 0.08, x + w * 0.58, ground)
    p.fill(hearth, (0.16, 0.12, 0.12), (0.26, 0.17, 0.14), rim=0.3)
    if p.mood.evening or p.chance(0.3):
        p.light(p.oval(x, ground - 0.04, 0.11, 0.09), (1.0, 0.6, 0.2), 0.6, 0.03)
        for dx, high in ((-0.03, 0.09), (0.0, 0.13), (0.03, 0.08)):
            cx, r = x + dx / p.aspect, 0.025 / p.aspect
            flame = [(cx - r, ground - 0.02), (cx, ground - high), (cx + r, ground - 0.02)]
            p.fill(flame, (1.0, 0.86, 0.4), (0.95, 0.5, 0.16))
    shelf = shade(p.tone(WOODS), 0.9)
    p.shaded(box(x - w * 1.15, top - 0.03, x + w * 1.15, top), shelf, 1.15, 0.85, rim=0.25)
    p.along(x - w, x + w, top - 0.022, 0.18, "table", 2)


def _sideboard(p: Plate, x: float, ground: float) -> None:
    colour = p.tone(WOODS + PAINTS)
    w, top = 0.15, ground - p.uniform(0.14, 0.22)
    base = ground + 0.035
    p.shadow(box(x - w, base - 0.03, x + w + 0.02, base + 0.02), 0.4, 0.02)
    draw_cupboards(p, (x - w, top + 0.02, x + w, base - 0.02), p.integer(2, 4), colour, drawers=p.chance(0.5))
    for dx in (-0.9, 0.9):
        p.block(x + dx * w - 0.01, base - 0.02, x + dx * w + 0.01, base + 0.02, shade(colour, 0.6))
    p.fill(trapezoid(x, top - 0.012, top + 0.02, w, w * 1.06), shade(colour, 1.2), rim=0.2)
    if p.chance(0.6):
        draw_frame_on_wall(p, x, 0.2, p.uniform(0.15, 0.2))
    p.along(x - w, x + w, top + 0.008, 0.19, "table", 3)


def paint_bathroom(p: Plate) -> None:
    ground = p.uniform(0.62, 0.72)
    _papered_wall(p, ground)
    tile = p.tone(TILES, 0.04)
    tiles_from = p.pick((0.0, 0.18, 0.3))
    _tiled(p, (0, tiles_from, 1, ground), tile)
    if tiles_from > 0:
        p.fill(box(0, tiles_from - 0.012, 1, tiles_from + 0.012), shade(tile, 0.7), rim=0.2)
    _floor(p, ground, p.pick(("tiles", "tiles", "boards")))

    tub_left, tub_right = 0.03, p.uniform(0.50, 0.60)
    basin = p.uniform(0.76, 0.84)
    draw_window(p, (0.12, 0.08, 0.12 + p.uniform(0.16, 0.26), p.uniform(0.28, 0.36)), p.chance(0.3))
    _washstand(p, basin, ground)
    _bathtub(p, tub_left, tub_right, ground)
    if p.chance(0.6):
        y, x = 0.44, basin - 0.19
        p.line([(x - 0.07, y - 0.09), (x + 0.05, y - 0.09)], (0.6, 0.6, 0.62), 0.012)
        cloth = p.tone(FRONTS)
        p.shaded(box(x - 0.055, y - 0.09, x + 0.035, y + 0.1), cloth, 1.1, 0.9, rim=0.15)
        p.block(x - 0.055, y + 0.05, x + 0.035, y + 0.065, shade(cloth, 1.5))
    if p.chance(0.7):
        draw_rug(p, p.uniform(0.5, 0.75), 0.91, p.uniform(0.2, 0.3), 0.05)
    spots = ((0.5, 0.2, 0.17), (0.08, 0.45, 0.16), (0.42, 0.4, 0.17))
    p.places += [Place(*spot, "wall") for spot in spots]
    p.on_ground(ground - 0.15, 0.88, 7)


def _bathtub(p: Plate, left: float, right: float, ground: float) -> None:
    """A tub against the wall, its rim wide enough to put things on."""
    white = p.tone(ENAMEL, 0.02)
    rim, base = ground - 0.12, ground + 0.13
    p.shadow(box(left, base - 0.04, right + 0.02, base + 0.025), 0.4, 0.025)
    outside = p.tone(PAINTS) if p.chance(0.4) else white
    if p.chance(0.5):
        side = ((0.01, rim), (0.03, base - 0.06), (0.08, base - 0.02))
        bulge = [(left + inset, y) for inset, y in reversed(side)] + [(right - inset, y) for inset, y in side]
        p.shaded(bulge, outside, 1.0, 0.74, rim=0.2)
        for x in (left + 0.09, right - 0.09):
            p.fill(p.oval(x, base - 0.01, 0.025, 0.03, steps=16), (0.72, 0.6, 0.4), rim=0.3)
    else:
        p.shaded(box(left, rim, right, base), outside, 1.0, 0.8, rim=0.2)
    middle, r = (left + right) / 2, (right - left) / 2
    p.shaded(p.oval(middle, rim, r * p.aspect * 1.02, 0.05), white, 1.4, 0.95, rim=0.2)
    p.shaded(p.oval(middle, rim + 0.004, r * p.aspect * 0.9, 0.034), white, 0.72, 0.88)
    if p.chance(0.6):
        p.fill(p.oval(middle, rim + 0.012, r * p.aspect * 0.84, 0.024), (0.62, 0.82, 0.86), (0.75, 0.9, 0.92))
        for _ in range(14):
            x = middle + r * p.uniform(-0.7, 0.7)
            bubble = p.oval(x, rim + p.uniform(-0.005, 0.02), p.uniform(0.008, 0.022), steps=14)
            p.fill(bubble, (0.97, 0.98, 1.0), (0.86, 0.92, 0.96))
    x, y = left + 0.05, rim - 0.14
    p.line([(x, rim - 0.12), (x, y), (x + 0.035, y), (x + 0.035, rim - 0.1)], TAP, 0.018)
    p.places += [Place(middle + d * r, rim + 0.035, 0.17, "table") for d in (-0.55, 0.05, 0.6)]


def _washstand(p: Plate, x: float, ground: float) -> None:
    """A cabinet with a basin, a mirror above."""
    colour = p.tone(PAINTS + WOODS)
    w, top, base = 0.15, ground - 0.22, ground + 0.06
    p.shadow(box(x - w, base - 0.03, x + w, base + 0.02), 0.4, 0.02)
    draw_cupboards(p, (x - w, top + 0.03, x + w, base), 2, colour)
    slab = trapezoid(x, top - 0.02, top + 0.03, w, w * 1.08)
    p.fill(slab, (0.97, 0.97, 0.96), (0.88, 0.89, 0.9), rim=0.2)
    p.fill(p.oval(x, top + 0.004, 0.09, 0.017), (0.66, 0.74, 0.78), (0.88, 0.92, 0.94), rim=0.1)
    p.line([(x, top - 0.012), (x, top - 0.06), (x + 0.02, top - 0.06), (x + 0.02, top - 0.04)], TAP, 0.014)
    high = p.uniform(0.12, 0.15)
    y = top - 0.10 - high
    edge = p.tone(WOODS + PAINTS)
    glass = mix(p.mood.haze, (0.72, 0.82, 0.86), 0.6)
    if p.chance(0.5):
        p.fill(p.oval(x, y, high * 0.9, high * 1.1), edge, rim=0.25)
        p.shaded(p.oval(x, y, high * 0.78, high * 0.98), glass, 1.15, 0.88)
    else:
        a = high * 0.95 / p.aspect
        p.fill(box(x - a, y - high, x + a, y + high), edge, rim=0.25)
        p.shaded(box(x - a * 0.88, y - high * 0.88, x + a * 0.88, y + high * 0.88), glass, 1.15, 0.88)
    a = high / p.aspect
    for k in (-0.2, 0.1):
        corners = ((k, -0.6), (k + 0.16, -0.6), (k - 0.2, 0.5), (k - 0.36, 0.5))
        p.light([(x + a * dx, y + high * dy) for dx, dy in corners], (1, 1, 1), 0.35, 0.005)
    p.places += [Place(x + dx, top + 0.018, 0.17, "table") for dx in (-0.11, 0.115)]
