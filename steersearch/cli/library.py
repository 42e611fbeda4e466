"""Opens the library that a command works on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from steersearch import settings
from steersearch.api import AUTO, Library
from steersearch.config import read_settings
from steersearch.core.errors import NotIndexedError
from steersearch.identity import BUNDLED
from steersearch.views import terminal


def open_library(option: str | None, *, photo: Path | None = None, for_changes: bool = False) -> Library:
    """The library found by `settings.find_library`; stderr names it if it may not be the intended one."""
    found = settings.find_library(option, photo=photo, for_changes=for_changes)
    chosen = read_settings()
    library = Library.open(found.place, device=chosen.device, precision=chosen.precision)
    settings.remember_library(library.place)
    if found.is_fallback:
        remark = f"library: {terminal.readable(library.place)} ({found.reason})"
        if folder := settings.folder_to_index(photo):
            remark += f"; to search in {folder}: steersearch index {shlex.quote(str(folder))}"
        terminal.remark(remark)
    for folder, reason in library.away:
        moved = f"if it moved: steersearch relocate {shlex.quote(str(folder))} NEW"
        terminal.remark(f"the photo folder {terminal.readable(folder)} {reason}; {moved}")
    weights_remark(library)
    return library


def open_or_index(option: str | None, *, photo: Path | None = None) -> Library:
    """As `open_library`, for a search; if nothing is indexed yet, a terminal offers to index the photos now."""
    try:
        return open_library(option, photo=photo)
    except NotIndexedError as error:
        if error.folder is None or not _can_ask():
            raise
        if not terminal.confirmed(f"No library holds these photos. Index {error.folder} now?"):
            raise
        library = create_library(error.folder)
        with terminal.progress("indexing") as advance:
            counts = library.index(progress=advance)
        settings.remember_library(library.place)
        terminal.remark(terminal.counts_in_words(counts))
        return library


def create_library(
    folders: str | Path | Sequence[str | Path],
    *,
    model: str | None = None,
    place: str | None = None,
    device: str | None = None,
) -> Library:
    """As `Library.create`; for a library without a model, the settings give it if no option does."""
    chosen = read_settings()
    device = device or chosen.device
    library = Library.create(folders, model or AUTO, place, device, chosen.precision)
    if model is None and library.model == AUTO:
        return Library.create(folders, chosen.model, place, device, chosen.precision)
    return library


def _can_ask() -> bool:
    """Whether a person can be asked, at a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def weights_remark(library: Library) -> None:
    """Remark that the bundled model has changed since the library was made, if so."""
    if changed := library.with_other_weights(BUNDLED):
        terminal.remark(library.in_short(changed))
