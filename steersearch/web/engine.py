"""One search or forward pass at a time, and a bounded queue before it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from steersearch.web.problem import BusyError

WAITING = 16  # searches; one more is refused
RETRY_S = 2


class Engine:
    """Hands out turns: a model uses all cores, so two at once only make both late."""

    def __init__(self, waiting: int = WAITING) -> None:
        self._places = threading.BoundedSemaphore(waiting + 1)
        self._turn = threading.Lock()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn and hold it. Raises BusyError if too many wait already."""
        if not self._places.acquire(blocking=False):
            raise BusyError(RETRY_S)
        try:
            with self._turn:
                yield
        finally:
            self._places.release()
