"""What a library holds: its photos, the files that it skipped, and how far each prompt index covers them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from steersearch.core.prompts import Reading
from steersearch.indexer.care.optimize import bytes_below
from steersearch.indexer.file_record import FileRecord
from steersearch.indexer.galleries import Galleries
from steersearch.indexer.manifest import LIBRARY_FILE, PromptIndex
from steersearch.indexer.prompt_indexes import PromptIndexes
from steersearch.indexer.scan import Skip
from steersearch.indexer.store import Store


@dataclass(frozen=True)
class Coverage:
    """photos of the library have a vector under this prompt; missing have none yet. reading: see `Focus`."""

    index: PromptIndex
    photos: int
    missing: int
    reading: Reading | None = None


@dataclass(frozen=True)
class LibraryInfo:
    """What a library holds. photos: the usable ones; skipped: the others; bytes_on_disk: of the library."""

    place: Path
    folder: Path
    photos: int
    skipped: int
    prompts: tuple[Coverage, ...]
    bytes_on_disk: int


def info_of(galleries: Galleries, indexes: PromptIndexes) -> LibraryInfo:
    """What the library that has these galleries and indexes holds, and how large it is."""
    place = galleries.place
    known = _known_files(place)
    contents = [file.image_id for file in known if file.reason is None]
    coverage = []
    for index in indexes.all():
        embedded = Store(place).embedded_ids(index.key)
        photos = sum(image_id in embedded for image_id in contents)
        coverage.append(Coverage(index, photos, len(contents) - photos, galleries.reading(index)))
    skipped = len(known) - len(contents)
    return LibraryInfo(place, galleries.root, len(contents), skipped, tuple(coverage), bytes_below(place))


def skipped_files(place: Path) -> list[Skip]:
    """The files that the last run could not use, sorted by path, each with its reason."""
    known = _known_files(place)
    skips = [Skip(file.path, file.reason) for file in known if file.reason is not None]
    return sorted(skips, key=lambda skip: skip.path)


def _known_files(place: Path) -> list[FileRecord]:
    return Store(place).known_files() if (place / LIBRARY_FILE).exists() else []
