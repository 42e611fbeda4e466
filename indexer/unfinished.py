"""A marker in the library while a run of `index` has new or changed photos to read: one that ended early leaves it."""

from __future__ import annotations

from pathlib import Path

from steersearch.indexer.place import delete_inside, write_json

UNFINISHED = "unfinished.json"


def mark_unfinished(place: Path, photos: int) -> None:
    """Raises LibraryPlaceError."""
    write_json(place, place / UNFINISHED, {"photos": photos})


def unmark_unfinished(place: Path) -> None:
    """Raises LibraryPlaceError."""
    delete_inside(place, place / UNFINISHED)


def is_unfinished(place: Path) -> bool:
    """Whether photos may be missing, as the last run has not ended, or ended early."""
    return (place / UNFINISHED).exists()
