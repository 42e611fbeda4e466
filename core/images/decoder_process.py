"""Decode in separate processes the files whose decoders may take long, use too much memory or crash.

A process is started for the first such file and reused; each thread has its own. The system limits their processor time
and memory. They answer in JSON and pixels, so that a file that takes over its decoder can run nothing here.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from PIL import Image, PngImagePlugin

from steersearch.core.errors import ImageError, ImageRefusedError
from steersearch.core.images.dates import CaptureDate
from steersearch.core.images.decoding import Reserve
from steersearch.core.images.limits import Limits, in_units
from steersearch.core.images.picture import Picture

_IN_MEMORY = 64 * 2**20  # bytes; of a larger file the descriptor is passed
_MOST_TEXT = 64 * 2**20  # bytes, unpacked, of a PNG's text or profile; printers' profiles are large
_STRIP = 2**24  # bytes of a picture sent at a time
_PATIENCE = 10  # wall-clock seconds for each allowed second of processor time
_CRASHES = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL")
_START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.path[:] = {path!r}; "
    "from steersearch.core.images import decoder_process; decoder_process.serve({descriptor})"
)

R = TypeVar("R")
# ("needs", bytes), ("picture", its fields), ("done", result), ("refused" or "damaged", reason)
Answer = tuple[str, Any]


@dataclass(frozen=True)
class _Request:
    """A request to a process, followed by the file's content or, if large, its descriptor."""

    task: Callable[..., Any]
    path: Path
    limits: Limits
    options: dict[str, Any]
    is_large: bool


def run_apart(
    task: Callable[..., R], path: Path, file: BinaryIO, limits: Limits, reserve: Reserve, **options: Any
) -> R:
    """Run `decoding.decode` or `decode_date` in a process, which is killed if it exceeds the limits."""
    size = file.seek(0, io.SEEK_END)
    request = _Request(task, path, limits, options, is_large=size > _IN_MEMORY)
    with _process(path) as process:
        answer: R = process.ask(request, file, reserve)
        return answer


# ------------------------------------------------------------------------------------------- where it is asked for


class Decoder:
    """A process that decodes one file at a time. is_in_order: whether it is ready for the next."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            code = _START.format(path=[entry for entry in sys.path if entry], descriptor=theirs.fileno())
            nothing = subprocess.DEVNULL
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", code],
                pass_fds=[theirs.fileno()], stdin=nothing, stdout=nothing, stderr=nothing,
            )  # fmt: skip
            self._connection = Connection(ours.detach())
        self.is_in_order = True

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: _Request, file: BinaryIO, reserve: Reserve) -> Any:
        file.seek(0)
        content = b"" if request.is_large else file.read()
        self.is_in_order = False
        try:
            with ExitStack() as held:
                self._connection.send(request)
                if request.is_large:
                    send_handle(self._connection, file.fileno(), self._process.pid)
                else:
                    self._connection.send_bytes(content)
                kind, answer = self._receive(request.limits)
                if kind == "needs":
                    held.enter_context(reserve(answer))
                    self._connection.send("begin")
                    kind, answer = self._receive(request.limits)
                if kind == "picture":
                    answer = self._picture(answer)
        except (EOFError, OSError, ValueError, TypeError):  # it has ended, or its answer is invalid
            raise self._failure(request.path, request.limits) from None
        self.is_in_order = True
        if kind in ("refused", "damaged"):
            raise (ImageRefusedError if kind == "refused" else ImageError)(request.path, answer)
        return answer

    def _receive(self, limits: Limits) -> Answer:
        if not self._connection.poll(_PATIENCE * limits.seconds):
            self._process.send_signal(signal.SIGPROF)
        kind, answer = json.loads(self._connection.recv_bytes(), object_hook=_from_plain)
        return kind, answer

    def _picture(self, fields: dict[str, Any]) -> Picture:
        image, top = Image.new("RGB", fields["image"]), 0
        while top < image.height:
            pixels = self._connection.recv_bytes()
            strip = Image.frombytes("RGB", (image.width, len(pixels) // (3 * image.width)), pixels)
            image.paste(strip, (0, top))
            top += strip.height
        width, height = fields["size"]
        return Picture(**fields | {"image": image, "size": (width, height), "box": tuple(fields["box"])})

    def _failure(self, path: Path, limits: Limits) -> ImageError:
        """The reason why the process ended."""
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        if name == "SIGPROF":
            reason = f"decoding it takes more than {limits.seconds:g} s of processor time"
            return ImageRefusedError(path, f"{reason}; --limit seconds={3 * limits.seconds:g} allows more")
        if name in _CRASHES:
            return ImageError(path, f"damaged: its decoder crashed ({name})")
        return ImageRefusedError(path, f"the process that decoded it was ended ({name})")

    def end(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()


_idle: list[Decoder] = []
_guard = threading.Lock()


def idle() -> tuple[Decoder, ...]:
    """The idle processes."""
    return tuple(_idle)


@contextmanager
def _process(path: Path) -> Iterator[Decoder]:
    """A process for one file, kept for the next unless it failed."""
    with _guard:
        process = _idle.pop() if _idle else None
    try:
        process = process or Decoder()
    except OSError as error:
        raise ImageRefusedError(path, f"no process could be started to decode it ({error})") from error
    try:
        yield process
    finally:
        if process.is_in_order:
            with _guard:
                _idle.append(process)
        else:
            process.end()


@atexit.register
def _end_all() -> None:
    while _idle:
        _idle.pop().end()


def _forget_all() -> None:
    """In a forked process: the decoders belong to the parent."""
    global _guard
    _guard = threading.Lock()
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


# --------------------------------------------------------------------------------------------- where it is done


def serve(descriptor: int) -> None:
    """Answer requests on the socket `descriptor` until its other end is closed."""
    Image.MAX_IMAGE_PIXELS = None  # in this process our own limits hold
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = _MOST_TEXT
    connection = Connection(descriptor)
    while True:
        try:
            request: _Request = connection.recv()
        except EOFError:
            return
        with (
            open(recv_handle(connection), "rb")
            if request.is_large
            else io.BytesIO(connection.recv_bytes()) as file
        ):
            file.seek(0)  # a passed descriptor keeps its position
            _answer(connection, request, file)


def _answer(connection: Connection, request: _Request, file: BinaryIO) -> None:
    def send(kind: str, answer: object) -> None:
        connection.send_bytes(json.dumps([kind, answer], default=_as_plain).encode())

    is_large = False

    @contextmanager
    def reserve(needed: int) -> Iterator[None]:
        nonlocal is_large
        is_large = needed > request.limits.memory / 2
        send("needs", needed)
        connection.recv()
        yield

    try:
        with _bounded(request.limits):
            result = request.task(request.path, file, request.limits, reserve, **request.options)
    except ImageRefusedError as error:
        send("refused", error.reason)
        return
    except ImageError as error:  # some decoders report lack of memory as damage
        most = f", or it takes more than {in_units(request.limits.memory)} of memory" if is_large else ""
        send("refused" if is_large else "damaged", error.reason + most)
        return
    if not isinstance(result, Picture):
        send("done", result)
        return
    image = result.image
    send("picture", vars(result) | {"image": image.size})
    rows = max(1, _STRIP // (3 * image.width))
    for top in range(0, image.height, rows):
        part = image.crop((0, top, image.width, min(top + rows, image.height)))
        connection.send_bytes(part.tobytes())


def _as_plain(value: object) -> dict[str, str]:
    """Encode what JSON has no type for."""
    if isinstance(value, CaptureDate):
        return {**vars(value), "moment": value.moment.isoformat()}
    raise TypeError(value)


def _from_plain(value: dict[str, Any]) -> dict[str, Any] | CaptureDate:
    if "moment" not in value:
        return value
    return CaptureDate(**{**value, "moment": datetime.fromisoformat(value["moment"])})


@contextmanager
def _bounded(limits: Limits) -> Iterator[None]:
    """The system kills this process beyond these limits of processor time and memory."""
    import resource

    status = Path("/proc/self/status")
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if status.exists():
        now = next(line for line in status.read_text().splitlines() if line.startswith("VmData:"))
        most = int(now.split()[1]) * 1024 + int(limits.memory)
        resource.setrlimit(
            resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
        )
    signal.setitimer(signal.ITIMER_PROF, limits.seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
