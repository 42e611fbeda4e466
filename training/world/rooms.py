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
from steersearch.training.world.painting import Colour, mix, shade, vary
from steersearch.training.world.places import (
    FRONTS,
    PAINTS,
    WALLS,
    WOODS,
    Mood,
    Place,
    along,
    on_ground,
    pick,
)
from steersearch.training.world.plate import Plate, box


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


def paint_kitchen(p: Plate, mood: Mood, rng: np.random.Generator) -> list[Place]:
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
    draw_window(
        p,
        mood,
        rng,
        (middle - half, 0.08, middle + half, tiles_from - 0.06 if tiles_from > 0.28 else 0.3),
        rng.random() < 0.6,
    )
    for left, right in ((0.0, middle - half - 0.06), (middle + half + 0.06, 1.0)):
        if right - left >= 0.14:
            places += _wall_unit(p, rng, left, right, fronts, top)
    places += _worktop(p, rng, middle, (back, front, base), fronts, top)
    places += on_ground(rng, base - 0.35, base + 0.02, 6)
    if rng.random() < 0.5:
        places += draw_table(
            p, rng, float(rng.uniform(0.25, 0.75)), 0.83, float(rng.uniform(0.32, 0.42)), 0.055, 0.3
        )
    places += [Place(middle + side * (half + 0.16), tiles_from + 0.02, 0.17, "wall") for side in (-1, 1)]
    return places


def _wall_unit(
    p: Plate, rng: np.random.Generator, left: float, right: float, fronts: Colour, top: Colour
) -> list[Place]:
    """A hanging cupboard, a board or bare wall beside the window."""
    if rng.random() < 0.6:
        low = float(rng.uniform(0.2, 0.27))
        p.shadow(box(left, 0, right, low + 0.03), 0.3, 0.02)
        draw_cupboards(p, (left, -0.03, right, low), max(1, round((right - left) * p.aspect / 0.24)), fronts)
    elif rng.random() < 0.6:
        y = float(rng.uniform(0.24, 0.3))
        p.shadow(box(left, y, right, y + 0.035), 0.3, 0.015)
        p.fill(box(left, y, right, y + 0.022), shade(top, 1.1), shade(top, 0.85), rim=0.2)
        return along(rng, left, right, y, 0.16, "table", 2)
    else:
        return along(rng, left, right, 0.2, 0.18, "wall", 1)
    return []


def _worktop(
    p: Plate,
    rng: np.random.Generator,
    middle: float,
    rows: tuple[float, float, float],
    fronts: Colour,
    top: Colour,
) -> list[Place]:
    """The counter with sink and stove; `rows`: heights of its far edge, its near edge and its foot."""
    back, front, base = rows
    places: list[Place] = []
    p.shadow(box(0, back - 0.02, 1, back + 0.01), 0.3, 0.015)
    draw_cupboards(
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
            places += along(rng, left, right, front - 0.025, 0.2, "table", 2 if right - left > 0.2 else 1)
    return places


def _sink(p: Plate, x: float, back: float, front: float) -> None:
    """A basin let into the worktop, with a tap."""
    w, steel = min(0.13 / p.aspect, 0.11), (0.80, 0.82, 0.84)
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
    w = min(0.15 / p.aspect, 0.14)
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


def paint_living_room(p: Plate, mood: Mood, rng: np.random.Generator) -> list[Place]:
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
    draw_window(p, mood, rng, (centres[0] - wide, 0.1, centres[0] + wide, low), rng.random() < 0.85)
    second = pick(rng, ("fireplace", "sideboard", "sideboard", "window"))
    if second == "fireplace":
        places += _fireplace(p, mood, rng, float(centres[1]), ground)
    elif second == "sideboard":
        places += _sideboard(p, mood, rng, float(centres[1]), ground)
    else:
        draw_window(p, mood, rng, (centres[1] - wide, 0.1, centres[1] + wide, low), True)
    third = pick(rng, ("door", "shelf", "pictures"))
    x = float(centres[2])
    if third == "door":
        high = min(ground - 0.1, 0.5 * p.aspect)
        draw_door(p, rng, x - 0.23 * high / p.aspect, ground - high, ground)
    elif third == "shelf":
        board = vary(pick(rng, WOODS), rng)
        for y in (0.25, 0.43):
            p.shadow(box(x - 0.12, y + 0.01, x + 0.12, y + 0.045), 0.3, 0.015)
            p.fill(box(x - 0.13, y, x + 0.13, y + 0.022), shade(board, 1.1), shade(board, 0.85), rim=0.25)
            places += along(rng, x - 0.13, x + 0.13, y, 0.16, "table", 2)
    else:
        for dx, y in ((-0.06, 0.16), (0.07, 0.30)):
            draw_frame_on_wall(p, mood, rng, x + dx, y, float(rng.uniform(0.13, 0.18)))
        places += [Place(x, 0.46, 0.16, "wall")]
    if rng.random() < 0.75:
        draw_rug(
            p,
            rng,
            float(rng.uniform(0.35, 0.65)),
            (ground + 1) / 2 + 0.05,
            float(rng.uniform(0.32, 0.5)),
            float(rng.uniform(0.08, 0.12)),
        )
    _sunbeam(p, mood, rng, float(centres[0]) - 0.1, ground)
    places += on_ground(rng, ground - 0.1, ground + 0.07, 8)
    if rng.random() < 0.45:
        places += draw_table(
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
    draw_bricks(p, rng, (x - w, top, x + w, ground), stone, 0.045)
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
    return along(rng, x - w, x + w, top - 0.022, 0.18, "table", 2)


def _sideboard(p: Plate, mood: Mood, rng: np.random.Generator, x: float, ground: float) -> list[Place]:
    colour = vary(pick(rng, WOODS + PAINTS), rng)
    w, top = 0.15, ground - float(rng.uniform(0.14, 0.22))
    base = ground + 0.035
    p.shadow(box(x - w, base - 0.03, x + w + 0.02, base + 0.02), 0.4, 0.02)
    draw_cupboards(
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
        draw_frame_on_wall(p, mood, rng, x, 0.2, float(rng.uniform(0.15, 0.2)))
    return along(rng, x - w, x + w, top + 0.008, 0.19, "table", 3)


def paint_bathroom(p: Plate, mood: Mood, rng: np.random.Generator) -> list[Place]:
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
    draw_window(
        p,
        mood,
        rng,
        (0.12, 0.08, 0.12 + float(rng.uniform(0.16, 0.26)), float(rng.uniform(0.28, 0.36))),
        rng.random() < 0.3,
    )
    places += _washstand(p, mood, rng, basin, ground)
    places += _bathtub(p, rng, tub_left, tub_right, ground)
    if rng.random() < 0.6:
        y, x = 0.44, basin - 0.19
        p.line([(x - 0.07, y - 0.09), (x + 0.05, y - 0.09)], (0.6, 0.6, 0.62), 0.012)
        cloth = vary(pick(rng, FRONTS), rng)
        p.fill(box(x - 0.055, y - 0.09, x + 0.035, y + 0.1), shade(cloth, 1.1), shade(cloth, 0.9), rim=0.15)
        p.block(x - 0.055, y + 0.05, x + 0.035, y + 0.065, shade(cloth, 1.5))
    if rng.random() < 0.7:
        draw_rug(p, rng, float(rng.uniform(0.5, 0.75)), 0.91, float(rng.uniform(0.2, 0.3)), 0.05)
    places += [Place(0.5, 0.2, 0.17, "wall"), Place(0.08, 0.45, 0.16, "wall"), Place(0.42, 0.4, 0.17, "wall")]
    return places + on_ground(rng, ground - 0.15, 0.88, 7)


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
    draw_cupboards(p, (x - w, top + 0.03, x + w, base), 2, colour)
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
