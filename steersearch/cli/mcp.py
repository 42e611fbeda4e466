"""`steersearch mcp`: tools for agents."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from steersearch.api import Library
from steersearch.cli.options import OneDevice
from steersearch.config import read_settings
from steersearch.core.errors import MissingExtraError
from steersearch.search_order import TOKEN_VARIABLE
from steersearch.views import terminal

try:
    import fastapi  # noqa: F401, which the tools share with the page

    from steersearch.web.guard import Access, Guard
    from steersearch.web.run import listen, run
    from steersearch.web.shelf import Shelf
    from steersearch.web.tools import tools
except ModuleNotFoundError as error:
    if error.name not in ("mcp", "fastapi", "starlette", "uvicorn"):
        raise
    raise MissingExtraError(error.name, "mcp", "`steersearch mcp`") from error

HOST = "127.0.0.1"


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
    port: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, max=65535, help="Port for --http; 0 is any free one.")
    ] = 8001,
    device: OneDevice = None,
) -> None:
    """Offer the libraries to agents by the Model Context Protocol.

    The tools are find_photos, query_by_photo, explain, list_libraries and index_status. Agents start the command
    themselves, from their settings. With --http it answers this machine alone, and asks for the token in
    STEERSEARCH_TOKEN if there is one.

    \b
    Example:
      steersearch mcp
    """
    places, chosen = [Library.open(one).place for one in library or ()], read_settings()
    shelf = Shelf(places, device or chosen.device, chosen.precision)
    server = tools(shelf, allow_index=allow_index)
    if not http:
        server.run("stdio")
        return
    listening = listen(HOST, port)
    terminal.remark(f"http://{HOST}:{listening.getsockname()[1]}/mcp")
    access = Access.of(HOST, token=os.environ.get(TOKEN_VARIABLE))
    run(Guard(server.streamable_http_app(host=HOST), access), [listening])
