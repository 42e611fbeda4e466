"""`steersearch plan`: what a large job costs."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from steersearch.benchmarks.engineering.cost import HARDWARE, Hardware, Job, cost_of
from steersearch.cli.options import Json
from steersearch.core.errors import ArgumentError
from steersearch.views import cost_table, terminal

HERE = "here"


def _count(text: str) -> int:
    """A number of photos, as 5000, 5,000 or 1e8."""
    try:
        number = float(re.sub(r"(?<=\d)[,_](?=\d{3}(\D|$))", "", text))
    except ValueError:
        number = -1.0
    if not (1 <= number <= 1e12) or number != int(number):
        raise typer.BadParameter(
            f'"{text}" is not a number of photos between 1 and 1e12, such as 5000 or 1e8'
        )
    return int(number)


def command(
    photos: Annotated[
        int, typer.Option(metavar="N", parser=_count, help="Number of photos, such as 5000 or 1e8.")
    ],
    prompts: Annotated[int, typer.Option(metavar="P", min=1, help="Number of prompts.")] = 1,
    model: Annotated[str, typer.Option(metavar="NAME", help="A name of `models list`.")] = "mini",
    hardware: Annotated[
        str, typer.Option(metavar="NAME", help=f"{HERE} (measured now), {', '.join(HARDWARE)}.")
    ] = HERE,
    machines: Annotated[int, typer.Option(metavar="M", min=1, help="Number of machines or GPUs.")] = 1,
    megapixels: Annotated[float, typer.Option(metavar="MP", help="Size of a photo.")] = 12.0,
    regions: Annotated[
        bool, typer.Option(help="Whether photos keep regions, for a focus that was not indexed.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Estimate what a large job costs: time, disk, memory, queries, and what breaks first.

    \b
    Example:
      steersearch plan --photos 1e8 --prompts 20 --model dinov2-base --hardware h200
    """
    try:
        job = Job(photos=photos, prompts=prompts, megapixels=megapixels, regions=regions, machines=machines)
        kind = _hardware(hardware, model)
        cost = cost_of(job, model, kind)
    except ArgumentError as error:
        raise typer.BadParameter(str(error)) from error
    cost_table.show(job, model, kind, cost, as_json=as_json)


def _hardware(name: str, model: str) -> Hardware:
    if name == HERE:
        from steersearch.benchmarks.engineering.pace import this_machine

        terminal.remark(f"measuring what a photo takes in {model} on this machine …")
        return this_machine(model)
    if name not in HARDWARE:
        raise ArgumentError("hardware", name, f"must be one of {', '.join((HERE, *HARDWARE))}")
    return HARDWARE[name]
