"""Stream large JSON files element by element, with offsets, so that an element can be read again alone.

Annotation files reach several gigabytes, and `json.load` needs five to ten times that in memory. Here a file passes
through a window of a few megabytes; importers keep what they need in arrays, and the offset for the rest.

Why not ijson? Version 3.6 (yajl) takes 4 GB for 100 kB of "[", loses the whole file to one byte that is not UTF-8, a
NaN or a number beyond 64 bits, and turns lone surrogates into "?". It is slower (1.8 s of processor time for 62 MB,
against 1.0 s) and gives no offsets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from steersearch.core.errors import DataError
from steersearch.core.files import open_regular, parse_json

_WINDOW = 4 * 2**20  # bytes read at a time
_LARGEST = 256 * 2**20  # bytes of one element, which limits how far an invalid file is read
_BLANK = " \t\n\r"
_decoder = json.JSONDecoder()


class Element(NamedTuple):
    """One value of a JSON file. section: its key in the outermost object;  offset, length: in the file, in bytes."""

    section: str
    value: Any
    offset: int
    length: int


def elements(path: Path) -> Iterator[Element]:
    """The file's elements in order: the members of each array in the outermost object, other values whole.

    If the outermost value is an array, its members, with section "". Invalid UTF-8 becomes lone surrogates. Raises
    DataError for a file that is missing, truncated or not JSON.
    """
    try:
        with open_regular(path) as file:
            yield from _Reader(path, file).elements()
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error


def read_element(path: Path, offset: int, length: int) -> Any:
    """Read the element at this place again. Raises OSError, and ValueError if the file has changed."""
    with open_regular(path) as file:
        file.seek(offset)
        return parse_json(file.read(length).decode("utf-8", "surrogateescape"))


class _Reader:
    """A window on the file, decoded as Latin-1: JSON is ASCII outside of strings, so that its structure is visible and
    positions are bytes."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._text, self._at, self._start = "", 0, 0  # the window, the next letter, the window's place
        self._ended = False

    def elements(self) -> Iterator[Element]:
        if self._peek() == "\xef":  # a byte order mark in UTF-8
            self._at += 3
        if self._peek() == "[":
            yield from self._members("")
        else:
            yield from self._sections()
        if self._peek():
            raise self._wrong("there is more after the end")

    def _sections(self) -> Iterator[Element]:
        self._expect("{")
        while self._peek() != "}":
            section = self._value("").value
            if not isinstance(section, str):
                raise self._wrong("a key was expected")
            self._expect(":")
            if self._peek() == "[":
                yield from self._members(section)
            else:
                yield self._value(section)
            self._comma("}")
        self._at += 1

    def _members(self, section: str) -> Iterator[Element]:
        self._expect("[")
        while self._peek() != "]":
            yield self._value(section)
            self._comma("]")
        self._at += 1

    def _value(self, section: str) -> Element:
        self._peek()
        while True:
            try:
                value, end = _decoder.raw_decode(self._text, self._at)
                if self._ended or end <= len(self._text) - 3:  # else a number may go on: 1 is 1.5 or 1e+5
                    break
            except RecursionError:
                raise self._wrong("it is nested too deeply") from None
            except json.JSONDecodeError as error:
                if self._ended:
                    raise self._wrong(f"{error.msg}; the file may be truncated") from None
                if len(self._text) - self._at > _LARGEST:
                    raise self._wrong(error.msg) from None
            self._read(max(_WINDOW, len(self._text) - self._at))
        text, offset = self._text[self._at : end], self._start + self._at
        if not text.isascii():
            try:
                value = parse_json(text.encode("latin-1").decode("utf-8", "surrogateescape"))
            except ValueError as error:
                raise self._wrong(str(error)) from None
        self._at = end
        return Element(section, value, offset, len(text))

    def _comma(self, closing: str) -> None:
        if self._peek() == ",":
            self._at += 1
            if self._peek() != closing:
                return
        elif self._peek() == closing:
            return
        raise self._wrong(f"a comma or {closing} was expected")

    def _expect(self, letter: str) -> None:
        if self._peek() != letter:
            raise self._wrong(f"{letter} was expected")
        self._at += 1

    def _peek(self) -> str:
        """Skip white space and return the next character; "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANK:
                self._at += 1
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._read(_WINDOW)

    def _read(self, size: int) -> None:
        """Drop what was consumed, and add `size` bytes."""
        more = self._file.read(size)
        self._ended = not more
        self._start += self._at
        self._text = self._text[self._at :] + more.decode("latin-1")
        self._at = 0

    def _wrong(self, reason: str) -> DataError:
        if self._ended and self._at >= len(self._text):
            reason = "the file ends too early; it may be truncated"
        return DataError(self._path, f"not JSON at byte {self._start + self._at:,} ({reason})")
