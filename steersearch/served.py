"""Searches that need a model, by a running `steersearch serve` that has it in memory; without one, here.

A server is found by its socket, see `server_socket`, or named by STEERSEARCH_SERVER: its address, or "off".
"""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from steersearch.api import Hits, Library, ModelNeededError
from steersearch.core.errors import ServerError
from steersearch.core.files import read_regular
from steersearch.core.images.limits import DEFAULT_LIMITS, Limits
from steersearch.indexer.hits_data import hits_of
from steersearch.indexer.progress import ProgressEvent
from steersearch.indexer.query_terms import AnyFocus, Focus, as_focuses
from steersearch.search_order import (
    HEARTBEAT_S,
    MOST_BYTES,
    MOST_HITS,
    MOST_SECONDS,
    OPTIONS,
    TOKEN_VARIABLE,
    Order,
    absolute,
    id_of,
    mark_of,
    remarks_kept,
)
from steersearch.server_socket import connected, sockets
from steersearch.views import terminal

SERVER_VARIABLE, OFF = "STEERSEARCH_SERVER", "off"
PATIENCE_S = 3.0  # until a server begins with a search; then it is done here
_SILENCE_S = 10 * HEARTBEAT_S
_MOST_ANSWER = 2**28  # bytes


def query(
    library: Library,
    images: Sequence[Path],
    focus: AnyFocus | None,
    *,
    limits: Limits,
    progress: Callable[[ProgressEvent], None],
    **options: Any,
) -> Hits:
    """`library.query(images, focus, …)`, by a server where that is sooner. Raises what it raises, and ServerError."""
    here = partial(library.query, images, focus, limits=limits, progress=progress, **options)
    focuses = None if focus is None else as_focuses(focus)
    search = _Search(library, options, progress, images=images, focus=focuses, limits=limits)
    return search.run(here)


def find(library: Library, text: str, *, progress: Callable[[ProgressEvent], None], **options: Any) -> Hits:
    """`library.find(text, …)`, likewise."""
    return _Search(library, options, progress, text=text).run(
        partial(library.find, text, progress=progress, **options)
    )


class _NotServedError(Exception):
    """Why a server does not answer this search."""


class _FailedThereError(_NotServedError):
    """Why no server can do this search."""


@dataclass(frozen=True)
class _Search:
    """text: of a find; else images, focus and limits of a query."""

    library: Library
    options: dict[str, Any]
    progress: Callable[[ProgressEvent], None]
    text: str | None = None
    images: Sequence[Path] = ()
    focus: Sequence[Focus] | None = None
    limits: Limits = DEFAULT_LIMITS

    def run(self, here: Callable[[], Hits]) -> Hits:
        """The hits, from a server or from `here`."""
        given = os.environ.get(SERVER_VARIABLE, "")
        if given == OFF or not self._can_be_ordered:
            return here()
        if given:
            return self._by_the_one_named(given, here)
        servers = sockets()
        if not servers:
            return here()
        with remarks_kept() as remarks:
            try:
                with self.library.without_models():
                    return here()
            except ModelNeededError:
                pass
        for socket in servers:
            try:
                return self._ordered(_BySocket(socket), said=remarks)
            except _NotServedError as reason:
                terminal.detail(f"server {socket.stem}: {reason}")
        return here()

    @property
    def _can_be_ordered(self) -> bool:
        options, seconds = self.options, self.options["budget_s"]
        is_long = options["exact"] or (seconds is not None and seconds > MOST_SECONDS)
        return not is_long and options["model"] is None and options["k"] <= MOST_HITS

    def _by_the_one_named(self, address: str, here: Callable[[], Hits]) -> Hits:
        try:
            return self._ordered(_by_address(address), _token(address))
        except _FailedThereError as reason:
            terminal.detail(f"{_without_token(address)}: {reason}")
            return here()
        except _NotServedError as reason:
            raise ServerError(_without_token(address), str(reason)) from reason

    def _ordered(
        self, connection: http.client.HTTPConnection, token: str = "", *, said: Sequence[str] = ()
    ) -> Hits:
        """The server's answer. said: remarks that were made already."""
        body = self._body()
        try:
            with closing(connection):
                path = f"/api/v1/libraries/{id_of(self.library.place)}/orders"
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                connection.connect()
                connection.request("POST", path, body, headers)
                answer = _answer(connection, self.progress)
            hits = hits_of(answer["hits"], self.library, self.images, self.limits)
            remarks: list[str] = answer["remarks"]
        except (OSError, http.client.HTTPException) as error:
            raise _NotServedError(f"it does not answer ({error or type(error).__name__})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise _NotServedError("its answer cannot be read; is it of another version?") from error
        self._check(hits)
        for remark in remarks:
            if remark not in said:
                terminal.remark(remark)
        terminal.detail("a running steersearch serve has searched")
        return hits

    def _body(self) -> bytes:
        """The order and its photos, as they are sent."""
        try:
            photos = [read_regular(image, MOST_BYTES) for image in self.images]
            mark = mark_of(self.library.place)
        except OSError as error:
            raise _FailedThereError(str(error)) from error
        if sum(map(len, photos)) > MOST_BYTES:
            raise _FailedThereError(f"the photos have more than {MOST_BYTES // 2**20} MB")
        options = {name: value for name, value in self.options.items() if name in OPTIONS}
        if options.get("region") is not None:
            options["region"] = str(options["region"])
        order = Order(
            library=mark,
            text=self.text,
            focuses=None if self.focus is None else [(one.text, one.weight) for one in self.focus],
            photos=list(map(len, photos)),
            limits=asdict(self.limits),
            options=options | {"folder": absolute(options["folder"], self.library.folders)},
        )
        return b"".join([order.line(), *photos])

    def _check(self, hits: Hits) -> None:
        """Refuse an answer that would not be the same here."""
        searched = hits.searched
        if not searched.is_kept:
            raise _FailedThereError("what it computed could not be kept")
        if hits.query is not None and not self.options["include_query"]:
            photos = hits.query.photos
            if any(photo.is_at(hit.path) for hit in hits for photo in photos):
                raise _FailedThereError("the query photo was changed since it was indexed")
        with self.library.without_models(), suppress(ModelNeededError):
            if _keys(searched.focuses) != _keys(self._resolved()):
                raise _FailedThereError("its model has other weights")

    def _resolved(self) -> Sequence[Focus]:
        """The focuses with their prompt indexes, as they are here."""
        terms: AnyFocus | None = self.focus if self.text is None else self.text
        if terms is None:
            return ()
        chosen = {name: self.options[name] for name in ("gate_scale", "view")}
        return self.library.resolve(terms, **chosen)


def _keys(focuses: Sequence[Focus]) -> list[str]:
    return [focus.index.key for focus in focuses]


def _answer(
    connection: http.client.HTTPConnection, progress: Callable[[ProgressEvent], None]
) -> dict[str, Any]:
    """What the server says in the end. Raises OSError, HTTPException, ValueError, _NotServedError."""
    asked, opened = time.monotonic(), connection.sock
    response = connection.getresponse()
    if response.status != 200:
        raise _NotServedError(str(json.loads(response.read(_MOST_ANSWER))["detail"]))
    has_begun = False
    while line := response.readline(_MOST_ANSWER):
        said = json.loads(line)
        if "answer" in said:
            answer: dict[str, Any] = said["answer"]
            return answer
        if "refusal" in said:
            raise (_NotServedError if said["is_busy"] else _FailedThereError)(said["refusal"])
        if "began" in said:
            has_begun = True
            opened.settimeout(_SILENCE_S)
        if "progress" in said:
            progress(ProgressEvent(**said["progress"]))
        if not has_begun and time.monotonic() - asked > PATIENCE_S:
            raise _NotServedError("it is busy")
    raise _NotServedError("it stopped")


class _BySocket(http.client.HTTPConnection):
    """To the server that listens at a path."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = connected(self._path, PATIENCE_S)


def _by_address(address: str) -> http.client.HTTPConnection:
    """To the server with this address, which may hold its token. Raises ServerError for an invalid address."""
    kinds: dict[str, type[http.client.HTTPConnection]] = {
        "http": http.client.HTTPConnection,
        "https": http.client.HTTPSConnection,
    }
    try:
        parts = urlsplit(address)
        kind = kinds.get(parts.scheme)
        if kind is None or parts.hostname is None:
            raise ValueError
        return kind(parts.hostname, parts.port, timeout=PATIENCE_S)
    except ValueError:
        raise ServerError(
            _without_token(address), "is not an address such as http://127.0.0.1:8000"
        ) from None


def _token(address: str) -> str:
    (token,) = parse_qs(urlsplit(address).query).get("token", [os.environ.get(TOKEN_VARIABLE, "")])[:1]
    return token


def _without_token(address: str) -> str:
    return address.partition("?")[0]
