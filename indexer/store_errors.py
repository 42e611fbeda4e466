"""Failures of the disk and of LanceDB: the one place where they become errors with words for the user."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steersearch.core.errors import (
    LibraryDamagedError,
    LibraryPlaceError,
    LibraryUnreadableError,
    SteerSearchError,
)

# How LanceDB names what the system refused it, whatever type of exception it chooses.
_OF_THE_SYSTEM = re.compile(
    r"os error \d|Os \{ code|Not found|No space left|storage full|NotFound", re.IGNORECASE
)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Around calls that read what a library keeps at `path`, a table or a file.

    What may be gone the next time (a permission, too few file handles or threads, a file that is away) becomes a
    LibraryUnreadableError, what no second reading changes a LibraryDamagedError. FileNotFoundError is let through.
    """
    with _caught() as caught:
        yield
    for error in caught:
        if isinstance(error, FileNotFoundError):
            raise error
        kind = LibraryUnreadableError if may_pass(error) else LibraryDamagedError
        raise kind(path, plain(error)) from error


@contextmanager
def writing_to(place: Path) -> Iterator[None]:
    """Around calls that write to the library at `place`: a full disk and its like become a LibraryPlaceError, tables
    that are damaged a LibraryDamagedError."""
    with _caught() as caught:
        yield
    for error in caught:
        if not may_pass(error):
            raise LibraryDamagedError(place, plain(error)) from error
        reason = f"cannot be written ({plain(error)}); what was indexed before is kept"
        raise LibraryPlaceError(place, reason) from error


def may_pass(error: BaseException) -> bool:
    """Whether something may succeed another time, with nothing mended: it was the system that refused it, as far as is
    known. An installation that lacks a part of a library says nothing of the file either."""
    by_system = (
        isinstance(error, OSError | MemoryError | ImportError)
        or _OF_THE_SYSTEM.search(str(error)) is not None
    )
    return by_system or is_panic(error)


def is_panic(error: BaseException) -> bool:
    """Whether LanceDB's own code gave up, which does not say why: on what it read, or for want of a thread."""
    return "panicked" in str(error)


def plain(error: BaseException) -> str:
    """What an error says, without the places in LanceDB's sources."""
    said = getattr(error, "strerror", None) or str(error).split(", /")[0] or type(error).__name__
    return str(said).splitlines()[0]


@contextmanager
def _caught() -> Iterator[list[BaseException]]:
    """Collects what the block raises, LanceDB's panics among it, but for errors of ours and interruptions."""
    caught: list[BaseException] = []
    try:
        yield caught
    except SteerSearchError:
        raise
    except Exception as error:  # LanceDB raises nearly anything
        caught.append(error)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of Rust, which no module exports
            raise
        caught.append(error)
