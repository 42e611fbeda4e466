"""Memory that glibc's malloc keeps when it is freed. Other C libraries are left alone."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_MMAP_THRESHOLD = -3  # a parameter of mallopt


def trim() -> None:
    """Return what is free to the system. Else the process grows with each commit by what LanceDB's threads have freed,
    each in an arena of its own."""
    if (malloc_trim := _glibc("malloc_trim")) is not None:
        malloc_trim(0)


@contextmanager
def freed_at_once() -> Iterator[None]:
    """Meanwhile blocks of 1 MB and more are returned when they are freed, and at the end all that is free."""
    mallopt = _glibc("mallopt")
    if mallopt is None:
        yield
        return
    mallopt(_MMAP_THRESHOLD, 2**20)
    try:
        yield
    finally:
        mallopt(_MMAP_THRESHOLD, 2**25)  # which it becomes by itself in a process that frees large blocks
        trim()


def _glibc(name: str) -> Any:
    """One of its functions; None: another C library."""
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
