"""`steersearch remove`: remove a prompt, or delete a whole library."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated

import typer

from steersearch.api import Library
from steersearch.cli.library import open_library
from steersearch.cli.options import Place
from steersearch.cli.search_options import OneModel, OneScale, OneView
from steersearch.core.errors import PromptIndexMissing, SteerSearchError, listed
from steersearch.core.preprocess import View
from steersearch.indexer.manifest import PromptIndex
from steersearch.views import terminal


def command(
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="A prompt of `info`, or a key of `info --json`."),
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Leave this photo folder out of a library that has several."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Delete the whole library.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --all: do not ask for confirmation.")] = False,
    library: Place = None,
    gate_scale: OneScale = None,
    model: OneModel = None,
    view: OneView = None,
) -> None:
    """Remove a prompt's index, a folder, or a whole library. Photos are never touched.

    \b
    Example:
      steersearch remove bookshelf
      steersearch remove --folder ./scans
      steersearch remove --all --library ./old-library
    """
    if (prompt is not None) + (folder is not None) + everything != 1:
        reason = "give a prompt, --folder FOLDER, or --all for the whole library"
        raise typer.BadParameter(reason, param_hint="PROMPT")
    selectors = {"--gate-scale": gate_scale, "--model": model, "--view": view}
    if everything:
        _refuse(selectors, "chooses among the indexes of a prompt; --all deletes the whole library")
    elif yes:
        raise typer.BadParameter(
            "goes with --all; a prompt is removed without confirmation", param_hint="--yes"
        )
    photos = open_library(library, for_changes=True)
    if folder is not None:
        _refuse(selectors, "chooses among the indexes of a prompt")
        left_out = terminal.counted(photos.remove_folder(folder), "photo")
        terminal.remark(f"removed {terminal.readable(folder)} with {left_out}; the files are untouched")
        return
    if prompt is None:
        _confirm(photos, yes)
        photos.delete()
        terminal.remark(
            f"deleted; the photos in {' and '.join(map(terminal.readable, photos.folders))} are untouched"
        )
        return
    unfinished = photos.unfinished()
    if prompt in unfinished or any(prompt == index.key for index in photos.prompts()):
        _refuse(selectors, f"chooses among the indexes of a prompt; {prompt} is the key of one")
        photos.remove(prompt)
        terminal.remark(f"removed the {'unfinished ' if prompt in unfinished else ''}{prompt}")
        return
    index = _selected(photos, prompt, gate_scale, model, view)
    photos.remove(index)
    terminal.remark(f"removed {index}")


def _refuse(options: Mapping[str, object], reason: str) -> None:
    """Raise typer.BadParameter for the first of these options that was given."""
    for name, value in options.items():
        if value is not None:
            raise typer.BadParameter(reason, param_hint=name)


def _confirm(photos: Library, yes: bool) -> None:
    """Ask the user to confirm the deletion of the library."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter(
            "cannot ask for confirmation here; add --yes to delete the library", param_hint="--all"
        )
    names = listed([f'"{index.prompt}"' for index in photos.prompts()]) or "none"
    folders = " and ".join(map(str, photos.folders))
    question = f"Delete this library of {folders} (prompts: {names})?"
    if not terminal.confirmed(question):
        raise typer.Abort


def _selected(
    photos: Library, prompt: str, gate_scale: float | None, model: str | None, view: View | None
) -> PromptIndex:
    """The prompt index to remove. Raises PromptIndexMissing, SteerSearchError if several fit."""
    try:
        found = photos.find_prompt_index(prompt, model=model, gate_scale=gate_scale, view=view)
    except PromptIndexMissing as error:
        raise PromptIndexMissing(error.focus, error.folder, error.existing) from error
    fitting = [
        index
        for index in photos.prompts()
        if index.prompt == found.prompt
        and (model is None or index.model_id == found.model_id)
        and gate_scale in (None, index.gate_scale)
        and view in (None, index.view)
    ]
    if len(fitting) > 1:
        described = ", ".join(f"{index.key}: {index}, {index.weights}" for index in fitting)
        raise SteerSearchError(
            f'"{prompt}" has {len(fitting)} indexes: {described}; name one by its key, or with --gate-scale, --model '
            "or --view"
        )
    return found
