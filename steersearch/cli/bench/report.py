"""`steersearch bench report`: records as one page, as Markdown or as CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steersearch.benchmarks.harness.record import RESULTS
from steersearch.benchmarks.harness.report import build_page, figures, read_records, tables
from steersearch.core.errors import BenchmarkError
from steersearch.views import terminal
from steersearch.views.output import refuse_impossible, write_output

SUFFIXES = (".html", ".md", ".csv")


def command(
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="An .html page, or tables as .md or .csv."),
    ] = Path("benchmarks.html"),
    folders: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="FOLDER",
            help="Also read the records in this folder, besides those saved; repeatable.",
        ),
    ] = None,
    pictures: Annotated[
        bool | None,
        typer.Option(
            "--pictures/--no-pictures",
            help="Draw examples of the stand-ins in the page.  [default: yes]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write saved records to a page or table, beside the paper's numbers.

    The page is self-contained, with tables, plots and pictures.

    \b
    Example:
      steersearch bench report -o benchmarks.html
    """
    if output.suffix not in SUFFIXES:
        raise typer.BadParameter(f"{output}: must end in {', '.join(SUFFIXES)}", param_hint="-o")
    if pictures is not None and output.suffix != ".html":
        raise typer.BadParameter(f"only an .html page has pictures, not {output}", param_hint="--pictures")
    refuse_impossible(output)
    records = read_records([*([RESULTS] if RESULTS.is_dir() else []), *(folders or [])])
    if not records.measured:
        raise BenchmarkError(
            "there is no record with a data set; make one: steersearch bench core --world --save"
        )
    if output.suffix == ".html":
        text = build_page(records, pictures=pictures is not False)
    elif output.suffix == ".md":
        text = "\n".join(table.to_markdown() for table in tables(records))
    else:
        text = figures(records).to_csv()
    write_output(output, text.encode())
    terminal.line(terminal.readable(output))
    terminal.remark(terminal.counted(len(records), "record"))
