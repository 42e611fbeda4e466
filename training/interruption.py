"""Ctrl-C and SIGTERM while training: end after the step that is under way, so that it can be saved."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """While this context is entered, the first SIGINT or SIGTERM is only noted; the next raises KeyboardInterrupt.

    The loop asks `asked` in each step.
    say: is told what will be done, once, in the words for a user.
    Only the main thread can catch signals: in another one nothing is changed, and `asked` is always False.
    Processes forked meanwhile, such as workers that load data, end on SIGTERM as ever and leave SIGINT, which a
    terminal sends to all, to this process.
    """

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self._say = say
        self._noted: str | None = None
        self._told = False
        self._process = 0
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether the run is to stop."""
        if self._noted is not None and not self._told:
            self._tell()
        return self._noted is not None

    def __enter__(self) -> Self:
        self._noted, self._told, self._process = None, False, os.getpid()
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # None stands for a handler that was not set from Python, which cannot be set from here either
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
                self._tell()
            except (
                RuntimeError
            ):  # it came in the midst of a write to the same stream: said when `asked` is read
                self._told = False

    def _receive_in_child(self, number: int) -> None:
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _tell(self) -> None:
        self._told = True
        if self._say is not None:
            self._say(f"{self._noted}: stopping after this step, and saving; once more to stop at once")
