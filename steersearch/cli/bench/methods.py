"""`steersearch bench methods`: the baselines."""

from __future__ import annotations

from typing import Annotated

import typer

from steersearch.benchmarks.baselines.cards import CARDS, known_card
from steersearch.cli.options import Json
from steersearch.views import bench_tables, terminal


def command(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Show only this method, with all details.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the methods that SteerViT is compared with, for --method NAME, or show one of them.

    For methods that cannot be run it says why. docs/baselines.md explains our choices where the paper is silent.

    \b
    Example:
      steersearch bench methods grounding-dino
      steersearch bench core --world --method clip-text
    """
    chosen = list(CARDS.values()) if name is None else [known_card(name)]
    if as_json:
        for card in chosen:
            terminal.json_line(card.to_dict())
    elif name is None:
        bench_tables.methods(chosen)
    else:
        bench_tables.method(chosen[0])
