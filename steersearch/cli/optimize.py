"""`steersearch optimize`: make a library smaller and faster to open."""

from __future__ import annotations

from typing import Annotated

import typer

from steersearch.cli.library import open_library
from steersearch.cli.options import Json, Place
from steersearch.views import library_tables


def command(
    library: Place = None,
    forget_removed: Annotated[
        bool,
        typer.Option(
            "--forget-removed",
            help="Also drop the vectors of removed photos; one that returns is embedded again.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Compact a library's tables, so that it is smaller and opens faster.

    Searches may run meanwhile. `index` does this itself when it pays.

    \b
    Example:
      steersearch optimize
    """
    done = open_library(library, for_changes=True).optimize(forget_removed=forget_removed)
    library_tables.optimized(done, as_json=as_json)
