"""Shared and exclusive access of writers to a library.

Any number of processes may write at once (`writing`, shared): LanceDB reconciles them. What must not happen beside a
writer is the deletion of files that it may be about to use (`alone`, exclusive). So each writer holds a lock file of
its own while it works, which the system releases however the process ends, and takes the gate lock to begin. A
process that holds the gate and finds no writer's lock held knows that no process writes or can begin to.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from steersearch.core.errors import LibraryBusyError, LibraryMissingError, LibraryPlaceError
from steersearch.core.objects import ObjectPath
from steersearch.indexer.care.migrate import bring_forward
from steersearch.indexer.database import seal_tables
from steersearch.indexer.leases import lock_at
from steersearch.indexer.locks import LOCKS, AnyLock, wait_for
from steersearch.indexer.manifest import SCHEMA_VERSION, read_library
from steersearch.indexer.place import LIBRARY_FILE, make_folder, writing_to

_GATE, _WRITER = "gate.lock", "writer-"


@contextmanager
def writing(place: Path) -> Iterator[str]:
    """Shared lock around everything that writes to the tables of the library at `place`; yields the writer's name.

    Migrates a library of an older format first. Raises LibraryPlaceError, LibraryMissingError, SchemaVersionError, and
    LibraryBusyError where a program of an older version is writing.
    """
    own = lock_at(place / LOCKS / f"{_WRITER}{secrets.token_hex(8)}.lock")
    with _gate(place):
        _migrate(place)
        with writing_to(place):
            own.take()
    try:
        yield own.path.stem
    finally:
        own.release()
        with suppress(OSError):  # read-only by now; the file is harmless without a lock on it
            own.path.unlink(missing_ok=True)
        _seal_if_last(place)


def is_writing(place: Path, writer: str) -> bool:
    """Whether the process that `writing` gave this name still writes. Raises LibraryPlaceError."""
    with writing_to(place):
        path = place / LOCKS / f"{writer}.lock"
        return path.exists() and _is_held(lock_at(path))


@contextmanager
def changing(place: Path) -> Iterator[None]:
    """Exclusive lock for the moment in which the library's own file is read, changed and written; migrates it first.

    Others may go on writing to the tables. Raises what `writing` raises.
    """
    with _gate(place):
        _migrate(place)
        yield


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """Exclusive lock: other writers wait until this has ended.

    Raises LibraryBusyError at once if another process is writing, and what `writing` raises.
    """
    with _gate(place):
        _refuse_writers(place)
        _migrate(place)
        try:
            yield
        finally:
            seal_tables(place)


@contextmanager
def _gate(place: Path) -> Iterator[None]:
    _refuse_missing(place)
    make_folder(place, place / LOCKS)
    gate = lock_at(place / LOCKS / _GATE)
    with writing_to(place):
        wait_for(gate, f"the library at {place}")
    try:
        _refuse_missing(place)  # the previous holder may have removed it
        yield
    finally:
        gate.release()


def _seal_if_last(place: Path) -> None:
    """Record the checksums of new files if no writer is left, without waiting."""
    if isinstance(place, ObjectPath):  # whose tables are not sealed
        return
    gate = lock_at(place / LOCKS / _GATE)
    with suppress(OSError, LibraryPlaceError):
        if gate.take():
            try:
                if _writer(place) is None:
                    seal_tables(place)
            finally:
                gate.release()


def _migrate(place: Path) -> None:
    """Bring a library of an older format forward, which a program of that version may be writing to."""
    if read_library(place).schema_version < SCHEMA_VERSION:
        _refuse_writers(place)
        bring_forward(place)


def _refuse_writers(place: Path) -> None:
    if (writer := _writer(place)) is not None:
        raise LibraryBusyError(place, str(writer.holder() or ""))


def _refuse_missing(place: Path) -> None:
    if not (place / LIBRARY_FILE).exists():
        raise LibraryMissingError(place)


def _writer(place: Path) -> AnyLock | None:
    """The lock of a process that is writing, or None; deletes the locks of killed writers."""
    with writing_to(place):
        for path in (place / LOCKS).glob(f"{_WRITER}*"):
            lock = lock_at(path)
            if _is_held(lock):
                return lock
    return None


def _is_held(lock: AnyLock) -> bool:
    """Whether a writer's lock is held; deletes it if not."""
    if not lock.take():
        return True
    lock.release()
    lock.path.unlink(missing_ok=True)
    return False
