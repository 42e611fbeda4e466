"""`steersearch bench NAME`: measure a model, or a baseline, on one benchmark of the catalogue."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import typer

from steersearch.benchmarks import baselines
from steersearch.benchmarks.harness import benchmark
from steersearch.benchmarks.harness.catalogue import CARDS, Card
from steersearch.benchmarks.harness.method import Method
from steersearch.benchmarks.paper.claims import LATE
from steersearch.cli.bench.options import (
    AsJson,
    Baseline,
    Data,
    Limit,
    Model,
    Save,
    Scale,
    Seen,
    Settings,
    Tokens,
    Where,
    World,
    finish,
    model_method,
)
from steersearch.config import Device
from steersearch.core.errors import ArgumentError
from steersearch.core.preprocess import View
from steersearch.core.vectors import Aggregation
from steersearch.views import bench_tables, terminal

if TYPE_CHECKING:
    from steersearch.benchmarks.baselines.late_fusion import LateFusion


def __getattr__(name: str) -> Callable[..., None]:
    """The command of each benchmark."""
    if name not in CARDS:
        raise AttributeError(name)
    return _command(CARDS[name])


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
        lines = [f"{o.name}={o.default}  {o.help}{_choices(o.choices)}" for o in card.options]
        fitted = textwrap.TextWrapper(76, "  ", " " * 6, break_on_hyphens=False)
        parts.append(
            "\b\nSettings (--set NAME=VALUE), with their defaults:\n" + "\n".join(map(fitted.fill, lines))
        )
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
        device: Where = "auto",
        settings: Settings = None,
        as_json: AsJson = False,
        save: Save = False,
    ) -> None:
        if world and data is not None:
            raise typer.BadParameter("--world and --data exclude each other")
        with _as_misuse():
            chosen = benchmark.create(card, card.settings(_pairs(settings or []), world=world))
        _check_method(model, method, gate_scale, aggregation, view)
        with terminal.progress(card.name) as report, _as_misuse():
            record = benchmark.measure(
                chosen,
                lambda: (
                    model_method(model, device, gate_scale, aggregation, view)
                    if method is None
                    else _baseline(method, device, aggregation)
                ),
                lambda: chosen.world(limit) if world else chosen.load(data, limit),
                report,
                limit,
            )
        finish(record, as_json=as_json, save=save, show=bench_tables.record)

    command.__doc__ = _help(card)
    return command


@contextmanager
def _as_misuse() -> Iterator[None]:
    """Report a wrong setting as misuse, wherever it is detected."""
    try:
        yield
    except ArgumentError as error:
        raise typer.BadParameter(str(error)) from error


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
    """Check that a baseline can be run, and that none of our models' settings is given for it."""
    if method is None:
        return
    name = method.partition("=")[0]
    given = {"--model": model, "--gate-scale": gate_scale, "--view": view}
    if name != LATE:  # which is a model of ours
        given["--aggregation"] = aggregation
    for option, value in given.items():
        if value is not None:
            raise typer.BadParameter(f"{option} applies to our own models, not to --method {method}")
    baselines.card_of(name)


def _baseline(method: str, device: Device, aggregation: Aggregation | None) -> Method:
    made = baselines.load(method, device)
    return made if aggregation is None else cast("LateFusion", made).pooled(aggregation)
