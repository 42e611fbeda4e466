"""Copies of snapshots on this machine, of libraries in buckets.

A writer publishes a snapshot in the bucket; each machine that searches fetches it once and maps it into memory. Files
are named after the versions of their tables, so a copy is never out of date: one of an older version has another name.
The copies together are kept below a limit; those used longest ago go first. A process that still reads a deleted copy
keeps it open.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from steersearch.core.files import cache_folder, write_atomically
from steersearch.core.objects import ObjectPath
from steersearch.indexer.place import sweep

FOLDER = "snapshots"  # in the user's cache folder
_limit = 20 * 10**9


def keep_at_most(count: int) -> None:
    """The bytes that all copies of this user may take, but for the snapshot that is used."""
    global _limit
    _limit = count


def home_of(place: Path) -> Path:
    """Where the snapshots of the library at `place` are read from: the place itself, or on this machine."""
    if not isinstance(place, ObjectPath):
        return place
    return cache_folder() / FOLDER / hashlib.sha256(str(place).encode()).hexdigest()[:16]


def fetch(place: Path, files: Sequence[Path]) -> None:
    """Copy the published files of a snapshot to this machine, the last one last; nothing if the last one is here.

    files: where they belong, below `home_of(place)`. Raises FileNotFoundError where it is not published,
    ObjectStoreError.
    """
    if not isinstance(place, ObjectPath):
        return
    if not files[-1].exists():
        published = _published(place, files)
        published[-1].stat()
        for here, there in zip(files, published, strict=True):
            here.parent.mkdir(parents=True, exist_ok=True)
            if not here.exists() and there.is_file():
                write_atomically(here, there.download)
    with suppress(OSError):
        os.utime(files[-1])
    _trim(files[-1])


def publish(place: Path, files: Sequence[Path]) -> None:
    """Copy the files of a snapshot to the bucket, the last one last, and delete older ones there.

    Those that do not exist are left out, and without the last all. Raises ObjectStoreError.
    """
    if not isinstance(place, ObjectPath) or not files[-1].exists():
        return
    for here, there in zip(files, _published(place, files), strict=True):
        if here.exists():
            there.upload(here)
    stem = files[-1].name.partition(".")[0]
    sweep(place, there.parent, lambda name: not name.startswith(f"{stem}."))
    _trim(files[-1])


def is_published(place: Path, file: Path) -> bool:
    """Whether this file of a snapshot is where all machines find it."""
    return _published(place, [file])[0].exists() if isinstance(place, ObjectPath) else file.exists()


def _published(place: ObjectPath, files: Sequence[Path]) -> list[ObjectPath]:
    found = (place / file.relative_to(home_of(place)) for file in files)
    return [path for path in found if isinstance(path, ObjectPath)]


def _trim(used: Path) -> None:
    """Delete the snapshots used longest ago, but for the one with the file `used`."""
    snapshots = sorted(_snapshots(), key=lambda snapshot: snapshot[0])
    total = sum(size for _, size, _ in snapshots)
    for _, size, files in snapshots:
        if total <= _limit:
            return
        if used in files:
            continue
        for file in files:
            with suppress(OSError):  # another process deletes it as well
                file.unlink(missing_ok=True)
        total -= size


def _snapshots() -> Iterator[tuple[float, int, list[Path]]]:
    """Of each copy when it was used last, its bytes and its files, the one that says that it is complete first."""
    for folder in (cache_folder() / FOLDER).glob("*/*/*"):
        by_name: dict[str, list[os.DirEntry[str]]] = {}
        for entry in _entries(folder):
            by_name.setdefault(entry.name.partition(".")[0], []).append(entry)
        for entries in by_name.values():
            with suppress(FileNotFoundError):  # deleted meanwhile
                states = [entry.stat() for entry in entries]
                files = sorted(
                    (Path(entry.path) for entry in entries), key=lambda path: path.suffix != ".arrow"
                )
                yield max(state.st_mtime for state in states), sum(state.st_size for state in states), files


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []
