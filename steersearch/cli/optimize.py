"""`steersearch optimize`: compact a library."""

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
            help="Also drop the vectors of photos that are gone; one that comes back is embedded anew.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a library that was written in many steps small and quick to open; searches go on meanwhile.

    `index` does this by itself where a run leaves many versions.

    \b
    Example:
      steersearch optimize
    """
    done = open_library(library, for_changes=True).optimize(forget_removed=forget_removed)
    library_tables.optimized(done, as_json=as_json)
