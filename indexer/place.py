"""The place of a library: the directory or bucket in which it writes and deletes files, never outside of it.

A library may come from someone else and contain symbolic links; nothing is written or deleted through one. The place
itself may be a link, as the user chose it.
"""

from __future__ import annotations

import errno
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
from steersearch.core.objects import (
    ObjectPath,
    ObjectStoreError,
    as_place,
    is_of_the_store,
    is_uri,
    real_path,
    store_error,
)
from steersearch.indexer.leases import confirm_leases

LIBRARY_FILE = "library.json"
ASIDE = "set-aside"  # the folder for damaged files
_ABANDONED_S = 3600


def write_inside(place: Path, path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """`write_atomically` to a path below `place`; creates its folders.

    Raises LibraryPlaceError, also for a path through a link.
    """
    make_folder(place, path.parent)
    with writing_to(place):
        write_atomically(path, write)


def make_folder(place: Path, folder: Path) -> None:
    """Create a folder at or below `place` if it does not exist. Raises LibraryPlaceError, also for a path through a
    link."""
    refuse_links(place, folder)
    with writing_to(place):
        folder.mkdir(parents=True, exist_ok=True)


def delete_inside(place: Path, path: Path) -> None:
    """Delete a file, a whole folder, or a link itself, if it exists.

    Raises LibraryPlaceError, also for a path through a link.
    """
    refuse_links(place, path.parent)
    with writing_to(place):
        if isinstance(path, ObjectPath):
            path.delete_all()
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def set_aside(place: Path, path: Path) -> Path:
    """Move a file or folder of the library to a folder of its own in `set-aside`; returns its new path.

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
    """Raise LibraryPlaceError unless `folder` is at or below `place` and no step between is a link."""
    names = folder.relative_to(place).parts
    if ".." in names:
        raise LibraryPlaceError(place, f"nothing is written outside of it, to {folder}")
    for number in range(len(names)):
        step = place.joinpath(*names[: number + 1])
        if step.is_symlink():
            raise LibraryPlaceError(place, f"nothing is written or deleted through a link, and {step} is one")


def bytes_below(folder: Path) -> int:
    """Bytes of all files below a folder; files may vanish meanwhile."""
    if isinstance(folder, ObjectPath):
        return sum(status.st_size for _, status in folder.below())
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # another process swept it away
            continue
    return total


def sweep(place: Path, folder: Path, is_old: Callable[[str], bool] = lambda name: False) -> None:
    """Delete the files in `folder` whose names are old, and drafts that killed processes left.

    Does nothing if a link is in the path.
    """
    with suppress(OSError, LibraryPlaceError):
        refuse_links(place, folder)
        for path in folder.iterdir():
            name = path.name
            if is_old(name) or (name.startswith(DRAFT) and _is_abandoned(path)):
                path.unlink(missing_ok=True)


def _is_abandoned(draft: Path) -> bool:
    """Whether a draft is so old that its writer must have been killed."""
    try:
        return time.time() - draft.lstat().st_mtime > _ABANDONED_S
    except FileNotFoundError:  # it has just been finished
        return False


# ------------------------------------------------------------------------------------------------ JSON with a checksum

_CHECKSUM = "checksum"
_MOST = 2**26  # bytes: the checksums of some 500,000 files


def write_json(place: Path, path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with a checksum of its fields. Raises LibraryPlaceError."""
    text = _json(content)
    write_inside(place, path, lambda file: file.write(text))


def create_json(place: Path, path: Path, content: Mapping[str, Any]) -> bool:
    """As `write_json`, where there is none yet; False where there is. In a bucket one of two who try succeeds."""
    if isinstance(path, ObjectPath):
        with writing_to(place):
            return path.create(_json(content)) is not None
    if path.exists():
        return False
    write_json(place, path, content)
    return True


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps({**content, _CHECKSUM: _checksum(content)}, indent=1).encode()


def read_json(path: Path) -> Any:
    """The content of a JSON file; `checked` compares its checksum.

    Raises FileNotFoundError, LibraryUnreadableError if it cannot be read now, LibraryDamagedError if it is not JSON.
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
    """The fields of an object without its checksum, which is compared if there is one: people and older versions
    write none. Raises LibraryDamagedError."""
    fields = {name: value for name, value in content.items() if name != _CHECKSUM}
    if content.get(_CHECKSUM) not in (None, _checksum(fields)):
        reason = (
            f'it does not match its {_CHECKSUM} (if you changed it by hand, delete the line "{_CHECKSUM}")'
        )
        raise LibraryDamagedError(path, reason)
    return fields


def _checksum(fields: Mapping[str, Any]) -> int:
    return crc32(json.dumps(fields, sort_keys=True).encode())


# --------------------------------------------------------------------------------- failures of the disk and of LanceDB

# How LanceDB's messages report a failed system call, whatever the type of the exception.
_OF_THE_SYSTEM = re.compile(
    r"os error \d|Os \{ code|Not found|No space left|storage full|NotFound|Too many concurrent writers",
    re.IGNORECASE,
)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Translate errors of reading the table or file at `path`.

    What may pass (permissions, too many open files or threads, a missing file) becomes LibraryUnreadableError, what a
    retry cannot change LibraryDamagedError. FileNotFoundError stays.
    """
    with _caught() as caught:
        yield
    for error in caught:
        if isinstance(error, FileNotFoundError):
            raise error
        if isinstance(path, ObjectPath) and is_of_the_store(error):
            raise store_error(path, error) from error
        kind = LibraryUnreadableError if may_pass(error) else LibraryDamagedError
        raise kind(path, plain(error)) from error


@contextmanager
def writing_to(place: Path) -> Iterator[None]:
    """Translate errors of writing to the library at `place`: a full disk, a bucket that may only be read and the like
    become LibraryPlaceError, damaged tables LibraryDamagedError. A store that does not answer is an ObjectStoreError.
    Refuses where a lock of this process was taken over, see `confirm_leases`.
    """
    try:
        confirm_leases(place)
        with _caught() as caught:
            yield
        for error in caught:
            with suppress(ObjectStoreError):  # else the lock is the reason
                confirm_leases(place)
            if isinstance(place, ObjectPath) and is_of_the_store(error):
                raise store_error(place, error) from error
            if not may_pass(error):
                raise LibraryDamagedError(place, plain(error)) from error
            raise _not_written(place, error) from error
    except ObjectStoreError as error:
        if error.errno != errno.EACCES:
            raise
        raise _not_written(place, error) from error


def _not_written(place: Path, error: BaseException) -> LibraryPlaceError:
    return LibraryPlaceError(place, f"cannot be written ({plain(error)}); what was indexed before is kept")


def may_pass(error: BaseException) -> bool:
    """Whether a retry may succeed without a repair: as far as is known the system refused it, or a package lacks a
    part."""
    by_system = (
        isinstance(error, OSError | MemoryError | ImportError)
        or _OF_THE_SYSTEM.search(str(error)) is not None
    )
    return by_system or is_panic(error)


def is_panic(error: BaseException) -> bool:
    """Whether LanceDB's own code panicked, be it on invalid data or because it could not start a thread."""
    return "panicked" in str(error)


def plain(error: BaseException) -> str:
    """The message of an error without locations in LanceDB's sources."""
    said = getattr(error, "strerror", None) or str(error).split(", /")[0] or type(error).__name__
    return str(said).splitlines()[0]


@contextmanager
def _caught() -> Iterator[list[BaseException]]:
    """Collect what the block raises, LanceDB's panics included; our own errors and interruptions pass."""
    caught: list[BaseException] = []
    try:
        yield caught
    except SteerSearchError:
        raise
    except Exception as error:  # LanceDB raises many types
        caught.append(error)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of Rust, which no module exports
            raise
        caught.append(error)


# ----------------------------------------------------------------------------------------------- where a library lives


def default_place(folder: str | Path) -> Path | None:
    """The default library directory of a photo folder: in the user's data directory, named after the folder and a
    hash of its real path. None for a user without a home folder."""
    real = os.fspath(real_path(folder))
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in os.path.basename(real)) or "root"
    digest = hashlib.sha256(os.fsencode(real)).hexdigest()[:12]
    data = user_folder(platformdirs.user_data_path)
    return None if data is None else data / "libraries" / f"{name}-{digest}"


def photo_folder(given: str | Path) -> Path:
    """The real path of a photo folder, or its URI. Raises FolderError, ObjectStoreError."""
    folder = as_place(given)
    if isinstance(folder, ObjectPath):
        if not folder.is_dir():
            raise FolderError(folder, "no object's name begins like this; check the URI")
        return folder
    reason = why_not_local(given)
    if reason is not None:
        raise FolderError(folder, reason)
    if not folder.exists():
        raise FolderError(folder, "no such folder; give the folder that holds your photos")
    if not folder.is_dir():
        raise FolderError(folder, f"is a file, not a folder; did you mean {folder.absolute().parent}?")
    return Path(os.path.realpath(folder))


def place_of(folder: Path) -> Path:
    """Where the library of a photo folder lives, or will: see `found_place`. Raises LibraryPlaceError where there is no
    home folder."""
    place = found_place(folder)
    if place is None:
        raise LibraryPlaceError(folder, "there is no home folder (HOME is not set) for its library")
    return _valid_place(place)


def found_place(folder: Path) -> Path | None:
    """Its `default_place`, unless another library in the user's data directory has this folder: one that was added to
    it or moved there. Another folder's library in the default place is left alone."""
    place = default_place(folder)
    if place is None:
        return None
    wanted, is_taken = os.fspath(folder), os.path.exists(place / LIBRARY_FILE)
    if is_taken and wanted in _folders_at(place, if_unknown=wanted):
        return place
    with suppress(OSError):
        for other in sorted(place.parent.iterdir()):
            if wanted in _folders_at(other):
                return other
    free = (Path(f"{place}-{number}") for number in range(2, 100))
    return next(other for other in free if not os.path.exists(other)) if is_taken else place


def _folders_at(place: Path, if_unknown: str = "") -> list[str]:
    """The photo folders of the library at `place`; `manifest` reads the rest."""
    try:
        content = read_json(place / LIBRARY_FILE)
        return [one["path"] for one in content.get("folders") or [{"path": content["folder"]}]]
    except (OSError, SteerSearchError, AttributeError, KeyError, TypeError):
        return [if_unknown]


def local_place(place: str | Path) -> Path:
    """The absolute path of a place, or its URI. Raises LibraryPlaceError."""
    if is_uri(place):
        return _valid_place(ObjectPath(place))
    reason = why_not_local(place)
    if reason is not None:
        raise LibraryPlaceError(place, reason)
    return _valid_place(Path(os.path.abspath(place)))


def place_or_folder(given: str | Path) -> Path:
    """The place of a library, given its place or its photo folder. Raises LibraryPlaceError, ObjectStoreError."""
    if (is_uri(given) or why_not_local(given) is None) and not (as_place(given) / LIBRARY_FILE).exists():
        of_folder = found_place(real_path(given))
        if of_folder is not None and of_folder.is_dir():
            return local_place(of_folder)
    return local_place(given)


def _valid_place(place: Path) -> Path:
    """Raise LibraryPlaceError for a name that LanceDB does not accept."""
    try:
        os.fspath(place).encode()
    except UnicodeEncodeError as error:
        raise LibraryPlaceError(place, "is not valid UTF-8, which the tables need") from error
    return place
