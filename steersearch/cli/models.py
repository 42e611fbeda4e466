"""`steersearch models`: list, show and fetch models."""

from __future__ import annotations

from typing import Annotated

import typer

from steersearch.cli import INTERRUPTED
from steersearch.cli.lazy import group
from steersearch.cli.options import Json
from steersearch.core import hub
from steersearch.core.downloads import fetch_model, parts_of
from steersearch.core.registry import MODELS
from steersearch.views import model_tables, terminal

NAMES = "A name of `models list`, a .safetensors or .pth file, a hub id, or auto."


command = group(
    {
        "list": ("steersearch.cli.models:list_models", "List the named models."),
        "show": ("steersearch.cli.models:show", "Show what a model is for, its licences and its files."),
        "fetch": ("steersearch.cli.models:fetch", "Download a model, so that it runs offline."),
    },
    help="List, show and fetch models.",
)


def list_models(as_json: Json = False) -> None:
    """List the named models with their download sizes, and which of them are here.

    \b
    Example:
      steersearch models list
    """
    model_tables.model_list([parts_of(name) for name in MODELS], as_json=as_json)


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help=NAMES)],
    as_json: Json = False,
) -> None:
    """Show what a model is for, its licences, and its files: sources, sizes, hashes and local paths.

    \b
    Example:
      steersearch models show dinov2-small
    """
    model_tables.model(parts_of(_meant(name)), as_json=as_json)


def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help=NAMES)],
) -> None:
    """Download everything that a model needs, so that it runs offline.

    Prints the paths of its files. Files already present are checked, not downloaded.

    \b
    Example:
      steersearch models fetch dinov2-small
    """
    folder = hub.cache_folder()
    # All names are known before any download.
    wanted = [parts_of(_meant(name)) for name in dict.fromkeys(names)]
    try:
        for model in wanted:
            model = parts_of(model.name)  # models share files
            model_tables.before_fetch(model, hub.free_space(folder), folder)
            with model_tables.download(model.missing) as tell:
                model = fetch_model(model.name, tell)
            model_tables.fetched(model)
    except KeyboardInterrupt:
        terminal.remark()
        terminal.remark("stopped; complete files are kept, the same command fetches the rest")
        raise typer.Exit(INTERRUPTED) from None


def _meant(name: str) -> str:
    """`name`, or the model that auto prefers on this machine."""
    if name != "auto":
        return name
    from steersearch.core.checkpoints import wanted_by_auto  # loads torch, which knows of GPUs

    return wanted_by_auto().name
