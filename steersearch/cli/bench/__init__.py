"""`steersearch bench`: benchmarks of quality and speed."""

from __future__ import annotations

from steersearch.benchmarks.harness.catalogue import CARDS
from steersearch.cli.lazy import group

command = group(
    {
        **{
            card.name: (f"steersearch.cli.bench.measure:{card.name}", card.summary) for card in CARDS.values()
        },
        "speed": ("steersearch.cli.bench.speed", "What steering costs in time and memory."),
        "all": ("steersearch.cli.bench.all", "Run every benchmark, and test the paper's claims."),
        "list": ("steersearch.cli.bench.list", "List the benchmarks with their data."),
        "methods": ("steersearch.cli.bench.methods", "List the methods that SteerViT is compared with."),
        "build": ("steersearch.cli.bench.build", "Make a benchmark's data from published data."),
        "report": ("steersearch.cli.bench.report", "Write saved records to a page or table."),
    },
    help="Run benchmarks of quality and speed; records can be saved and compared.",
)
