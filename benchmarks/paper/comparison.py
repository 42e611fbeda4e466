"""A table of the paper, in its own rows and columns, with our figures beside, each under the name of its data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steersearch.benchmarks.harness.tables import Table, cell

Figures = Mapping[str, Any]  # of one method: metric -> figure
NOT_MEASURED, OURS = "not measured", "ours"


@dataclass(frozen=True)
class Line:
    """A row. paper: its figures.  ours: data set -> the same figures, measured."""

    method: str
    paper: Figures
    ours: Mapping[str, Figures]


@dataclass(frozen=True)
class Comparison:
    """columns: metric -> heading.  sets: the data sets of all lines, in the order of their columns."""

    title: str
    columns: Mapping[str, str]
    sets: Sequence[str]
    lines: Sequence[Line]

    def to_table(self) -> Table:
        """For each metric the paper's column, then one for each data set on which it was measured."""
        columns = [(data, metric) for metric in self.columns for data in ("paper", *self._sets_of(metric))]
        header = ("method", *(f"{data}: {self.columns[metric]}" for data, metric in columns))
        rows = [(line.method, *(_cell(line, *column) for column in columns)) for line in self.lines]
        return Table(self.title, header, tuple(rows), frozenset(header[1:]))

    def to_figures(self) -> list[tuple[str, ...]]:
        """The rows of `tables.figures_table` with the title as benchmark: a figure of the paper or ours in each."""
        found: list[tuple[str, ...]] = []
        for line in self.lines:
            for metric, heading in self.columns.items():
                paper = _text(line.paper.get(metric))
                own = [(data, value) for data in self.sets if (value := _own(line, data, metric)) is not None]
                for data, value in own or ([(NOT_MEASURED, None)] if paper else []):
                    found.append((self.title, line.method, heading, _text(value), "", "", data, "", paper))
        return found

    def _sets_of(self, metric: str) -> Sequence[str]:
        found = [s for s in self.sets if any(_own(line, s, metric) is not None for line in self.lines)]
        return found or [OURS]


def _own(line: Line, data: str, metric: str) -> Any:
    return line.ours.get(data, {}).get(metric)


def _cell(line: Line, data: str, metric: str) -> str:
    if data == "paper":
        return _text(line.paper.get(metric))
    return _text(_own(line, data, metric)) if data in line.ours else NOT_MEASURED


def _text(figure: Any) -> str:
    return f"{figure:.1f}" if isinstance(figure, float) else cell(figure)
