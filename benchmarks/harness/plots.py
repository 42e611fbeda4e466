"""Bars in SVG for figures of records; the page sets the colours. training/curves draws curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from steersearch.benchmarks.harness.record import Record

LABEL, WIDTH, ROW = 210, 640, 30  # width of names, width of all, height of a row, in pixels
PLOT = WIDTH - LABEL - 60  # leaves room for the value at the bar's end
SIDE, HEIGHT, LEFT, BOTTOM = 640, 420, 46, 40  # of a plane: width, height, margins
LETTER, LINE = 6, 12  # width of a letter and height of a line of names in it, in pixels
LEAST_SPAN = 20  # of an axis, in percent


@dataclass(frozen=True)
class Bar:
    """One figure in percent, with its 95 % interval if it has one. kind: "own" or "paper"."""

    name: str
    value: float
    interval: tuple[float, float] | None = None
    kind: str = "own"


def bars(figures: Sequence[Bar], chance: float | None = None) -> str:
    """Horizontal bars on one scale from 0, with intervals as whiskers and a dashed line at chance."""
    ends = [bar.interval[1] if bar.interval else bar.value for bar in figures]
    top = max([*ends, chance or 0.0, 1e-9])
    height = ROW * len(figures) + 22
    parts = [_svg(WIDTH, height, ", ".join(f"{bar.name} {bar.value:.1f}" for bar in figures))]
    for number, bar in enumerate(figures):
        parts += _bar(bar, number * ROW, top)
    if chance is not None:
        x = LABEL + PLOT * chance / top
        parts.append(f'<line class="dashed" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - 20}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 5}" text-anchor="middle">guessing {chance:.1f}</text>')
    return "".join([*parts, "</svg>"])


@dataclass(frozen=True)
class Point:
    """One method in a plane, across and up in percent."""

    name: str
    across: float
    up: float


@dataclass(frozen=True)
class Series:
    """Points of one colour. joined: by a line, in their order."""

    points: Sequence[Point]
    joined: bool = False


def scatter(series: Sequence[Series], across: str, up: str) -> str:
    """The points with their names, on axes with round ticks around them; `across` and `up` name the axes."""
    points = [point for each in series for point in each.points]
    x = _axis([point.across for point in points], LEFT, SIDE - 90)
    y = _axis([point.up for point in points], HEIGHT - BOTTOM, 14)
    parts = [_svg(SIDE, HEIGHT, ", ".join(f"{p.name} {p.across:.1f} {p.up:.1f}" for p in points))]
    for tick in x.ticks:
        parts.append(f'<path class="grid" d="M{x(tick):.1f} 14V{HEIGHT - BOTTOM}"/>')
        parts.append(
            f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:g}</text>'
        )
    for tick in y.ticks:
        parts.append(f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{SIDE - 90}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    parts.append(f'<text x="{SIDE - 90}" y="{HEIGHT - 4}" text-anchor="end">{escape(across)}</text>')
    parts.append(f'<text transform="translate(12 {HEIGHT - BOTTOM}) rotate(-90)">{escape(up)}</text>')
    free = _FreePlaces()
    for number, each in enumerate(series):
        if each.joined:
            path = "L".join(f"{x(p.across):.1f} {y(p.up):.1f}" for p in each.points)
            parts.append(f'<path class="curve" stroke="var(--c{number})" d="M{path}"/>')
        for p in each.points:
            left, top = x(p.across), y(p.up)
            parts.append(f'<circle cx="{left:.1f}" cy="{top:.1f}" r="4" fill="var(--c{number})"/>')
            beside = free.next_to(left + 7, top - 5 if each.joined else top + 4, p.name)
            parts.append(f'<text class="name" x="{left + 7:.1f}" y="{beside:.1f}">{escape(p.name)}</text>')
    return "".join([*parts, "</svg>"])


class _FreePlaces:
    """Lines of names, none over another."""

    def __init__(self) -> None:
        self._taken: list[tuple[float, float, float]] = []  # left, right, base line

    def next_to(self, left: float, base: float, name: str) -> float:
        """The base line for a name, nearest to the wanted one."""
        right = left + LETTER * len(name)
        for shift in (shift * sign for shift in range(0, 10 * LINE, LINE) for sign in (1, -1)):
            line = base + shift
            if all(right < a or left > b or abs(line - other) >= LINE for a, b, other in self._taken):
                break
        self._taken.append((left, right, line))
        return line


@dataclass(frozen=True)
class _Axis:
    """ticks: round numbers around all values; called with a value: where it lies, in pixels."""

    ticks: Sequence[float]
    start: float
    end: float

    def __call__(self, value: float) -> float:
        low, high = self.ticks[0], self.ticks[-1]
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def _axis(values: Sequence[float], start: float, end: float) -> _Axis:
    spare = max(LEAST_SPAN - (max(values) - min(values)), 0) / 2  # small differences should not look large
    low, high = max(min(values) - spare, 0), min(max(values) + spare, 100)
    step = next(step for step in (5, 10, 20, 50, 100) if (high - low) / step <= 8)
    return _Axis(range(step * math.floor(low / step), step * math.ceil(high / step) + 1, step), start, end)


def _bar(bar: Bar, y: float, top: float) -> list[str]:
    length, middle = PLOT * max(bar.value, 0) / top, y + ROW / 2
    parts = [
        f'<text class="name" x="{LABEL - 10}" y="{middle + 4}" text-anchor="end">{escape(_shortened(bar.name))}</text>',
        f'<rect class="{bar.kind}" x="{LABEL}" y="{y + 5}" width="{length:.1f}" height="{ROW - 10}" rx="3"/>',
    ]
    end = length
    if bar.interval is not None:
        low, high = (LABEL + PLOT * max(edge, 0) / top for edge in bar.interval)
        parts.append(f'<path class="whisker" d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} '
                     f'{middle - 4}v8"/>')  # fmt: skip
        end = max(end, high - LABEL)
    parts.append(f'<text class="value" x="{LABEL + end + 6:.1f}" y="{middle + 4}">{bar.value:.1f}</text>')
    return parts


def bars_of(records: Sequence[Record], paper: Sequence[tuple[str, float]] = ()) -> str:
    """Bars for the first figure of each record, and the paper's in another colour."""
    name = next(iter(records[0].metrics))
    own = [
        Bar(record.model, float(record.metrics[name]), _interval(record, name))
        for record in records
        if isinstance(record.metrics.get(name), (int, float))
    ]
    theirs = [Bar(f"paper: {row}", value, kind="paper") for row, value in paper]
    chance = records[0].metrics.get("chance")
    return bars([*own, *theirs], float(chance) if isinstance(chance, (int, float)) else None)


def _interval(record: Record, name: str) -> tuple[float, float] | None:
    found = record.intervals.get(name)
    return None if found is None else (float(found[0]), float(found[1]))


def _shortened(name: str) -> str:
    return name if len(name) <= 30 else f"…{name[-29:]}"


def _svg(width: int, height: int, says: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(says, quote=True)}">'
