"""`steersearch relocate`: a photo folder or a disk has moved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from steersearch import settings
from steersearch.api import Library
from steersearch.cli.options import Place, local_folder
from steersearch.core.errors import FolderError
from steersearch.views import terminal


def command(
    old: Annotated[
        Path,
        typer.Argument(
            metavar="OLD",
            parser=local_folder,
            help="The former path of a photo folder, or of a folder or disk with several.",
        ),
    ],
    new: Annotated[Path, typer.Argument(metavar="NEW", parser=local_folder, help="Its path now.")],
    library: Place = None,
) -> None:
    """Say that a photo folder has moved, alone or with its disk, in all libraries that have it.

    Nothing is computed. Up to 200 photos of each folder are compared by content; a folder with other photos is refused.

    \b
    Example:
      steersearch relocate /media/old/photos /media/new/photos
      steersearch relocate /media/old /media/new
    """
    given = settings.place_given(library)
    was = Path(os.path.realpath(old))
    moved = False
    for place in settings.library_places() if given is None else [given]:
        photos = Library.open(place)
        for folder in photos.folders:
            if folder.is_relative_to(was):
                now = new / folder.relative_to(was)
                likeness = photos.relocate(folder, now)
                terminal.remark(f"{terminal.readable(folder)} is {terminal.readable(now)} now: {likeness}")
                moved = True
    if not moved:
        raise FolderError(
            old, "is not a photo folder of a library, and none lies below it; see steersearch libraries"
        )
