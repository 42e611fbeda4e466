"""Tables of records, for a terminal, Markdown and CSV. The paper's figures have their own columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from steersearch.benchmarks.harness.record import Record
from steersearch.benchmarks.paper import published

COMPARED = 8  # figures in a comparison, to limit its width


@dataclass(frozen=True)
class Table:
    """Cells as text. numbers: the columns with figures, which are aligned right."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[str] = frozenset()

    def to_markdown(self) -> str:
        """With its title as a heading of level 3."""
        rule = ["---:" if name in self.numbers else "---" for name in self.header]
        lines = [self.header, rule, *self.rows]
        return f"### {self.title}\n\n" + "".join(f"| {' | '.join(map(_escaped, line))} |\n" for line in lines)

    def to_csv(self) -> str:
        """RFC 4180, header first."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.header)
        writer.writerows(self.rows)
        return text.getvalue()


def metrics_table(record: Record) -> Table:
    """The figures of one record, with intervals and the paper's figures on the same data."""
    paper = published.beside(record)
    header = ["figure", "value", "95 % interval", *(["paper", "difference"] if paper else [])]
    rows = []
    for name, value in record.metrics.items():
        interval = record.intervals.get(name)
        row = [
            words(name),
            cell(value),
            "" if interval is None else f"{cell(interval[0])} – {cell(interval[1])}",
        ]
        if paper:
            said = paper.get(name)
            row += [cell(said), "" if said is None or value is None else f"{value - said:+.1f}"]
        rows.append(tuple(row))
    title = f"{record.benchmark}, {record.model}"
    return Table(title, tuple(header), tuple(rows), frozenset(header[1:]))


def rows_table(record: Record) -> Table | None:
    """The parts of one record: scenes, classes, splits. None without parts."""
    if not record.rows:
        return None
    names = list(dict.fromkeys(name for row in record.rows for name in row))
    paper = published.beside_rows(record)
    header = [words(name) for name in names] + (["paper"] if paper else [])
    rows = []
    for row in record.rows:
        first = str(row[names[0]])
        cells = [cell(row.get(name)) for name in names]
        rows.append(tuple(cells + ([cell(paper.get(first))] if paper else [])))
    text = {words(name) for name in names if any(isinstance(row.get(name), str) for row in record.rows)}
    title = f"{record.benchmark}, {record.model}, by {words(names[0])}"
    return Table(title, tuple(header), tuple(rows), frozenset(set(header) - text))


def comparison_table(records: Sequence[Record]) -> Table:
    """Records of one benchmark side by side, one row each, in the order given.

    Shows the first COMPARED figures with an interval; all kinds of figures if none has one.
    """
    names = list(dict.fromkeys(name for r in records for name, v in r.metrics.items() if _is_figure(v)))
    sure = {name for record in records for name in record.intervals}
    names = [name for name in names if not sure or name in sure][:COMPARED]
    papers = [published.beside(record) for record in records]
    shared = [name for name in names if any(name in paper for paper in papers)]
    header = [
        "method",
        *map(words, names),
        *(f"paper: {words(name)}" for name in shared),
        "seconds",
        "date",
    ]
    rows = []
    for record, paper in zip(records, papers, strict=True):
        figures = [cell(record.metrics.get(name)) for name in names]
        rows.append(
            (
                record.model + (" (part of the data)" if record.partial else ""),
                *figures,
                *(cell(paper.get(name)) for name in shared),
                f"{record.seconds:.0f}",
                record.date,
            )
        )
    return Table(records[0].benchmark, tuple(header), tuple(rows), frozenset(header[1:]))


def figures_table(records: Sequence[Record]) -> Table:
    """All figures of all records, one per row, for sorting and plotting; the paper's in the last column."""
    header = ("benchmark", "method", "figure", "value", "low", "high", "data", "date", "paper")
    rows = []
    for record in records:
        paper = published.beside(record)
        for name, value in record.metrics.items():
            if _is_figure(value):
                low, high = map(str, record.intervals.get(name, ("", "")))
                row = (record.benchmark, record.model, name, str(value), low, high)
                data = str(record.data.get("source", "")) + (", a part" if record.partial else "")
                rows.append((*row, data, record.date, cell(paper.get(name))))
    return Table("figures", header, tuple(rows), frozenset({"value", "low", "high", "paper"}))


def words(name: str) -> str:
    """A figure's name in words."""
    return name.replace("_", " ").replace("/", ", ")


def cell(value: Any) -> str:
    """A value as text: numbers with two decimals, "" for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}"
    return ", ".join(map(cell, value)) if isinstance(value, (list, tuple)) else str(value)


def _is_figure(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
