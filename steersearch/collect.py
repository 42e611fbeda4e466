"""Collects found photos in a folder, as copies or links. Nothing in it is overwritten."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from steersearch.core.errors import FolderError
from steersearch.core.files import open_regular
from steersearch.core.objects import ObjectPath


@dataclass(frozen=True)
class Collected:
    """kept: paths of the collected photos, in the given order.  failed: the others, each with the reason."""

    kept: tuple[Path, ...]
    failed: tuple[tuple[Path, str], ...]


def collect(photos: Iterable[Path], folder: Path, *, links: bool = False) -> Collected:
    """Copy the photos into `folder`, which is made if it is not there, or link to them.

    A name that is taken gets a number: "red (2).jpg"; a photo that is there already, under its name or such a one, is
    left as it is. Raises FolderError if the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(folder, f"cannot be made ({error.strerror}); name another") from error
    kept, failed = [], []
    for photo in photos:
        try:
            kept.append(_linked(photo, folder) if links else _copied(photo, folder))
        except OSError as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
            failed.append((photo, reason))
    return Collected(tuple(kept), tuple(failed))


def _names(photo: Path, folder: Path) -> Iterator[Path]:
    yield folder / photo.name
    yield from (folder / f"{photo.stem} ({number}){photo.suffix}" for number in itertools.count(2))


def _copied(photo: Path, folder: Path) -> Path:
    with open_regular(photo) as source:
        for target in _names(photo, folder):
            if os.path.lexists(target) and _is_same(photo, target):
                return target
            try:
                copy = open(target, "xb")  # noqa: SIM115
            except FileExistsError:
                continue
            try:
                with copy:
                    shutil.copyfileobj(source, copy)
                if isinstance(photo, ObjectPath):
                    os.utime(target, (photo.stat().second,) * 2)
                else:
                    shutil.copystat(photo, target)
            except BaseException:
                target.unlink(missing_ok=True)  # half a photo
                raise
            return target
    raise AssertionError("there is always another number")


def _linked(photo: Path, folder: Path) -> Path:
    if isinstance(photo, ObjectPath):
        raise OSError(errno.EINVAL, "an object in a bucket, to which no link leads; copy it", str(photo))
    os.stat(photo)  # a dangling link is useless
    for target in _names(photo, folder):
        if os.path.lexists(target):
            if os.path.realpath(target) == os.path.realpath(photo):
                return target
            continue
        target.symlink_to(photo)
        return target
    raise AssertionError("there is always another number")


def _is_same(photo: Path, other: Path) -> bool:
    """Whether two files have the same bytes."""
    if not other.is_file() or other.stat().st_size != photo.stat().st_size:
        return False
    with open_regular(photo) as one, open_regular(other) as two:
        while part := one.read(2**20):
            if part != two.read(len(part)):
                return False
    return True
