"""`steersearch bench`: measure on this machine what the documentation claims."""

from __future__ import annotations

from steersearch.benchmarks.harness.catalogue import CARDS
from steersearch.cli.lazy import group

command = group(
    {
        **{
            card.name: (f"steersearch.cli.bench.measure:{card.name}", card.summary) for card in CARDS.values()
        },
        "speed": ("steersearch.cli.bench.speed", "Steering's cost in images/s and memory."),
        "all": ("steersearch.cli.bench.all", "Every benchmark, and which of the paper's findings hold."),
        "list": ("steersearch.cli.bench.list", "List the benchmarks with their data."),
        "methods": ("steersearch.cli.bench.methods", "List the methods that SteerViT is compared with."),
        "build": ("steersearch.cli.bench.build", "Make a benchmark's data from published data."),
        "report": ("steersearch.cli.bench.report", "Put saved records into one page or table."),
    },
    help="Measure quality and speed on this machine; records can be saved and compared.",
)
