"""Listens, and runs an application until it is stopped."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Sequence

import uvicorn
from starlette.types import ASGIApp

from steersearch.core.errors import ArgumentError


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0: any that is free. Raises ArgumentError if the port is taken, or the address not
    this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends at once (TCP_NODELAY) only where the protocol is given; else each answer on a kept connection, whose
    # head and body are two parts, waits 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ArgumentError("port", f"{host}:{port}", f"{error.strerror}; another port: --port 0") from error
    listening.listen()
    return listening


def run(app: ASGIApp, sockets: Sequence[socket.socket]) -> None:
    """Answer requests until SIGINT or SIGTERM, then end what runs."""
    config = uvicorn.Config(
        app,
        http="h11",
        log_level="warning",
        h11_max_incomplete_event_size=64 * 1024,
        timeout_graceful_shutdown=5,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # uvicorn repeats it when all is done
    uvicorn.Server(config).run(sockets=list(sockets))
