"""Checks and care of a library: `verify`, `optimize`, `remove`, `export`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steersearch.cli.options import Focus, Json, OneModel, OneScale, OneView, Place, View, view_name
from steersearch.core.errors import listed
from steersearch.views.streams import escaped

if TYPE_CHECKING:
    from steersearch.api import Library
    from steersearch.indexer.library import PromptIndex


class Format(StrEnum):
    """`indexer.export.FORMATS`, which are not imported for a help text."""

    parquet = "parquet"
    arrow = "arrow"
    faiss = "faiss"


def open_library(option: str | None, *, photo: Path | None = None, for_changes: bool = False) -> Library:
    """The library that is meant, see `settings.find_library`; says on stderr which it is and why."""
    from steersearch import api, settings
    from steersearch.views import terminal

    found = settings.find_library(option, photo=photo, for_changes=for_changes)
    library = api.Library.open(found.place)
    settings.remember_library(library.place)
    terminal.remark(f"library: {terminal.readable(library.place)} ({found.reason})")
    if not library.folder.is_dir():
        gone = f"its photo folder {terminal.readable(library.folder)} is gone; mount its disk, or"
        terminal.remark(f"{gone}, {library.if_moved}")
    weights_remark(library)
    return library


def weights_remark(library: Library) -> None:
    """Say so if the bundled model has changed since the library was made."""
    from steersearch.identity import BUNDLED
    from steersearch.views import terminal

    if changed := library.with_other_weights(BUNDLED):
        terminal.remark(library.how_to_go_on(changed))


def verify(
    library: Place = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also read all photos again and compare their hashes.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Set aside what is proved bad; the next `index` makes it again. Photos stay untouched.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check all that a library keeps; a line for each finding, exit code 1 if a problem remains.

    \b
    Example:
      steersearch verify --deep
    """
    from steersearch.views import library_tables

    findings = open_library(library, for_changes=repair).verify(deep=deep, repair=repair)
    library_tables.findings(findings, as_json=as_json)
    if any(finding.is_problem for finding in findings):
        raise typer.Exit(1)


def optimize(
    library: Place = None,
    forget_removed: Annotated[
        bool,
        typer.Option(
            "--forget-removed",
            help="Also drop the vectors of photos that are gone; one that comes back is embedded anew.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a library that was written in many steps small and quick to open; searches go on meanwhile.

    `index` does this by itself where a run leaves many versions.

    \b
    Example:
      steersearch optimize
    """
    from steersearch.views import library_tables

    done = open_library(library, for_changes=True).optimize(forget_removed=forget_removed)
    library_tables.optimized(done, as_json=as_json)


def remove(
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="[PROMPT]", help="A prompt of `info`, or the key of an unfinished one."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Delete the whole library.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --all: do not ask.")] = False,
    library: Place = None,
    gate_scale: OneScale = None,
    model: OneModel = None,
    view: OneView = None,
) -> None:
    """Drop what was computed under a prompt, or a whole library. Photos are never touched.

    \b
    Example:
      steersearch remove bookshelf
      steersearch remove --all --library ./old-library
    """
    from steersearch.views import terminal

    if (prompt is None) != everything:
        raise typer.BadParameter(
            "name a prompt, or --all for the library; one of the two", param_hint="PROMPT"
        )
    selectors = {"--gate-scale": gate_scale, "--model": model, "--view": view}
    if everything:
        _refuse(selectors, "chooses among the indexes of a prompt; --all deletes the whole library")
    elif yes:
        raise typer.BadParameter(
            "belongs to --all; a prompt is removed without a question", param_hint="--yes"
        )
    photos = open_library(library, for_changes=True)
    if prompt is None:
        _confirm(photos, yes)
        photos.delete()
        terminal.remark(f"deleted; the photos in {terminal.readable(photos.folder)} are untouched")
        return
    if prompt in photos.unfinished():
        _refuse(selectors, f"chooses among the indexes of a prompt; {prompt} is the key of one")
        photos.remove(prompt)
        terminal.remark(f"removed the unfinished {prompt}")
        return
    index = _the_one(photos, prompt, gate_scale, model, view)
    photos.remove(index)
    terminal.remark(f"removed {index}")


def _refuse(options: Mapping[str, object], reason: str) -> None:
    """Raise typer.BadParameter for the first of these options that was given."""
    for name, value in options.items():
        if value is not None:
            raise typer.BadParameter(reason, param_hint=name)


def _confirm(photos: Library, yes: bool) -> None:
    """Go on only with the user's word that the library is to be deleted."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter(
            "nobody can be asked here; say --yes to delete the library", param_hint="--all"
        )
    names = listed([f'"{index.prompt}"' for index in photos.prompts()]) or "none"
    question = f"Delete this library of {photos.folder} (prompts: {names})?"
    typer.confirm(escaped(question), abort=True, err=True)


def _the_one(
    photos: Library, prompt: str, gate_scale: float | None, model: str | None, view: View | None
) -> PromptIndex:
    """The prompt index that is meant. Raises PromptIndexMissing, AmbiguousPromptError."""
    from steersearch.core.errors import AmbiguousPromptError

    found = photos.find_prompt_index(prompt, model=model, gate_scale=gate_scale, view=view_name(view))
    fitting = [
        index
        for index in photos.prompts()
        if index.prompt == found.prompt
        and (model is None or index.model_id == found.model_id)
        and gate_scale in (None, index.gate_scale)
        and view_name(view) in (None, index.view)
    ]
    if len(fitting) > 1:
        raise AmbiguousPromptError(prompt, [str(index) for index in fitting])
    return found


def export(
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
    from steersearch.views import library_tables, terminal

    photos = open_library(library)
    done = photos.export(
        focus,
        file,
        format=None if format is None else format.value,
        force=force,
        model=model,
        gate_scale=gate_scale,
        view=view_name(view),
    )
    for path in done.files:
        terminal.path_line(path)
    library_tables.exported_remark(done, photos.command(done.focus.index))


COMMANDS: tuple[Callable[..., None], ...] = (verify, optimize, remove, export)
