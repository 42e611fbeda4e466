"""Waiting for changes in the photo folders of a library."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from watchfiles import Change, watch

from steersearch.core.images.reader import SUFFIXES
from steersearch.core.objects import ObjectPath
from steersearch.indexer.library import Library
from steersearch.indexer.scan import root_id

RESCAN_S = 600.0  # what no event announces: network shares, links to folders
_TICK_MS = 1000


def changes(library: Library) -> Iterator[None]:
    """Yields at once, and then whenever photos may have changed, some 2 seconds after they have; endless.

    Also when a photo folder comes, goes or moves, and every RESCAN_S seconds.
    """
    while True:
        there, due = _there(library), 0.0
        if not there:
            time.sleep(_TICK_MS / 1000)
            continue
        local = [folder for folder in there if not isinstance(folder, ObjectPath)]
        if not local:  # a bucket announces nothing
            yield
            time.sleep(RESCAN_S)
            continue
        for found in watch(
            *local,
            watch_filter=lambda change, path: _concerns(library, change, path),
            rust_timeout=_TICK_MS,
            yield_on_timeout=True,
            ignore_permission_denied=True,
        ):
            if found or time.monotonic() >= due:  # at first as well: from here on no change is missed
                yield
                due = time.monotonic() + RESCAN_S
            if _there(library) != there:
                break


def _there(library: Library) -> dict[Path, tuple[int, int]]:
    """The folders that the library has now and that are there, each with what tells it from a disk mounted over it."""
    library.read_folders()
    return {folder: root_id(folder) for folder in library.folders if folder.is_dir()}


def _concerns(library: Library, change: Change, path: str) -> bool:
    """Whether this may be a photo, or a folder of photos; the library itself may lie among them."""
    if Path(path).is_relative_to(library.place):
        return False
    if path.lower().endswith(SUFFIXES):
        return True
    return os.path.isdir(path) or (change is Change.deleted and not os.path.splitext(path)[1])
