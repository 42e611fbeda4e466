"""Markers of runs of `index` that have new or changed photos to read; a run that ends early leaves its own.

A marker has the name of its run's writer lock, which tells runs that go on from those that ended early.
"""

from __future__ import annotations

from pathlib import Path

from steersearch.indexer.place import delete_inside, write_json
from steersearch.indexer.writers import is_writing

UNFINISHED = "unfinished"  # the folder


def mark_unfinished(place: Path, writer: str, photos: int) -> None:
    """writer: what `writing` yields. Raises LibraryPlaceError."""
    write_json(place, place / UNFINISHED / f"{writer}.json", {"photos": photos})


def unmark_unfinished(place: Path, writer: str) -> None:
    """Remove the marker of a whole run, and those of runs before it that ended early. Raises LibraryPlaceError."""
    for marker in (place / UNFINISHED).glob("*.json"):
        if marker.stem == writer or not is_writing(place, marker.stem):
            delete_inside(place, marker)


def is_unfinished(place: Path) -> bool:
    """Whether photos may be missing, as a run has not ended, or the last one ended early."""
    return any((place / UNFINISHED).glob("*.json"))
