"""Seals: what the files of a table must be, since LanceDB writes each once and never changes it.

Its files carry no checksums. A bit in the list of a table's parts, or in that of its deleted rows, lets rows vanish or
come back without a word, or ends the process. So the size and the CRC-32 of every file is noted beside them, once
nobody writes; what was written since, and by runs that were killed, is not sealed yet and taken as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

from steersearch.core.errors import LibraryDamagedError, LibraryUnreadableError
from steersearch.core.files import open_regular
from steersearch.indexer.json_file import checked, read_json, write_json

_SEALS = "checksums.json"  # in the table's folder
_HINT = "latest_version_hint.json"  # the one file that changes; LanceDB does not rely on it
_STRUCTURE = ("_versions", "_deletions")
_CHUNK = 2**20

Seal = list[int]  # size, CRC-32


def seal(place: Path, table: Path, *, forget: bool = False) -> None:
    """Note what the files of a table are that are not noted yet. For those who know that nobody writes.

    Where the notes themselves are damaged nothing is noted anew, for that would take damage for what was written.
    forget: those that are no longer there, which may else only be away. Raises OSError, LibraryPlaceError.
    """
    try:
        known, files = _noted(table), dict(_files(table))
    except LibraryDamagedError:
        return
    seals = {} if forget else dict(known)
    seals |= {name: known.get(name) or _seal_of(path) for name, path in files.items()}
    if seals != known:
        write_json(place, table / _SEALS, {"files": seals})


def is_sealed(table: Path) -> bool:
    """Whether there was a table, whatever is left of it."""
    return (table / _SEALS).exists()


def check_structure(table: Path) -> None:
    """Compare what says which rows a table has.

    Raises LibraryDamagedError, LibraryUnreadableError where its newest version is away, OSError.
    """
    seals = _read(table)
    sealed = [name for name in seals if name.startswith("_versions/")]
    there = {name: path for name, path in _files(table) if name.startswith(_STRUCTURE)}
    newest = max((name for name in there if name.startswith("_versions/")), key=_version, default="")
    if sealed and _version(newest) < max(map(_version, sealed)):
        raise LibraryUnreadableError(table, "its newest version is away")
    for name, path in there.items():
        is_read = name == newest or name.startswith("_deletions/")
        if is_read and name in seals and not _fits(path, seals[name]):
            raise LibraryDamagedError(path, "it does not fit its checksum")


def damaged_files(table: Path) -> tuple[list[str], list[str]]:
    """The files of a table that are not what they were when they were sealed, and those that are not sealed.

    Every file is read. Raises OSError, LibraryUnreadableError for one that cannot be.
    """
    damaged = []
    try:
        seals = _noted(table)
    except LibraryDamagedError:
        seals, damaged = {}, [_SEALS]
    found = {name: _seal_of(path) for name, path in _files(table)}
    unsealed = [name for name in found if name not in seals]
    return damaged + [name for name in found if name in seals and found[name] != seals[name]], unsealed


def _read(table: Path) -> dict[str, Seal]:
    """What is noted; nothing where that is damaged: no seal is no proof."""
    try:
        return _noted(table)
    except LibraryDamagedError:
        return {}


def _noted(table: Path) -> dict[str, Seal]:
    """Raises LibraryDamagedError, LibraryUnreadableError."""
    path = table / _SEALS
    try:
        (files,) = checked(path, read_json(path)).values()
        return {str(name): [int(size), int(checksum)] for name, (size, checksum) in files.items()}
    except FileNotFoundError:
        return {}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LibraryDamagedError(path, f"not the checksums of files ({error})") from error


def _files(table: Path) -> Iterator[tuple[str, Path]]:
    """The files of a table that are written once: their names relative to it, and their paths."""
    for folder, _, names in os.walk(table):
        for name in sorted(names):
            path = Path(folder) / name
            if name != _HINT and path.parent != table:
                yield path.relative_to(table).as_posix(), path


def _fits(path: Path, seal: Seal) -> bool:
    """Whether a file is as it was sealed; one that is swept away meanwhile is no longer of the table."""
    try:
        return _seal_of(path) == seal
    except FileNotFoundError:
        return True


def _seal_of(path: Path) -> Seal:
    checksum, size = 0, 0
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK):
            checksum, size = crc32(chunk, checksum), size + len(chunk)
    return [size, checksum]


def _version(name: str) -> int:
    """The number of a version; LanceDB counts in file names down from the largest, so that the newest comes first."""
    stem = name.rpartition("/")[2].removesuffix(".manifest")
    number = int(stem) if stem.isdecimal() else 0
    return 2**64 - 1 - number if number > 2**63 else number
