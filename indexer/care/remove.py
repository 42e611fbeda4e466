"""Remove a prompt index, vectors of removed photos, or a whole library; never photos or files of others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from steersearch.core.errors import ArgumentError, LibraryPlaceError
from steersearch.indexer.care.tables import Tables
from steersearch.indexer.database import FOLDER
from steersearch.indexer.id_map import rows_of
from steersearch.indexer.locks import LOCKS
from steersearch.indexer.manifest import PROMPTS, UNSTEERED_FOLDER, is_key, manifest_keys, remove_manifest
from steersearch.indexer.place import ASIDE, LIBRARY_FILE, delete_inside, sweep
from steersearch.indexer.scan import PATTERNS_FILE
from steersearch.indexer.schema import IMAGES, THUMBNAILS, prompt_table, unsteered_table
from steersearch.indexer.shards import SHARDS
from steersearch.indexer.snapshot import SNAPSHOTS, remove_snapshot
from steersearch.indexer.table_keys import Hashes, hashes_of
from steersearch.indexer.unfinished import UNFINISHED
from steersearch.indexer.writers import alone


def unfinished_keys(place: Path) -> list[str]:
    """The keys of prompt indexes with vectors and no manifest, from runs that ended early."""
    whole = set(manifest_keys(place))
    keys = [name.removeprefix(prompt_table("")) for name in Tables(place).names(prompt_table(""))]
    return [key for key in keys if key not in whole]


def remove_prompt_index(place: Path, key: str) -> None:
    """Delete a prompt index, finished or not; its manifest first, so that no partial index remains.

    Raises ArgumentError for an invalid key, LibraryBusyError if another process is writing, LibraryPlaceError.
    """
    if not is_key(key):
        raise ArgumentError("key", key, "is not the key of a prompt index")
    with alone(place):
        remove_manifest(place, key)
        remove_snapshot(place, key)
        Tables(place).drop(prompt_table(key))
        delete_inside(place, place / PROMPTS / key)


def remove_library(place: Path) -> None:
    """Delete a library's files, its manifest last, and its folder if that is empty then.

    Raises LibraryMissingError, LibraryBusyError if another process is writing, LibraryPlaceError.
    """
    with alone(place):
        for key in manifest_keys(place):
            remove_manifest(place, key)
        for name in (SNAPSHOTS, PROMPTS, UNSTEERED_FOLDER, FOLDER, PATTERNS_FILE, ASIDE, SHARDS, UNFINISHED):
            delete_inside(place, place / name)
        sweep(place, place)
        delete_inside(place, place / LIBRARY_FILE)
    with suppress(LibraryPlaceError, OSError):  # what is left is not the library's
        delete_inside(place, place / LOCKS)
        place.rmdir()


def drop_thumbnails_of_removed(place: Path) -> None:
    """Drop the thumbnails of contents that no photo has any more. The caller holds the exclusive lock."""
    _drop_removed(place, Tables(place).names(THUMBNAILS))


def forget_removed(place: Path) -> int:
    """Drop the vectors of contents that no photo has any more; returns their number. The caller holds the exclusive
    lock."""
    tables = Tables(place)
    return _drop_removed(place, tables.names(prompt_table("")) + tables.names(unsteered_table("")))


def _drop_removed(place: Path, names: Sequence[str]) -> int:
    tables, dropped = Tables(place), 0
    if IMAGES not in tables.names():
        return 0
    present = tables.inspect(IMAGES, ["image_id"], _hashes)

    def gone(batches: Iterable[Any]) -> list[str]:
        found = list[str]()
        for batch in batches:
            image_ids = batch.column("image_id")
            found += image_ids.filter(pa.array(rows_of(present, hashes_of(image_ids)) < 0)).to_pylist()
        return found

    for name in names:
        found = tables.inspect(name, ["image_id"], gone)
        tables.drop_rows(name, "image_id", found)
        dropped += len(found)
    return dropped


def _hashes(batches: Iterable[Any]) -> Hashes:
    """Of the contents of these rows, sorted."""
    return np.unique(
        np.concatenate([np.empty(0, np.int64), *(hashes_of(b.column("image_id")) for b in batches)])
    )
