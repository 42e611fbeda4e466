"""`steersearch export`: export a prompt's vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steersearch.cli.library import open_library
from steersearch.cli.options import Place
from steersearch.cli.search_options import Focus, OneModel, OneScale, OneView
from steersearch.indexer.care.export import Format
from steersearch.views import library_tables, terminal


def command(
    focus: Focus,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="FILE", help="The file to write; its suffix chooses the format."
        ),
    ],
    library: Place = None,
    format: Annotated[
        Format | None,
        typer.Option(
            help="parquet; arrow (also .feather); faiss, which holds vectors only: a second file, NAME.rows.jsonl, "
            "describes each.  [default: by suffix]",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    gate_scale: OneScale = None,
    model: OneModel = None,
    view: OneView = None,
) -> None:
    """Export a prompt's vectors to Parquet, Arrow or FAISS, and print the paths written.

    \b
    Example:
      steersearch export --focus bookshelf -o bookshelf.parquet
    """
    photos = open_library(library)
    done = photos.export(
        focus,
        output,
        format=format,
        force=force,
        model=model,
        gate_scale=gate_scale,
        view=view,
    )
    for path in done.files:
        terminal.path_line(path)
    library_tables.exported_remark(done, photos.command(done.focus.index))
