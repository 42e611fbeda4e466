"""One search or forward pass at a time, and a bounded queue before it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from steersearch.web.problem import BusyError

R = TypeVar("R")
WAITING = 16  # searches; one more is refused
RETRY_S = 2


class Engine:
    """Runs work that needs a model in one thread: a model uses all cores, so two at once would only delay each other,
    and each thread that has run one keeps its own buffers."""

    def __init__(self, waiting: int = WAITING) -> None:
        self._places = threading.BoundedSemaphore(waiting + 1)
        self._worker = ThreadPoolExecutor(1, "engine")

    def run(self, work: Callable[[], R]) -> R:
        """What `work` returns or raises. Raises BusyError if too many wait already."""
        if not self._places.acquire(blocking=False):
            raise BusyError(RETRY_S)
        try:
            return self._worker.submit(work).result()
        finally:
            self._places.release()

    def close(self) -> None:
        """Finish the running work, and drop the waiting."""
        self._worker.shutdown(wait=True, cancel_futures=True)
