"""`steersearch export`: write what was computed under a prompt for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steersearch.cli.library import open_library
from steersearch.cli.options import Focus, OneModel, OneScale, OneView, Place
from steersearch.indexer.care.export import Format
from steersearch.views import library_tables, terminal


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to write; its suffix says the format.")],
    focus: Focus,
    library: Place = None,
    format: Annotated[
        Format | None,
        typer.Option(
            help="parquet; arrow (also .feather); faiss, which holds vectors only: a second file, NAME.rows.jsonl, "
            "says what each vector is.  [default: by suffix]",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    gate_scale: OneScale = None,
    model: OneModel = None,
    view: OneView = None,
) -> None:
    """Write what was computed under a prompt to a file for other programs; prints the paths written.

    \b
    Example:
      steersearch export bookshelf.parquet --focus bookshelf
    """
    photos = open_library(library)
    done = photos.export(
        focus,
        file,
        format=format,
        force=force,
        model=model,
        gate_scale=gate_scale,
        view=view,
    )
    for path in done.files:
        terminal.path_line(path)
    library_tables.exported_remark(done, photos.command(done.focus.index))
