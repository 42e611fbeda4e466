"""Options that most commands share. Imports little, so that light commands start fast: see `search_options`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from steersearch.config import Device
from steersearch.core.files import why_not_local
from steersearch.core.objects import as_place, is_uri

OneDevice = Annotated[
    Device | None,
    typer.Option(
        "--device", help="Where the model runs.  [default: the setting device, auto]", show_default=False
    ),
]
Processor = Literal["auto", "cpu", "cuda"]
Place = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE", help="The library directory, or s3://bucket/name (also: STEERSEARCH_LIBRARY)."
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Address of the Ray cluster, HOST:PORT or auto.  [default: a temporary cluster on this machine]",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


def refuse_address(engine: str, ray_address: str | None) -> None:
    """Raise BadParameter for an address that nobody uses."""
    if ray_address is not None and engine != "ray":
        raise typer.BadParameter("needs --engine ray", param_hint="--ray-address")


def folder_or_uri(given: str | Path) -> Path:
    """A photo folder, on this machine or in a bucket."""
    return as_place(given) if is_uri(given) else local_folder(given)


def local_folder(given: str | Path) -> Path:
    """A folder on this machine, which may not exist yet."""
    reason = why_not_local(given)
    if reason is not None:
        raise typer.BadParameter(f'"{given}" {reason}')
    return Path(given)
