"""A thread that writes while the model works."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType

Job = Callable[[], object]


class WriteBehind:
    """Does jobs one after the other, in their order, on a thread of its own; leaving the `with` waits for all.

    One job may wait while another is done; a third waits in `submit`, so that what is not written yet stays bounded.
    What a job raises is raised by the next `submit` or when the `with` is left; later jobs are dropped.
    """

    def __init__(self) -> None:
        self._jobs: queue.Queue[Job | None] = queue.Queue(maxsize=1)
        self._failure: BaseException | None = None
        self._has_failed = False
        self._thread = threading.Thread(target=self._work, name="steersearch-write")

    def __enter__(self) -> WriteBehind:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._jobs.put(None)
        self._thread.join()
        self._raise_failure()

    def submit(self, job: Job) -> None:
        self._raise_failure()
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._has_failed:
                continue
            try:
                job()
            except BaseException as error:
                self._failure, self._has_failed = error, True

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
