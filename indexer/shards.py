"""Markers of the shards that a run on a cluster has committed: a run that ends early leaves them, a whole one none."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from steersearch.core.errors import LibraryDamagedError
from steersearch.indexer.place import checked, delete_inside, read_json, write_json
from steersearch.indexer.work import ShardReport

SHARDS = "shards"


def mark_shards(place: Path, reports: Iterable[ShardReport]) -> None:
    """Leave a marker for each. Raises LibraryPlaceError."""
    for report in reports:
        fields = {**asdict(report), "photos_per_s": round(report.photos / max(report.seconds, 1e-3), 1)}
        write_json(place, place / SHARDS / f"{report.number:06}-{secrets.token_hex(4)}.json", fields)


def marked_shards(place: Path) -> list[ShardReport]:
    """What earlier runs, or runs at the same time, have left; damaged ones are ignored."""
    found = []
    for path in sorted((place / SHARDS).glob("*.json")):
        try:
            fields = checked(path, read_json(path))
            fields.pop("photos_per_s")
            found.append(ShardReport(**fields))
        except (FileNotFoundError, LibraryDamagedError, TypeError, KeyError):
            continue
    return found


def unmark_shards(place: Path) -> None:
    """Remove all markers. Raises LibraryPlaceError."""
    if (place / SHARDS).exists():
        delete_inside(place, place / SHARDS)
