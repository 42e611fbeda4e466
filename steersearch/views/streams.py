"""Safe standard streams, even if closed, full, without a reader, or a terminal that obeys escape sequences."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, TextIO

_JOINERS = "\u200c\u200d"  # used between letters and in emoji: invisible, but harmless
_LINE_BREAKS = frozenset("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")


def escaped(text: str, keep: str = "") -> str:
    """Escape characters that control a terminal or reorder text, except for those in `keep`.

    These, and bytes of a file name that are not UTF-8, become \\x1b, \\u202e, \\udcff.
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or _is_harmless(c) else _number(c) for c in text)


def on_one_line(text: str) -> str:
    """Escape only line breaks."""
    return "".join(_number(c) if c in _LINE_BREAKS else c for c in text)


def _is_harmless(character: str) -> bool:
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def _number(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode()


class _File(io.FileIO):
    """A standard stream that never fails: unwritable output is dropped, and `loss` says why.

    A reader that stops early, such as `head`, is no loss.
    """

    loss: str | None = None
    _is_over = False

    def write(self, data: Any) -> int:
        while not self._is_over:
            try:
                written: int | None = super().write(data)
            except OSError as error:
                self._is_over = True
                if error.errno == errno.EBADF:
                    self.loss = "it is closed"
                elif not isinstance(error, BrokenPipeError):
                    self.loss = error.strerror or str(error)
            else:
                if written is not None:
                    return written
                select.select([], [self], [])  # it does not block, and its reader is behind
        return len(data)


class _TerminalText(io.TextIOWrapper):
    """Text for a terminal, with control characters escaped."""

    def write(self, text: str) -> int:
        return super().write(escaped(text, keep="\n\t"))


@contextmanager
def safe_streams() -> Iterator[_File]:
    """Standard streams that are open, and to which writing never fails. Yields the file behind standard output."""
    _open_closed_ones()
    given = sys.stdin, sys.stdout, sys.stderr
    if given[0] is None:
        sys.stdin = os.fdopen(0, closefd=False)
    out, sys.stdout = _safe(given[1], 1)
    _, sys.stderr = _safe(given[2], 2)
    try:
        yield out
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdin, sys.stdout, sys.stderr = given


def _open_closed_ones() -> None:
    """Open closed streams on os.devnull, standard output read-only, so that writing fails. Otherwise the next file
    opened would get their number, and receive what a library prints."""
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # gets the lowest free number, which is this one


def _safe(stream: TextIO | None, number: int) -> tuple[_File, TextIO]:
    if stream is not None:
        with suppress(OSError):
            stream.flush()
        number = stream.fileno()
    file = _File(number, "wb", closefd=False)
    is_terminal = file.isatty()
    return file, (_TerminalText if is_terminal else io.TextIOWrapper)(
        io.BufferedWriter(file),
        encoding=getattr(stream, "encoding", "utf-8"),
        errors="backslashreplace",  # no letter makes printing fail
        line_buffering=is_terminal or number == 2,
    )


def drawn_on(stream: TextIO) -> IO[str]:
    """A standard stream for output that controls its terminal, such as a progress bar. Close it afterwards."""
    return open(stream.fileno(), "w", closefd=False, encoding=stream.encoding, errors="backslashreplace")
