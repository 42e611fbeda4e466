"""`steersearch mcp`: tools for agents."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from steersearch.api import Library
from steersearch.cli.options import OneDevice
from steersearch.config import read_settings
from steersearch.core.errors import MissingExtraError
from steersearch.views import terminal

try:
    import fastapi  # noqa: F401, which the tools share with the page

    from steersearch.web.shelf import Shelf
    from steersearch.web.tools import tools
except ModuleNotFoundError as error:
    if error.name not in ("mcp", "fastapi", "starlette", "uvicorn"):
        raise
    raise MissingExtraError(error.name, "mcp", "`steersearch mcp`") from error


def command(
    library: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLACE", help="Offer only this library; repeatable.  [default: all]", show_default=False
        ),
    ] = None,
    allow_index: Annotated[bool, typer.Option("--allow-index", help="Let agents index prompts.")] = False,
    http: Annotated[
        bool,
        typer.Option("--http", help="Streamable HTTP on this machine, at /mcp, instead of standard input."),
    ] = False,
    port: Annotated[int, typer.Option(metavar="NUMBER", min=1, max=65535, help="For --http.")] = 8001,
    device: OneDevice = None,
) -> None:
    """Offer the libraries to agents by the Model Context Protocol.

    The tools are find_photos, query_by_photo, explain, list_libraries and index_status. Agents start the command
    themselves, from their settings.

    \b
    Example:
      steersearch mcp
    """
    server = tools(
        Shelf([Library.open(one).place for one in library or ()], device or read_settings().device),
        allow_index=allow_index,
    )
    if http:
        terminal.remark(f"http://127.0.0.1:{port}/mcp")
        asyncio.run(server.run_streamable_http_async(port=port))
    else:
        server.run("stdio")
