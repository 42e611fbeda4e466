"""Where libraries are looked for: the option, the environment, the current folder, what was used last."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from steersearch.core.errors import NoLibraryError, OutputError, SteerSearchError
from steersearch.output import write_output

LIBRARY_VARIABLE = "STEERSEARCH_LIBRARY"
REMEMBERED = 50  # places kept in the state file


@dataclass(frozen=True, kw_only=True)
class FoundLibrary:
    """A library's place, and in plain words why it is this one."""

    place: Path
    reason: str


def place_given(option: Path | None) -> Path | None:
    """The place that the option or else the environment names; None where neither does."""
    if option is not None:
        return option
    variable = os.environ.get(LIBRARY_VARIABLE)
    return Path(variable) if variable else None


def find_library(option: Path | None) -> FoundLibrary:
    """The library to search: the option, STEERSEARCH_LIBRARY, the current folder's, the one used last.

    "The current folder's" is the innermost library whose photo folder holds the current folder, or else a
    library whose photo folder lies below it (of several, the one used last). Raises NoLibraryError.
    """
    given = place_given(option)
    if given is not None:
        reason = "--library" if option is not None else LIBRARY_VARIABLE
        return FoundLibrary(place=given, reason=reason)
    known = _known_libraries()
    here = Path.cwd().resolve()
    around = [entry for entry in known if here.is_relative_to(entry.folder)]
    if around:
        nearest = max(around, key=lambda entry: len(entry.folder.parts))
        return FoundLibrary(place=nearest.place, reason=f"it holds {here}")
    below = [entry for entry in known if entry.folder.is_relative_to(here)]
    if below:
        return FoundLibrary(place=below[0].place, reason=f"its photos, {below[0].folder}, lie below {here}")
    used = set(remembered_places())
    last = next((entry for entry in known if entry.place in used), None)
    if last is not None:
        return FoundLibrary(place=last.place, reason="the one used last")
    raise NoLibraryError(here)


def remember_library(place: Path) -> None:
    """Note that `place` was used now. A state folder that cannot be written is no reason to fail."""
    place = place.resolve()
    places = [place, *(other for other in remembered_places() if other != place)]
    file = _state_file()
    with suppress(OSError, OutputError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_output(file, json.dumps({"libraries": [str(p) for p in places[:REMEMBERED]]}).encode())


def remembered_places() -> list[Path]:
    """Places of libraries used before, the last one first; none if the state file is missing or damaged."""
    try:
        places = json.loads(_state_file().read_bytes())["libraries"]
        return [Path(place) for place in places]
    except (OSError, ValueError, KeyError, TypeError):
        return []


@dataclass(frozen=True, kw_only=True)
class _Known:
    place: Path
    folder: Path


def _known_libraries() -> list[_Known]:
    """Libraries that exist: those used before, the last one first, then others in the default place."""
    from steersearch.indexer.library import default_place

    places = remembered_places()
    home = default_place(Path.cwd()).parent
    if home.is_dir():
        places += [place for place in sorted(home.iterdir()) if place not in places]
    return [known for place in places if (known := _read(place)) is not None]


def _read(place: Path) -> _Known | None:
    from steersearch.indexer.manifest import read_library

    try:
        return _Known(place=place, folder=Path(read_library(place).folder))
    except (OSError, SteerSearchError):  # gone or damaged: not a candidate, but no reason to fail
        return None


def _state_file() -> Path:
    from platformdirs import user_state_path

    return user_state_path("steersearch") / "libraries.json"
