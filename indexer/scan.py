"""Which files under a folder are photos: names, sizes and times only, no file is opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif", ".jp2")


@dataclass(frozen=True)
class FoundFile:
    """A file with an image's suffix. path: relative to the folder, "/" between its parts; size in bytes."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Skip:
    """A file (or a folder that cannot be listed) that is left out, and why. path: relative to the folder."""

    path: str
    reason: str


@dataclass(frozen=True)
class Scan:
    """files and skips are sorted by path; unlisted: relative paths of folders that could not be listed."""

    files: tuple[FoundFile, ...]
    skips: tuple[Skip, ...]
    unlisted: tuple[str, ...]


def scan_folder(root: Path) -> Scan:
    """All photos under `root`, at any depth.

    Left out without a word: names that begin with a dot (hidden, AppleDouble) and files of other kinds.
    Links to folders are followed, but no folder is visited twice, so a loop of links ends and a photo that
    can be reached in two ways is found once, by its path without links if it has one. Never raises for what
    lies below `root`: what cannot be used is in `skips`.
    """
    files, skips, unlisted = [], [], []
    for found in _walk(root):
        if isinstance(found, FoundFile):
            files.append(found)
        elif isinstance(found, Skip):
            skips.append(found)
        else:
            unlisted.append(found.path)
            skips.append(Skip(found.path, f"the folder cannot be listed ({found.reason})"))
    files.sort(key=lambda file: file.path)
    skips.sort(key=lambda skip: skip.path)
    return Scan(tuple(files), tuple(skips), tuple(unlisted))


def holds_an_image(root: Path) -> bool:
    """Whether anything under `root` has an image's suffix, readable or not; stops at the first."""
    return any(not isinstance(found, _Unlisted) for found in _walk(root))


@dataclass(frozen=True)
class _Unlisted:
    path: str
    reason: str


def _walk(root: Path) -> Iterator[FoundFile | Skip | _Unlisted]:
    folders = [""]  # relative paths still to list
    linked: list[str] = []  # links to folders wait until all real folders are known
    visited: set[tuple[int, int]] = set()
    while folders or linked:
        relative = folders.pop() if folders else linked.pop(0)
        try:
            status = os.stat(root / relative)
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(root / relative) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            yield _Unlisted(printable(relative or "."), error.strerror or type(error).__name__)
            continue
        for entry in entries:
            path = f"{relative}/{entry.name}" if relative else entry.name
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                (linked if entry.is_symlink() else folders).append(path)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                yield _file(entry, path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round in a circle
        return False


def _file(entry: os.DirEntry[str], path: str) -> FoundFile | Skip:
    if path != printable(path):
        return Skip(printable(path), "the name is not valid UTF-8; rename the file or its folder")
    try:
        status = entry.stat()
    except OSError as error:
        broken = "a link that leads nowhere" if entry.is_symlink() else error.strerror
        return Skip(path, broken or type(error).__name__)
    if not stat.S_ISREG(status.st_mode):
        return Skip(path, "not a regular file")
    return FoundFile(path, status.st_size, status.st_mtime_ns)


def printable(path: str) -> str:
    """`path` with every byte that is not valid UTF-8 as \\xNN; other paths are returned unchanged."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    return path
