"""All that the command line writes: results to stdout, and only results; progress and remarks to stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from steersearch.api import Hit, LibraryInfo
    from steersearch.core.checkpoints import ModelCard
    from steersearch.indexer.build import Counts

SECONDS_BETWEEN_LINES = 15.0  # of progress, where stderr is a file and a bar would be noise


# ------------------------------------------------------------------------------------------------ stderr


def remark(text: str) -> None:
    """One plain line on stderr."""
    print(text, file=sys.stderr, flush=True)


class _PlainLine(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        remark(record.getMessage())


def show_remarks() -> None:
    """Let our own log lines and warnings appear as plain lines on stderr; other packages' chatter stays out."""
    logger = logging.getLogger("steersearch")
    logger.handlers = [_PlainLine()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    warnings.simplefilter("ignore")
    warnings.filterwarnings("always", module=r"steersearch(\.|$)")
    warnings.showwarning = lambda message, *_args, **_kwargs: remark(str(message))


class Progress(Protocol):
    """Called with how many files of how many are done."""

    def __call__(self, done: int, total: int) -> None: ...


@contextmanager
def progress(what: str, unit: str = "images") -> Iterator[Progress]:
    """A bar with speed and time left on stderr; where that is not a terminal, a line now and then."""
    if not sys.stderr.isatty():
        yield _ProgressLines(what, unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, speed="")

        def advance(done: int, total: int) -> None:
            speed = done / max(time.monotonic() - started, 1e-6)
            bar.update(task, completed=done, total=total, speed=f"{speed:,.1f} {unit}/s")

        yield advance


class _ProgressLines:
    def __init__(self, what: str, unit: str) -> None:
        self._what, self._unit = what, unit
        self._started = self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_LINES:
            return
        self._last = now
        speed = done / (now - self._started)
        left = f", about {(total - done) / speed:.0f} s left" if done else ""
        remark(f"{self._what}: {done:,} of {total:,} {self._unit}, {speed:.1f} {self._unit}/s{left}")


# ------------------------------------------------------------------------------------------------ stdout


def line(text: str = "") -> None:
    """One line of a result for people."""
    print(text)


def json_line(data: Mapping[str, Any]) -> None:
    """One JSON object on one line; ASCII, so that any file name survives any locale."""
    print(json.dumps(data))


def path_line(path: Path) -> None:
    """A path as the bytes that the file system has, which a pipe can hand on whatever they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(path) + b"\n")


def readable(path: Path | str) -> str:
    """A path for people: relative to the current folder if below it, control characters and odd bytes escaped."""
    path = Path(path)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return "".join(c if _is_printable(c) else c.encode("unicode_escape", "backslashreplace").decode() for c in str(path))


def _is_printable(character: str) -> bool:
    return not unicodedata.category(character).startswith("C")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> None:
    """Columns aligned by spaces; `right` names the columns whose numbers stand to the right, by first letter."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        cells = (
            cell.rjust(width) if name in right.split() else cell.ljust(width)
            for name, cell, width in zip(header, row, widths, strict=True)
        )
        line("  ".join(cells).rstrip())


def hits_table(hits: Sequence[Hit]) -> None:
    rows = [(str(hit.rank), f"{hit.score:.4f}", readable(hit.path)) for hit in hits]
    table(("rank", "score", "photo"), rows, right="rank score")
