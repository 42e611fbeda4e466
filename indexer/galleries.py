"""The photos of a library as they can be searched: a gallery for each prompt index, and what only memory holds."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from steersearch.core.errors import ImageError, LibraryDamagedError, LibraryUnreadableError
from steersearch.core.images.pillow import opened
from steersearch.core.preprocess import open_image
from steersearch.core.prompts import Reading
from steersearch.indexer.features import read_reading
from steersearch.indexer.manifest import PromptIndex
from steersearch.indexer.provider import Views
from steersearch.indexer.snapshot import Snapshot, open_snapshot, snapshot_name, snapshot_with
from steersearch.indexer.store import Store, Vector

logger = logging.getLogger(__name__)


class Galleries:
    """The galleries of the library at `place`.

    root: the photo folder.  views: draw the hits that are found here; None: nothing does.
    """

    def __init__(self, root: Path, place: Path, views: Views | None = None) -> None:
        self.root, self.place, self.views = root, place, views
        self._snapshots: dict[str, Snapshot] = {}
        self._readings: dict[str, Reading] = {}  # of prompts that could not be written

    def of(self, index: PromptIndex) -> Snapshot:
        """The gallery of this prompt index as it is now; kept in memory until it changes."""
        kept = self._snapshots.get(index.key)
        if kept is None or kept.name != snapshot_name(self.place, index.key):
            kept = self._snapshots[index.key] = open_snapshot(self.place, index.key, index.dim)
        return kept

    def holds(self, index: PromptIndex) -> bool:
        """Whether this process has the gallery in memory."""
        return index.key in self._snapshots

    def reading(self, index: PromptIndex) -> Reading | None:
        """How the model that made this index reads its prompt; None: not known."""
        try:
            kept = read_reading(self.place, index.key)
            return self._readings.get(index.key) if kept is None else kept
        except (LibraryDamagedError, LibraryUnreadableError) as error:
            logger.warning("%s", error)
            return None

    def hold(self, index: PromptIndex, vectors: Sequence[Vector], reading: Reading | None) -> None:
        """Add to a gallery what was computed and could not be written, for this search and those to come."""
        if reading is not None:
            self._readings[index.key] = reading
        if vectors:
            self._snapshots[index.key] = snapshot_with(self.place, index.key, index.dim, vectors)

    def photo(self, path: Path) -> Image.Image:
        """The photo at `path`, upright, RGB; one that is gone or cannot be read any more as its thumbnail."""
        try:
            return open_image(path)
        except ImageError:
            return self.thumbnail(path)

    def thumbnail(self, path: Path) -> Image.Image:
        """The small picture of a photo that the library keeps. Raises ImageError where there is none."""
        kept = Store(self.place).thumbnail(path.relative_to(self.root).as_posix())
        if kept is None:
            raise ImageError(path, "neither the photo nor its thumbnail can be read")
        with opened(io.BytesIO(kept), ["JPEG"]) as image:
            return image.convert("RGB")
