"""`steersearch bench all`: every benchmark on one model, with tests of the paper's claims."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from steersearch.benchmarks import baselines
from steersearch.benchmarks.harness import benchmark
from steersearch.benchmarks.harness.benchmark import DataMissingError
from steersearch.benchmarks.harness.catalogue import CARDS, Card
from steersearch.benchmarks.harness.method import Method
from steersearch.benchmarks.harness.record import Record
from steersearch.benchmarks.paper.claims import LATE, claims_tables, twin_of
from steersearch.benchmarks.paper.versions import versions
from steersearch.cli.bench.options import Limit, Model, Save, Where, finish, model_method
from steersearch.core.errors import BenchmarkError, DataError
from steersearch.training.world.stamps import StampsMissingError
from steersearch.views import bench_tables, terminal

if TYPE_CHECKING:
    from steersearch.benchmarks.baselines.late_fusion import LateFusion

SOURCES = ("drawn", "stamps", "held-out-pictures", "held-out-objects", "photographs")


def command(
    model: Model = None,
    world: Annotated[
        bool, typer.Option("--world", help="Use the generated stand-ins instead of real data.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Real data: a folder with a subfolder named after each benchmark.",
            show_default=False,
        ),
    ] = None,
    late: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A model trained with late fusion, otherwise like that of --paper, to compare with.",
            show_default=False,
        ),
    ] = None,
    paper: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The same model trained with the paper's objective alone, to test the paper's claims on.",
            show_default=False,
        ),
    ] = None,
    limit: Limit = None,
    device: Where = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the records, one JSON object per line.")
    ] = False,
    save: Save = False,
) -> None:
    """Measure a model on every benchmark, and test what the paper claims and what we add to it.

    Where a claim needs it, the paper's pooling, the unsteered backbone and gate_scale 0.6 are measured too, and
    CORE's stand-in with every source of objects, seen in training or not. Benchmarks that cannot be measured are
    skipped with a message; exit code 1 if all are. --limit applies to each benchmark.

    \b
    Example:
      steersearch bench all --world --model mini
    """
    if world and data is not None:
        raise typer.BadParameter("--world and --data exclude each other")
    if data is not None and not data.is_dir():
        raise typer.BadParameter(f"{data} is not a folder", param_hint="--data")
    base = model_method(model, device)
    twin = None if paper is None else model_method(str(paper), device, name=twin_of(base.name))
    fused = None if late is None else cast("LateFusion", baselines.load(f"{LATE}={late}", device))
    done: list[Record] = []
    for card, chosen in _runs(world):
        for method in versions(card.name, base, twin, fused):
            try:
                record = _measured(card, chosen, method, world=world, data=data, limit=limit)
            except (DataMissingError, DataError, StampsMissingError) as error:
                terminal.remark(f"skipped: {error}")
                break
            except BenchmarkError as error:
                terminal.remark(f"skipped: {error}")
                continue
            done.append(record)
            terminal.remark(f"{record.benchmark}, {record.model}: {record.seconds:,.0f} s")
            finish(record, as_json=as_json, save=save, show=lambda record: None)
    if not done:
        raise BenchmarkError("nothing could be measured; to use the stand-ins: steersearch bench all --world")
    if not as_json:
        bench_tables.comparisons(done)
        terminal.line()
        for table in claims_tables(done, base.name):
            terminal.line(table.title)
            bench_tables.table(table)


def _runs(world: bool) -> list[tuple[Card, Mapping[str, str]]]:
    """The benchmarks, each with settings; of CORE's stand-in one for each source of objects."""
    return [
        (card, settings)
        for card in CARDS.values()
        for settings in (
            [{"source": source} for source in SOURCES] if world and card.name == "core" else [{}]
        )
    ]


def _measured(
    card: Card,
    settings: Mapping[str, str],
    method: Method,
    *,
    world: bool,
    data: Path | None,
    limit: int | None,
) -> Record:
    if world and card.stand_in is None:
        raise BenchmarkError(f"{card.name} has no stand-in")
    chosen = benchmark.create(card, card.settings(settings))
    place = None if data is None or not (data / card.name).is_dir() else data / card.name
    with terminal.progress(f"{card.name}, {method.name}") as report:
        return benchmark.run(
            chosen, method, lambda: chosen.world(limit) if world else chosen.load(place, limit), report, limit
        )
