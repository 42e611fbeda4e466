"""`steersearch demo`: try steersearch on a few photos and drawings."""

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
            metavar="FOLDER", parser=local_folder, help="Where to put the demo.", show_default=True
        ),
    ] = Path("steersearch-demo"),
) -> None:
    """Make a small photo folder, index it, query it, and write the results to a page.

    \b
    Example:
      steersearch demo
    """
    run_demo(folder)
