"""Calls of huggingface_hub that fetch something, watched: a hub may send too much, too slowly, or names that mislead.

huggingface_hub itself fetches, goes on after a cut connection, and writes its cache. On every answer it gets, a hook of
its HTTP client looks at the names that would become paths, and at the size that is announced; another counts the bytes
as they arrive. The call runs on a thread of its own, so that one that brings nothing can be left.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

from huggingface_hub import get_session

from steersearch.core.errors import ChecksumError, DiskFullError, HubError
from steersearch.core.registry import HubFile

logger = logging.getLogger(__name__)

T = TypeVar("T")
Progress: TypeAlias = Callable[[int, int | None], None]  # bytes there so far, bytes in all if known
Room: TypeAlias = tuple[Path, int]  # the folder into which is fetched, and the bytes that are free there

# bytes of a file whose size is not published: of weights, and of what describes them
MOST_BYTES, MOST_DESCRIBING = 20 * 10**9, 2 * 10**8
MOST_REFUSING = 10**6  # bytes of an answer that is no file
PATIENCE, LEAST_BYTES = 60.0, 60_000  # seconds, and what has to arrive in them
_SECONDS_BETWEEN_LOOKS = 0.25  # less than huggingface_hub waits before it tries again with a new client

_DESCRIBING = (".json", ".txt", ".md", ".jinja", ".model")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ETAG = re.compile(r'(W/)?"?([0-9A-Za-z][\w.-]{7,127})"?')
_SIZE = re.compile(r"[0-9]{1,18}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def watched(
    call: Callable[[], T],
    file: HubFile,
    room: Room,
    progress: Progress | None = None,
    most: int | None = None,
) -> T:
    """What `call` returns, which has huggingface_hub fetch `file`.

    most: bytes that may come where `file` has no published size; None: what suits the kind of file. Raises what
    `call` raises; HubError for a hub that sends more, less than LEAST_BYTES in PATIENCE seconds, or what can be no
    name; ChecksumError and DiskFullError before anything is fetched.
    """
    watch, done = _Watch(file, room, progress, most), Future[T]()

    def run() -> None:
        _present.set(watch)
        try:
            done.set_result(call())
        except BaseException as error:
            done.set_exception(error)

    _look_at_answers()
    thread = threading.Thread(target=run, name=f"fetching {file.file}", daemon=True)
    thread.start()
    try:
        while not wait([done], _SECONDS_BETWEEN_LOOKS).done:
            _look_at_answers()
            watch.refuse_a_stall()
    except BaseException:
        watch.stopped = True
        thread.join(2)  # at its next bytes it ends, and huggingface_hub clears its draft away
        raise
    return done.result()


class NoBar:
    """In the place of huggingface_hub's bar, which would draw beside ours."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> NoBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, _: int) -> None:
        pass

    def close(self) -> None:
        pass


_present: ContextVar[_Watch | None] = ContextVar("watch", default=None)


def _look_at_answers() -> None:
    """Hooks in the HTTP client that huggingface_hub has now; they do nothing in threads that nobody watches."""
    hooks = get_session().event_hooks
    if _on_answer not in hooks["response"]:
        get_session().event_hooks = {
            "request": [*hooks["request"], _on_request],
            "response": [*hooks["response"], _on_answer],
        }


def _on_request(request: Any) -> None:
    if (watch := _present.get()) is not None:
        watch.asks(request)


def _on_answer(response: Any) -> None:
    if (watch := _present.get()) is not None:
        watch.hears(response)


def _is_not_watched(record: logging.LogRecord) -> bool:
    return _present.get() is None


for _name in (
    "huggingface_hub.file_download",
    "huggingface_hub.utils._http",
):  # what they warn of is told by us
    logging.getLogger(_name).addFilter(_is_not_watched)


class _Watch:
    """What is known of one call while it runs."""

    def __init__(self, file: HubFile, room: Room, progress: Progress | None, most: int | None) -> None:
        self.file, self.room, self.progress = file, room, progress
        usual = MOST_DESCRIBING if Path(file.file).suffix in _DESCRIBING else MOST_BYTES
        self.most = next(limit for limit in (file.size, most, usual) if limit is not None)
        self.announced: int | None = None
        self.done = 0  # bytes of the file
        self.since: float | None = None  # when the time began in which LEAST_BYTES have to arrive
        self.arrived = 0  # bytes in that time
        self.stopped = False

    def asks(self, request: Any) -> None:
        self._refuse_to_go_on()
        self.since, self.arrived = time.monotonic(), 0
        if "Range" in request.headers:
            logger.info(
                "%s/%s: cut off; going on at %s bytes", self.file.repo, self.file.file, f"{self.done:,}"
            )

    def hears(self, response: Any) -> None:
        self._refuse_to_go_on()
        headers = response.headers
        commit = headers.get("X-Repo-Commit")
        if commit is not None and not _COMMIT.fullmatch(commit):
            self._refuse(f"the hub calls its commit {commit[:80]!r}, which can be none")
        if response.request.method == "HEAD":
            headers.pop("X-Xet-Hash", None)  # another transfer, which could not be watched
            leads_to_store = response.is_redirect and urlsplit(headers.get("Location", "")).netloc
            if response.is_success or response.is_redirect:
                self.since = None
            if response.is_success or leads_to_store:  # else the hub is asked again, in another place
                length = None if leads_to_store else headers.get("Content-Length")
                self._hear_of(headers, headers.get("X-Linked-Size") or length)
        else:
            counted = self._counted if response.is_success else self._bounded
            response.iter_bytes = partial(counted, response, response.iter_bytes)

    def _hear_of(self, headers: Any, size: str | None) -> None:
        """What a hub announces of the file, before it is asked to send it."""
        etag = headers.get("X-Linked-Etag") or headers.get("ETag")
        if etag is not None:
            name = _ETAG.fullmatch(etag)
            if name is None:
                self._refuse(f"the hub calls the file {etag[:80]!r}, which can be no name")
            elif self.file.sha256 and _SHA256.fullmatch(name[2]) and name[2] != self.file.sha256:
                way_out = (
                    "its publisher has replaced it, nothing was downloaded; look for a newer steersearch"
                )
                raise ChecksumError(self.file.repo, self.file.file, name[2], self.file.sha256, way_out)
        if size is None:
            return
        if not _SIZE.fullmatch(size) or int(size) > self.most:
            self._refuse(f"the hub announces {size[:80]!r} bytes, at most {self.most:,} are fetched")
        self.announced = self.most = int(size)
        folder, free = self.room
        if free < self.announced:
            raise DiskFullError(self.file.repo, self.file.file, folder, needed=self.announced, free=free)

    def _counted(
        self, response: Any, arriving: Callable[[], Iterator[bytes]], chunk_size: int | None = None
    ) -> Iterator[bytes]:
        """`Response.iter_bytes`, bytes as they arrive: in pieces of 10 MB, as they are asked for, a slow hub would
        never be heard."""
        if response.status_code != 206:  # partial content
            self.done = 0
        self._tell()
        for chunk in arriving():
            self._refuse_to_go_on()
            self.done += len(chunk)
            self.arrived += len(chunk)
            if self.done > self.most:
                self._refuse(f"the hub sends more than the {self.most:,} bytes that it may")
            yield chunk
            self._tell()
        self.since = None

    def _bounded(
        self, response: Any, arriving: Callable[[], Iterator[bytes]], chunk_size: int | None = None
    ) -> Iterator[bytes]:
        """`Response.iter_bytes` of a refusal or a redirection."""
        taken = 0
        for chunk in arriving():
            self._refuse_to_go_on()
            taken += len(chunk)
            if taken > MOST_REFUSING:
                self._refuse(f"the hub answers {response.status_code} without end")
            yield chunk

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress(self.done, self.announced)

    def refuse_a_stall(self) -> None:
        if self.since is None or time.monotonic() - self.since < PATIENCE:
            return
        if self.arrived < LEAST_BYTES:
            self._refuse(f"only {self.arrived:,} bytes came in {PATIENCE:g} seconds; try again later")
        self.since, self.arrived = time.monotonic(), 0

    def _refuse_to_go_on(self) -> None:
        if self.stopped:
            self._refuse("stopped")

    def _refuse(self, reason: str) -> None:
        raise HubError(self.file.repo, self.file.file, reason)
