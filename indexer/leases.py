"""Locks in a bucket: objects that only one process can create, which their holder renews while it lives.

A holder that has not renewed its lock for LEASE_S seconds, by the store's own clock, has been killed, cut off or paused
(a laptop that sleeps), and another may take its lock over: with the condition that it is still the version that was
seen. A holder that goes on after a pause asks before each write whether its locks are still its own (`confirm_leases`).
What it was just committing then is left to LanceDB, which finds rows of others with the same keys in the versions
since: so these are kept for a day after a lock was taken over (`kept_versions`), and files of the last days anyway.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from steersearch.core.errors import LibraryPlaceError
from steersearch.core.files import parse_json
from steersearch.core.objects import ObjectPath, ObjectStoreError
from steersearch.indexer.locks import LOCKS, AnyLock, Holder, Lock

LEASE_S = 60.0
_RENEWED = 4  # times per lease
# How the notes of locks that were taken over begin; each says when its lock was renewed last.
_TAKEN = "taken-over-"
_NOTED_S, _MARGIN_S = 86_400.0, 900.0
_held: set[Lease] = set()  # by this process


def lock_at(path: Path) -> AnyLock:
    """The lock of the kind that the place of `path` needs."""
    return Lease(path) if isinstance(path, ObjectPath) else Lock(path)


def confirm_leases(place: Path) -> None:
    """Raise LibraryPlaceError if another process has taken over a lock below `place` that this one held."""
    for lease in tuple(_held):
        if place in lease.path.parents and not lease.is_held():
            reason = (
                f"may no longer be written by this process: it was paused or cut off for more than {LEASE_S:.0f} s, "
                "and another has taken its lock over. What was written before is kept: check it with `steersearch "
                "verify`, and run the command again"
            )
            raise LibraryPlaceError(place, reason)


def kept_versions(place: Path) -> timedelta:
    """How far back the versions of tables at `place` must be kept; 0 where no lock was taken over in the last day."""
    kept = 0.0
    for note in (place / LOCKS).glob(f"{_TAKEN}*") if isinstance(place, ObjectPath) else ():
        with suppress(FileNotFoundError, ValueError):
            if time.time() - note.stat().st_mtime_ns / 1e9 > _NOTED_S:
                note.unlink(missing_ok=True)
            else:
                kept = max(kept, time.time() - int(note.read_bytes()) + _MARGIN_S)
    return timedelta(seconds=kept)


class Lease:
    """The lock at `path`. Not thread-safe, except `is_held`.

    Its methods do what those of `locks.Lock` do, and raise ObjectStoreError.
    """

    poll_s = 0.5

    def __init__(self, path: ObjectPath) -> None:
        self.path = path
        self._since = Holder.this_process()
        self._version: str | None = None
        self._renewed_at = 0.0
        self._renewing = threading.Lock()
        self._ended = threading.Event()
        self._renewer: threading.Thread | None = None

    def take(self) -> bool:
        self._since, began = Holder.this_process(), _now()
        self._version = self.path.create(self._content()) or self._taken_over()
        if self._version is None:
            return False
        self._renewed_at = began
        _held.add(self)
        self._ended.clear()
        self._renewer = threading.Thread(target=self._renew, name="steersearch-lease", daemon=True)
        self._renewer.start()
        return True

    def is_held(self) -> bool:
        """Whether no other process has taken it over, as far as the store says."""
        with self._renewing:
            if self._version is not None and _now() - self._renewed_at > LEASE_S / 2:
                self._renew_now()
            return self._version is not None

    def release(self) -> None:
        _held.discard(self)
        self._ended.set()
        if self._renewer is not None:
            self._renewer.join()
            self._renewer = None
        version, self._version = self._version, None
        with suppress(FileNotFoundError):
            if version is not None and self.path.stat().version == version:
                self.path.unlink(missing_ok=True)

    def holder(self) -> Holder | None:
        try:
            said: dict[str, Any] = parse_json(self.path.read_at_most(4096))
            return Holder(**{name: value for name, value in said.items() if name != "renewal"})
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return None

    def _content(self) -> bytes:
        """The holder, and what makes each version another."""
        return json.dumps({**asdict(self._since), "renewal": secrets.token_hex(8)}).encode()

    def _taken_over(self) -> str | None:
        """The version of the lock that replaces one whose holder has ended; None if it has not."""
        clock = self.path.with_name(f"clock-{secrets.token_hex(8)}")
        assert isinstance(clock, ObjectPath)
        try:
            seen = self.path.stat()
            clock.write(lambda file: file.write(b""))
            age_s = clock.stat().second - seen.second
        except FileNotFoundError:  # just released
            return None
        finally:
            clock.unlink(missing_ok=True)
        if age_s < LEASE_S:
            return None
        note = self.path.with_name(f"{_TAKEN}{secrets.token_hex(8)}")
        assert isinstance(note, ObjectPath)
        note.create(str(seen.second).encode())
        version = self.path.replace_version(self._content(), seen.version)
        if version is None:
            note.unlink(missing_ok=True)
        return version

    def _renew(self) -> None:
        """Renew until released. A lock that another took over stays theirs."""
        while not self._ended.wait(LEASE_S / _RENEWED):
            with suppress(ObjectStoreError), self._renewing:  # cut off for a moment
                if self._version is not None:
                    self._renew_now()

    def _renew_now(self) -> None:
        began = _now()
        assert self._version is not None
        self._version = self.path.replace_version(self._content(), self._version)
        self._renewed_at = began


def _now() -> float:
    """Seconds on a clock that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.time()
