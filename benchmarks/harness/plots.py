"""Figures of records as bars in SVG; the page sets the colours. training/curves draws curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from steersearch.benchmarks.harness.record import Record

LABEL, WIDTH, ROW = 210, 640, 30  # of names, of the whole, height of a bar's row, in pixels
PLOT = WIDTH - LABEL - 60  # room for the value at the bar's end


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
    """The first figure of each record, and the paper's beside them in another colour."""
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
