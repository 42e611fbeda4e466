"""`steersearch verify`: check a library for damage, and repair it."""

from __future__ import annotations

from typing import Annotated

import typer

from steersearch.cli.library import open_library
from steersearch.cli.options import Json, Place
from steersearch.views import library_tables


def command(
    library: Place = None,
    deep: Annotated[bool, typer.Option("--deep", help="Also hash all photos again.")] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Set damaged data aside; the next `index` rebuilds it. Photos are never touched.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a library for damage: a line for each finding, exit code 1 if a problem remains.

    \b
    Example:
      steersearch verify --deep
    """
    findings = open_library(library, for_changes=repair).verify(deep=deep, repair=repair)
    library_tables.findings(findings, as_json=as_json)
    if any(finding.is_problem for finding in findings):
        raise typer.Exit(1)
