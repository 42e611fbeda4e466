"""Migration of a library of an older format, one schema version at a time.

A step may be interrupted and repeated at any point: it changes what is still to be changed, and the version in the
library's file is raised last. The tables it leaves can be searched by the versions on both sides, so a library can be
searched before, during and after. A read-only library is searched as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from steersearch.indexer.care.tables import Tables
from steersearch.indexer.manifest import (
    SCHEMA_VERSION,
    prompt_keys,
    read_library,
    read_prompt_indexes,
    replace_prompt_index,
    write_library,
)
from steersearch.indexer.prompt_features import keep_checked
from steersearch.indexer.schema import DATE_COLUMNS, IMAGES, PRESENCE, summed_columns

logger = logging.getLogger(__name__)


def bring_forward(place: Path) -> None:
    """Migrate the library at `place` to SCHEMA_VERSION. Other processes may read it meanwhile, none may write to it.

    Raises SchemaVersionError for a newer one, LibraryDamagedError.
    """
    library = read_library(place)
    for version in range(library.schema_version, SCHEMA_VERSION):
        _STEPS[version](place)
        for index in read_prompt_indexes(place):
            if index.schema_version == version:
                replace_prompt_index(place, replace(index, schema_version=version + 1))
        write_library(place, replace(library, schema_version=version + 1))


def _from_1(place: Path) -> None:
    """Prompt tables get the column `presence`, without values; their heatmaps and vectors stay."""
    tables = Tables(place)
    for name in tables.names("prompt_"):
        tables.add_columns(name, [PRESENCE])


def _from_2(place: Path) -> None:
    """Photos get columns for the precision and source of their date; the next run fills them, without a model."""
    tables = Tables(place)
    for name in tables.names(IMAGES):
        tables.add_columns(name, DATE_COLUMNS[1:])


def _from_3(place: Path) -> None:
    """Rows and encoded prompts get checksums of their present content: from here on damage is detected."""
    tables = Tables(place)
    for name in tables.names():
        tables.add_columns(name, summed_columns(name))
        tables.sum_up(name)
    for key in prompt_keys(place):
        keep_checked(place, key)


def _from_4(place: Path) -> None:
    """The settings of a prompt index become versioned records: reading one makes them, and it is written again."""


def _from_5(place: Path) -> None:
    """A library can have several photo folders: reading its file makes a list of the one, and it is written again."""


def _from_6(place: Path) -> None:
    """Thumbnails move to a table of their own, with one row for each content, which no update of a photo copies."""
    tables = Tables(place)
    if IMAGES in tables.names():
        logger.info(
            "moving the thumbnails to a table of their own: this takes space for a copy of them meanwhile"
        )
        tables.move_thumbnails()


_STEPS: dict[int, Callable[[Path], None]] = {
    1: _from_1,
    2: _from_2,
    3: _from_3,
    4: _from_4,
    5: _from_5,
    6: _from_6,
}
