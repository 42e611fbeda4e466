"""Where a library lives, and whether it can: its photo folder and its place."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import platformdirs

from steersearch.core.errors import FolderError, LibraryPlaceError
from steersearch.core.files import user_folder, why_not_local
from steersearch.indexer.manifest import LIBRARY_FILE, read_library


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


def check_place(folder: Path, place: Path) -> None:
    """Raise LibraryPlaceError unless the library of `folder` is at `place`, or could be put there."""
    if (place / LIBRARY_FILE).exists():
        other = read_library(place).folder
        if other != os.fspath(folder):
            reason = f"holds the library of another folder, {other}"
            if not Path(other).is_dir():
                reason += f", which is gone; {if_moved(place)}"
            raise LibraryPlaceError(place, reason)
        return
    try:
        if any(not path.name.startswith(".writing-") for path in place.iterdir()):
            raise LibraryPlaceError(place, "is a folder with other things in it")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise LibraryPlaceError(place, f"cannot be used ({error.strerror})") from error
    ancestor = next(path for path in (place, *place.parents) if path.exists())
    if not ancestor.is_dir():
        raise LibraryPlaceError(place, f"cannot be created: {ancestor} is a file")
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise LibraryPlaceError(place, f"cannot be written: no permission in {ancestor}")


def _valid_place(place: Path) -> Path:
    """Raises LibraryPlaceError for a name that LanceDB does not take."""
    try:
        os.fspath(place).encode()
    except UnicodeEncodeError as error:
        raise LibraryPlaceError(place, "is not valid UTF-8, which the tables need") from error
    return place
