"""Limits for reading one photo: bytes of its file, bytes of memory, seconds of processor time."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

from steersearch.core.errors import ArgumentError

_UNITS = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "ms": 1e-3, "s": 1, "m": 60}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """A photo beyond these limits is refused; with higher limits it is tried again.

    file: bytes of its file.  memory: bytes for decoding, the decoder included.
    seconds: of processor time for decoding.
    """

    file: float = 2e9
    memory: float = 1e9
    seconds: float = 20.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < math.inf:
                raise ArgumentError(name, value, "must be a number above 0")


DEFAULT_LIMITS = Limits()


class Budget:
    """Memory in bytes that threads share: each waits until enough is free; a lone one may take more."""

    def __init__(self, size: float) -> None:
        self._size, self._taken, self._changed = size, 0, threading.Condition()

    @contextmanager
    def reserved(self, needed: int) -> Iterator[None]:
        """Hold `needed` bytes."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + needed <= self._size)
            self._taken += needed
        try:
            yield
        finally:
            with self._changed:
                self._taken -= needed
                self._changed.notify_all()


def parse_limits(texts: Iterable[str]) -> Limits:
    """The default limits, changed by texts such as "memory=4GB" or "seconds=60". Raises ArgumentError."""
    limits = DEFAULT_LIMITS
    for text in texts:
        name, _, value = text.partition("=")
        found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([a-z]*)", value.strip().lower())
        units = ("", "ms", "s", "m") if name == "seconds" else ("", "b", "kb", "mb", "gb", "tb")
        if name not in {field.name for field in fields(Limits)} or found is None or found[2] not in units:
            raise ArgumentError("limit", text, "write it like file=4GB, memory=2GB or seconds=60")
        limits = replace(limits, **{name: float(found[1]) * _UNITS[found[2]]})
    return limits


def in_units(number: float) -> str:
    """A number of bytes as text: 1.4 GB."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:g} bytes"
