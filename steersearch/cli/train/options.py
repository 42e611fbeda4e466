"""Options and remarks that `train check` and `train masks` share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from steersearch.training.data.samples import Skip
from steersearch.training.data.sources import FORMATS
from steersearch.views import terminal

SECONDS_BETWEEN_LINES = 15.0
SKIPS_SHOWN = 10

Data = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help='A folder or file in a known format, or a generated world, such as "world:seed=3,photos=1000".',
    ),
]


def _format(name: str) -> str:
    if name not in ("auto", *FORMATS):
        raise typer.BadParameter(f"must be auto or one of {', '.join(FORMATS)}")
    return name


Format = Annotated[
    str,
    typer.Option("--format", metavar="NAME", parser=_format, help=f"auto, or one of {', '.join(FORMATS)}."),
]
Images = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="The folder of the pictures, if not the format's own."),
]
Split = Annotated[str | None, typer.Option(metavar="NAME", help="Only this split, such as train or val.")]


def progress(what: str, unit: str = "rows") -> Callable[[int, int], None]:
    """Occasional remarks, the first after a while."""
    began = last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal began, last
        now = time.monotonic()
        if not began:  # what came before took its own time
            began = last = now
        if now - last >= SECONDS_BETWEEN_LINES and done < total:
            last = now
            left = (now - began) * (total - done) / done
            terminal.remark(f"{what} {done:,} of {total:,} {unit}, about {left:,.0f} s left")

    return report


def skipped(skips: Sequence[Skip], all_of_them: str) -> None:
    """The first few, and how to list all."""
    for skip in skips[:SKIPS_SHOWN]:
        terminal.remark(f"skipped {_described(skip)}")
    if len(skips) > SKIPS_SHOWN:
        terminal.remark(f"and {len(skips) - SKIPS_SHOWN:,} more; {all_of_them}")


def _described(skip: Skip) -> str:
    place = f", {skip.row}" if skip.row else ""
    rows = f" ({skip.rows:,} expressions)" if skip.rows > 1 else ""
    return f"{terminal.readable(skip.path)}{place}: {skip.reason}{rows}"
