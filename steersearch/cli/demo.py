"""`steersearch demo`: a photo folder to try everything on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steersearch.cli.options import local_folder
from steersearch.demo import run_demo


def command(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="[FOLDER]", parser=local_folder, help="Where the demo lives.", show_default=True
        ),
    ] = Path("steersearch-demo"),
) -> None:
    """Draw a small photo folder, index it, query it twice and write a page of the results.

    \b
    Example:
      steersearch demo
    """
    run_demo(folder)
