"""Ctrl-C and SIGTERM while training: finish the current step and save it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """A context in which the first SIGINT or SIGTERM only sets `asked`; the next one raises KeyboardInterrupt.

    The loop reads `asked` in each step.  say: called once, with a line for the user
    Only the main thread can catch signals: in another one nothing changes, and `asked` stays False.
    Forked processes, such as data workers, still end on SIGTERM. They ignore SIGINT, which a terminal sends to all.
    """

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self._say = say
        self._noted: str | None = None
        self._announced = False
        self._process = 0
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether the run should stop."""
        if self._noted is not None and not self._announced:
            self._announce()
        return self._noted is not None

    def __enter__(self) -> Self:
        self._noted, self._announced, self._process = None, False, os.getpid()
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # None: a handler not set from Python, which cannot be restored from here
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            self._receive_in_child(number)
        elif self._noted is not None:
            raise KeyboardInterrupt
        else:
            self._noted = signal.Signals(number).name
            try:
                self._announce()
            except RuntimeError:  # amid a write to the same stream; `asked` says it later
                self._announced = False

    def _receive_in_child(self, number: int) -> None:
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _announce(self) -> None:
        self._announced = True
        if self._say is not None:
            self._say(f"{self._noted}: stopping after this step and saving; repeat to stop at once")
