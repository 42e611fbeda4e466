"""Opens the library that a command works on."""

from __future__ import annotations

from pathlib import Path

from steersearch import settings
from steersearch.api import Library
from steersearch.identity import BUNDLED
from steersearch.views import terminal


def open_library(option: str | None, *, photo: Path | None = None, for_changes: bool = False) -> Library:
    """The library found by `settings.find_library`; says on stderr which it is and why."""
    found = settings.find_library(option, photo=photo, for_changes=for_changes)
    library = Library.open(found.place)
    settings.remember_library(library.place)
    terminal.remark(f"library: {terminal.readable(library.place)} ({found.reason})")
    if not library.folder.is_dir():
        gone = f"its photo folder {terminal.readable(library.folder)} is gone; mount its disk, or"
        terminal.remark(f"{gone}, {library.if_moved}")
    weights_remark(library)
    return library


def weights_remark(library: Library) -> None:
    """Say so if the bundled model has changed since the library was made."""
    if changed := library.with_other_weights(BUNDLED):
        terminal.remark(library.how_to_go_on(changed))
