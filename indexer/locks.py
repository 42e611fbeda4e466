"""Lock files that name the process which holds them; the system releases them however it ends."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from steersearch.core.files import read_regular

logger = logging.getLogger(__name__)

LOCKS = "locks"  # the folder within a library

_PATIENCE_S = 2.0  # until a waiting process logs the holder
_INTERRUPTIONS = 20  # in a row, after which locking fails


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock. since: local time, ISO 8601."""

    command: str
    pid: int
    host: str
    since: str

    @classmethod
    def this_process(cls) -> Holder:
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]])
        return cls(command, os.getpid(), platform.node(), datetime.now().isoformat(" ", "seconds"))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} ({self.command}, since {self.since})"


class Lock:
    """The lock at `path`, in an existing folder. Not thread-safe.

    On file systems without locks (some network file systems) taking it raises OSError.
    """

    poll_s = 0.05

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Take the lock; False if another holds it. Raises OSError."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            if not _flock(descriptor):
                os.close(descriptor)
                return False
            with suppress(OSError):  # on a full disk the holder stays unnamed
                os.truncate(descriptor, 0)
                os.write(descriptor, json.dumps(asdict(Holder.this_process())).encode())
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Release the lock if it is held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.truncate(descriptor, 0)
            os.close(descriptor)

    def holder(self) -> Holder | None:
        """The current or last holder; None if unknown."""
        try:
            return Holder(**json.loads(read_regular(self.path, 4096)))
        except (OSError, ValueError, TypeError, RecursionError):
            return None


class AnyLock(Protocol):
    """A `Lock`, or a lock in a bucket. poll_s: seconds between two attempts to take it."""

    @property
    def path(self) -> Path: ...

    @property
    def poll_s(self) -> float: ...

    def take(self) -> bool: ...

    def release(self) -> None: ...

    def holder(self) -> Holder | None: ...


def wait_for(lock: AnyLock, what: str) -> None:
    """Wait for a lock; logs its holder.  what: the resource, for the log."""
    began, said = time.monotonic(), ""
    while not lock.take():
        holder = str(lock.holder() or "another process")
        if time.monotonic() - began > _PATIENCE_S and holder != said:
            logger.warning("waiting for %s, held by %s", what, holder)
            said = holder
        time.sleep(lock.poll_s)


def _flock(descriptor: int) -> bool:
    """Lock an open file; False if another process has it. Raises OSError, also after many interruptions.

    Python's own `flock` would restart after each interruption, without end.
    """
    for _ in range(_INTERRUPTIONS):
        if _system_call()(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB) == 0:
            return True
        number = ctypes.get_errno()
        if number in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            return False
        if number != errno.EINTR:
            break
        time.sleep(Lock.poll_s)
    raise OSError(number, f"cannot be locked: {os.strerror(number)}")


@cache
def _system_call() -> Callable[[int, int], Any]:
    call: Callable[[int, int], Any] = ctypes.CDLL(None, use_errno=True).flock
    return call
