"""`optimize`: compact a library that was written in many steps, so that it is small and opens quickly."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steersearch.core.errors import (
    LibraryBusyError,
    LibraryDamagedError,
    LibraryPlaceError,
    LibraryUnreadableError,
)
from steersearch.core.objects import ObjectStoreError
from steersearch.indexer.care.remove import drop_thumbnails_of_removed, forget_removed
from steersearch.indexer.care.tables import Tables
from steersearch.indexer.manifest import (
    PROMPTS,
    PromptIndex,
    UnsteeredIndex,
    manifest_keys,
    read_prompt_indexes,
)
from steersearch.indexer.place import bytes_below, sweep, writing_to
from steersearch.indexer.regions import refresh_region_snapshot
from steersearch.indexer.schema import unsteered_table
from steersearch.indexer.snapshot import refresh_snapshot, remove_snapshot, snapshot_keys
from steersearch.indexer.store import num_versions
from steersearch.indexer.writers import alone

logger = logging.getLogger(__name__)

MANY_VERSIONS = 64  # opening and reading a table with 64 versions takes 25 ms, with 1,024 half a second


@dataclass(frozen=True)
class Optimized:
    """The result of `optimize`: bytes of the library on disk, the most versions of a table, and the number of dropped
    vectors of removed photos."""

    bytes_before: int
    bytes_after: int
    versions_before: int
    versions_after: int
    forgotten: int = 0


def optimize(place: Path, *, forget: bool = False) -> Optimized:
    """Compact all tables, drop thumbnails of removed photos, delete old versions, update the snapshots.

    Searches continue meanwhile, writers wait. Killed at any moment, it leaves the library as it was or smaller. Needs
    space for a copy of the largest table.
    forget: also drop the vectors of contents that no photo has any more.
    Raises LibraryBusyError if another process is writing, LibraryPlaceError.
    """
    versions, size = num_versions(place), bytes_below(place)
    with alone(place), writing_to(place):
        tables = Tables(place)
        drop_thumbnails_of_removed(place)
        forgotten = forget_removed(place) if forget else 0
        for name in tables.names():
            tables.compact(name)
        indexes = read_prompt_indexes(place)
        for key in orphaned_snapshots(place, indexes, tables.names()):
            remove_snapshot(place, key)
        for folder in (place, *(place / PROMPTS / key for key in manifest_keys(place))):
            sweep(place, folder)
        for index in indexes:
            refresh_snapshot(place, index.key)
        for name in {*snapshot_keys(place)} & {*tables.names(unsteered_table(""))}:
            refresh_region_snapshot(place, name.removeprefix(unsteered_table("")))
    return Optimized(size, bytes_below(place), versions, num_versions(place), forgotten)


def optimize_if_worth_it(place: Path) -> None:
    """`optimize` if tables have many versions, no other process writes, and the disk has space."""
    if num_versions(place) <= MANY_VERSIONS:
        return
    try:
        optimize(place)
    except LibraryBusyError:  # the last writer to end does it
        pass
    except (LibraryPlaceError, LibraryDamagedError, LibraryUnreadableError, ObjectStoreError) as error:
        logger.warning("the library works, but its tables could not be compacted: %s", error)


def orphaned_snapshots(place: Path, indexes: Sequence[PromptIndex], tables: Sequence[str]) -> list[str]:
    """The keys that have snapshots, but neither prompt index nor table.

    Not the region snapshot of a library without regions, which a query builds as a list of photos.
    """
    known = {*manifest_keys(place)} | {name.partition("_")[2] for name in tables} | {*tables}
    known |= {unsteered_table(UnsteeredIndex.beside(index).key) for index in indexes}
    return [key for key in snapshot_keys(place) if key not in known]
