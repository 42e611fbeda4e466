"""What a library holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from steersearch.core.prompts import Reading
from steersearch.indexer import snapshot as snapshots
from steersearch.indexer.filters import places_in
from steersearch.indexer.galleries import Galleries
from steersearch.indexer.manifest import PromptIndex
from steersearch.indexer.place import LIBRARY_FILE, bytes_below
from steersearch.indexer.prompt_indexes import PromptIndexes
from steersearch.indexer.recall import LEAST_RECALL, why_exact
from steersearch.indexer.scan import Skip
from steersearch.indexer.snapshot import measured_recall
from steersearch.indexer.store import Store
from steersearch.indexer.unfinished import is_unfinished


@dataclass(frozen=True)
class Coverage:
    """photos: with a vector under this prompt;  missing: without.  reading: see `Focus`.

    recall: of its approximate index, see `recall.Gated`; None: all photos are compared anyway, or it is not known.
    """

    index: PromptIndex
    photos: int
    missing: int
    reading: Reading | None = None
    recall: float | None = None

    @property
    def why_exact(self) -> str:
        """Why there is no approximate index, although the library is large; "" otherwise."""
        return "" if self.recall is None or self.recall >= LEAST_RECALL else why_exact(self.recall)


@dataclass(frozen=True)
class LibraryInfo:
    """The content of a library. photos: the usable ones;  skipped: the others.

    is_unfinished: whether the last run of `index` has not ended, so that photos may be missing.
    """

    place: Path
    folders: tuple[Path, ...]
    photos: int
    skipped: int
    prompts: tuple[Coverage, ...]
    bytes_on_disk: int
    is_unfinished: bool


def info_of(galleries: Galleries, indexes: PromptIndexes) -> LibraryInfo:
    """The content and size of a library."""
    place = galleries.place
    store, exists = Store(place), (place / LIBRARY_FILE).exists()
    contents, skipped = store.contents() if exists else ([], 0)
    coverage = []
    for index in indexes.all():
        photos = int((places_in(contents, store.embedded(index.key)) >= 0).sum())
        recall = measured_recall(place, index.key) if photos >= snapshots.APPROXIMATE_FROM else None
        coverage.append(Coverage(index, photos, len(contents) - photos, galleries.reading(index), recall))
    folders = tuple(galleries.folders.paths)
    size, is_short = bytes_below(place), is_unfinished(place)
    return LibraryInfo(place, folders, len(contents), skipped, tuple(coverage), size, is_short)


def skipped_files(place: Path) -> list[Skip]:
    """The files that the last run skipped, sorted by path, with reasons."""
    known = Store(place).known() if (place / LIBRARY_FILE).exists() else []
    skips = [Skip(file.path, file.reason) for file in known if file.reason is not None]
    return sorted(skips, key=lambda skip: skip.path)
