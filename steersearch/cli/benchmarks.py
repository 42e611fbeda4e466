"""`steersearch bench NAME`: each benchmark of the catalogue as a command, and the list of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steersearch.benchmarks.catalogue import CARDS, Card
from steersearch.cli.options import VIEWS, Device, View, finite, view_name

if TYPE_CHECKING:
    from steersearch.benchmarks.method import Method
    from steersearch.benchmarks.record import Record


class Aggregation(StrEnum):
    """`core.steervit.Aggregation`, which is not imported for a help text."""

    cls = "cls"
    mean = "mean"
    focus = "focus"


Model = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="A name of `models list`, a file or a hub id.  [default: auto]"),
]
Scale = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        callback=finite,
        help="Strength of the steering: 0 none, 1 as trained.  [default: 1]",
        show_default=False,
    ),
]
Baseline = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="A baseline instead of a model; NAME=PATH where its weights are yours. `bench methods` names them.",
    ),
]
Data = Annotated[
    Path | None, typer.Option(metavar="PLACE", help="Where the real data is, see above.", show_default=False)
]
World = Annotated[bool, typer.Option("--world", help="Measure on the generated stand-in.")]
Limit = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Use only so many, see above.", show_default=False)
]
Tokens = Annotated[
    Aggregation | None,
    typer.Option(help="How tokens become one vector.  [default: the model's own]", show_default=False),
]
Seen = Annotated[View | None, typer.Option(help=f"{VIEWS}  [default: the model's own]", show_default=False)]
Where = Annotated[Device, typer.Option(help="Where the model runs.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting of this benchmark, see above."),
]
Save = Annotated[bool, typer.Option("--save", help="Keep the record in benchmarks/results.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the record as one JSON object.")]


def add_commands(bench: typer.Typer) -> None:
    """Give `bench` a command for each card."""
    for each in CARDS.values():
        bench.command(each.name, help=_help(each), short_help=each.asks)(_command(each))


def _help(card: Card) -> str:
    """What `bench NAME --help` says above the options."""
    parts = [card.asks]
    if card.data is not None:
        data = card.data
        parts.append(f"Data: {data.what}. Size: {data.size}. Licence: {data.licence}. To get it: {data.how}.")
    if card.stand_in is not None:
        parts.append(f"Stand-in (--world): {card.stand_in}. No figure on it compares with the paper's.")
    parts.append(f"--limit counts {card.limit}.")
    if card.cost:
        parts.append(f"Cost: {card.cost}")
    if card.options:
        lines = [f"  {o.name}={o.default}  {o.help}{_choices(o.choices)}" for o in card.options]
        parts.append("\b\nSettings (--set NAME=VALUE), with their defaults:\n" + "\n".join(lines))
    world = "" if card.stand_in is None else " --world"
    parts.append(f"\b\nExample:\n  steersearch bench {card.name} --model mini{world}")
    return "\n\n".join(parts)


def _choices(choices: tuple[object, ...]) -> str:
    return f" ({', '.join(map(str, choices))})" if choices else ""


def _command(card: Card) -> Callable[..., None]:
    def command(
        model: Model = None,
        method: Baseline = None,
        data: Data = None,
        world: World = False,
        limit: Limit = None,
        gate_scale: Scale = None,
        aggregation: Tokens = None,
        view: Seen = None,
        device: Where = Device.auto,
        settings: Settings = None,
        as_json: AsJson = False,
        save: Save = False,
    ) -> None:
        from steersearch.benchmarks import benchmark
        from steersearch.views import bench_tables, terminal

        if world and data is not None:
            raise typer.BadParameter("--world and --data exclude each other")
        with _misuse_told():
            chosen = benchmark.create(card, card.settings(_pairs(settings or []), world=world))
        _check_method(model, method, gate_scale, aggregation, view)
        with terminal.progress(card.name) as report, _misuse_told():
            record = benchmark.measure(
                chosen,
                lambda: _method(model, method, gate_scale, aggregation, view, device),
                lambda: chosen.world(limit) if world else chosen.load(data, limit),
                report,
            )
        finish(record, as_json=as_json, save=save, show=bench_tables.record)

    return command


@contextmanager
def _misuse_told() -> Iterator[None]:
    """A setting that cannot be meant is misuse, wherever it is noticed."""
    from steersearch.core.errors import ArgumentError

    try:
        yield
    except ArgumentError as error:
        raise typer.BadParameter(str(error)) from error


def finish(record: Record, *, as_json: bool, save: bool, show: Callable[[Record], None]) -> None:
    """Keep the record where that is wanted, and print it."""
    from dataclasses import asdict

    from steersearch.cli.bench import save_record
    from steersearch.views import terminal

    if save:
        terminal.remark(f"record: {terminal.readable(save_record(record))}")
    if as_json:
        terminal.json_line(asdict(record))
    else:
        show(record)


def _pairs(settings: list[str]) -> dict[str, str]:
    found = {}
    for said in settings:
        name, equals, value = said.partition("=")
        if not equals:
            raise typer.BadParameter(f'"{said}" is not NAME=VALUE', param_hint="--set")
        found[name.strip()] = value
    return found


def _check_method(
    model: str | None,
    method: str | None,
    gate_scale: float | None,
    aggregation: Aggregation | None,
    view: View | None,
) -> None:
    """A baseline is one that can be run, and takes none of our models' settings."""
    if method is None:
        return
    given = {"--model": model, "--gate-scale": gate_scale, "--aggregation": aggregation, "--view": view}
    for name, value in given.items():
        if value is not None:
            raise typer.BadParameter(f"{name} belongs to our own models, not to --method {method}")
    from steersearch.benchmarks import baselines

    baselines.card_of(method.partition("=")[0])


def _method(
    model: str | None,
    method: str | None,
    gate_scale: float | None,
    aggregation: Aggregation | None,
    view: View | None,
    device: Device,
) -> Method:
    """The model with its settings, or the baseline."""
    if method is not None:
        from steersearch.benchmarks import baselines

        return baselines.load(method, device.value)
    from steersearch.api import load_model
    from steersearch.benchmarks.method import SteerViTMethod

    return SteerViTMethod(
        load_model(model or "auto", device.value),
        1.0 if gate_scale is None else gate_scale,
        None if aggregation is None else aggregation.value,
        view_name(view),
    )
