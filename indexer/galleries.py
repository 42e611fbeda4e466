"""The galleries of one library: what each prompt index holds, as it is searched, and the photos themselves."""

from __future__ import annotations

import io
import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from steersearch.core.errors import ImageError, LibraryDamagedError, LibraryUnreadableError
from steersearch.core.images.pillow import opened
from steersearch.core.preprocess import open_image
from steersearch.core.prompts import Reading
from steersearch.indexer.embedder import QueryFeatures, Views
from steersearch.indexer.folders import Folders
from steersearch.indexer.library_folders import LibraryFolders
from steersearch.indexer.manifest import PromptIndex, UnsteeredIndex
from steersearch.indexer.prompt_features import read_reading
from steersearch.indexer.regions import (
    RegionSnapshot,
    open_region_snapshot,
    region_snapshot_name,
    unsteered_snapshot,
)
from steersearch.indexer.snapshot import Snapshot, open_snapshot, snapshot_name, snapshot_with
from steersearch.indexer.store import Store, Vector

logger = logging.getLogger(__name__)


class QueriedFeatures:
    """What a model has computed of query photos, so that another round of a search, or the heatmap beside it, asks no
    model. The least recently used go first."""

    _MOST = 256

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], QueryFeatures] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, image_id: str, key: str) -> QueryFeatures | None:
        """Of this content, by the prompt index of this key."""
        with self._lock:
            found = self._kept.pop((image_id, key), None)
            if found is not None:
                self._kept[image_id, key] = found
            return found

    def add(self, image_id: str, key: str, features: QueryFeatures) -> None:
        """Without its patches, which are large."""
        with self._lock:
            self._kept[image_id, key] = replace(features, patches=None)
            while len(self._kept) > self._MOST:
                self._kept.popitem(last=False)


class Galleries:
    """The galleries of one library.

    views: draws hits; None: nothing does.
    """

    def __init__(self, folders: LibraryFolders, views: Views | None = None) -> None:
        self._folders, self.place, self.views = folders, folders.place, views
        self._snapshots: dict[str, Snapshot] = {}
        self._unsteered: dict[str, Snapshot] = {}
        self._regions: dict[str, RegionSnapshot] = {}
        self._readings: dict[str, Reading] = {}  # of encoded prompts that could not be written
        self.queried = QueriedFeatures()

    @property
    def folders(self) -> Folders:
        """The photo folders, where they are now."""
        return self._folders.now

    def of(self, index: PromptIndex) -> Snapshot:
        """The current gallery of this prompt index; kept in memory until it changes."""
        kept = self._snapshots.get(index.key)
        if kept is None or kept.name != snapshot_name(self.place, index.key):
            kept = self._snapshots[index.key] = open_snapshot(self.place, index.key, index.dim)
        return kept

    def unsteered(self, index: UnsteeredIndex, regions: RegionSnapshot | None = None) -> Snapshot:
        """The gallery of unsteered vectors that belongs to `regions` (None: the current one); kept in memory until it
        changes."""
        kept = self._unsteered.get(index.key)
        name = region_snapshot_name(self.place, index.key) if regions is None else regions.name
        if kept is None or kept.name != name:
            kept = self._unsteered[index.key] = unsteered_snapshot(self.place, index, regions)
        return kept

    def regions(self, key: str) -> RegionSnapshot:
        """The current regions of a model; checked once, and kept open until they change."""
        kept = self._regions.get(key)
        if kept is None or kept.name != region_snapshot_name(self.place, key):
            kept = self._regions[key] = open_region_snapshot(self.place, key)
        return kept

    def holds(self, index: PromptIndex) -> bool:
        """Whether this process has the gallery in memory."""
        return index.key in self._snapshots

    def reading(self, index: PromptIndex) -> Reading | None:
        """How the index's model reads its prompt; None: unknown."""
        try:
            kept = read_reading(self.place, index.key)
            return self._readings.get(index.key) if kept is None else kept
        except (LibraryDamagedError, LibraryUnreadableError) as error:
            logger.warning("%s", error)
            return None

    def hold(self, index: PromptIndex, vectors: Sequence[Vector], reading: Reading | None) -> None:
        """Keep computed vectors that could not be written in memory, for this and later searches."""
        if reading is not None:
            self._readings[index.key] = reading
        if vectors:
            self._snapshots[index.key] = snapshot_with(self.place, index.key, index.dim, vectors)

    def photo(self, path: Path, image_id: str, at_least: int | None = None) -> Image.Image:
        """The photo at `path`, upright, RGB; the thumbnail of this content if it is gone or unreadable.

        at_least: pixels of the shorter side that suffice, see `open_image`.
        """
        try:
            return open_image(path, at_least=at_least)
        except ImageError:
            return self.thumbnail(path, image_id)

    def thumbnail(self, path: Path, image_id: str) -> Image.Image:
        """The library's thumbnail of this content, which is at `path`. Raises ImageError if there is none."""
        kept = Store(self.place).thumbnail(image_id)
        if kept is None:
            raise ImageError(path, "neither the photo nor its thumbnail can be read")
        with opened(io.BytesIO(kept), ["JPEG"]) as image:
            return image.convert("RGB")
