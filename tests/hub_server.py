"""A stand-in for the model hub on this machine, with faults to switch on. It speaks what huggingface_hub speaks.

Two servers, as in reality: the hub, which answers /{repo}/resolve/{revision}/{file} with a file's identity, and the
store, another host, to which it redirects for large files. Small files the hub serves itself, behind a redirect to
/api/resolve-cache. Everything that was asked is kept in `requests`.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from steersearch.core.registry import HubFile, ModelCard

COMMIT = "a" * 40
LARGE = 1000  # bytes; what is at least as large lies in the store, as a file under git LFS


def hub_files(card: ModelCard) -> tuple[HubFile, ...]:
    """All files of the hub that a model is known to need: weights, backbone, text encoder."""
    weights = (card.weights,) if isinstance(card.weights, HubFile) else ()
    trunk = () if card.trunk is None else (card.trunk.weights,)
    return weights + trunk + card.text_encoder.files


@dataclass(frozen=True)
class Request:
    """One request: to the "hub" or the "store", its method, path, and the headers that matter."""

    server: str
    method: str
    path: str
    range: str | None
    token: str | None


@dataclass
class Faults:
    """What goes wrong, until it is set back. `cut_after`: the connection ends after so many bytes of a body."""

    cut_after: int | None = None
    cuts_left: int = 1_000_000  # how many more bodies are cut
    wrong_bytes: bool = False
    other_file: bool = False  # the hub itself names another hash
    gated: set[str] = field(default_factory=set)  # repositories
    hub_status: int | None = None
    store_status: int | None = None
    seconds_per_body: float = 0.0
    ignore_range: bool = False
    half_way: Callable[[], None] | None = None  # called once, in the middle of a large body
    headers: dict[str, str] = field(default_factory=dict)  # in the place of the hub's own
    more: int = 0  # bytes beyond those that were announced


class HubServer:
    """`add` files, then fetch them from `endpoint`; `faults` may be changed at any time."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], bytes] = {}
        self.requests: list[Request] = []
        self.faults = Faults()
        self._servers = {name: _Server(name, self) for name in ("hub", "store")}
        self._threads = [
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
            for server in self._servers.values()
        ]
        for thread in self._threads:
            thread.start()

    @property
    def endpoint(self) -> str:
        return self._servers["hub"].url

    @property
    def store(self) -> str:
        return self._servers["store"].url

    def add(
        self, repo: str, file: str, data: bytes, *, pinned: bool = True, revision: str = "main"
    ) -> HubFile:
        """Serve `data`; returns the file as a registry would describe it, `pinned` with its size and hash."""
        self.files[repo, file] = data
        sha256 = hashlib.sha256(data).hexdigest() if pinned else None
        return HubFile(
            repo=repo, file=file, revision=revision, size=len(data) if pinned else None, sha256=sha256
        )

    def add_folder(self, repo: str, folder: Path, below: str = "") -> None:
        for path in sorted(folder.iterdir()):
            if path.is_file():
                self.add(repo, below + path.name, path.read_bytes())

    def asked(self, server: str, method: str) -> list[Request]:
        return [r for r in self.requests if (r.server, r.method) == (server, method)]

    def close(self) -> None:
        for server in self._servers.values():
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()


@contextmanager
def hub_stand_in(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[HubServer]:
    """A `HubServer` that huggingface_hub takes for the hub in this process, with `cache` for its cache."""
    from huggingface_hub import constants, file_download, utils

    # The latter before 1.0.
    forget_connections = getattr(utils, "close_session", None) or utils.reset_sessions
    server = HubServer()
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    for module in (constants, file_download):  # the latter before 1.0
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache.parent / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    forget_connections()
    try:
        yield server
    finally:
        server.close()
        forget_connections()


def environment(server: HubServer, cache: Path) -> dict[str, str]:
    """The variables that make `server` the hub of another process, with `cache` for its cache."""
    return {
        "HF_ENDPOINT": server.endpoint,
        "HF_HUB_CACHE": str(cache),
        "HF_TOKEN_PATH": str(cache.parent / "no-token"),
        "no_proxy": "127.0.0.1",
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, name: str, hub: HubServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name, self.hub = name, hub

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients of these tests go away in the middle; that is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, path = self.server.hub, unquote(self.path)
        noted = Request(
            self.server.name,
            self.command,
            path,
            self.headers.get("Range"),
            self.headers.get("Authorization"),
        )
        hub.requests.append(noted)
        if self.server.name == "store":
            return self._store(path)
        if path == "/":
            return self._send(200, {}, b"hello")
        if found := re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(found[1], found[2], found[3])
        if found := re.fullmatch(r"/api/resolve-cache/models/(.+?)/([0-9a-f]{40})/(.+)", path):
            return self._small(found[1], found[3])
        if found := re.fullmatch(r"/api/((?:datasets|models)/.+?)/(revision|tree)/[^/?]+(\?.*)?", path):
            return self._listing(found[1].removeprefix("models/"), found[2])
        return self._error(404, "", "no such route")

    # ------------------------------------------------------------------------------------------ the hub

    def _resolve(self, repo: str, revision: str, file: str) -> None:
        hub = self.server.hub
        if hub.faults.hub_status is not None:
            return self._error(hub.faults.hub_status, "", "trouble")
        if not any(known == repo for known, _ in hub.files):
            return self._error(401, "RepoNotFound", "Repository not found")
        if repo in hub.faults.gated:
            status = 401 if self.headers.get("Authorization") is None else 403
            return self._error(status, "GatedRepo", f"Access to model {repo} is restricted.")
        if revision not in ("main", COMMIT):
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if (repo, file) not in hub.files:
            return self._error(404, "EntryNotFound", "Entry not found")
        data = hub.files[repo, file]
        if len(data) < LARGE:
            location = f"/api/resolve-cache/models/{repo}/{COMMIT}/{file}"
            return self._send(307, {"Location": location, "X-Repo-Commit": COMMIT}, b"")
        digest = hashlib.sha256(data + b"!" * hub.faults.other_file).hexdigest()
        headers = {
            "Location": f"{hub.store}/{repo}/{file}?signature=good-for-an-hour",
            "X-Repo-Commit": COMMIT,
            "X-Linked-Size": str(len(data)),
            "X-Linked-Etag": f'"{digest}"',
            "Accept-Ranges": "bytes",
        }
        return self._send(302, headers | hub.faults.headers, b"Found. Redirecting")

    def _small(self, repo: str, file: str) -> None:
        data = self.server.hub.files[repo, file]
        etag = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        self._body(data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT} | self.server.hub.faults.headers)

    def _listing(self, repo: str, kind: str) -> None:
        """The files of a data set or a model, as lists and snapshots ask for them."""
        files = {file: data for (known, file), data in self.server.hub.files.items() if known == repo}
        if kind == "revision":
            listed = [{"rfilename": file} for file in files]
            answer: Any = {"id": repo.removeprefix("datasets/"), "sha": COMMIT, "siblings": listed}
        else:
            answer = [
                {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for file, data in files.items()
            ]
        headers = {"Content-Type": "application/json", "X-Repo-Commit": COMMIT}
        self._send(200, headers, json.dumps(answer).encode())

    def _error(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Code": code} if code else {}
        headers |= {"X-Error-Message": message} | self.server.hub.faults.headers
        self._send(status, headers, message.encode())

    # ---------------------------------------------------------------------------------------- the store

    def _store(self, path: str) -> None:
        hub = self.server.hub
        if hub.faults.store_status is not None:
            return self._send(hub.faults.store_status, {}, b"trouble")
        wanted = path.partition("?")[0].lstrip("/")
        data = next(data for (repo, file), data in hub.files.items() if f"{repo}/{file}" == wanted)
        return self._body(data, {})

    def _body(self, data: bytes, headers: dict[str, str]) -> None:
        """`data`, or the part that the request's Range asks for; faults apply here."""
        faults = self.server.hub.faults
        if faults.wrong_bytes:
            data = data[:-1] + bytes([data[-1] ^ 1])
        status, start = 200, 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked and not faults.ignore_range:
            status, start = 206, int(asked[1])
            headers = headers | {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        self._send(status, headers | {"Accept-Ranges": "bytes"}, data[start:])

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        faults = self.server.hub.faults
        self.send_response(status)
        if faults.more and self.command == "GET":
            body, self.close_connection = body + bytes(faults.more), True  # its end is that of the connection
        else:
            headers = {"Content-Length": str(len(body))} | headers
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if status in (200, 206):
            time.sleep(faults.seconds_per_body)
            if faults.cut_after is not None and faults.cuts_left > 0:
                faults.cuts_left -= 1
                self.wfile.write(body[: faults.cut_after])
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            if faults.half_way is not None and len(body) > LARGE:
                interrupt, faults.half_way = faults.half_way, None
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                interrupt()
                body = body[len(body) // 2 :]
        self.wfile.write(body)
