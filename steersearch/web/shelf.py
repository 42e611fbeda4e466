"""The libraries that the server offers, by id; they share their models."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from steersearch import settings
from steersearch.api import AUTO, Library, Models
from steersearch.core.errors import LibraryMissingError
from steersearch.core.objects import real_path
from steersearch.indexer.embedder import Provider
from steersearch.indexer.library_info import LibraryInfo
from steersearch.indexer.store import images_stamp
from steersearch.indexer.work import LocalEngine, Steering
from steersearch.search_order import id_of
from steersearch.web.photos import Photos
from steersearch.web.problem import UnknownIdError


class Shelf:
    """Libraries by id, which is a hash of their place.

    places: the only ones offered; none: all that `steersearch libraries` knows.
    steered_by: what steers photos for searches; None: this process.
    """

    def __init__(
        self,
        places: Sequence[Path] = (),
        device: str = AUTO,
        precision: str = AUTO,
        steered_by: Steering | None = None,
    ) -> None:
        self._given = [real_path(place) for place in places]
        models = Models(device, precision)

        class Shared(Library):
            steering = steered_by or LocalEngine()

            @classmethod
            def _provider(cls, device: str, precision: str) -> Provider:
                return models

        self._kind = Shared
        self._open: dict[str, Library] = {}
        self._photos: dict[str, Photos] = {}
        self._infos: dict[str, tuple[tuple[str, ...], LibraryInfo]] = {}
        self._lock, self._counting = threading.Lock(), threading.Lock()

    def places(self) -> dict[str, Path]:
        """The places by id; the one used last is the first."""
        places = self._given or [known.place for known in settings.known_libraries()]
        return {id_of(place): place for place in places}

    def library(self, id: str) -> Library:
        """The library with this id, opened once, with the folders that it has now.

        Raises UnknownIdError, LibraryMissingError where it was removed, and what `Library.open` raises.
        """
        with self._lock:
            if id not in self._open:
                place = self.places().get(id)
                if place is None:
                    raise UnknownIdError("library", id)
                self._open[id] = self._kind.open(place)
            opened = self._open[id]
            if not opened.exists:
                del self._open[id]  # what was kept of it is another library's if one is made there again
                self._photos.pop(id, None)
                raise LibraryMissingError(opened.place)
            opened.read_folders()
            return opened

    def another(self, id: str) -> Library:
        """A library of its own for a job, which shares only the models."""
        return self._kind.open(self.library(id).place)

    def photos(self, id: str) -> Photos:
        """The photos of a library."""
        library = self.library(id)
        with self._lock:
            if id not in self._photos:
                self._photos[id] = Photos(library)
            return self._photos[id]

    def info(self, id: str) -> LibraryInfo:
        """What a library holds, counted again only after a change, since that takes a second for 100,000 photos."""
        library = self.library(id)
        names = map(library.gallery_name, library.prompts())
        now = (*images_stamp(library.place), *names)
        with self._counting:
            known = self._infos.get(id)
            if known is None or known[0] != now:
                known = self._infos[id] = now, library.info()
            return known[1]
