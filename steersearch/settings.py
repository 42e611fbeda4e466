"""Which library a command works on: the option, the environment, the photo's folder, the current folder."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_state_path

from steersearch.config import read_settings
from steersearch.core.errors import NotIndexedError, OutputError, SteerSearchError, listed
from steersearch.core.files import user_folder
from steersearch.core.images.reader import SUFFIXES
from steersearch.core.objects import ObjectPath
from steersearch.indexer.folders import Folders
from steersearch.indexer.manifest import read_library
from steersearch.indexer.place import LIBRARY_FILE, default_place
from steersearch.views.output import write_output

LIBRARY_VARIABLE = "STEERSEARCH_LIBRARY"
REMEMBERED = 50  # places kept in the state file


@dataclass(frozen=True, kw_only=True)
class FoundLibrary:
    """A library's place, as given or found, and the reason for it.

    is_fallback: it was only the last one used.
    """

    place: str | Path
    reason: str
    is_fallback: bool = False


def place_given(option: str | None) -> str | None:
    """The place that the option or else the environment names, if any."""
    return option if option is not None else os.environ.get(LIBRARY_VARIABLE) or None


def find_library(option: str | None, *, photo: Path | None = None, for_changes: bool = False) -> FoundLibrary:
    """The library that a command works on: the first of these that exists.

    The one that the option or STEERSEARCH_LIBRARY names; the innermost one whose photo folder holds `photo`, or else
    the current folder; the only one whose photo folder lies below the current folder; the one of the settings; the
    most recently used.

    for_changes: for a command that deletes or repairs: it never takes the most recently used, nor chooses between two
        libraries of one folder.
    Raises NotIndexedError if there is none, SteerSearchError if one of several would have to be taken.
    """
    given = place_given(option)
    if given is not None:
        return FoundLibrary(place=given, reason="--library" if option is not None else LIBRARY_VARIABLE)
    known = known_libraries()
    here = Path.cwd().resolve()
    around = _around([*_places_of(photo), here] if photo else [here], known, for_changes)
    if around is not None:
        return around
    below = [entry for entry in known if any(folder.is_relative_to(here) for folder in entry.folders)]
    below = [entry for entry in below if any(folder.is_dir() for folder in entry.folders)] or below
    if len(below) > 1:
        raise _several(f"lie below {here}", below)
    if below:
        return FoundLibrary(place=below[0].place, reason=f"its photos, {below[0].named}, lie below {here}")
    if (chosen := read_settings().library) and not for_changes:
        return FoundLibrary(place=chosen, reason="the setting library")
    used = set(remembered_places())
    last = next((entry for entry in known if entry.place in used), None)
    if last is None or for_changes:
        raise _none_found(here, photo, None if last is None else last.place)
    reason = f"the most recently used, of {last.named}"
    return FoundLibrary(place=last.place, reason=reason, is_fallback=True)


def _places_of(photo: Path) -> list[Path]:
    """The paths of a photo: its own, and its link's target."""
    if isinstance(photo, ObjectPath):
        return [photo]
    return [photo.parent.resolve() / photo.name, photo.resolve()]


def _around(places: Sequence[Path], known: Sequence[KnownLibrary], for_changes: bool) -> FoundLibrary | None:
    """The innermost library around the first of these places that lies in one."""
    for place in places:
        around = [
            (len(folder.parts), folder, entry)
            for entry in known
            for folder in entry.folders
            if place.is_relative_to(folder)
        ]
        if around:
            depth = max(parts for parts, _, _ in around)
            nearest = [entry for parts, _, entry in around if parts == depth]
            folder = next(folder for parts, folder, _ in around if parts == depth)
            return _last_used(nearest, folder, f"it holds {place}", for_changes)
    return None


def _several(where: str, libraries: Sequence[KnownLibrary]) -> SteerSearchError:
    return SteerSearchError(
        f"{len(libraries)} libraries {where}: {listed(_described(libraries))}; name one with --library PLACE, or "
        "change into its photo folder"
    )


def _none_found(here: Path, photo: Path | None, last: Path | None) -> SteerSearchError:
    """last: the library used last, which is not taken for a command that changes one."""
    none = f"no library holds {here} or lies below it, and"
    if last is None:
        return NotIndexedError(f"{none} none was used before", folder_to_index(photo))
    used = f"this command changes a library, so the one used last, {last}, is not taken"
    return SteerSearchError(f"{none} {used}; name it: --library {shlex.quote(str(last))}")


def folder_to_index(photo: Path | None) -> Path | None:
    """The folder whose photos a search is probably about: the query photo's, else the current one if photos lie in
    it."""
    if photo is not None and not isinstance(photo, ObjectPath) and photo.is_file():
        return photo.resolve().parent
    with suppress(OSError):
        if any(name.lower().endswith(SUFFIXES) for name in os.listdir()):
            return Path.cwd().resolve()
    return None


def _last_used(entries: Sequence[KnownLibrary], folder: Path, reason: str, for_changes: bool) -> FoundLibrary:
    """The first of several libraries of one folder."""
    if len(entries) > 1:
        if for_changes:
            raise _several(f"are of {folder}", entries)
        reason += f"; the most recently used of the {len(entries)} libraries of that folder"
    return FoundLibrary(place=entries[0].place, reason=reason)


def _described(entries: Sequence[KnownLibrary]) -> list[str]:
    return [f"{entry.place} (of {entry.named})" for entry in entries]


def remember_library(place: Path) -> None:
    """Record that `place` was used now; not one in a bucket, which other commands would have to ask.

    An unwritable state folder does not fail.
    """
    if isinstance(place, ObjectPath):
        return
    place = place.resolve()
    places = [place, *(other for other in remembered_places() if other != place)]
    file = _state_file()
    if file is None:
        return
    with suppress(OSError, OutputError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_output(file, json.dumps({"libraries": [str(p) for p in places[:REMEMBERED]]}).encode())


def remembered_places() -> list[Path]:
    """Places of libraries, most recently used first; none if the state file is missing or damaged."""
    file = _state_file()
    if file is None:
        return []
    try:
        places = json.loads(file.read_bytes())["libraries"]
        return [Path(place) for place in places]
    except (OSError, ValueError, KeyError, TypeError):
        return []


@dataclass(frozen=True, kw_only=True)
class KnownLibrary:
    """A library on this machine, and the folders of its photos."""

    place: Path
    folders: tuple[Path, ...]

    @property
    def named(self) -> str:
        return " and ".join(map(str, self.folders))


def library_places() -> list[Path]:
    """Places of libraries: most recently used first, then others in the user's data directory."""
    places = [place for place in remembered_places() if (place / LIBRARY_FILE).exists()]
    default = default_place(Path.cwd())
    if default is not None and default.parent.is_dir():
        others = (place for place in sorted(default.parent.iterdir()) if (place / LIBRARY_FILE).exists())
        places += [place for place in others if place not in places]
    return places


def known_libraries() -> list[KnownLibrary]:
    """The readable ones."""
    return [known for place in library_places() if (known := _read(place)) is not None]


def _read(place: Path) -> KnownLibrary | None:
    try:
        return KnownLibrary(place=place, folders=tuple(Folders(read_library(place).folders).paths))
    except (OSError, SteerSearchError):  # gone or damaged
        return None


def _state_file() -> Path | None:
    folder = user_folder(user_state_path)
    return None if folder is None else folder / "libraries.json"
