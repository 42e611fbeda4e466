"""`steersearch serve`: the page, and the REST interface that it uses."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from steersearch import server_socket
from steersearch.api import Library
from steersearch.cli.options import OneDevice, RayAddress, refuse_address
from steersearch.config import read_settings
from steersearch.core.errors import MissingExtraError
from steersearch.indexer.ray_fleet import Fleet
from steersearch.indexer.work import LocalEngine, Steering
from steersearch.search_order import TOKEN_VARIABLE
from steersearch.views import terminal

try:
    from steersearch.web.app import create_app
    from steersearch.web.guard import Access
    from steersearch.web.run import listen, run
    from steersearch.web.shelf import Shelf
except ModuleNotFoundError as error:
    if error.name not in ("fastapi", "uvicorn", "starlette"):
        raise
    raise MissingExtraError(error.name, "web", "`steersearch serve`") from error


def command(
    port: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, max=65535, help="Where to listen; 0 is any free port.")
    ] = 8000,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Where to listen. Anything but this machine needs a token, which is printed as part of the address.",
        ),
    ] = "127.0.0.1",
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Another name by which browsers reach this server; repeatable."),
    ] = None,
    library: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLACE", help="Offer only this library; repeatable.  [default: all]", show_default=False
        ),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    device: OneDevice = None,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            help="Where photos are steered under a focus that was not indexed: in this process, or by the workers of a "
            "Ray cluster, which hold the model as long as this runs."
        ),
    ] = "local",
    ray_address: RayAddress = None,
) -> None:
    """Serve the page: search by a photo or words, see where the model looks, turn the steering up and down.

    It serves only this machine, unless --host says otherwise. While it runs, query and find use its model. Ctrl-C
    stops it; what was computed is kept.

    \b
    Example:
      steersearch serve --open
      steersearch serve --host 0.0.0.0 --name photos.local --port 8000
      steersearch serve --engine ray --ray-address head:6379
    """
    refuse_address(engine, ray_address)
    places = [_place(one) for one in library or ()]
    chosen = read_settings()
    device = device or chosen.device
    steering: AbstractContextManager[Steering] = nullcontext(LocalEngine())
    if engine == "ray":
        steering = Fleet(ray_address, uses_gpu=device != "cpu")
    access = Access.of(host, *(name or ()), token=os.environ.get(TOKEN_VARIABLE))
    with ExitStack() as stack:
        listening = stack.enter_context(listen(host, port))
        shelf = Shelf(places, device, chosen.precision, stack.enter_context(steering))
        sockets = [listening]
        try:
            sockets.append(stack.enter_context(server_socket.listening()))
            access = replace(access, socket=sockets[-1].getsockname())
        except OSError as error:
            terminal.remark(f"query and find will not use this server: no socket can be made ({error})")
        app = create_app(shelf, access)
        address = _address(host, listening.getsockname()[1], access.token, name)
        terminal.line(address)
        sys.stdout.flush()
        if access.token is not None:
            terminal.remark("who has this address can see the photos; it is sent without encryption")
        if open_page:
            typer.launch(address)
        app.state.server.warm_up()
        run(app, sockets)


def _address(host: str, port: int, token: str | None, names: Sequence[str] | None) -> str:
    """Of the page, as it is printed."""
    shown = f"[{host}]" if ":" in host else "127.0.0.1" if host == "0.0.0.0" else host
    if token is not None and names:
        shown = names[0]
    return f"http://{shown}:{port}/" + ("" if token is None else f"?token={token}")


def _place(library: str) -> Path:
    """Of a library or its photo folder. Raises LibraryMissingError."""
    return Library.open(library).place
