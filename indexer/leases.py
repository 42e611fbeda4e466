"""Locks in a bucket: objects that only one process can create, which their holder renews while it lives.

A holder that has not renewed its lock for LEASE_S seconds, by the store's own clock, has been killed or cut off, and
another may take its lock over: with the condition that it is still the version that was seen.
"""

from __future__ import annotations

import json
import secrets
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from steersearch.core.files import parse_json
from steersearch.core.objects import ObjectPath, ObjectStoreError
from steersearch.indexer.locks import AnyLock, Holder, Lock

LEASE_S = 60.0
_RENEWED = 4  # times per lease


def lock_at(path: Path) -> AnyLock:
    """The lock of the kind that the place of `path` needs."""
    return Lease(path) if isinstance(path, ObjectPath) else Lock(path)


class Lease:
    """The lock at `path`. Not thread-safe. Its methods do what those of `locks.Lock` do, and raise ObjectStoreError."""

    poll_s = 0.5

    def __init__(self, path: ObjectPath) -> None:
        self.path = path
        self._since = Holder.this_process()
        self._version: str | None = None
        self._ended = threading.Event()
        self._renewer: threading.Thread | None = None

    def take(self) -> bool:
        self._since = Holder.this_process()
        self._version = self.path.create(self._content()) or self._taken_over()
        if self._version is None:
            return False
        self._ended.clear()
        self._renewer = threading.Thread(target=self._renew, name="steersearch-lease", daemon=True)
        self._renewer.start()
        return True

    def release(self) -> None:
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
        return self.path.replace_version(self._content(), seen.version)

    def _renew(self) -> None:
        """Renew until released. A lock that another took over stays theirs."""
        while not self._ended.wait(LEASE_S / _RENEWED):
            with suppress(ObjectStoreError):  # cut off for a moment
                version = self._version and self.path.replace_version(self._content(), self._version)
                if version is None:
                    return
                self._version = version
