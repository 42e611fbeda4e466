"""Curves over training steps, as coordinates and paths of an SVG picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

Point = tuple[float, float]

WIDTH, HEIGHT = 640, 280  # of the whole picture, in its own units
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 26  # margins; the left and lower one hold the ticks' labels
MOST_POINTS = 300  # points; more are averaged: twice as fine as the eye resolves
SMOOTHED_FROM = 40  # points; shorter curves are shown as they are
WINDOW = 0.04  # share of a curve that its moving mean covers


@dataclass(frozen=True)
class Curve:
    """points: (step, value), steps rising; values that are not finite are gaps.

    noisy: drawn pale, with its moving mean over it.  colour: number of its colour.  marked: with a dot at each point
    """

    label: str
    points: Sequence[Point]
    noisy: bool = False
    colour: int = 0
    marked: bool = False


@dataclass(frozen=True)
class Drawn:
    """A curve as SVG: `path` of the line, `pale` of the unsmoothed one or "", and a dot for each lone point."""

    label: str
    path: str
    pale: str
    dots: list[Point]
    last: float
    colour: int


@dataclass(frozen=True)
class Plot:
    """Ticks as (place, label) in the picture's units, and the curves within its margins."""

    across: list[tuple[float, str]]
    up: list[tuple[float, str]]
    curves: list[Drawn]


def plot(
    curves: Sequence[Curve],
    lowest: float | None = None,
    highest: float | None = None,
    ticks: Sequence[float] | None = None,
) -> Plot | None:
    """All `curves` in one picture; None if they have no finite point.

    lowest, highest: values that the vertical axis includes.  ticks: of the horizontal one, at least two.
    """
    thinned = [replace(curve, points=_thinned(curve.points)) for curve in curves]
    curves = [curve for curve in thinned if any(math.isfinite(y) for _, y in curve.points)]
    if not curves:
        return None
    smooth = [_smoothed(curve.points) if curve.noisy else curve.points for curve in curves]
    shown = [y for points in smooth for _, y in points if math.isfinite(y)]
    up = _ticks(*_span([*shown, *(y for y in (lowest, highest) if y is not None)]))
    steps = [x for points in smooth for x, _ in points]
    across = _ticks(min(steps), max(steps), whole=True) if ticks is None else list(ticks)
    right = max(across[-1], max(steps))

    def place(point: Point) -> Point:
        x = LEFT + (WIDTH - LEFT - RIGHT) * (point[0] - across[0]) / (right - across[0])
        y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (point[1] - up[0]) / (up[-1] - up[0])
        return round(x, 1), round(y, 1)

    drawn = []
    for curve, points in zip(curves, smooth, strict=True):
        runs = [[place(point) for point in run] for run in _runs(points)]
        pale = (
            [[place(point) for point in run] for run in _runs(curve.points)] if points != curve.points else []
        )
        dots = [point for run in runs if curve.marked or len(run) == 1 for point in run]
        last = [y for _, y in curve.points if math.isfinite(y)][-1]
        drawn.append(Drawn(curve.label, _path(runs), _path(pale), dots, last, curve.colour))
    return Plot(
        [(place((x, up[0]))[0], _short(x)) for x in across],
        [(place((across[0], y))[1], _level(y)) for y in up],
        drawn,
    )


def _thinned(points: Sequence[Point]) -> list[Point]:
    """At most MOST_POINTS of them, each the mean of neighbours; the last value stays the last."""
    if len(points) <= MOST_POINTS:
        return list(points)
    edges = [round(i * (len(points) - 1) / (MOST_POINTS - 1)) for i in range(MOST_POINTS)]
    parts = [points[start:end] for start, end in pairwise(edges)]
    return [*(_mean(part) for part in parts), points[-1]]


def _smoothed(points: Sequence[Point]) -> Sequence[Point]:
    if len(points) < SMOOTHED_FROM:
        return points
    reach = max(1, round(WINDOW * len(points) / 2))
    near = (points[max(0, i - reach) : i + reach + 1] for i in range(len(points)))
    return [(point[0], _mean(part)[1]) for point, part in zip(points, near, strict=True)]


def _mean(points: Sequence[Point]) -> Point:
    values = [y for _, y in points if math.isfinite(y)]
    return points[len(points) // 2][0], sum(values) / len(values) if values else math.nan


def _runs(points: Sequence[Point]) -> Iterator[list[Point]]:
    """Stretches of finite points."""
    run: list[Point] = []
    for point in points:
        if math.isfinite(point[1]):
            run.append(point)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _path(runs: Sequence[Sequence[Point]]) -> str:
    lines = ("L".join(f"{x:g} {y:g}" for x, y in run) for run in runs if len(run) > 1)
    return "".join(f"M{line}" for line in lines)


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high - low > max(1e-9 * max(abs(low), abs(high)), 1e-10):  # ticks have twelve places
        return low, high
    return low - max(0.5 * abs(low), 1e-3), high + max(0.5 * abs(high), 1e-3)


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Four to seven round numbers at equal distances, from `low` or below to `high` or above.

    whole: whole numbers, the last of them not above `high`.
    """
    high = max(high, low + 1) if whole else high
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    step = max(1.0, float(round(step))) if whole else step
    first = math.floor(low / step + 1e-6)
    last = math.floor(high / step + 1e-6) if whole else math.ceil(high / step - 1e-6)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _short(step: float) -> str:
    """1500000 -> "1.5M", 2500 -> "2.5k"."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if step >= size:
            return f"{step / size:g}{letter}"
    return f"{step:g}"


def _level(value: float) -> str:
    """0.25 -> "0.25", 0.00075 -> "7.5e-4": more than six characters would leave the margin."""
    text = f"{value:.6g}"
    if len(text) <= 6:
        return text
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
