"""Fixtures that several places share: windows, doors, cupboards, tables, rugs, brickwork."""

from __future__ import annotations

import numpy as np

from steersearch.training.world.painting import Colour, mix, shade, trapezoid
from steersearch.training.world.places import FRONTS, LEAVES, PAINTS, WALLS, WOODS, Place
from steersearch.training.world.plate import Outline, Plate, box


def draw_view(p: Plate, area: tuple[float, float, float, float], zenith: Colour) -> None:
    """The landscape in a window or picture frame: sky and a hill."""
    left, top, right, bottom = area
    p.fill(box(*area), zenith, p.mood.haze)
    green = mix(p.pick(LEAVES), zenith, 0.45)
    x = np.linspace(left, right, 20)
    for rise in (0.35, 0.2):
        wave = bottom - (bottom - top) * (rise + 0.1 * np.sin(6 * x / (right - left) + p.rng.uniform(0, 6)))
        p.fill(np.concatenate([np.stack([x, wave], axis=1), [(right, bottom), (left, bottom)]]), green)
        green = shade(green, 0.86)


def draw_window(p: Plate, area: tuple[float, float, float, float], curtains: bool) -> None:
    """A framed window with bars, a sill and perhaps curtains."""
    left, top, right, bottom = area
    frame = p.tone((PAINTS[0], WOODS[0], WOODS[3], PAINTS[1]), 0.04)
    edge, thin = 0.02, 0.012
    p.shadow(box(left - 0.01, top, right + 0.01, bottom + 0.03), 0.3, 0.02)
    p.fill(box(left - edge / p.aspect, top - edge, right + edge / p.aspect, bottom + edge), frame, rim=0.25)
    draw_view(p, area, p.mood.zenith)
    for i in range(1, p.integer(1, 4)):
        x = left + (right - left) * i / 2 if i < 2 else left + (right - left) * 0.5
        p.block(x - thin / 2 / p.aspect, top, x + thin / 2 / p.aspect, bottom, frame)
    y = top + (bottom - top) * p.pick((0.35, 0.5))
    p.block(left, y - thin / 2, right, y + thin / 2, frame)
    p.light([(left, top), (left + (right - left) * 0.4, top), (left, bottom)], (1, 1, 1), 0.25, 0.01)
    sill = 0.03 / p.aspect
    p.shaded(box(left - sill, bottom + 0.01, right + sill, bottom + 0.04), frame, 1.2, 0.9, rim=0.2)
    if curtains:
        draw_curtains(p, area)


def draw_curtains(p: Plate, area: tuple[float, float, float, float]) -> None:
    left, top, right, bottom = area
    cloth = p.tone(WALLS + PAINTS)
    fall = bottom + p.uniform(0.0, 0.12)
    width = (right - left) * p.uniform(0.2, 0.34)
    over = 0.04 / p.aspect
    for side in (-1, 1):
        outer = left - over if side < 0 else right + over
        for fold in range(4):
            near, far = outer - side * width * fold / 4, outer - side * width * (fold + 1.15) / 4
            pull = side * width * 0.08 * fold
            shape = [(near, top - 0.03), (far, top - 0.03), (far + pull, fall), (near + pull * 0.6, fall)]
            p.shaded(shape, cloth, 1.08 - 0.07 * (fold % 2), 0.86 - 0.05 * (fold % 2))
    p.line([(left - 2 * over, top - 0.035), (right + 2 * over, top - 0.035)], shade(WOODS[1], 0.9), 0.014)


def draw_door(p: Plate, x: float, top: float, bottom: float) -> None:
    """A panelled door standing on the floor line, `x` is its left edge."""
    colour = p.tone(PAINTS + WOODS)
    wide = (bottom - top) * 0.46 / p.aspect
    high, rim = bottom - top, 0.022
    frame = box(x - rim / p.aspect, top - rim, x + wide + rim / p.aspect, bottom)
    p.fill(frame, shade(colour, 1.35), rim=0.2)
    p.shaded(box(x, top, x + wide, bottom), colour, 1.05, 0.88, rim=0.25)
    for upper, lower in ((0.08, 0.46), (0.54, 0.92)):
        for inner, outer in ((0.12, 0.45), (0.55, 0.88)):
            panel = box(x + wide * inner, top + high * upper, x + wide * outer, top + high * lower)
            p.shaded(panel, colour, 0.9, 1.05, rim=0.18)
    p.fill(p.oval(x + wide * 0.92, top + (bottom - top) * 0.52, 0.013, steps=12), (0.85, 0.72, 0.4), rim=0.3)


def draw_cupboards(
    p: Plate, area: tuple[float, float, float, float], count: int, colour: Colour, drawers: bool = False
) -> None:
    """A row of cupboard fronts with knobs."""
    left, top, right, bottom = area
    p.shaded(box(*area), colour, 0.95, 0.82)
    wide, gap = (right - left) / count, 0.010
    for i in range(count):
        x0, x1 = left + i * wide + gap / p.aspect, left + (i + 1) * wide - gap / p.aspect
        start = top
        if drawers:
            start = top + (bottom - top) * 0.28
            p.shaded(box(x0, top + gap, x1, start - gap), colour, 1.08, 0.98, rim=0.22)
            p.fill(p.oval((x0 + x1) / 2, (top + start) / 2, 0.009, steps=10), shade(colour, 0.55))
        p.shaded(box(x0, start + gap, x1, bottom - gap), colour, 1.08, 0.92, rim=0.22)
        inset_x, inset_y = 0.022 / p.aspect, 0.03
        if x1 - x0 > 3 * inset_x and bottom - start > 3 * inset_y:
            panel = box(x0 + inset_x, start + inset_y, x1 - inset_x, bottom - inset_y)
            p.shaded(panel, colour, 0.96, 1.02, rim=0.12)
        knob = x1 - 0.016 / p.aspect if i % 2 == 0 else x0 + 0.016 / p.aspect
        p.fill(p.oval(knob, (start + bottom) / 2, 0.009, steps=10), shade(colour, 0.55))


def draw_rug(p: Plate, x: float, y: float, rx: float, ry: float) -> None:
    """A round or square rug with borders, seen at an angle."""
    colour, second = p.tone(FRONTS), p.tone(WALLS + PAINTS)
    square = p.chance(0.5)
    p.shadow(p.oval(x, y + 0.008, rx, ry), 0.2, 0.012)
    for i, scale in enumerate((1.0, 0.86, 0.72, 0.36)):
        tone = second if i % 2 else colour
        a, b = rx * scale / p.aspect, ry * scale
        outline: Outline = p.oval(x, y, rx * scale, b)
        if square:
            outline = trapezoid(x, y - b * 0.9, y + b, a * 0.85, a * 1.1)
        p.shaded(outline, tone, 0.95, 1.06)


def draw_table(p: Plate, x: float, y: float, rx: float, ry: float, legs: float) -> None:
    """A table standing free; (x, y) is the middle of its top, `legs` their length."""
    colour = p.tone(WOODS + PAINTS[:2])
    half, thick = rx / p.aspect, 0.025
    p.shadow(p.oval(x, min(1.02, y + legs + 0.02), rx * 1.05, ry * 0.8), 0.35, 0.03)
    for dx, drop in ((-0.72, 0.0), (0.72, 0.0), (-0.8, ry), (0.8, ry)):
        cx, w = x + dx * half, 0.02 / p.aspect
        foot = y + legs + drop * 0.6
        p.shaded(trapezoid(cx, y, foot, w, w * 0.6), colour, 0.82, 0.66)
    rounded = p.chance(0.5)

    def top_at(drop: float) -> Outline:
        if rounded:
            return p.oval(x, y + drop, rx, ry)
        return trapezoid(x, y - ry + drop, y + ry + drop, half * 0.86, half)

    p.fill(top_at(thick), shade(colour, 0.72))
    p.shaded(top_at(0.0), colour, 0.98, 1.14, rim=0.12)
    p.places += [
        Place(x + d * half * 0.6, y + e * ry, 0.2 + 0.12 * max(0.0, y - 0.5), "table")
        for d, e in ((-1, 0.1), (0, 0.5), (1, -0.1))
    ]


def draw_frame_on_wall(p: Plate, x: float, y: float, high: float) -> None:
    """A small framed landscape."""
    wide = high * p.pick((0.75, 1.0, 1.4)) / p.aspect
    colour = p.tone(WOODS)
    p.shadow(box(x - wide / 2, y - high / 2 + 0.01, x + wide / 2 + 0.01, y + high / 2 + 0.015), 0.3, 0.012)
    p.fill(box(x - wide / 2, y - high / 2, x + wide / 2, y + high / 2), colour, rim=0.3)
    bx, by = 0.016 / p.aspect, 0.016
    area = (x - wide / 2 + bx, y - high / 2 + by, x + wide / 2 - bx, y + high / 2 - by)
    draw_view(p, area, p.pick(WALLS))


def draw_bricks(p: Plate, area: tuple[float, float, float, float], colour: Colour, high: float) -> None:
    """Courses of bricks with joints, a few of them in other tones."""
    left, top, right, bottom = area
    p.shaded(box(*area), colour, 1.02, 0.86)
    joint, wide = shade(colour, 0.8), 2.2 * high / p.aspect
    for row in range(int((bottom - top) / high) + 1):
        y = top + row * high
        p.line([(left, y), (right, y)], joint, 0.003)
        for i in range(int((right - left) / wide) + 1):
            x = left + (i + 0.5 * (row % 2)) * wide
            if x < right:
                p.line([(x, y), (x, min(bottom, y + high))], joint, 0.003)
                if p.chance(0.12):
                    brick = box(x, y, min(right, x + wide), min(bottom, y + high))
                    p.fill(brick, shade(colour, p.uniform(0.8, 1.15)), opacity=0.6)
