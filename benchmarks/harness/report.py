"""One self-contained HTML page of records: findings; tables, a plot and examples of each benchmark; origins."""

from __future__ import annotations

import base64
import importlib
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from steersearch.benchmarks.baselines.cards import CARDS as BASELINES
from steersearch.benchmarks.harness.catalogue import CARDS
from steersearch.benchmarks.harness.plots import bars_of, scatter
from steersearch.benchmarks.harness.record import Record
from steersearch.benchmarks.harness.tables import Table, comparison_table, figures_table, rows_table
from steersearch.benchmarks.paper import published
from steersearch.benchmarks.paper.ablation_tables import STUDY, ablation_tables
from steersearch.benchmarks.paper.claims import TWIN, base_of, claims_tables
from steersearch.benchmarks.paper.comparison import NOT_MEASURED, Comparison
from steersearch.benchmarks.paper.paper_tables import figure_2, paper_tables
from steersearch.core.errors import BenchmarkError, MissingExtraError
from steersearch.training import sheet
from steersearch.training.curves import Curve, Plot, plot

AXES = ("representation quality, %", "steerability: CORE, %")  # of the paper's Figure 2

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Part:
    """The section of one benchmark. bars: SVG;  curves: over gate_scale;  pictures: (caption, data URI)."""

    name: str
    asks: str
    source: str
    table: Table
    bars: str
    curves: Sequence[tuple[str, Plot]]
    parts: Sequence[Table]
    pictures: Sequence[tuple[str, str]]
    origins: Table


@dataclass(frozen=True)
class Records:
    """The records of a report. measured: on a data set;  studies: of the paper's ablations, see `ablation_tables`."""

    measured: Sequence[Record]
    studies: Sequence[Record] = ()

    @property
    def beside_paper(self) -> list[Comparison]:
        """The paper's tables, ours beside: its benchmarks, then its ablations."""
        return [*paper_tables(self.measured), *ablation_tables(self.measured, self.studies)]

    @property
    def by_benchmark(self) -> dict[str, list[Record]]:
        groups: dict[str, list[Record]] = {}
        for record in sorted(self.measured, key=_place):
            groups.setdefault(record.benchmark, []).append(record)
        return groups

    def __len__(self) -> int:
        return len(self.measured) + len(self.studies)


def read_records(folders: Sequence[Path]) -> Records:
    """The records with a data set in these folders, and the studies of the paper's ablations; of the same benchmark,
    method, data and machine the last one. Raises BenchmarkError for a missing folder or an invalid record."""
    found: dict[tuple[str, str, str, str], Record] = {}
    for folder in folders:
        if not folder.is_dir():
            raise BenchmarkError(f"{folder}: no such folder of records")
        records = [Record.read(path) for path in sorted(folder.glob("*.json"))]
        for record in sorted(records, key=lambda each: each.date):
            if record.data or record.benchmark == STUDY:
                data = record.data.get("hash", "")
                found[record.benchmark, record.model, data, record.machine["name"]] = record
    return Records(
        [record for record in found.values() if record.data],
        [record for record in found.values() if not record.data],
    )


def build_page(records: Records, *, pictures: bool = True) -> str:
    """The page of at least one record. pictures: whether to draw examples of the stand-ins."""
    groups, measured = records.by_benchmark, records.measured
    illustrated = _illustrated(groups) if pictures else set()
    return sheet.render(
        "steersearch.benchmarks.harness",
        parts=[_part(name, group, name in illustrated) for name, group in groups.items()],
        claims=[(model, claims_tables(measured, model)) for model in _models(measured)],
        paper_tables=[each.to_table() for each in records.beside_paper],
        planes=[(title, scatter(series, *AXES)) for title, series in figure_2(measured)],
        paper=published.PAPER,
        unmeasured=NOT_MEASURED,
        count=len(records),
    )


def tables(records: Records) -> list[Table]:
    """The tables of the page: the paper's, a comparison for each benchmark, then the parts of each record."""
    parts = map(rows_table, records.measured)
    return [
        *(each.to_table() for each in records.beside_paper),
        *map(comparison_table, records.by_benchmark.values()),
        *(table for table in parts if table is not None),
    ]


def figures(records: Records) -> Table:
    """All figures, one per row: those of the records, then the paper's tables, ours beside."""
    own = figures_table(records.measured)
    return replace(
        own, rows=(*own.rows, *(row for each in records.beside_paper for row in each.to_figures()))
    )


def _place(record: Record) -> tuple[int, str, str]:
    """Benchmarks in the catalogue's order, a model before its other versions."""
    name, order = record.task, list(CARDS)
    return (order.index(name) if name in order else len(order), record.benchmark, record.model)


def _models(records: Sequence[Record]) -> list[str]:
    """The models that claims may be about: neither baselines nor twins."""
    plain = dict.fromkeys(base_of(record) for record in records)
    return [name for name in plain if name not in BASELINES and not name.endswith(TWIN)]


def _illustrated(groups: Mapping[str, Sequence[Record]]) -> set[str]:
    """The benchmarks with pictures: the first of each stand-in, without its variants."""
    first: dict[str, str] = {}
    for name, records in groups.items():
        if records[0].data["source"] != "real" and records[0].task in CARDS:
            first.setdefault(records[0].task, name)
    return set(first.values())


def _part(name: str, records: Sequence[Record], pictures: bool) -> Part:
    card = CARDS.get(records[0].task)
    source = str(records[0].data["source"])
    paper = [(published.row_of(record), published.beside(record)) for record in records]
    first = next(iter(records[0].metrics))
    theirs = [(row, found[first]) for row, found in paper if row is not None and first in found]
    return Part(
        name=name,
        asks="" if card is None else card.asks,
        source=source,
        table=comparison_table(records),
        bars=bars_of(records, theirs),
        curves=_sweeps(records, first),
        parts=[table for table in map(rows_table, records) if table is not None],
        pictures=_examples(card.module) if pictures and card is not None else [],
        origins=_origins(records),
    )


def _sweeps(records: Sequence[Record], metric: str) -> list[tuple[str, Plot]]:
    """A curve for each model with records at three or more gate_scales."""
    curves: list[tuple[str, Plot]] = []
    for model in dict.fromkeys(record.model.split("+gate")[0] for record in records):
        own = [record for record in records if record.model.split("+gate")[0] == model]
        points = {
            float(record.settings["method"]["gate_scale"]): float(record.metrics[metric])
            for record in own
            if "gate_scale" in record.settings.get("method", {}) and record.metrics.get(metric) is not None
        }
        if len(points) >= 3:
            curve = Curve(model, sorted(points.items()), marked=True)
            drawn = plot([curve], lowest=0.0, ticks=sorted(points))
            curves += [] if drawn is None else [(f"{model}: {metric} over gate_scale", drawn)]
    return curves


def _origins(records: Sequence[Record]) -> Table:
    """The origin of the figures, so that they can be measured again."""
    header = ("method", "command", "commit", "data", "pictures", "seconds", "machine")
    rows = tuple(
        (
            record.model,
            record.command,
            record.commit + ("+" if record.dirty else ""),
            str(record.data["hash"])[:12],
            ", ".join([f"{record.data['n']:,}", *record.partial]),
            f"{record.seconds:.0f}",
            record.machine["gpu"] or record.machine["processor"],
        )
        for record in records
    )
    return Table("Where from", header, rows, frozenset({"pictures", "seconds"}))


def _examples(module: str) -> list[tuple[str, str]]:
    """The pictures of the module's `examples()` as JPEG data URIs with captions; none without its extra."""
    try:
        drawn = importlib.import_module(f"steersearch.benchmarks.{module}").examples()
    except MissingExtraError as error:
        logger.warning("no pictures of %s: %s", module, error)
        return []
    return [(caption, _uri(image)) for caption, image in drawn]


def _uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


__all__ = ["Part", "Records", "build_page", "figures", "read_records", "tables"]
