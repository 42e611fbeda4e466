"""Options that several benchmarks share, and what becomes of a record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from steersearch.benchmarks.harness.record import RESULTS, Record
from steersearch.cli.options import VIEWS, Device, finite
from steersearch.core.aggregation import Aggregation
from steersearch.core.errors import OutputError
from steersearch.core.preprocess import View
from steersearch.views import terminal

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
Save = Annotated[bool, typer.Option("--save", help="Save the record in benchmarks/results.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the record as one JSON object.")]


def finish(record: Record, *, as_json: bool, save: bool, show: Callable[[Record], None]) -> None:
    """Keep the record where that is wanted, and print it."""
    if save:
        terminal.remark(f"record: {terminal.readable(save_record(record))}")
    if as_json:
        terminal.json_line(asdict(record))
    else:
        show(record)


def save_record(record: Record) -> Path:
    """Keep a record in benchmarks/results. Raises OutputError."""
    try:
        return record.save()
    except OSError as error:  # an installed package may be nobody's to write to
        raise OutputError(RESULTS, error.strerror or str(error)) from error
