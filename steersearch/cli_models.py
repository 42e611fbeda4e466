"""`steersearch models`: which models have a name, what they are, and fetching them beforehand."""

from __future__ import annotations

import typer

from steersearch.options import Json

models = typer.Typer(help="Show the models that can be used.", no_args_is_help=True, rich_markup_mode=None)


@models.command("list")
def list_models(as_json: Json = False) -> None:
    """List the models that have a name: size, licence, and whether this machine has them.

    \b
    Example:
      steersearch models list
    """
    from steersearch import render
    from steersearch.core.registry import known_models

    render.models(known_models(), as_json=as_json)
