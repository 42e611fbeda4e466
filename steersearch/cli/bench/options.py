"""Options that several benchmarks share, the model that they name, and how a record is saved and shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steersearch.benchmarks import baselines
from steersearch.benchmarks.baselines.pins import pin
from steersearch.benchmarks.harness.record import Record
from steersearch.cli.search_options import VIEWS, finite
from steersearch.config import Device
from steersearch.core.preprocess import View
from steersearch.core.vectors import Aggregation
from steersearch.views import terminal

if TYPE_CHECKING:
    from steersearch.benchmarks.harness.steervit_method import SteerViTMethod

Model = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="A name of `models list`, a file or a hub id.  [default: auto]"),
]
Scale = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        callback=finite,
        help="Steering strength: 0 none, 1 as trained.  [default: 1]",
        show_default=False,
    ),
]
Baseline = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="A baseline instead of a model; NAME=PATH for your own weights. `bench methods` lists them.",
    ),
]
Data = Annotated[
    Path | None, typer.Option(metavar="PLACE", help="The real data, see above.", show_default=False)
]
World = Annotated[bool, typer.Option("--world", help="Measure on the generated stand-in.")]
Limit = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Use only N, see above.", show_default=False)
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
Save = Annotated[bool, typer.Option("--save", help="Save the record, for `bench report`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the record as one JSON object.")]


def model_method(
    model: str | None,
    device: Device,
    gate_scale: float | None = None,
    aggregation: Aggregation | None = None,
    view: View | None = None,
    name: str | None = None,
) -> SteerViTMethod:
    """The model as a method; None is the default of each setting. name: what records call it.

    In float32 on a GPU too, since half precision changes rankings by cosine.
    """
    from steersearch.api import load_model
    from steersearch.benchmarks.harness.steervit_method import SteerViTMethod

    scale = 1.0 if gate_scale is None else gate_scale
    predictor = load_model(model or "auto", device, "float32")
    predictor.model.model_id = name or predictor.model_id
    return SteerViTMethod(predictor, scale, aggregation, view)


def finish(record: Record, *, as_json: bool, save: bool, show: Callable[[Record], None]) -> None:
    """Save the record if `save`, which pins a baseline's commit; print it as one JSON object, or `show` it."""
    if save:
        terminal.remark(f"record: {terminal.readable(record.save())}")
        card = baselines.CARDS.get(record.model)
        if card is not None and not card.pinned and (commit := pin(card.repo, record.weights_hash)):
            terminal.remark(f"from now on {card.name} is {card.repo} at {commit[:8]}")
    if as_json:
        terminal.json_line(asdict(record))
    else:
        show(record)
