"""The place of a library: the folder in which it makes, writes and deletes its files, and never outside of it.

A library may come from somebody else, and a link in it may lead anywhere: nothing is written or deleted through one.
The place itself may be a link, since the user names it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from zlib import crc32

import platformdirs

from steersearch.core import files
from steersearch.core.errors import (
    FolderError,
    LibraryDamagedError,
    LibraryPlaceError,
    LibraryUnreadableError,
    SteerSearchError,
)
from steersearch.core.files import DRAFT, user_folder, why_not_local, write_atomically

LIBRARY_FILE = "library.json"
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


def bytes_below(folder: Path) -> int:
    """Bytes of all files below a folder, also while others come and go."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # another process swept it away
            continue
    return total


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


# ------------------------------------------------------------------------------------------------ JSON with a checksum

_CHECKSUM = "checksum"
_MOST = 2**26  # bytes: the checksums of some 500,000 files


def write_json(place: Path, path: Path, content: Mapping[str, Any]) -> None:
    """Write the fields of an object and their checksum. Raises LibraryPlaceError."""
    text = json.dumps({**content, _CHECKSUM: _checksum(content)}, indent=1).encode()
    write_inside(place, path, lambda file: file.write(text))


def read_json(path: Path) -> Any:
    """What a file says, whatever its checksum.

    Raises FileNotFoundError, LibraryUnreadableError where it cannot be read now, LibraryDamagedError where it can be
    read and is no JSON.
    """
    try:
        return files.read_json(path, _MOST)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise LibraryUnreadableError(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise LibraryDamagedError(path, f"not JSON ({error})") from error


def checked(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an object but its checksum, which is compared. One without is taken as it is: people and older
    versions write none. Raises LibraryDamagedError."""
    fields = {name: value for name, value in content.items() if name != _CHECKSUM}
    if content.get(_CHECKSUM) not in (None, _checksum(fields)):
        reason = f'it does not fit its {_CHECKSUM} (if you changed it by hand, delete the line "{_CHECKSUM}")'
        raise LibraryDamagedError(path, reason)
    return fields


def _checksum(fields: Mapping[str, Any]) -> int:
    return crc32(json.dumps(fields, sort_keys=True).encode())


# --------------------------------------------------------------------------------- failures of the disk and of LanceDB

# How LanceDB names what the system refused it, whatever type of exception it chooses.
_OF_THE_SYSTEM = re.compile(
    r"os error \d|Os \{ code|Not found|No space left|storage full|NotFound", re.IGNORECASE
)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Around calls that read what a library keeps at `path`, a table or a file.

    What may be gone the next time (a permission, too few file handles or threads, a file that is away) becomes a
    LibraryUnreadableError, what no second reading changes a LibraryDamagedError. FileNotFoundError is let through.
    """
    with _caught() as caught:
        yield
    for error in caught:
        if isinstance(error, FileNotFoundError):
            raise error
        kind = LibraryUnreadableError if may_pass(error) else LibraryDamagedError
        raise kind(path, plain(error)) from error


@contextmanager
def writing_to(place: Path) -> Iterator[None]:
    """Around calls that write to the library at `place`: a full disk and its like become a LibraryPlaceError, tables
    that are damaged a LibraryDamagedError."""
    with _caught() as caught:
        yield
    for error in caught:
        if not may_pass(error):
            raise LibraryDamagedError(place, plain(error)) from error
        reason = f"cannot be written ({plain(error)}); what was indexed before is kept"
        raise LibraryPlaceError(place, reason) from error


def may_pass(error: BaseException) -> bool:
    """Whether something may succeed another time, with nothing mended: it was the system that refused it, as far as is
    known. An installation that lacks a part of a library says nothing of the file either."""
    by_system = (
        isinstance(error, OSError | MemoryError | ImportError)
        or _OF_THE_SYSTEM.search(str(error)) is not None
    )
    return by_system or is_panic(error)


def is_panic(error: BaseException) -> bool:
    """Whether LanceDB's own code gave up, which does not say why: on what it read, or for want of a thread."""
    return "panicked" in str(error)


def plain(error: BaseException) -> str:
    """What an error says, without the places in LanceDB's sources."""
    said = getattr(error, "strerror", None) or str(error).split(", /")[0] or type(error).__name__
    return str(said).splitlines()[0]


@contextmanager
def _caught() -> Iterator[list[BaseException]]:
    """Collects what the block raises, LanceDB's panics among it, but for errors of ours and interruptions."""
    caught: list[BaseException] = []
    try:
        yield caught
    except SteerSearchError:
        raise
    except Exception as error:  # LanceDB raises nearly anything
        caught.append(error)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of Rust, which no module exports
            raise
        caught.append(error)


# ----------------------------------------------------------------------------------------------- where a library lives


def default_place(folder: str | Path) -> Path | None:
    """Where the library of a photo folder lives unless another place is named: in the user's data directory,
    under the folder's name and a hash of its real path. None for a user without a home folder."""
    real = os.path.realpath(folder)
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in os.path.basename(real)) or "root"
    digest = hashlib.sha256(os.fsencode(real)).hexdigest()[:12]
    data = user_folder(platformdirs.user_data_path)
    return None if data is None else data / "libraries" / f"{name}-{digest}"


def photo_folder(given: str | Path) -> Path:
    """The real path of a photo folder. Raises FolderError."""
    folder = Path(given)
    reason = why_not_local(given)
    if reason is not None:
        raise FolderError(folder, reason)
    if not folder.exists():
        raise FolderError(folder, "no such folder; give the folder that holds your photos")
    if not folder.is_dir():
        raise FolderError(folder, f"is a file, not a folder; did you mean {folder.absolute().parent}?")
    return Path(os.path.realpath(folder))


def place_of(folder: Path) -> Path:
    """`default_place`. Raises LibraryPlaceError where there is none."""
    place = default_place(folder)
    if place is None:
        raise LibraryPlaceError(folder, "there is no home folder (HOME is not set) for its library")
    return _valid_place(place)


def local_place(place: str | Path) -> Path:
    """The absolute path of a place that is named. Raises LibraryPlaceError."""
    reason = why_not_local(place)
    if reason is not None:
        raise LibraryPlaceError(place, reason)
    return _valid_place(Path(os.path.abspath(place)))


def place_or_folder(given: str | Path) -> Path:
    """The place of a library that is named by its place or by its photo folder. Raises LibraryPlaceError."""
    if why_not_local(given) is None and not (Path(given) / LIBRARY_FILE).exists():
        of_folder = default_place(given)
        if of_folder is not None and of_folder.is_dir():
            return local_place(of_folder)
    return local_place(given)


def if_moved(place: Path) -> str:
    """What to do where the photo folder is gone."""
    file = place / LIBRARY_FILE
    return f'if it moved, write its new path as "folder" into {file}: nothing has to be computed again'


def _valid_place(place: Path) -> Path:
    """Raises LibraryPlaceError for a name that LanceDB does not take."""
    try:
        os.fspath(place).encode()
    except UnicodeEncodeError as error:
        raise LibraryPlaceError(place, "is not valid UTF-8, which the tables need") from error
    return place
