"""`steersearch bench list`: the benchmarks with their data."""

from __future__ import annotations

from dataclasses import asdict

from steersearch.benchmarks.harness.catalogue import CARDS
from steersearch.cli.options import Json
from steersearch.views import bench_tables, terminal


def command(
    as_json: Json = False,
) -> None:
    """List the benchmarks with their data.

    \b
    Example:
      steersearch bench list
    """
    if as_json:
        for card in CARDS.values():
            terminal.json_line(asdict(card))
    else:
        bench_tables.cards(CARDS.values())
