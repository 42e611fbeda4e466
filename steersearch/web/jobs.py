"""Indexing in the background, one job after the other."""

from __future__ import annotations

import queue
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from steersearch.api import Library
from steersearch.core.errors import in_words
from steersearch.indexer.build import Counts
from steersearch.indexer.progress import ProgressEvent
from steersearch.web.problem import BusyError, UnknownIdError

WAITING = 8
REMEMBERED = 50
RETRY_S = 30


class State(Enum):
    waiting = "waiting"
    running = "running"
    done = "done"
    failed = "failed"
    cancelled = "cancelled"


class _Cancelled(Exception):
    pass


@dataclass
class Job:
    """Indexes a library under prompts; without any, brings all of its prompts up to date.

    counts: of a job that is done.  error: of one that failed.
    """

    id: str
    library: str
    prompts: tuple[str, ...]
    state: State = State.waiting
    progress: ProgressEvent | None = None
    counts: Counts | None = None
    error: str | None = None
    is_cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def is_over(self) -> bool:
        return self.state in (State.done, State.failed, State.cancelled)


class Jobs:
    """Runs jobs in a thread of its own. open_library: a library of its own for a job, by id."""

    def __init__(self, open_library: Callable[[str], Library]) -> None:
        self._open = open_library
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._queue: queue.Queue[Job | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._thread.start()

    def add(self, library: str, prompts: Sequence[str]) -> Job:
        """A new job at the end of the queue. Raises BusyError."""
        job = Job(secrets.token_hex(8), library, tuple(prompts))
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            raise BusyError(RETRY_S) from None
        self._jobs[job.id] = job
        while len(self._jobs) > REMEMBERED and next(iter(self._jobs.values())).is_over:
            self._jobs.popitem(last=False)
        return job

    def all(self) -> list[Job]:
        """The newest first."""
        return list(reversed(self._jobs.values()))

    def job(self, id: str) -> Job:
        """Raises UnknownIdError."""
        if id not in self._jobs:
            raise UnknownIdError("job", id)
        return self._jobs[id]

    def cancel(self, id: str) -> Job:
        """Stop a job as soon as its batch is finished; what was computed is kept."""
        job = self.job(id)
        job.is_cancelled.set()
        if job.state is State.waiting:
            job.state = State.cancelled
        return job

    def close(self, seconds: float = 30.0) -> None:
        """Cancel all, and wait until the running one has written what it computed."""
        for job in self._jobs.values():
            job.is_cancelled.set()
        self._queue.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            if not job.is_cancelled.is_set():
                self._index(job)
            elif not job.is_over:
                job.state = State.cancelled

    def _index(self, job: Job) -> None:
        def advance(event: ProgressEvent) -> None:
            job.progress = event
            if job.is_cancelled.is_set():
                raise _Cancelled

        job.state = State.running
        try:
            job.counts = self._open(job.library).index(job.prompts or None, progress=advance)
            job.state = State.done
        except _Cancelled:
            job.state = State.cancelled
        except Exception as error:
            job.error = in_words(error) or f"{type(error).__name__}: {error}"
            job.state = State.failed
