"""`steersearch bench all`: every benchmark on one model, and what comes of the paper's findings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steersearch.benchmarks import baselines
from steersearch.benchmarks.harness import benchmark
from steersearch.benchmarks.harness.benchmark import DataMissingError
from steersearch.benchmarks.harness.catalogue import CARDS, Card
from steersearch.benchmarks.harness.method import Method
from steersearch.benchmarks.harness.record import Record
from steersearch.benchmarks.paper.claims import claims_table, verdicts
from steersearch.cli.bench.options import Limit, Model, Save, Where, finish, model_method
from steersearch.core.errors import BenchmarkError
from steersearch.views import bench_tables, terminal

OTHER_SCALES = (0.0, 0.6)  # the frozen trunk, and the paper's best trade-off
AT_OTHER_SCALES = {
    "core": OTHER_SCALES,
    "mosaic": (0.0,),
    "anomaly": (0.0,),
    "refcocog": (0.0,),
    "quality": OTHER_SCALES,
}
WITH_LATE_FUSION = ("core", "pods")


def command(
    model: Model = None,
    world: Annotated[
        bool, typer.Option("--world", help="Use the generated stand-ins instead of real data.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Real data: a folder with a subfolder for each benchmark, of its name.",
            show_default=False,
        ),
    ] = None,
    late: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A model trained with late fusion, to compare with.", show_default=False
        ),
    ] = None,
    limit: Limit = None,
    device: Where = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the records, one JSON object per line.")
    ] = False,
    save: Save = False,
) -> None:
    """Measure a model on every benchmark, and tell which of the paper's findings hold.

    Where a finding is about it, the frozen trunk and gate_scale 0.6 are measured too. What cannot be measured is
    named and passed over; exit code 1 if nothing could be. --limit is handed on to each benchmark.

    \b
    Example:
      steersearch bench all --world --model mini
    """
    if world and data is not None:
        raise typer.BadParameter("--world and --data exclude each other")
    if data is not None and not data.is_dir():
        raise typer.BadParameter(f"{data} is no folder", param_hint="--data")
    base = model_method(model, device)
    done: list[Record] = []
    for card in CARDS.values():
        methods: list[Method] = [base]
        methods += [base.at(scale) for scale in AT_OTHER_SCALES.get(card.name, ())]
        if late is not None and card.name in WITH_LATE_FUSION:
            methods.append(baselines.load(f"late-fusion={late}", device))
        for method in methods:
            try:
                record = _measured(card, method, world=world, data=data, limit=limit)
            except DataMissingError as error:
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
        bench_tables.table(claims_table(verdicts(done, base.name)))


def _measured(card: Card, method: Method, *, world: bool, data: Path | None, limit: int | None) -> Record:
    if world and card.stand_in is None:
        raise BenchmarkError(f"{card.name} has no stand-in")
    chosen = benchmark.create(card, card.settings())
    place = None if data is None or not (data / card.name).is_dir() else data / card.name
    with terminal.progress(f"{card.name}, {method.name}") as report:
        return benchmark.run(
            chosen, method, lambda: chosen.world(limit) if world else chosen.load(place, limit), report
        )
