"""The place of a library: the folder in which it makes, writes and deletes its files, and never outside of it.

A library may come from somebody else, and a link in it may lead anywhere: nothing is written or deleted through one.
The place itself may be a link, for it is the user who names it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from steersearch.core.errors import LibraryPlaceError
from steersearch.core.files import DRAFT, write_atomically
from steersearch.indexer.store_errors import writing_to

ASIDE = "set-aside"  # folder of what was damaged
_ABANDONED_S = 3600


def write_inside(place: Path, path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """`write_atomically` to a path below `place`, whose folders are made if need be.

    Raises LibraryPlaceError, also where a link leads out of the library.
    """
    make_folder(place, path.parent)
    with writing_to(place):
        write_atomically(path, write)


def make_folder(place: Path, folder: Path) -> None:
    """Make this folder at or below `place`, unless it is there. Raises LibraryPlaceError, also where a link is in the
    way."""
    refuse_links(place, folder)
    with writing_to(place):
        folder.mkdir(parents=True, exist_ok=True)


def delete_inside(place: Path, path: Path) -> None:
    """Delete a file, or a folder with all that is in it, if it is there; of a link the link itself.

    Raises LibraryPlaceError, also where a link leads out of the library.
    """
    refuse_links(place, path.parent)
    with writing_to(place):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def set_aside(place: Path, path: Path) -> Path:
    """Move a file or a folder of the library out of the way, into one of its own; returns where it is then.

    Raises LibraryPlaceError.
    """
    moment = datetime.now(UTC).strftime("%Y-%m-%d %H.%M.%S.%f")
    to = place / ASIDE / moment / path.relative_to(place)
    make_folder(place, to.parent)
    move_inside(place, path, to)
    return to


def move_inside(place: Path, path: Path, to: Path) -> None:
    """Rename a file or a folder of the library. Raises LibraryPlaceError."""
    for folder in (path.parent, to.parent):
        refuse_links(place, folder)
    with writing_to(place):
        path.rename(to)


def refuse_links(place: Path, folder: Path) -> None:
    """Raise LibraryPlaceError if `folder` is not below `place`, or is reached through a link from there."""
    names = folder.relative_to(place).parts
    if ".." in names:
        raise LibraryPlaceError(place, f"nothing is written outside of it, to {folder}")
    for number in range(len(names)):
        step = place.joinpath(*names[: number + 1])
        if step.is_symlink():
            raise LibraryPlaceError(place, f"nothing is written or deleted through a link, and {step} is one")


def sweep(place: Path, folder: Path, is_old: Callable[[str], bool] = lambda name: False) -> None:
    """Delete the files in `folder` whose names are old, and what killed processes left half written there.

    Nothing is deleted where a link leads out of the library.
    """
    with suppress(OSError, LibraryPlaceError):
        refuse_links(place, folder)
        for name in os.listdir(folder):
            path = folder / name
            if is_old(name) or (name.startswith(DRAFT) and _is_abandoned(path)):
                path.unlink(missing_ok=True)


def _is_abandoned(draft: Path) -> bool:
    """Whether a file is so old that whoever wrote it must have been killed."""
    try:
        return time.time() - draft.lstat().st_mtime > _ABANDONED_S
    except FileNotFoundError:  # it has just been finished
        return False
