"""`steersearch info`: what a library holds."""

from __future__ import annotations

from typing import Annotated

import typer

from steersearch.cli.library import open_library
from steersearch.cli.options import Json, Place
from steersearch.views import terminal


def command(
    library: Place = None,
    skipped: Annotated[bool, typer.Option("--skipped", help="List the skipped files and why.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a library holds: its photos and its prompts.

    \b
    Example:
      steersearch info --skipped
    """
    photos = open_library(library)
    if skipped:
        terminal.skipped(photos.skipped(), as_json=as_json)
    else:
        terminal.info(photos.info(), photos.unfinished(), as_json=as_json)
