"""Things found indoors, painted for the generated world: crockery, furniture, gadgets, toys.

Every painter fills most of the unit square with one connected object whose main colour is the named one;
`Kind.draw` crops it. `rng` varies proportions by some ten percent, picks accent tones and scatters details.
"""

from __future__ import annotations

import math

import numpy as np

from steersearch.training.world.painting import (
    BRASS,
    CREAM,
    INK,
    LEAF,
    PALETTE,
    STEEL,
    WOOD,
    Canvas,
    Colour,
    Look,
    Pattern,
    Point,
    Tilted,
    accent,
    chance,
    distance,
    is_dark,
    mix,
    near,
    path,
    pick,
    polar,
    shade,
    trapezoid,
)


def _contrast(colour: Colour, rng: np.random.Generator) -> Colour:
    """A second colour, clearly different from `colour`."""
    second = accent(colour, rng)
    return second if distance(second, colour) > 0.75 else PALETTE["white" if is_dark(colour) else "black"]


def _trim(
    look: Look, colour: Colour, rng: np.random.Generator, scale: float = 0.13, angle: float = 0.0
) -> Pattern:
    return Pattern(look.pattern, _contrast(colour, rng), near(rng, scale, 0.15), angle, sparse=True)


# ---- kitchenware -------------------------------------------------------------------------------------


def paint_mug(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    t = Tilted(c, mirror=chance(rng))
    half = {"tall": 0.20, "round": 0.30}.get(look.shape, 0.26) * near(rng, 1, 0.06)
    top, foot, x = {"tall": 0.1, "round": 0.24}.get(look.shape, 0.2), 0.9, 0.42
    middle = (top + foot) / 2
    reach = near(rng, 0.17)
    side = x + half + (0.03 if look.shape == "round" else -0.02)
    handle = [(side - 0.04, middle - 0.19), (side + reach, middle - 0.17), (side + reach, middle + 0.09)]
    handle += [(side - 0.05, middle + 0.18)]
    c.paint(t.line(handle, 0.065, smoothly=True), shade(colour, 0.93), volume=0.02)
    if look.shape == "round":
        belly = [(x - half * 0.8, top), (x - half * 1.08, middle), (x - half * 0.85, foot - 0.12)]
        belly += [(x - half * 0.62, foot - 0.01), (x - half * 0.3, foot)]
        right = [(2 * x - px, py) for px, py in reversed(belly)]
        body = t.blob([*belly, *right])
        mouth = half * 0.8
    else:
        body, mouth = t.box(x - half, top, x + half, foot, 0.07), half
    c.paint(body, colour, volume=0.11, relief=0.8, pattern=_trim(look, colour, rng), shine=0.5)
    c.paint(t.ellipse(x, top + 0.01, mouth, 0.06), shade(colour, 1.28), volume=0.01)
    drink = pick(rng, ((0.33, 0.20, 0.11), (0.62, 0.33, 0.12), (0.50, 0.33, 0.21)))
    c.paint(t.ellipse(x, top + 0.02, mouth - 0.035, 0.04), drink, volume=0, outline=0.5)


def paint_teapot(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    t = Tilted(c, mirror=chance(rng))
    tall = look.shape == "tall"
    rx, ry = (0.22, 0.33) if tall else (near(rng, 0.28, 0.06), near(rng, 0.26, 0.06))
    cy = 0.93 - ry
    knob = accent(colour, rng) if look.pattern != "plain" else shade(colour, 0.8)
    upper, lower = (0.5 + rx * 0.8, cy - ry * 0.55), (0.5 + rx * 0.9, cy + ry * 0.5)
    handle = t.line([upper, (0.9, cy - ry * 0.6), (0.93, cy + 0.02), lower], 0.055, smoothly=True)
    c.paint(handle, shade(colour, 0.92), volume=0.02)
    lip = cy - ry * 0.85
    spout = [(0.5 - rx * 0.7, cy + ry * 0.55), (0.5 - rx - 0.06, cy + ry * 0.1), (0.09, lip + 0.01)]
    spout += [(0.05, lip - 0.03), (0.14, lip - 0.05), (0.17, lip - 0.01)]
    spout += [(0.5 - rx - 0.02, cy - ry * 0.35), (0.5 - rx * 0.6, cy - ry * 0.5)]
    c.paint(t.polygon(spout), shade(colour, 0.97), volume=0.03)
    c.paint(t.box(0.5 - rx * 0.55, 0.88, 0.5 + rx * 0.55, 0.955, 0.02), shade(colour, 0.75), volume=0.02)
    c.paint(t.ellipse(0.5, cy, rx, ry), colour, volume=0.13, pattern=_trim(look, colour, rng), shine=0.55)
    lid = cy - ry * 0.84
    rise = ((-0.62, 0.0), (-0.4, -0.075), (0.0, -0.11), (0.4, -0.075), (0.62, 0.0), (0.0, 0.035))
    dome = t.blob([(0.5 + rx * u, lid + dy) for u, dy in rise])
    c.paint(dome, shade(colour, 1.1), volume=0.04, shine=0.3)
    c.paint(t.ellipse(0.5, lid - 0.135, 0.04), knob, volume=0.03, shine=0.4)


def paint_bottle(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    half = {"round": 0.29, "tall": 0.13}.get(look.shape, 0.19) * near(rng, 1, 0.07)
    neck, shoulder = half * 0.36 if look.shape != "tall" else half * 0.42, near(rng, 0.42, 0.06)
    if look.shape == "round":
        neck, cy = 0.075, 0.95 - half
        foot = c.box(0.35, 0.88, 0.65, 0.955, 0.02)
        body = c.union(c.ellipse(0.5, cy, half), c.box(0.5 - neck, 0.15, 0.5 + neck, cy), foot)
        label = c.ellipse(0.5, cy + 0.02, half * 0.55, half * 0.42)
    else:
        side = [(neck, 0.15), (neck, shoulder - 0.14), (neck * 1.25, shoulder - 0.08)]
        side += [(half * 0.8, shoulder - 0.02), (half, shoulder + 0.06), (half, 0.92), (half * 0.9, 0.955)]
        body = c.polygon([(0.5 + x, y) for x, y in side] + [(0.5 - x, y) for x, y in reversed(side)])
        label = c.box(0.5 - half, 0.56, 0.5 + half, 0.76)
    c.paint(body, colour, volume=0.09, shine=0.3, pattern=_trim(look, colour, rng, 0.11))
    if look.pattern == "plain":
        c.paint(label, mix(CREAM, colour, 0.12), volume=0.01, outline=0.2)
        y = 0.66 if look.shape != "round" else 0.97 - half
        c.paint(c.ellipse(0.5, y, 0.045), accent(CREAM, rng), volume=0.02)
    gleam = 0.5 - half * 0.62
    if look.shape != "round":
        streak = c.line([(gleam, shoulder + 0.1), (gleam, 0.86)], 0.022)
        c.paint(streak, (1, 1, 1), volume=0, outline=0, opacity=0.55)
    c.paint(c.box(0.5 - neck * 1.25, 0.135, 0.5 + neck * 1.25, 0.175, 0.01), shade(colour, 0.8), volume=0.01)
    stopper = (0.76, 0.57, 0.36) if chance(rng) else shade(colour, 0.55)
    c.paint(c.box(0.5 - neck * 0.95, 0.05, 0.5 + neck * 0.95, 0.14, 0.015), stopper, volume=0.025)


# ---- food --------------------------------------------------------------------------------------------


def _fruit(c: Canvas, x: float, y: float, radius: float, colour: Colour) -> None:
    c.paint(c.ellipse(x, y, radius, radius * 0.95), colour, volume=0.07, shine=0.5, outline=0.4)
    stalk = c.line([(x, y - radius * 0.75), (x + 0.015, y - radius * 1.25)], 0.018)
    c.paint(stalk, (0.36, 0.24, 0.13), volume=0)


def paint_fruit_bowl(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    half = {"tall": 0.36}.get(look.shape, 0.46)
    rim = near(rng, 0.42, 0.04)
    foot = 0.93 if look.shape == "tall" else 0.86
    banana = [(0.2, rim - 0.2), (0.36, rim - 0.25), (0.55, rim - 0.2), (0.68, rim - 0.02)]
    banana += [(0.6, rim), (0.42, rim - 0.11)]
    apple_red, apple_green = (0.80, 0.14, 0.15), (0.52, 0.72, 0.22)
    _fruit(c, 0.5 + half * 0.08, rim - 0.19, near(rng, 0.105), (0.95, 0.55, 0.13))
    _fruit(c, 0.5 + half * 0.48, rim - 0.10, near(rng, 0.12), apple_red if chance(rng) else apple_green)
    c.paint(c.blob(banana), (0.97, 0.82, 0.25), volume=0.03)
    _fruit(c, 0.5 - half * 0.58, rim - 0.07, near(rng, 0.11), apple_green if chance(rng) else apple_red)
    for i in range(5):
        spot = (0.5 + (i - 1.5) * 0.055 - half * 0.06, rim - 0.035 - 0.04 * (i % 2))
        c.paint(c.ellipse(spot[0], spot[1], 0.042), (0.42, 0.20, 0.47), volume=0.03, shine=0.4)
    base = c.box(0.5 - half * 0.45, foot - 0.06, 0.5 + half * 0.45, foot, 0.02)
    if look.shape == "tall":
        stem = [(0.45, 0.7), (0.55, 0.7), (0.5 + half * 0.4, foot - 0.04), (0.5 - half * 0.4, foot - 0.04)]
        base = c.union(base, c.polygon(stem))
    c.paint(base, shade(colour, 0.8), volume=0.03)
    depth = foot - 0.03 - rim - (0.12 if look.shape == "tall" else 0.0)
    arc = [(math.pi * i / 30, 0.0) for i in range(31)]
    body = c.polygon([(0.5 + half * math.cos(a), rim + depth * math.sin(a) ** 0.8) for a, _ in arc])
    c.paint(body, colour, volume=0.1, pattern=_trim(look, colour, rng), shine=0.4)
    lip = c.box(0.5 - half - 0.02, rim - 0.02, 0.5 + half + 0.02, rim + 0.035, 0.025)
    c.paint(lip, shade(colour, 1.15), volume=0.015)


def _tier(
    c: Canvas,
    colour: Colour,
    cream: Colour,
    trim: Pattern,
    area: tuple[float, float, float],
    rng: np.random.Generator,
) -> None:
    half, top, foot = area
    body = c.union(c.box(0.5 - half, top, 0.5 + half, foot, 0.03), c.ellipse(0.5, top + 0.02, half, 0.05))
    c.paint(body, colour, volume=0.09, relief=0.8, pattern=trim)
    drips = [c.ellipse(0.5, top + 0.02, half, 0.05)]
    count = max(4, round(half / 0.06))
    across = [0.5 - half + (i + 0.5) * 2 * half / count for i in range(count)]
    for x in across:
        drips.append(c.line([(x, top + 0.03), (x, top + 0.06 + rng.uniform(0, 0.055))], 0.05))
    c.paint(c.union(*drips), cream, volume=0.02, outline=0.25)
    pearls = [c.ellipse(x, foot - 0.01, 0.032, 0.026) for x in across]
    c.paint(c.union(*pearls), shade(cream, 0.97), volume=0.02)


def paint_cake(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    cream = shade(colour, 1.55) if max(colour) - min(colour) > 0.15 or is_dark(colour) else (0.97, 0.90, 0.80)
    c.paint(c.ellipse(0.5, 0.9, 0.47, 0.055), (0.86, 0.87, 0.9), volume=0.02)
    tiers = [(near(rng, 0.39, 0.05), 0.43, 0.9)]
    if look.shape == "tall":
        tiers = [(0.37, 0.62, 0.9), (0.26, 0.38, 0.65)]
    trim = _trim(look, colour, rng, 0.11)
    for tier in tiers:
        _tier(c, colour, cream, trim, tier, rng)
    half, top = tiers[-1][:2]
    flame = (0.99, 0.80, 0.25)
    if chance(rng) or look.shape == "tall":
        for place in (-0.55, 0.0, 0.55):
            x = 0.5 + place * half
            wax = PALETTE[pick(rng, ("red", "blue", "pink", "yellow"))]
            c.paint(c.box(x - 0.016, top - 0.17, x + 0.016, top + 0.02), wax, volume=0.01)
            tip = ((0.0, 0.26), (0.025, 0.195), (0.0, 0.165), (-0.025, 0.195))
            c.paint(c.blob([(x + dx, top - rise) for dx, rise in tip]), flame, volume=0.01)
    else:
        for place in (-0.7, -0.23, 0.23, 0.7):
            x = 0.5 + place * half
            c.paint(c.ellipse(x, top - 0.02, 0.05), (0.80, 0.10, 0.15), volume=0.03, shine=0.6)
        c.paint(c.line([(0.5, top - 0.12), (0.5, top)], 0.03), flame, volume=0.01)
        c.paint(c.ellipse(0.5, top - 0.1, 0.055), (0.80, 0.10, 0.15), volume=0.03, shine=0.6)


# ---- stationery and gadgets --------------------------------------------------------------------------


def paint_book(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    t = Tilted(c, rng.uniform(-0.12, 0.12))
    thick = {"thick": 0.13}.get(look.shape, 0.07) * near(rng, 1)
    half, tall = (0.33, 0.31) if look.shape == "square" else (near(rng, 0.28, 0.05), 0.38)
    left, right, top, foot = 0.5 - half, 0.5 + half, 0.5 - tall - thick / 3, 0.5 + tall - thick / 3
    skew = thick * 0.75
    far = [(right + skew, top + thick), (right + skew, foot + thick), (left + skew, foot + thick)]
    back = [(left, top), (right, top), *far, (left, foot)]
    c.paint(t.polygon(back), shade(colour, 0.72), volume=0)
    edge, gap = 0.018, 0.02
    pages = [
        (left + gap, foot - gap),
        (right - gap, top + gap),
        (right + skew - edge, top + thick),
        (right + skew - edge, foot + thick - edge),
        (left + skew, foot + thick - edge),
    ]
    c.paint(t.polygon(pages), CREAM, volume=0, outline=0.5)
    for part in (0.3, 0.6):
        dx, dy = skew * part, thick * part
        edges = t.line([(left + dx, foot + dy), (right + dx, foot + dy), (right + dx, top + dy)], 0.006)
        c.paint(edges, (0.75, 0.70, 0.6), volume=0, outline=0)
    c.paint(t.box(left, top, right, foot, 0.02), colour, volume=0.02, pattern=_trim(look, colour, rng, 0.12))
    c.paint(t.box(left, top, left + 0.075, foot, 0.02), shade(colour, 0.8), volume=0.03)
    ink = accent(colour, rng)
    middle = (left + right + 0.07) / 2
    if look.pattern == "plain":
        c.paint(t.ellipse(middle, 0.56, 0.085), ink, volume=0.02)
    label = CREAM if is_dark(colour) else ink
    label = label if look.pattern == "plain" else shade(colour, 1.25)
    plate = t.box(middle - 0.17, top + 0.10, middle + 0.17, top + 0.24, 0.015)
    c.paint(plate, label, volume=0.008, outline=0.3)
    for y, reach in ((top + 0.145, 0.12), (top + 0.195, 0.08)):
        words = t.line([(middle - reach, y), (middle + reach, y)], 0.018)
        c.paint(words, INK, volume=0, outline=0, opacity=0.8)


def paint_remote_control(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    t = Tilted(c, rng.uniform(-0.35, 0.35))
    half = near(rng, 0.155, 0.07)
    round_ends = half * 0.95 if look.shape == "round" else 0.05
    dark = is_dark(colour)
    c.paint(t.box(0.5 - half, 0.05, 0.5 + half, 0.95, round_ends), colour, volume=0.05, shine=0.25)
    key = (0.90, 0.90, 0.88) if dark else INK
    power = (0.9, 0.15, 0.13) if colour[0] < 0.7 or colour[1] > 0.4 else (0.98, 0.95, 0.9)
    c.paint(t.ellipse(0.5 - half * 0.5, 0.15, 0.03), power, volume=0.015)
    c.paint(t.line([(0.5 + half * 0.1, 0.15), (0.5 + half * 0.55, 0.15)], 0.022), key, volume=0.01)
    c.paint(t.ellipse(0.5, 0.315, half * 0.68), shade(colour, 1.35 if dark else 0.72), volume=0.02)
    c.paint(t.ellipse(0.5, 0.315, half * 0.3), key, volume=0.02)
    rows = [0.49, 0.57, 0.65, 0.73]
    dots = [t.ellipse(0.5 + column * half * 0.52, y, 0.026, 0.022) for y in rows for column in (-1, 0, 1)]
    c.paint(c.union(*dots), key, volume=0.01)
    for i, name in enumerate(("red", "green", "yellow", "blue")):
        x = 0.5 + (i - 1.5) * half * 0.4
        c.paint(t.ellipse(x, 0.83, 0.021), PALETTE[name], volume=0.01)


def paint_telephone(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    t = Tilted(c, mirror=chance(rng))
    wide, top = near(rng, 0.40, 0.05), 0.36
    wave = [(0.5 + wide * 0.75 + 0.035 * (i % 2) + 0.018 * i, 0.78 + 0.018 * i) for i in range(6)]
    c.paint(t.line([(0.5 + wide * 0.6, 0.75), *wave], 0.03, smoothly=True), shade(colour, 0.7), volume=0.01)
    prongs = c.union(t.box(0.34, 0.24, 0.41, 0.42), t.box(0.59, 0.24, 0.66, 0.42))
    c.paint(prongs, shade(colour, 0.7), volume=0.02)
    side = ((0.55, top), (0.75, 0.55), (1.0, 0.84), (0.97, 0.9))
    body = [(0.5 - wide * side[0][0], top)] + [(0.5 + wide * u, y) for u, y in side]
    body += [(0.5 - wide * u, y) for u, y in side[:0:-1]]
    c.paint(t.polygon(body), colour, volume=0.07, shine=0.25)
    c.paint(t.box(0.5 - wide, 0.87, 0.5 + wide, 0.92, 0.02), shade(colour, 0.7), volume=0.01)
    cy, radius = 0.63, near(rng, 0.185, 0.05)
    plate = mix(CREAM, colour, 0.1) if min(colour) < 0.7 else STEEL
    c.paint(t.ellipse(0.5, cy, radius), plate, volume=0.02)
    turn = [math.radians(-210 + 27 * i) for i in range(10)]
    holes = [t.ellipse(*polar(0.5, cy, radius * 0.75, angle), 0.025) for angle in turn]
    c.paint(c.union(*holes), shade(INK, 1.1), volume=0)
    c.paint(t.ellipse(0.5, cy, radius * 0.42), shade(colour, 1.05), volume=0.02)
    rise = near(rng, 0.17, 0.05)
    bow = [(0.1, 0.24), (0.22, rise), (0.5, rise - 0.03), (0.78, rise), (0.9, 0.24)]
    grip = t.line(bow, 0.1, smoothly=True)
    ends = [t.box(x - 0.095, 0.2, x + 0.095, 0.355, 0.05) for x in (0.125, 0.875)]
    c.paint(c.union(grip, *ends), shade(colour, 1.06), volume=0.04, shine=0.35)


# ---- furniture ---------------------------------------------------------------------------------------


def paint_lamp(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    tall = look.shape == "tall"
    narrow, wide = near(rng, 0.17, 0.08), near(rng, 0.32, 0.05)
    low = 0.42 if tall else 0.55
    metal = BRASS if chance(rng) else STEEL
    c.paint(c.box(0.482, low - 0.05, 0.518, 0.9), metal, volume=0.015)
    if tall:
        c.paint(c.blob(path("30,95.5 34,90.5 50,87 66,90.5 70,95.5")), shade(colour, 0.85), volume=0.03)
        narrow, wide = narrow * 0.9, 0.25
    else:
        c.paint(c.ellipse(0.5, 0.78, near(rng, 0.13), 0.14), shade(colour, 0.93), volume=0.08, shine=0.5)
        c.paint(c.box(0.35, 0.9, 0.65, 0.955, 0.025), shade(colour, 0.75), volume=0.02)
    x = 0.5 + wide * 0.6
    c.paint(c.line([(x, low - 0.02), (x, low + 0.1)], 0.012), metal, volume=0, outline=0.1)
    c.paint(c.ellipse(x, low + 0.11, 0.02), metal, volume=0.01)
    c.paint(c.ellipse(0.5, low, wide * 0.95, 0.03), (1.0, 0.95, 0.72), volume=0)
    if look.shape == "round":
        arc = [math.pi * i / 24 for i in range(25)]
        top = c.polygon([(0.5 + wide * math.cos(a), low - 0.46 * math.sin(a)) for a in arc])
    else:
        top = c.polygon(trapezoid(0.5, 0.06, low, narrow, wide))
    c.paint(top, colour, volume=0.06, pattern=_trim(look, colour, rng, 0.12), fade=-0.15)
    rim = c.within(top, c.box(0, low - 0.035, 1, low))
    c.paint(rim, shade(colour, 0.75), volume=0.01)


def paint_clock(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    cy, half = 0.5, 0.44
    if look.shape == "square":
        case = c.box(0.06, 0.06, 0.94, 0.94, near(rng, 0.08, 0.3))
    elif look.shape == "tall":
        cy, half = 0.30, 0.24
        gable, foot = c.polygon(path("22,14 50,2 78,14")), c.box(0.22, 0.89, 0.78, 0.96, 0.01)
        case = c.union(c.box(0.26, 0.12, 0.74, 0.95, 0.03), gable, foot)
    else:
        case = c.ellipse(0.5, 0.5, half)
    c.paint(case, colour, volume=0.06, pattern=_trim(look, colour, rng, 0.11), shine=0.25)
    face = mix(CREAM, colour, 0.22) if max(colour) - min(colour) > 0.15 else CREAM
    dial = half * near(rng, 0.6 if look.pattern == "plain" else 0.54, 0.04)
    if look.shape == "tall":
        dial = 0.185
        c.paint(c.box(0.36, 0.56, 0.64, 0.85, 0.02), shade(colour, 0.6), volume=0.01)
        swing = rng.uniform(-0.06, 0.06)
        c.paint(c.line([(0.5, 0.57), (0.5 + swing, 0.76)], 0.018), BRASS, volume=0)
        c.paint(c.ellipse(0.5 + swing, 0.77, 0.055), BRASS, volume=0.03, shine=0.5)
    if look.pattern != "plain" and look.shape != "tall":
        c.paint(c.ellipse(0.5, cy, dial + 0.075), shade(colour, 1.05), volume=0)
    c.paint(c.ellipse(0.5, cy, dial + 0.022), shade(colour, 0.65), volume=0)
    c.paint(c.ellipse(0.5, cy, dial), face, volume=0, outline=0.3)

    def at(angle: float, reach: float) -> Point:
        """On the dial, clockwise from the top."""
        return 0.5 + dial * reach * math.sin(angle), cy - dial * reach * math.cos(angle)

    ticks = [
        c.line([at(math.pi * k / 6, 0.8), at(math.pi * k / 6, 0.9)], 0.012 if k % 3 else 0.024)
        for k in range(12)
    ]
    hour, minute = rng.uniform(0, 2 * math.pi), rng.uniform(0, 2 * math.pi)
    hands = [c.line([(0.5, cy), at(hour, 0.5)], 0.034), c.line([(0.5, cy), at(minute, 0.74)], 0.024)]
    c.paint(c.union(*ticks, *hands), INK, volume=0, outline=0)
    c.paint(c.ellipse(0.5, cy, 0.03), (0.8, 0.2, 0.15), volume=0.01)


def paint_armchair(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    back_top = 0.05 if look.shape == "tall" else near(rng, 0.17, 0.1)
    trim = _trim(look, colour, rng, 0.12)
    legs = [c.polygon(trapezoid(x, 0.86, 0.97, 0.035, 0.02)) for x in (0.2, 0.8)]
    c.paint(c.union(*legs), WOOD, volume=0.02)
    if look.shape == "round":
        back = c.union(c.ellipse(0.5, 0.43, 0.37, 0.34), c.box(0.15, 0.45, 0.85, 0.75))
    elif look.shape == "tall":
        wings = [c.ellipse(x, 0.28, 0.07, 0.16) for x in (0.22, 0.78)]
        back = c.union(c.box(0.2, back_top, 0.8, 0.75, 0.1), *wings)
    else:
        back = c.box(0.17, back_top, 0.83, 0.75, 0.12)
    c.paint(back, colour, volume=0.08, pattern=trim)
    if look.pattern == "plain":
        buttons = [c.ellipse(x, back_top + y, 0.014) for x, y in ((0.38, 0.16), (0.5, 0.22), (0.62, 0.16))]
        c.paint(c.union(*buttons), shade(colour, 0.5), volume=0)
    c.paint(c.box(0.15, 0.66, 0.85, 0.88, 0.04), shade(colour, 0.82), volume=0.03)
    c.paint(c.box(0.2, 0.54, 0.8, 0.71, 0.06), shade(colour, 1.1), volume=0.05, pattern=trim, outline=0.5)
    arm = near(rng, 0.5 if look.shape == "tall" else 0.44, 0.05)
    for x in (0.15, 0.85):
        front = c.box(x - 0.085, arm + 0.08, x + 0.085, 0.89, 0.03)
        c.paint(
            c.union(front, c.ellipse(x, arm + 0.09, 0.105, 0.095)),
            shade(colour, 1.03),
            volume=0.06,
            outline=0.5,
        )
        c.paint(c.ellipse(x, arm + 0.09, 0.045), shade(colour, 0.8), volume=0.02, relief=0.6)


def paint_bookshelf(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    half = {"tall": 0.24, "wide": 0.47}.get(look.shape, 0.36)
    top, foot = (0.2, 0.86) if look.shape == "wide" else (0.04, 0.96)
    rows = {"tall": 4, "wide": 2}.get(look.shape, 3)
    left, right = 0.5 - half, 0.5 + half
    board = 0.045
    c.paint(c.box(left, top, right, foot, 0.012), colour, volume=0.02)
    inside = c.box(left + board, top + board, right - board, foot - board - 0.03)
    c.paint(inside, shade(colour, 0.88 if min(colour) > 0.7 else 0.72), volume=0)
    spines = [tone for tone in PALETTE.values() if distance(tone, colour) > 0.3]
    tall = (foot - top - 0.03) / rows
    for row in range(rows):
        floor = top + (row + 1) * tall - board / 2 + (0.0 if row < rows - 1 else 0.005)
        x, end = left + board + 0.01, right - board - 0.02
        while x < end - 0.03:
            width = rng.uniform(0.032, 0.058)
            if rng.random() < 0.22:
                x += width * 1.3
                continue
            high = tall * rng.uniform(0.42, 0.66)
            hue = pick(rng, spines)
            c.paint(c.box(x, floor - high, min(x + width, end), floor), hue, volume=0.01, outline=0.5)
            if width > 0.042:
                label = c.box(x, floor - high * 0.75, min(x + width, end), floor - high * 0.6)
                c.paint(label, shade(hue, 1.5), volume=0, outline=0)
            x += width
        c.paint(c.box(left + 0.01, floor, right - 0.01, floor + board), shade(colour, 1.06), volume=0.012)
    lid = c.box(left - 0.02, top - 0.015, right + 0.02, top + board, 0.01)
    c.paint(lid, shade(colour, 1.1), volume=0.015)


def paint_cushion(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    t = Tilted(c, rng.uniform(-0.15, 0.15))
    second = shade(colour, 0.72)
    trim = _trim(look, colour, rng, 0.14, angle=rng.uniform(-0.15, 0.15))
    if look.shape == "round":
        turn = [2 * math.pi * i / 16 for i in range(16)]
        radius = 0.43
        outer = t.ellipse(0.5, 0.5, radius)
        frill = c.union(*[t.ellipse(*polar(0.5, 0.5, radius, angle), 0.05) for angle in turn])
        c.paint(c.union(frill, outer), second, volume=0.02)
        c.paint(outer, colour, volume=0.14, pattern=trim)
        rays = [[polar(0.5, 0.5, reach, angle) for reach in (0.05, 0.16)] for angle in turn[::2]]
        folds = [t.line(ray, 0.012) for ray in rays]
    else:
        wide, tall = (0.40, 0.40) if look.shape == "square" else (0.44, near(rng, 0.29, 0.06))
        dip = 0.03
        quarter = [(-wide, -tall), (-wide * 0.5, -tall + dip), (wide * 0.5, -tall + dip)]
        quarter += [(wide, -tall), (wide - dip, -tall * 0.5), (wide - dip, tall * 0.5)]
        rim = quarter + [(-x, -y) for x, y in quarter]
        outer = t.blob([(0.5 + x, 0.5 + y) for x, y in rim])
        if look.shape == "":
            corners = [t.ellipse(0.5 + x, 0.5 + y, 0.045) for x, y in rim[::3]]
            c.paint(c.union(*corners), second, volume=0.02)
        c.paint(outer, second, volume=0)
        inner = t.blob([(0.5 + x * 0.955, 0.5 + y * 0.945) for x, y in rim])
        c.paint(inner, colour, volume=0.13, pattern=trim)
        folds = [
            t.line([(0.5 + x * 0.12, 0.5 + y * 0.12), (0.5 + x * 0.36, 0.5 + y * 0.36)], 0.012)
            for x, y in rim[::2]
        ]
    c.paint(c.union(*folds), shade(colour, 0.65), volume=0, outline=0, opacity=0.6)
    c.paint(t.ellipse(0.5, 0.5, 0.036), second, volume=0.02, shine=0.4)


# ---- tools, instruments, toys, plants ----------------------------------------------------------------


def paint_key(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    t = Tilted(c, rng.uniform(-0.7, 0.7) + (math.pi / 2 if chance(rng) else 0.0), mirror=chance(rng))
    big = near(rng, 0.165, 0.06)
    cy = 0.05 + big
    if look.shape == "square":
        hole = t.box(0.5 - big * 0.5, 0.05 + big * 0.5, 0.5 + big * 0.5, 0.05 + big * 1.5, 0.02)
        bow = c.cut(t.box(0.5 - big, 0.05, 0.5 + big, 0.05 + 2 * big, 0.04), hole)
    elif look.shape == "round":
        bow = c.cut(t.ellipse(0.5, cy, big), t.ellipse(0.5, cy, big * 0.52))
    else:
        leaves = [(0.5, cy - 0.03), (0.5 - big * 0.75, cy + 0.09), (0.5 + big * 0.75, cy + 0.09)]
        rings = c.union(*[t.ellipse(x, y, 0.115) for x, y in leaves])
        bow = c.cut(rings, *[t.ellipse(x, y, 0.05) for x, y in leaves])
    stem = t.box(0.455, 0.05 + 2 * big - 0.03, 0.545, 0.95, 0.03)
    collar = [t.box(0.42, y, 0.58, y + 0.035, 0.012) for y in (0.42, 0.48)]
    reach = near(rng, 0.20, 0.1)
    rows = ((0.72, 0.785, 1.0), (0.81, 0.85, 0.7), (0.875, 0.935, 1.0))
    teeth = [t.box(0.53, y, 0.53 + reach * part, end, 0.008) for y, end, part in rows]
    c.paint(c.union(bow, stem, *collar, *teeth), colour, volume=0.022, shine=0.3, relief=1.2)


def paint_guitar(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    t = Tilted(c, rng.uniform(0.1, 0.55), mirror=chance(rng))
    electric = look.shape == "electric"
    low = near(rng, 0.25, 0.05)
    c.paint(t.box(0.465, 0.1, 0.535, 0.62), (0.36, 0.23, 0.14), volume=0.012)
    head = path("45.5,14 44,2 56,2 54.5,14")
    pegs = [t.ellipse(0.5 + side * 0.075, y, 0.02, 0.013) for side in (-1, 1) for y in (0.04, 0.075, 0.11)]
    c.paint(c.union(*pegs), CREAM, volume=0.01)
    c.paint(t.polygon(head), shade(colour, 0.75), volume=0.012)
    if electric:
        rim = path("44,52 33,42 29,52 33,65 28,80 36,95 50,96.5")
        rim += path("66,95 73,80 66,66 69,55 66,45 56,53 50,56")
    else:
        side = [(0.09, 0.45), (0.185, 0.50), (0.165, 0.61), (low, 0.73), (low * 0.98, 0.88), (0.11, 0.96)]
        rim = [(0.5 + x, y) for x, y in side] + [(0.5 - x, y) for x, y in reversed(side)]
    c.paint(t.blob(rim), shade(colour, 0.6), volume=0)
    inner = [(0.5 + (x - 0.5) * 0.93, 0.71 + (y - 0.71) * 0.95) for x, y in rim]
    c.paint(t.blob(inner), colour, volume=0.05, shine=0.3)
    c.paint(t.box(0.467, 0.14, 0.533, 0.52 if not electric else 0.66), (0.33, 0.2, 0.12), volume=0.01)
    frets = [t.line([(0.47, y), (0.53, y)], 0.006) for y in (0.19, 0.24, 0.29, 0.34, 0.39, 0.44)]
    c.paint(c.union(*frets), STEEL, volume=0, outline=0)
    if electric:
        c.paint(t.blob(path("43,62 57,60 62,72 57,88 48,86")), CREAM if is_dark(colour) else INK, volume=0.01)
        c.paint(c.union(t.box(0.44, 0.68, 0.56, 0.71), t.box(0.44, 0.76, 0.56, 0.79)), STEEL, volume=0.01)
        bridge = 0.84
    else:
        c.paint(t.ellipse(0.5, 0.6, 0.092), CREAM if is_dark(colour) else (0.45, 0.27, 0.14), volume=0)
        c.paint(t.ellipse(0.5, 0.6, 0.075), (0.12, 0.08, 0.06), volume=0)
        bridge = 0.81
    c.paint(t.box(0.4, bridge, 0.6, bridge + 0.035, 0.01), (0.2, 0.12, 0.08), volume=0.01)
    strings = [
        t.line([(0.5 + k * 0.011, 0.06), (0.5 + k * 0.014, bridge + 0.015)], 0.004)
        for k in (-2, -0.7, 0.7, 2)
    ]
    c.paint(c.union(*strings), (0.93, 0.92, 0.86), volume=0, outline=0)


def paint_teddy_bear(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    pale = shade(colour, 1.45) if is_dark(colour) or max(colour) - min(colour) > 0.2 else shade(colour, 0.86)
    belly = near(rng, 0.225, 0.05)
    for x in (0.27, 0.73):
        c.paint(c.ellipse(x, 0.12, 0.095), colour, volume=0.05)
        c.paint(c.ellipse(x, 0.125, 0.052), pale, volume=0.02)
    lift = rng.uniform(-0.05, 0.09)
    left, right = [(0.35, 0.54), (0.14, 0.66 - lift)], [(0.65, 0.54), (0.86, 0.66 + lift)]
    c.paint(c.union(c.line(left, 0.15), c.line(right, 0.15)), shade(colour, 0.95), volume=0.05)
    c.paint(c.ellipse(0.5, 0.68, belly, 0.24), colour, volume=0.1)
    c.paint(c.ellipse(0.5, 0.70, belly * 0.6, 0.15), pale, volume=0.04, outline=0.1)
    for x in (0.25, 0.75):
        c.paint(c.ellipse(x, 0.86, 0.125, 0.105), shade(colour, 1.04), volume=0.06, outline=0.45)
        c.paint(c.ellipse(x, 0.875, 0.062, 0.055), pale, volume=0.02)
    c.paint(c.ellipse(0.5, 0.29, near(rng, 0.265, 0.04), 0.225), colour, volume=0.11, outline=0.45)
    c.paint(c.ellipse(0.5, 0.36, 0.115, 0.085), pale, volume=0.04, outline=0.15)
    bow = accent(colour, rng)
    bows = [path("50,52.5 37,46.5 37,59"), path("50,52.5 63,46.5 63,59")]
    c.paint(c.union(*[c.polygon(part) for part in bows], c.ellipse(0.5, 0.527, 0.032)), bow, volume=0.02)
    features = [c.ellipse(0.4, 0.25, 0.027), c.ellipse(0.6, 0.25, 0.027), c.ellipse(0.5, 0.325, 0.042, 0.03)]
    smile = c.line(path("44.5,38.5 50,41 55.5,38.5"), 0.012, smoothly=True)
    ink = INK if max(colour) > 0.3 else (0.95, 0.85, 0.6)
    c.paint(c.union(*features, smile), ink, volume=0.01, shine=0.5, outline=0)


def _leaves(c: Canvas, look: Look, rim: float, rng: np.random.Generator) -> None:
    spiky = look.shape == "spiky"
    count, spread, wide = (9, 1.15, 0.026) if spiky else (7, 1.05, 0.055)
    order = [i for k in range(count // 2 + 1) for i in ({k, count - 1 - k})]
    for i in order:
        angle = -spread + 2 * spread * i / (count - 1) + rng.uniform(-0.08, 0.08)
        reach = (rim - 0.04) * (1 - 0.22 * abs(angle)) * rng.uniform(0.88, 1.0)
        dx, dy = math.sin(angle), -math.cos(angle)
        x, y = 0.5 + dx * 0.05, rim
        tip = (x + dx * reach, y + dy * reach)
        mid = (x + dx * reach * 0.55, y + dy * reach * 0.55)
        sides = (mid[0] - dy * wide, mid[1] + dx * wide), (mid[0] + dy * wide, mid[1] - dx * wide)
        blade = [(x, y), sides[0], tip, sides[1]]
        tone = shade(LEAF, rng.uniform(0.8, 1.12))
        c.paint(c.blob(blade) if not spiky else c.polygon(blade), tone, volume=0.02)


def paint_potted_plant(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    rim = 0.46
    top, low = near(rng, 0.34, 0.04), near(rng, 0.24, 0.06)
    if look.shape == "flowering":
        c.paint(c.ellipse(0.5, rim - 0.12, 0.33, 0.2), shade(LEAF, 0.85), volume=0.08)
    else:
        _leaves(c, look, rim, rng)
    body = c.polygon(trapezoid(0.5, rim + 0.08, 0.95, top, low))
    c.paint(body, colour, volume=0.08, relief=0.8, pattern=_trim(look, colour, rng, 0.12))
    c.paint(c.box(0.5 - top - 0.04, rim, 0.5 + top + 0.04, rim + 0.12, 0.02), shade(colour, 1.1), volume=0.03)
    if look.shape == "flowering":
        for x, y in ((0.28, 0.33), (0.72, 0.32), (0.5, 0.36), (0.38, 0.17), (0.62, 0.16)):
            x, y = x + rng.uniform(-0.02, 0.02), y + rng.uniform(-0.02, 0.02)
            petals = [c.ellipse(*polar(x, y, 0.055, a), 0.045) for a in (0.3, 1.56, 2.8, 4.07, 5.33)]
            c.paint(c.union(*petals), shade(colour, 1.08), volume=0.02)
            eye = (0.98, 0.80, 0.2) if colour[2] > 0.3 or colour[1] < 0.4 else (0.5, 0.3, 0.15)
            c.paint(c.ellipse(x, y, 0.032), eye, volume=0.01)
