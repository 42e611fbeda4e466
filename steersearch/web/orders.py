"""Searches that commands order from the server, since it has the model in memory: all options, whole answers.

No part of the REST interface: both sides are of one version.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

import steersearch
from steersearch.api import Library
from steersearch.core.errors import ArgumentError
from steersearch.indexer.hits_data import data_of
from steersearch.indexer.progress import ProgressEvent
from steersearch.search_order import (
    HEARTBEAT_S,
    MOST_BYTES,
    MOST_HITS,
    MOST_SECONDS,
    OPTIONS,
    Order,
    mark_of,
    remarks_kept,
)
from steersearch.web.problem import BusyError, UnknownIdError
from steersearch.web.routes import At, Server
from steersearch.web.searches import Cancelled
from steersearch.web.uploads import LIMITS

_MOST_LINE = 2**20
Tell = Callable[[dict[str, Any]], None]

router = APIRouter(prefix="/api/v1", include_in_schema=False)


@router.post("/libraries/{library}/orders")
async def order(library: str, request: Request, server: At) -> StreamingResponse:
    """A line of JSON for each step: what it waits for, progress, and at the end `answer` or `refusal`."""
    opened = await run_in_threadpool(server.shelf.library, library)
    folder = TemporaryDirectory(dir=server.uploads.folder)
    try:
        body = Path(folder.name) / "body"
        await _receive(request.stream(), body)
        wanted = await run_in_threadpool(_order, body)
        if wanted.library != mark_of(opened.place):
            raise UnknownIdError("library", library)
    except BaseException:
        folder.cleanup()
        raise
    return StreamingResponse(_lines(server, opened, wanted, folder), media_type="application/x-ndjson")


async def _receive(chunks: AsyncIterator[bytes], body: Path) -> None:
    length = 0
    with body.open("xb") as opened:
        async for chunk in chunks:
            length += len(chunk)
            if length > MOST_BYTES + _MOST_LINE:
                raise ArgumentError("photos", length, f"at most {MOST_BYTES // 2**20} MB")
            await run_in_threadpool(opened.write, chunk)


def _order(body: Path) -> Order:
    """The order, its photos as files beside it. Raises ArgumentError."""
    with body.open("rb") as opened:
        try:
            wanted = Order.of_line(opened.readline(_MOST_LINE))
            if wanted.version != steersearch.__version__:
                raise ArgumentError("version", wanted.version, f"this server is {steersearch.__version__}")
            seconds, k = wanted.options.get("budget_s") or 0, wanted.options["k"]
            if not wanted.options.keys() <= OPTIONS or seconds > MOST_SECONDS or k > MOST_HITS:
                raise ValueError(wanted.options)
            for number, size in enumerate(wanted.photos):
                _photo(body, number).write_bytes(opened.read(size))
        except (ValueError, TypeError, KeyError) as error:
            raise ArgumentError("order", type(error).__name__, "is not an order of this version") from error
    return wanted


def _photo(body: Path, number: int) -> Path:
    return body.with_name(str(number))


async def _lines(
    server: Server, library: Library, wanted: Order, folder: TemporaryDirectory[str]
) -> AsyncIterator[bytes]:
    loop, said = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any]]()
    cancelled = threading.Event()

    def tell(what: dict[str, Any]) -> None:
        if cancelled.is_set():
            raise Cancelled
        loop.call_soon_threadsafe(said.put_nowait, what)

    work = asyncio.ensure_future(run_in_threadpool(_answered, server, library, wanted, folder, tell))
    try:
        while True:
            try:
                what = await asyncio.wait_for(said.get(), HEARTBEAT_S)
            except TimeoutError:
                what = {}
            yield json.dumps(what).encode() + b"\n"
            if "answer" in what or "refusal" in what:
                return
    finally:
        cancelled.set()  # where nobody listens any more
        work.add_done_callback(lambda done: done.cancelled() or done.exception())


def _answered(
    server: Server, library: Library, wanted: Order, folder: TemporaryDirectory[str], tell: Tell
) -> None:
    """Tells the answer. What fails here is tried by who ordered, and fails there in the same words."""
    try:
        with folder:  # its photos are gone before anybody has the answer
            answer = server.engine.run(partial(_search, library, wanted, Path(folder.name), tell))
        tell({"answer": answer})
    except Cancelled:
        return
    except BusyError as error:
        tell({"refusal": str(error), "is_busy": True})
    except Exception as error:
        tell({"refusal": f"{type(error).__name__}: {error}", "is_busy": False})


def _search(library: Library, wanted: Order, folder: Path, tell: Tell) -> dict[str, Any]:
    def advance(event: ProgressEvent) -> None:
        tell({"progress": asdict(event)})

    tell({"began": True})
    with remarks_kept() as remarks:
        if wanted.text is not None:
            hits = library.find(wanted.text, **wanted.options, progress=advance)
        else:
            photos = [_photo(folder / "body", number) for number in range(len(wanted.photos))]
            limits = wanted.limits_within(LIMITS)
            hits = library.query(photos, wanted.terms, **wanted.options, limits=limits, progress=advance)
        return {"hits": data_of(hits), "remarks": remarks}
