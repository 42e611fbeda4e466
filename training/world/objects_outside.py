"""The outdoor things of the generated world: toys, clothes, bags, vehicles, tools, animals and a plant.

Each function paints one kind on the unit square of a Canvas; `KINDS` at the end lists their variants.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from steersearch.training.world.painting import (
    BEAK,
    GLASS,
    IRON,
    JET,
    PALETTE,
    PINE,
    TYRE,
    WHITE,
    Canvas,
    Colour,
    Look,
    Pattern,
    Point,
    accent,
    arc,
    chance,
    luminance,
    mirrored,
    mix,
    near,
    path,
    shade,
    trapezoid,
)


def _crease(colour: Colour, strength: float = 0.3) -> Colour:
    """The tone of a seam on `colour`: darker, or lighter where the colour is nearly black."""
    return _deep(colour, 1 - strength) if luminance(colour) > 0.25 else mix(colour, WHITE, strength * 0.75)


def _deep(colour: Colour, factor: float) -> Colour:
    """`colour` in the shade; yellow turns to amber there, where mere darkening would make it olive."""
    r, g, b = shade(colour, factor)
    return (min(1.0, r * 1.18), g, b) if luminance(colour) > 0.7 and colour[2] < 0.5 else (r, g, b)


def _pattern(
    look: Look, colour: Colour, rng: np.random.Generator, scale: float = 0.13, angle: float = 0.0
) -> Pattern:
    """The look's ornament.

    Dots come in any colour; ornaments that cover half of the thing stay neutral, so that a "striped red"
    thing is red and nothing else.
    """
    second = accent(colour, rng) if look.pattern == "dotted" else _neutral(look, colour, rng)
    return Pattern(look.pattern, second, near(rng, scale), angle)


def _neutral(look: Look, colour: Colour, rng: np.random.Generator) -> Colour:
    """A second tone that names no other colour: white, or the thing's own colour much deeper or paler."""
    if look.colour == "white":
        return mix(colour, PALETTE["black"], rng.uniform(0.75, 0.95))
    if look.colour == "black":
        return mix(colour, PALETTE["gray"], rng.uniform(0.6, 0.8))
    if look.colour == "yellow":
        return mix(colour, JET, 0.85) if chance(rng) else WHITE
    if look.colour in ("orange", "pink", "brown", "gray"):  # their deep tones have names of their own
        return WHITE
    return WHITE if chance(rng, 0.7) else shade(colour, 0.45)


def _string(
    rng: np.random.Generator, x: float, top: float, bottom: float, sway: float, bends: int = 5
) -> list[Point]:
    """A wavy string hanging down from (x, top)."""
    side = 1 if chance(rng) else -1
    points = [(x, top)]
    for i in range(1, bends + 1):
        side = -side
        points.append((x + side * near(rng, sway, 0.3), top + (bottom - top) * i / bends))
    return points


def _eye(c: Canvas, x: float, y: float, radius: float, iris: Colour = JET) -> None:
    c.paint(c.ellipse(x, y, radius), iris, volume=0, outline=0.2)
    c.paint(c.ellipse(x - radius * 0.3, y - radius * 0.35, radius * 0.36), WHITE, volume=0, outline=0)


# ---- toys --------------------------------------------------------------------------------------------
def paint_ball(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    body = c.ellipse(0.5, 0.5, 0.46)
    tilt = rng.uniform(-0.6, 0.6)
    weave = _pattern(look, colour, rng, 0.2, tilt)
    c.paint(body, colour, volume=0.16, relief=0.85, shine=0.75, pattern=weave)
    if look.pattern != "plain":
        return
    seams, cos, sin = [], math.cos(tilt), math.sin(tilt)
    for bulge in (-0.26, 0.05, 0.36):
        run = [(bulge * math.cos(t) * 0.9, 0.46 * math.sin(t)) for t in np.linspace(-1.6, 1.6, 9)]
        turned = [(0.5 + x * cos - y * sin, 0.5 + x * sin + y * cos) for x, y in run]
        seams.append(c.line(turned, 0.018, smoothly=True))
    c.paint(c.within(c.union(*seams), body), _crease(colour, 0.35), volume=0, outline=0, opacity=0.8)


def paint_kite(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    top, low, wide = 0.02, near(rng, 0.68, 0.04), near(rng, 0.40, 0.06)
    waist = near(rng, 0.24, 0.12)
    if look.shape == "triangular":
        low, waist, wide = 0.50, 0.50, near(rng, 0.44, 0.05)
    tail = _string(rng, 0.5, low - 0.01, 0.93, 0.06)
    c.paint(c.line(tail, 0.012, smoothly=True), _crease(colour, 0.4), volume=0)
    for x, y in tail[1:]:
        bow = [c.polygon([(x, y), (end, y - 0.035), (end, y + 0.035)]) for end in (x - 0.065, x + 0.065)]
        c.paint(c.union(*bow), shade(colour, 1.1), volume=0.01)
    left, right = (0.5 - wide, waist), (0.5 + wide, waist)
    sail = c.polygon([(0.5, top), right, (0.5, low), left])
    c.paint(sail, colour, volume=0.02, pattern=_pattern(look, colour, rng, 0.13, 0.0))
    middle = (0.5, waist)
    panels = c.union(c.polygon([(0.5, top), right, middle]), c.polygon([(0.5, low), left, middle]))
    if look.shape == "triangular":
        panels = c.polygon([(0.5, top), right, (0.5, low)])
    c.paint(panels, shade(colour, 0.7), volume=0, outline=0, opacity=0.22)
    spars = c.union(c.line([(0.5, top), (0.5, low)], 0.016), c.line([left, right], 0.016))
    c.paint(spars, _crease(colour, 0.45), volume=0.005)


def paint_balloon(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    foot = 0.60
    if look.shape == "heart-shaped":
        lobe = path("50,13 62,4 77,6 84,20 77,37 63,50 50,62")
    elif look.shape == "long":
        wide, foot = near(rng, 0.19), 0.68
        side = ((0.0, 0.02), (1.0, 0.15), (1.0, 0.45), (0.4, 0.64), (0.0, foot + 0.01))
        lobe = [(0.5 + wide * u, y) for u, y in side]
    else:
        wide = near(rng, 0.27, 0.06)
        side = ((0.0, 0.02), (0.75, 0.1), (1.0, 0.29), (0.65, 0.49), (0.0, 0.61))
        lobe = [(0.5 + wide * u, y) for u, y in side]
    string = c.line(_string(rng, 0.5, foot, 0.98, 0.035, 4), 0.014, smoothly=True)
    c.paint(string, mix(_crease(colour, 0.4), IRON, 0.3), volume=0.004)
    knot = c.polygon([(0.5, foot - 0.03), (0.55, foot + 0.05), (0.45, foot + 0.05)])
    c.paint(knot, shade(colour, 0.8), volume=0.01)
    body = c.blob(mirrored(lobe))
    c.paint(body, colour, volume=0.12, shine=0.95, pattern=_pattern(look, colour, rng, 0.13))


def paint_rubber_duck(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    head = near(rng, 0.205, 0.06)
    beak = BEAK if look.colour not in ("orange", "red") else PALETTE["yellow"]
    back = path("6,70 3,50 14,60 30,55 50,52 72,50 90,60")
    belly = path("93,75 83,90 62,96 36,96 16,88")
    neck = c.polygon(path("48,42 80,42 86,60 42,60"))
    body = c.union(c.blob([*back, *belly]), neck)
    c.paint(body, colour, volume=0.12, shine=0.2, pattern=_pattern(look, colour, rng, 0.15))
    c.paint(c.blob(path("80,29 90,24 100,23 97,30 84,35")), beak, volume=0.02)
    c.paint(c.blob(path("79,33 90,33 96,37 88,41 79,38")), shade(beak, 0.82), volume=0.015)
    c.paint(c.ellipse(0.64, 0.28, head * 1.06, head), colour, volume=0.1, shine=0.7)
    wing = c.blob(path("22,66 40,63 58,68 50,82 34,84 20,75"))
    c.paint(wing, shade(colour, 0.93), volume=0.05, relief=1.3, outline=0.5)
    c.paint(c.ellipse(0.715, 0.235, 0.046, 0.056), WHITE, volume=0, outline=0.4)
    _eye(c, 0.727, 0.24, 0.03)


# ---- clothing ----------------------------------------------------------------------------------------
def paint_umbrella(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    grip = PINE if look.colour != "brown" else JET
    if look.shape == "closed":
        _paint_closed_umbrella(c, look, colour, grip, rng)
        return
    c.paint(c.line([(0.5, 0.03), (0.5, 0.86)], 0.022), IRON, volume=0.008)
    hook = arc(0.57, 0.87, 0.07, 0.09, 180, 20, 12)
    c.paint(c.line([(0.5, 0.76), *hook], 0.04), grip, volume=0.015)
    rise = near(rng, 0.46, 0.06)
    dome = c.polygon(arc(0.5, 0.54, 0.48, rise, 180, 360, 40))
    edges = [0.02, 0.19, 0.385, 0.615, 0.81, 0.98]
    bites = [c.ellipse((a + b) / 2, 0.55, (b - a) / 2, 0.055) for a, b in pairwise(edges)]
    canopy = c.cut(dome, *bites)
    c.paint(canopy, colour, volume=0.09, relief=0.8, pattern=_pattern(look, colour, rng, 0.14))
    crown = 0.54 - rise
    panels = []
    for inner, outer in ((1, 2), (3, 4)):
        lanes = [_rib(edges[inner], crown), _rib(edges[outer], crown)]
        panels.append(c.polygon(lanes[0] + lanes[1][::-1]))
    c.paint(c.within(c.union(*panels), canopy), shade(colour, 0.6), volume=0, outline=0, opacity=0.22)
    ribs = c.union(*(c.line(_rib(x, crown), 0.01) for x in edges[1:-1]))
    c.paint(c.within(ribs, canopy), _crease(colour, 0.4), volume=0, outline=0)


def _rib(x: float, crown: float) -> list[Point]:
    """A rib of an open umbrella from the crown to the hem at x."""
    reach = x - 0.5
    turns = np.linspace(0, math.pi / 2, 10)
    return [(0.5 + reach * float(math.sin(t)), 0.53 + (crown - 0.53) * float(math.cos(t))) for t in turns]


def _paint_closed_umbrella(
    c: Canvas, look: Look, colour: Colour, grip: Colour, rng: np.random.Generator
) -> None:
    wide = near(rng, 0.15)
    c.paint(c.line([(0.5, 0.1), (0.5, 0.99)], 0.022), IRON, volume=0.008)
    hook = arc(0.58, 0.11, 0.08, 0.085, 180, 380, 14)
    c.paint(c.line([(0.5, 0.24), *hook], 0.045), grip, volume=0.015)
    right = [(0.5, 0.25), (0.5 + wide * 0.7, 0.22), (0.5 + wide, 0.31), (0.5 + wide * 0.8, 0.55)]
    cloth = c.blob(mirrored([*right, (0.5 + wide * 0.35, 0.82), (0.5, 0.94)]))
    c.paint(cloth, colour, volume=0.06, pattern=_pattern(look, colour, rng, 0.105))
    runs = ((-0.3, -0.25, 0.48), (0.4, 0.3, 0.51))
    lines = [[(0.5 + wide * u, 0.25), (0.5 + wide * v, 0.55), (x, 0.88)] for u, v, x in runs]
    folds = c.union(*(c.line(line, 0.012) for line in lines))
    c.paint(c.within(folds, cloth), _crease(colour, 0.35), volume=0, outline=0, opacity=0.6)
    strap = c.polygon(path("30,49 70,46 70,49.5 30,52.5"))
    c.paint(c.within(strap, cloth), _crease(colour, 0.3), volume=0.01)


def paint_hat(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    band = mix(accent(colour, rng), colour, 0.15)
    weave = _pattern(look, colour, rng, 0.13)
    if look.shape == "tall":
        brim, crown = (0.5, 0.85, 0.42, 0.085), near(rng, 0.245, 0.06)
        sides = c.polygon(trapezoid(0.5, 0.1, 0.84, crown * 1.1, crown))
        body = c.union(sides, c.ellipse(0.5, 0.84, crown, 0.05))
        lid = (0.5, 0.1, crown * 1.1, 0.05)
        stripe = (0.64, 0.76)
    elif look.shape == "pointed":
        brim, crown = (0.5, 0.86, 0.46, 0.095), near(rng, 0.27, 0.06)
        tip = rng.uniform(-0.05, 0.05)
        sides = c.polygon([(0.5 + tip, 0.02), (0.5 + crown, 0.85), (0.5 - crown, 0.85)])
        body = c.union(sides, c.ellipse(0.5, 0.85, crown, 0.06))
        lid = None
        stripe = (0.68, 0.79)
    else:
        brim, crown = (0.5, 0.72, 0.48, 0.13), near(rng, 0.25, 0.06)
        dome = ((0, 0.31), (0.6, 0.32), (0.95, 0.45), (1, 0.74), (0, 0.78))
        body = c.blob(mirrored([(0.5 + crown * u, y) for u, y in dome]))
        lid = None
        stripe = (0.57, 0.66)
    c.paint(c.ellipse(*brim), shade(colour, 0.92), volume=0.03, relief=1.2)
    rim = (brim[0], brim[1] - 0.012, brim[2] * 0.93, brim[3] * 0.78)
    on_brim = weave if look.shape == "wide" else None
    c.paint(c.ellipse(*rim), colour, volume=0.02, outline=0.15, pattern=on_brim)
    c.paint(body, colour, volume=0.09, pattern=weave)
    upper, lower = arc(0.5, stripe[0], 0.5, 0.035, 180, 0, 16), arc(0.5, stripe[1], 0.5, 0.035, 0, 180, 16)
    c.paint(c.within(c.polygon(upper + lower), body), band, volume=0.015)
    if lid is not None:
        c.paint(c.ellipse(*lid), shade(colour, 1.15), volume=0.01)


def paint_boot(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    top = 0.03 if look.shape == "tall" else 0.27
    toe = near(rng, 0.92, 0.03)
    sole = shade(colour, 0.5) if luminance(colour) > 0.25 else mix(colour, IRON, 0.4)
    heel = c.union(c.box(0.14, 0.88, toe + 0.01, 0.955, 0.03), c.box(0.14, 0.90, 0.40, 0.995, 0.02))
    c.paint(heel, sole, volume=0.015)
    shaft = c.polygon([(0.17, top + 0.03), (0.56, top + 0.03), (0.55, 0.62), (0.17, 0.75)])
    instep = [(0.17, 0.55), (0.36, 0.48), (0.55, 0.55), (0.66, 0.635), (0.82, 0.67), (toe, 0.76), (toe, 0.87)]
    tread = path("75,90.5 45,90 20,90.5 15,84 16.5,70")
    boot = c.union(shaft, c.blob([*instep, *tread]))
    c.paint(boot, colour, volume=0.09, shine=0.35, pattern=_pattern(look, colour, rng, 0.13))
    c.paint(c.ellipse(0.365, top + 0.035, 0.205, 0.038), shade(colour, 1.2), volume=0.01)
    c.paint(c.ellipse(0.365, top + 0.04, 0.165, 0.024), shade(colour, 0.35), volume=0)
    cap = c.within(c.ellipse(toe - 0.02, 0.87, 0.2, 0.18), boot)
    c.paint(cap, shade(colour, 0.88), volume=0.04, shine=0.5)
    if chance(rng, 0.6):
        c.paint(c.line([(0.19, top + 0.12), (0.54, top + 0.12)], 0.022), _crease(colour, 0.35), volume=0.008)
    pull, hole = (
        c.box(0.115, top + 0.06, 0.2, top + 0.22, 0.03),
        c.box(0.14, top + 0.09, 0.18, top + 0.19, 0.02),
    )
    c.paint(c.cut(pull, hole), _crease(colour, 0.25), volume=0.008)


# ---- bags --------------------------------------------------------------------------------------------
def paint_backpack(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    half = near(rng, 0.30 if look.shape == "tall" else 0.35, 0.05)
    top = 0.09 if look.shape == "tall" else 0.14
    left, right = 0.5 - half, 0.5 + half
    trim = _crease(colour, 0.4)
    c.paint(c.ring(0.5, top + 0.01, 0.1, 0.085, 0.032), trim, volume=0.01)
    strap = [(right - 0.08, top + 0.1), (right + 0.07, 0.42), (right - 0.03, 0.85)]
    for run in (strap, [(1 - x, y) for x, y in strap]):
        c.paint(c.line(run, 0.055, smoothly=True), trim, volume=0.015)
    pouches = [c.box(x - 0.085, 0.60, x + 0.085, 0.90, 0.05) for x in (left + 0.02, right - 0.02)]
    for pouch in pouches:
        c.paint(pouch, shade(colour, 0.82), volume=0.03)
    weave = _pattern(look, colour, rng, 0.13)
    body = c.box(left, top, right, 0.96, half * (0.62 if look.shape == "tall" else 0.88))
    body = c.union(body, c.box(left, 0.6, right, 0.96, 0.10))
    c.paint(body, colour, volume=0.08, pattern=weave)
    zip_arc = arc(0.5, 0.43, half * 0.82, 0.23, 180, 360, 20)
    c.paint(c.line(zip_arc, 0.016), trim, volume=0.005)
    c.paint(c.line([zip_arc[3], (zip_arc[3][0], zip_arc[3][1] + 0.06)], 0.022), IRON, volume=0.006)
    pocket = c.box(0.5 - half * 0.76, 0.55, 0.5 + half * 0.76, 0.90, 0.07)
    c.paint(pocket, shade(colour, 1.06), volume=0.05, outline=0.5, pattern=None)
    flap = c.box(0.5 - half * 0.8, 0.53, 0.5 + half * 0.8, 0.61, 0.03)
    c.paint(
        c.union(flap, c.ellipse(0.5, 0.61, half * 0.79, 0.07)), shade(colour, 0.9), volume=0.03, outline=0.5
    )
    c.paint(c.box(0.465, 0.635, 0.535, 0.72, 0.012), IRON, volume=0.01)


def paint_suitcase(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    if look.shape == "wheeled":
        _paint_trolley(c, look, colour, rng)
        return
    top = near(rng, 0.30, 0.06)
    leather = mix(PINE, JET, 0.35) if look.colour not in ("brown", "black") else (0.83, 0.66, 0.42)
    grip, gap = (
        c.box(0.36, top - 0.12, 0.64, top + 0.1, 0.06),
        c.box(0.405, top - 0.075, 0.595, top + 0.2, 0.03),
    )
    c.paint(c.cut(grip, gap), leather, volume=0.015)
    body = c.box(0.02, top, 0.98, 0.9, 0.07)
    c.paint(body, colour, volume=0.06, pattern=_pattern(look, colour, rng, 0.14))
    c.paint(c.box(0.02, top + 0.20, 0.98, top + 0.222), _crease(colour, 0.4), volume=0, outline=0)
    corners = c.union(*(c.ellipse(x, y, 0.11) for x in (0.03, 0.97) for y in (top + 0.01, 0.89)))
    c.paint(c.within(corners, body), leather, volume=0.02)
    belts = c.union(c.box(0.23, top, 0.285, 0.9), c.box(0.715, top, 0.77, 0.9))
    c.paint(belts, leather, volume=0.012)
    buckles = [c.box(x, top + 0.17, end, top + 0.26, 0.015) for x, end in ((0.215, 0.30), (0.70, 0.785))]
    c.paint(c.union(*buckles), (0.86, 0.75, 0.42), volume=0.012)
    c.paint(c.box(0.46, top + 0.175, 0.54, top + 0.25, 0.015), (0.86, 0.75, 0.42), volume=0.012)


def _paint_trolley(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    half = near(rng, 0.29, 0.06)
    left, right = 0.5 - half, 0.5 + half
    rods = c.cut(c.box(0.34, 0.02, 0.66, 0.4, 0.04), c.box(0.37, 0.05, 0.63, 0.5, 0.02))
    c.paint(rods, IRON, volume=0.01)
    c.paint(c.box(0.33, 0.015, 0.67, 0.075, 0.03), JET, volume=0.012)
    wheels = c.union(c.ellipse(left + 0.09, 0.945, 0.05), c.ellipse(right - 0.09, 0.945, 0.05))
    c.paint(wheels, TYRE, volume=0.015)
    body = c.box(left, 0.25, right, 0.935, 0.08)
    c.paint(body, colour, volume=0.07, shine=0.3, pattern=_pattern(look, colour, rng, 0.13))
    if look.pattern == "plain":
        middles = [left + half * k for k in (0.4, 0.8, 1.2, 1.6)]
        grooves = c.union(*(c.box(x - 0.011, 0.29, x + 0.011, 0.90, 0.01) for x in middles))
        c.paint(grooves, _crease(colour, 0.28), volume=0.006, outline=0)
    c.paint(c.box(0.41, 0.265, 0.59, 0.315, 0.02), shade(colour, 0.45), volume=0.01)
    guards = c.union(*(c.ellipse(x, y, 0.085) for x in (left + 0.01, right - 0.01) for y in (0.26, 0.925)))
    c.paint(c.within(guards, body), shade(colour, 0.62), volume=0.015)


# ---- vehicles ----------------------------------------------------------------------------------------
def paint_bicycle(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    radius, y = near(rng, 0.215, 0.04), 0.70
    hubs = (0.225, 0.775)
    spokes = []
    turn = rng.uniform(0, 0.5)
    for x in hubs:
        for i in range(6):
            a = turn + math.pi * i / 6
            dx, dy = math.cos(a) * radius * 0.85, math.sin(a) * radius * 0.85
            spokes.append(c.line([(x - dx, y - dy), (x + dx, y + dy)], 0.007))
    c.paint(c.union(*spokes), IRON, volume=0, outline=0.2)
    for x in hubs:
        c.paint(c.ring(x, y, radius, radius, 0.03), TYRE, volume=0)
        c.paint(c.ring(x, y, radius - 0.02, radius - 0.02, 0.038), colour, volume=0.01, outline=0.2)
    guards = c.union(*(c.line(arc(x, y, radius + 0.012, radius + 0.012, 195, 325), 0.032) for x in hubs))
    pedal, seat, head = (0.46, 0.71), (0.385, 0.36), (0.665, 0.36)
    frame = c.union(
        guards,
        c.line([pedal, seat, head, pedal], 0.044),
        c.line([seat, (hubs[0], y), pedal], 0.034),
        c.line([(0.645, 0.27), head, (0.70, 0.50), (hubs[1], y)], 0.042),
        c.ellipse(*pedal, 0.075),
    )
    c.paint(frame, colour, volume=0.018, outline=0.25)
    c.paint(c.union(c.ellipse(*pedal, 0.028), *(c.ellipse(x, y, 0.03) for x in hubs)), IRON, volume=0.01)
    crank = c.union(c.line([pedal, (0.51, 0.82)], 0.02), c.line([(0.475, 0.825), (0.55, 0.825)], 0.03))
    c.paint(crank, TYRE, volume=0.006)
    c.paint(c.line([seat, (0.37, 0.29)], 0.022), IRON, volume=0.006)
    saddle = c.blob(path("27,25 34,23.5 48,26.5 40,29.5 33,31 27,30"))
    c.paint(saddle, (0.36, 0.22, 0.14), volume=0.02)
    bars = c.line(path("57,25 64,26.5 73,20 75,26"), 0.026, smoothly=True)
    c.paint(bars, IRON, volume=0.008)
    c.paint(c.line([(0.55, 0.25), (0.60, 0.255)], 0.038), TYRE, volume=0.008)
    if chance(rng):
        wicker = Pattern("checked", shade(PINE, 0.7), 0.045)
        c.paint(c.polygon(path("74,29 95,29 92,46 77,46")), PINE, volume=0.02, pattern=wicker)
        c.paint(c.line([(0.68, 0.34), (0.78, 0.34)], 0.02), IRON, volume=0.006)


def paint_car(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    roof = near(rng, 0.25, 0.07)
    if look.shape == "open":
        c.paint(c.line([(0.63, 0.30), (0.70, 0.50)], 0.024), IRON, volume=0.008)
        c.paint(c.polygon(path("63,31 65.5,31 74,49 69,49")), GLASS, volume=0)
        seats = c.union(c.box(0.29, 0.30, 0.39, 0.55, 0.04), c.box(0.46, 0.30, 0.56, 0.55, 0.04))
        c.paint(seats, _crease(colour, 0.35), volume=0.03)
    wing = path("3,70 2.5,56 9,49 24,47.5")
    nose = path("76,47.5 90,51 96.5,58 97,70 75,75.5 25,75.5")
    if look.shape == "tall":
        roof = 0.15
        van = [(0.03, 0.70), (0.03, 0.45), (0.05, 0.22), (0.13, roof), (0.40, roof - 0.005), (0.66, roof)]
        body = c.blob([*van, (0.75, 0.22), (0.83, 0.45), (0.94, 0.50), (0.97, 0.60), *nose[3:]])
        outlines = "11,25 34,25 34,43 10,43", "39,25 52,25 52,43 39,43", "57,25 68,25 76,43 57,43"
        panes = [path(outline) for outline in outlines]
    elif look.shape == "open":
        body = c.blob([*wing[:2], *path("9,45 24,43 45,45.5 62,44.5 76,44"), *nose[1:]])
        panes = []
    else:
        cabin = [(0.32, roof + 0.06), (0.42, roof), (0.58, roof), (0.67, roof + 0.06)]
        body = c.blob([*wing, *cabin, *nose])
        panes = [
            [(0.30, 0.46), (0.365, roof + 0.06), (0.47, roof + 0.045), (0.47, 0.46)],
            [(0.515, 0.46), (0.515, roof + 0.045), (0.62, roof + 0.06), (0.705, 0.46)],
        ]
    c.paint(body, colour, volume=0.07, relief=0.8, shine=0.6, pattern=_pattern(look, colour, rng, 0.12))
    if panes:
        c.paint(c.union(*(c.polygon(pane) for pane in panes)), GLASS, volume=0.01, outline=0.6)
    door = c.union(c.line([(0.49, 0.49), (0.49, 0.68)], 0.009), c.line([(0.09, 0.60), (0.93, 0.60)], 0.008))
    c.paint(door, _crease(colour, 0.35), volume=0, outline=0)
    c.paint(c.line([(0.41, 0.555), (0.455, 0.555)], 0.018), IRON, volume=0.005)
    c.paint(c.ellipse(0.92, 0.585, 0.036, 0.045), (1.0, 0.95, 0.70), volume=0.01)
    c.paint(c.box(0.028, 0.555, 0.06, 0.63, 0.012), (0.80, 0.12, 0.10), volume=0.006)
    bumpers = [c.box(x, 0.69, x + 0.1, 0.735, 0.022) for x in (0.0, 0.9)]
    c.paint(c.union(*bumpers), IRON, volume=0.01)
    wheels = (0.23, 0.76)
    for x in wheels:
        c.paint(c.ellipse(x, 0.735, 0.113), TYRE, volume=0.03)
        c.paint(c.ellipse(x, 0.735, 0.058), IRON, volume=0.02)
        c.paint(c.ellipse(x, 0.735, 0.024), TYRE, volume=0)


def paint_sailboat(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    boom, top = near(rng, 0.70, 0.02), 0.05
    c.paint(c.line([(0.47, 0.02), (0.47, 0.80)], 0.026), PINE, volume=0.008)
    c.paint(c.polygon(path("48,1 60,4.5 48,8")), shade(colour, 0.75), volume=0.01)
    weave = _pattern(look, colour, rng, 0.14)
    reach = near(rng, 0.93, 0.03)
    leech = [(0.60, 0.20), (0.75, 0.40), (reach - 0.06, 0.58)]
    main = c.polygon([(0.495, top + 0.06), *leech, (reach, boom), (0.495, boom)])
    c.paint(main, colour, volume=0.05, pattern=weave)
    jib = c.polygon([(0.445, top + 0.09), (0.445, boom - 0.01), (0.10, boom - 0.01), (0.26, 0.45)])
    c.paint(jib, shade(colour, 1.12), volume=0.04, pattern=weave)
    seams = c.union(*(c.line([(0.495, y), (0.99, y + 0.03)], 0.007) for y in (0.34, 0.48, 0.6)))
    if look.pattern == "plain":
        c.paint(c.within(seams, main), _crease(colour, 0.3), volume=0, outline=0)
    c.paint(c.line([(0.47, boom + 0.012), (reach, boom + 0.012)], 0.02), PINE, volume=0.006)
    deck = path("2,74.5 30,77.5 70,77.5 98.5,73.5")
    keel = path("91,86 80,94.5 50,95.5 22,94.5 9,86")
    hull = c.blob([*deck, *keel])
    c.paint(hull, shade(colour, 0.95), volume=0.05, shine=0.3)
    trim = c.line(path("7,80 50,82.5 94,79"), 0.026, smoothly=True)
    c.paint(c.within(trim, hull), WHITE if look.colour != "white" else PALETTE["blue"], volume=0.006)


# ---- tools -------------------------------------------------------------------------------------------
def paint_watering_can(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    top, left, right = (0.30, 0.22, 0.60) if look.shape == "tall" else (0.42, 0.20, 0.66)
    foot = 0.035
    spout = c.polygon([(right - 0.08, 0.66), (right - 0.05, 0.86), (0.905, 0.335), (0.855, 0.30)])
    c.paint(spout, shade(colour, 0.9), volume=0.03)
    rose = c.polygon(path("83,33 90,36 99.5,26 85.5,18.5"))
    c.paint(rose, colour, volume=0.02)
    c.paint(c.ellipse(0.925, 0.222, 0.085, 0.024, math.atan2(0.075, 0.14)), shade(colour, 0.6), volume=0)
    rear = [(left + 0.06, 0.80), (0.04, 0.66), (0.03, 0.40), (0.16, top - 0.16), (0.36, top - 0.19)]
    handle = c.line([*rear, (right - 0.08, top - 0.06), (right - 0.05, top + 0.02)], 0.045, smoothly=True)
    c.paint(handle, shade(colour, 0.85), volume=0.015, relief=1.2)
    middle, half = (left + right) / 2, (right - left) / 2
    body = c.polygon([(left, top), (right, top), (right + foot, 0.92), (left - foot, 0.92)])
    body = c.union(body, c.ellipse(middle, 0.92, half + foot, 0.05))
    c.paint(body, colour, volume=0.09, shine=0.4, pattern=_pattern(look, colour, rng, 0.13))
    c.paint(c.ellipse(middle, top, half + 0.012, 0.05), shade(colour, 1.15), volume=0.01)
    c.paint(c.ellipse(middle, top + 0.006, half - 0.025, 0.033), shade(colour, 0.4), volume=0)
    bands = c.line(arc(middle, 0.85, half + foot * 0.85, 0.045, 180, 0, 16), 0.018)
    c.paint(c.within(bands, body), _crease(colour, 0.3), volume=0.006, outline=0)


def paint_bucket(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    wide, foot = near(rng, 0.40, 0.05), near(rng, 0.28, 0.06)
    top = 0.30 if look.shape == "tall" else 0.42
    if look.shape == "tall":
        wide, foot = wide * 0.82, foot * 0.88
    bail = arc(0.5, top + 0.02, wide + 0.015, top - 0.01, 180, 360, 30)
    c.paint(c.line(bail, 0.022), IRON, volume=0.008)
    c.paint(c.line(bail[12:19], 0.055), PINE, volume=0.018)
    body = c.union(c.polygon(trapezoid(0.5, top, 0.92, wide, foot)), c.ellipse(0.5, 0.92, foot, 0.055))
    c.paint(body, colour, volume=0.1, shine=0.4, pattern=_pattern(look, colour, rng, 0.14))
    c.paint(c.ellipse(0.5, top, wide + 0.025, 0.088), shade(colour, 1.15), volume=0.012)
    c.paint(c.ellipse(0.5, top + 0.004, wide - 0.02, 0.063), shade(colour, 0.5), volume=0.02, relief=-1)
    lugs = c.union(c.ellipse(0.5 - wide, top + 0.06, 0.042), c.ellipse(0.5 + wide, top + 0.06, 0.042))
    c.paint(lugs, shade(colour, 0.8), volume=0.015)
    hoop = c.line(arc(0.5, 0.82, foot + 0.06, 0.06, 180, 0, 16), 0.018)
    c.paint(c.within(hoop, body), _crease(colour, 0.3), volume=0.006, outline=0)


# ---- animals and a plant -----------------------------------------------------------------------------
def _fur(look: Look, colour: Colour, rng: np.random.Generator, angle: float = 0.0) -> Pattern:
    """Stripes in the animal's own tone, so that a striped orange cat stays an orange cat."""
    tone = mix(_deep(colour, 0.8), JET, 0.4) if luminance(colour) > 0.3 else mix(colour, WHITE, 0.35)
    return Pattern(look.pattern, tone, near(rng, 0.12), angle)


def _cat_face(c: Canvas, x: float, y: float, size: float, colour: Colour, coat: Pattern, look: Look) -> None:
    """A cat's head seen from the front; `size` is half its width."""
    for side in (-1, 1):
        ear = [(x + side * size * 0.95, y - size * 0.15), (x + side * size * 0.86, y - size * 1.3)]
        c.paint(c.polygon([*ear, (x + side * size * 0.12, y - size * 0.72)]), colour, volume=0.02)
        inner = [(x + side * size * 0.82, y - size * 0.5), (x + side * size * 0.78, y - size * 1.05)]
        c.paint(c.polygon([*inner, (x + side * size * 0.38, y - size * 0.7)]), (0.93, 0.62, 0.62), volume=0)
    head = c.ellipse(x, y, size, size * 0.85)
    c.paint(head, colour, volume=0.06, fade=0.05, pattern=Pattern(coat.name, coat.colour, 0.075, math.pi / 2))
    cheeks, brow = (
        c.ellipse(x, y + size * 0.3, size * 0.78, size * 0.52),
        c.ellipse(x, y, size * 0.8, size * 0.3),
    )
    c.paint(c.within(c.union(cheeks, brow), head), colour, volume=0, outline=0, fade=0)
    pale = mix(colour, WHITE, 0.55 if luminance(colour) > 0.3 else 0.3)
    muzzle = [c.ellipse(x + size * u, y + size * 0.38, size * 0.28, size * 0.24) for u in (-0.2, 0.2)]
    c.paint(c.union(*muzzle), pale, volume=0, outline=0.12)
    iris = (0.55, 0.75, 0.25) if look.colour != "gray" else (0.95, 0.78, 0.2)
    for side in (-1, 1):
        c.paint(c.ellipse(x + side * size * 0.42, y - size * 0.08, size * 0.2, size * 0.23), iris, volume=0)
        _eye(c, x + side * size * 0.41, y - size * 0.06, size * 0.13)
    nose = [(x - size * 0.13, y + size * 0.17), (x + size * 0.13, y + size * 0.17), (x, y + size * 0.32)]
    c.paint(c.polygon(nose), (0.90, 0.45, 0.48), volume=0)
    whiskers = [
        c.line([(x + side * size * 0.4, y + size * 0.36), (x + side * size * 1.2, y + size * d)], 0.006)
        for side in (-1, 1)
        for d in (0.2, 0.45)
    ]
    c.paint(c.union(*whiskers), mix(JET, IRON, 0.5) if luminance(colour) > 0.3 else IRON, volume=0, outline=0)


def paint_cat(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    coat = _fur(look, colour, rng)
    pale = mix(colour, WHITE, 0.5 if luminance(colour) > 0.3 else 0.22)
    if look.shape == "lying":
        tail = path("10,80 5,90 22,93.5 48,92")
        back = path("5,72 12,52 30,42 52,44 72,52 86,66 95,88")
        body = c.blob([*back, (0.85, 0.94), (0.5, 0.94), (0.15, 0.94)])
        coat = Pattern(coat.name, coat.colour, coat.scale, math.pi / 2)
        c.paint(body, colour, volume=0.1, pattern=coat)
        c.paint(c.line(tail, 0.085, smoothly=True), shade(colour, 0.94), volume=0.03, outline=0.5)
        paws = c.union(c.box(0.60, 0.865, 0.80, 0.945, 0.04), c.box(0.78, 0.865, 0.97, 0.945, 0.04))
        c.paint(paws, pale, volume=0.02, outline=0.5)
        _cat_face(c, 0.74, 0.47, near(rng, 0.20, 0.05), colour, coat, look)
        return
    tail = path("66,90 84,86 89,68 82,54 87,43")
    c.paint(c.line(tail, 0.082, smoothly=True), shade(colour, 0.92), volume=0.03, pattern=coat)
    wide = near(rng, 0.27, 0.06)
    flank = [(0.5, 0.36), (0.5 + wide * 0.62, 0.46), (0.5 + wide * 0.95, 0.70), (0.5 + wide * 1.08, 0.90)]
    body = c.blob(mirrored([*flank, (0.5 + wide * 0.7, 0.975), (0.5, 0.98)]))
    c.paint(body, colour, volume=0.09, pattern=coat)
    c.paint(c.blob(path("50,46 59,56 50,72 41,56")), pale, volume=0.02, outline=0)
    legs = c.union(c.box(0.385, 0.66, 0.495, 0.97, 0.05), c.box(0.505, 0.66, 0.615, 0.97, 0.05))
    c.paint(legs, colour, volume=0.03, outline=0.45, fade=0)
    toes = ((0.29, 0.075), (0.71, 0.075), (0.44, 0.065), (0.56, 0.065))
    c.paint(c.union(*(c.ellipse(x, 0.955, r, 0.035) for x, r in toes)), pale, volume=0.02, outline=0.5)
    _cat_face(c, 0.5, 0.29, near(rng, 0.215, 0.05), colour, coat, look)


def paint_bird(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    coat = _fur(look, colour, rng, 0.5)
    coat = Pattern(coat.name, coat.colour, 0.08, 0.6)
    pale = mix(colour, WHITE, 0.5 if luminance(colour) > 0.3 else 0.25)
    dark = _deep(colour, 0.75) if luminance(colour) > 0.25 else mix(colour, IRON, 0.25)
    beak = BEAK if look.colour not in ("orange", "red") else PALETTE["yellow"]
    if look.shape == "flying":
        far = c.blob(path("50,50 52,25 66,5 70,20 66,50"))
        c.paint(far, shade(colour, 0.7), volume=0.03)
        tail = c.polygon(path("30,58 1,60 6,67 2,74 32,70"))
        body = path("22,64 45,51 70,44 84,46 83,60 65,74 40,75")
        wing = path("34,60 20,36 17,6 33,17 46,27 60,50 52,62")
        eye = (0.78, 0.49)
        bill = path("85.5,47.5 99,54.5 85.5,57")
        bib = path("80,60 64,73 46,74 60,66")
    else:
        legs = c.union(c.line(path("46,80 46,96 54,96.5"), 0.022), c.line(path("58,80 58,96 66,96.5"), 0.022))
        c.paint(legs, shade(beak, 0.75), volume=0.006)
        tail = c.polygon(path("30,58 2,72 4,80 12,82 36,74"))
        body = path("20,66 34,50 50,38 56,20 70,12 83,20 85,36")
        body += path("81,56 72,74 54,84 34,79")
        wing = path("18,70 36,52 54,46 64,54 56,68 36,74")
        eye = (0.73, 0.255)
        bill = path("83.5,23 99,30.5 84,34.5")
        bib = path("83,42 80,58 70,76 58,80 68,60 74,44")
    c.paint(tail, dark, volume=0.02)
    c.paint(c.polygon(bill), beak, volume=0.02)
    figure = c.blob(body)
    c.paint(figure, colour, volume=0.09, relief=0.8)
    c.paint(c.within(c.blob(bib), figure), pale, volume=0.02, outline=0)
    feathers = c.blob(wing)
    c.paint(feathers, _deep(colour, 0.86), volume=0.04, relief=1.2, outline=0.5, pattern=coat)
    c.paint(c.ellipse(*eye, 0.05), WHITE if look.colour != "white" else IRON, volume=0, outline=0.2)
    _eye(c, *eye, 0.036)


def paint_mushroom(c: Canvas, look: Look, colour: Colour, rng: np.random.Generator) -> None:
    cream = mix((0.96, 0.92, 0.82), colour, 0.12)
    stem, rim, top, reach = 0.115, 0.52, 0.04, 0.46
    if look.shape == "flat":
        stem, rim, top, reach = 0.085, 0.52, 0.20, 0.49
    elif look.shape == "tall":
        stem, rim, top, reach = 0.10, 0.50, 0.02, 0.34
    stem, reach = near(rng, stem), near(rng, reach, 0.04)
    side = [(0.5 + stem, rim), (0.5 + stem * 1.05, 0.78), (0.5 + stem * 1.6, 0.93), (0.5, 0.975)]
    stalk = c.blob(mirrored(side))
    c.paint(stalk, cream, volume=0.05)
    ring = c.polygon(trapezoid(0.5, 0.64, 0.73, stem, stem * 1.6))
    c.paint(ring, shade(cream, 0.95), volume=0.015, outline=0.4)
    gills = c.ellipse(0.5, rim, reach * 0.94, 0.085)
    c.paint(gills, shade(cream, 0.86), volume=0.01)
    spread = np.linspace(-0.85, 0.85, 13)
    folds = [c.line([(0.5 + d * 0.35 * reach, rim), (0.5 + d * reach, rim + 0.09)], 0.007) for d in spread]
    c.paint(c.within(c.union(*folds), gills), shade(cream, 0.65), volume=0, outline=0)
    dome = c.polygon(arc(0.5, rim, reach, rim - top, 180, 360, 40) + arc(0.5, rim, reach, 0.045, 0, 180, 20))
    c.paint(dome, colour, volume=0.1, relief=0.75, shine=0.5, pattern=_stripes_only(look, colour, rng))
    if look.pattern == "dotted":
        high = rim - top
        spots = [(-0.62, 0.30, 0.055), (-0.18, 0.38, 0.085), (0.34, 0.26, 0.07), (-0.36, 0.72, 0.06)]
        spots += [(0.10, 0.80, 0.06), (0.68, 0.34, 0.05), (0.42, 0.64, 0.06), (0.02, 0.10, 0.04)]
        dots = [
            c.ellipse(0.5 + u * reach, rim - v * high + 0.02, near(rng, r, 0.2), near(rng, r, 0.2) * 0.85)
            for u, v, r in spots
        ]
        pale = WHITE if look.colour != "white" else PALETTE["red"]
        c.paint(c.within(c.union(*dots), dome), pale, volume=0.012, outline=0.3)


def _stripes_only(look: Look, colour: Colour, rng: np.random.Generator) -> Pattern | None:
    return _pattern(look, colour, rng, 0.12) if look.pattern == "striped" else None
