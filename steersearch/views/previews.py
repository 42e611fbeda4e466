"""Hits in a terminal that shows pictures. The only file that imports textual-image, of the extra `preview`."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from steersearch.core.errors import ImageError, MissingExtraError
from steersearch.indexer.hits import Hit
from steersearch.views.notebook import hit_picture, vmax_of
from steersearch.views.streams import drawn_on, escaped

COLUMNS, ROWS = 20, 10  # cells that a picture takes at most; they are about twice as high as wide


@cache
def drawing() -> Any:
    """The class of rich renderables that draw a picture in this terminal, which is queried. None if it answers that it
    shows none, or not in time (0.1 s in textual-image 0.12, the last for Python 3.11; 2 s in 0.14), or cannot
    be queried because standard input is not the terminal.

    Raises MissingExtraError.
    """
    if not all(stream is not None and stream.isatty() for stream in (sys.__stdin__, sys.__stdout__)):
        return None
    try:
        from textual_image import renderable  # asks the terminal
    except ModuleNotFoundError as error:
        raise MissingExtraError("textual-image", "preview", "`--preview`") from error
    except UnicodeDecodeError:  # a key was pressed instead
        return None
    kind = renderable.Image
    return kind if kind in (renderable.SixelImage, renderable.TGPImage) else None


def draw(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str], hits: Sequence[Hit]
) -> None:
    """A table as `terminal.table` prints it, after a column of pictures.

    rows: one for each hit, in order, and others that have an empty first cell.
    """
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=COLUMNS)
    for name in header:
        is_last = name == header[-1]
        grid.add_column(
            justify="right" if name in right else "left",
            no_wrap=not is_last,
            overflow="fold" if is_last else "crop",
        )
    grid.add_row("", *map(Text, map(escaped, header)))
    vmax, left = vmax_of(hits), iter(hits)
    for row in rows:
        picture = _preview(next(left), vmax) if row[0] else ""
        grid.add_row(picture, *(Text(escaped(cell)) for cell in row))
    sys.stdout.flush()
    with drawn_on(sys.stdout) as stream:
        # Kitty finds a picture by the colour of its cells: it must be exact
        Console(file=stream, force_terminal=True, color_system="truecolor", no_color=False).print(grid)


def _preview(hit: Hit, vmax: float | None) -> Any:
    try:
        picture = hit_picture(hit, vmax, is_small=True)
    except ImageError:
        return "(no thumbnail)"
    is_wide = picture.width >= picture.height
    return drawing()(picture, width=COLUMNS if is_wide else "auto", height="auto" if is_wide else ROWS)
