"""Progress and speed of a run over photos."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_RATE_WINDOW = 20  # events


@dataclass(frozen=True)
class ProgressEvent:
    """done: finished photos of `total` to read.  images_per_s: recent speed.  seconds_given: left of a time limit."""

    done: int
    total: int
    images_per_s: float
    seconds_given: float = math.inf

    @property
    def seconds_left(self) -> float:
        """Until all are finished or the time limit is reached; infinite if neither is known."""
        rate = self.images_per_s
        return min(self.seconds_given, (self.total - self.done) / rate if rate > 0 else math.inf)


class Progress:
    """Reports finished photos with a recent speed. deadline: by `time.monotonic`."""

    def __init__(self, report: Callable[[ProgressEvent], None] | None, deadline: float = math.inf) -> None:
        self._report, self._deadline = report, deadline
        self._done, self._total = 0, 0
        self._recent: deque[tuple[float, int]] = deque(maxlen=_RATE_WINDOW)

    def start(self, total: int) -> None:
        self._total = total
        self.advance(0)

    def advance(self, photos: int) -> None:
        self._done += photos
        self._recent.append((time.monotonic(), self._done))
        if self._report is not None and self._total:
            (then, before), (now, _) = self._recent[0], self._recent[-1]
            rate = (self._done - before) / (now - then) if now > then else 0.0
            given = max(0.0, self._deadline - now)
            self._report(ProgressEvent(self._done, self._total, rate, given))
