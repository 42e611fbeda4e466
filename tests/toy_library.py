"""A `Library` whose tests name the embedder at each call, as they go from one to another."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, cast

import pyarrow as pa

from steersearch.core.images.limits import DEFAULT_LIMITS, Limits
from steersearch.core.preprocess import View
from steersearch.core.vectors import Floats
from steersearch.indexer import library
from steersearch.indexer.build import Counts
from steersearch.indexer.care.export import table_of
from steersearch.indexer.embedder import Embedder, LazyEmbedder, OneModel, known_identity
from steersearch.indexer.filters import Filters
from steersearch.indexer.hits import FocusScore, Hit, Hits
from steersearch.indexer.library_models import AUTO, LibraryModels
from steersearch.indexer.manifest import PromptIndex
from steersearch.indexer.progress import ProgressEvent
from steersearch.indexer.prompt_features import features_of
from steersearch.indexer.query_photo import QueryPhoto
from steersearch.indexer.query_terms import AnyFocus, Focus, as_focuses
from steersearch.indexer.resolver import Resolver
from steersearch.indexer.schema import with_checksums
from steersearch.indexer.search import Search
from steersearch.indexer.store import Store


def made_by_6a69363(folder: Path) -> Library:
    """In this folder a library of schema 6, as the version of that commit made it: `photos` has four, a copy of one and
    a file that is none, under "red", written in five steps."""
    with zipfile.ZipFile(Path(__file__).parent / "data" / "library_6a69363.zip") as archive:
        archive.extractall(folder)
    for path in (folder / "photos").rglob("*.png"):
        os.utime(path, (1_500_000_000,) * 2)
    manifest = folder / "library" / "library.json"
    fields = json.loads(manifest.read_text())
    fields["folders"][0]["path"] = str(folder / "photos")
    manifest.write_text(json.dumps(fields))
    return Library.open(folder / "library")


def as_before_schema_7(place: Path) -> None:
    """Put the thumbnails of a library back into the table of photos, where earlier versions had them."""
    import lancedb  # some tests count what a query imports

    database, store = lancedb.connect(place / "lance"), Store(place)
    kept = store.thumbnails(store.thumbnail_ids())
    photos = database.open_table("images").to_arrow()
    jpegs = [kept.get(image_id) for image_id in photos.column("image_id").to_pylist()]
    photos = with_checksums("images", photos.append_column("thumbnail", pa.array(jpegs, pa.binary())))
    database.create_table("images", photos, mode="overwrite")
    database.drop_table("thumbnails")


AnEmbedder = Embedder | Callable[[], Embedder]
EmbedderOf = Callable[[PromptIndex], Embedder]


def as_embedder(embedder: AnEmbedder) -> Embedder:
    """An embedder as it is; a function that gives one becomes a LazyEmbedder of unknown identity."""
    if isinstance(embedder, type) or not hasattr(embedder, "embed_pixels"):
        return LazyEmbedder(cast(Callable[[], Embedder], embedder))
    return cast(Embedder, embedder)


class Library(library.Library):
    """Each method does what the one of this name does, with the embedder that it is given."""

    @classmethod
    def create(cls, folder: str | Path, place: str | Path | None = None) -> Self:  # type: ignore[override]
        return super().create(folder, place=place)

    def _use(self, embedder: AnEmbedder) -> Embedder:
        one = as_embedder(embedder)
        name = known_identity(one).model_id or AUTO
        self._models = LibraryModels(self.place, self._indexes, OneModel(one), name)
        self._resolver = Resolver(self._indexes, self._models)
        return one

    def index(  # type: ignore[override]
        self,
        embedder: AnEmbedder,
        prompts: Sequence[str] | None = None,
        gate_scale: float | None = None,
        batch_size: int | None = None,
        progress: Callable[[ProgressEvent], None] | None = None,
        **settings: Any,
    ) -> Counts:
        self._use(embedder)
        return super().index(
            prompts, gate_scale=gate_scale, batch_size=batch_size, progress=progress, **settings
        )

    def query(  # type: ignore[override]
        self,
        embedder: AnEmbedder,
        image: str | Path,
        focus: AnyFocus,
        k: int = 10,
        gate_scale: float | None = None,
        model: str | None = None,
        **settings: Any,
    ) -> Hits:
        """Among the vectors that there are, and in prompt indexes that there are."""
        one = as_embedder(embedder)
        focuses = [
            replace(focus, indexes=tuple(self.choices(focus.text, model, gate_scale)))
            for focus in as_focuses(focus)
        ]
        return self.search(focuses, image, lambda _: one, k, **settings)

    def search(
        self,
        focuses: Sequence[Focus],
        image: str | Path,
        embedder_of: EmbedderOf,
        k: int = 10,
        *,
        filters: Filters | None = None,
        exact: bool = False,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Hits:
        """Among the vectors that there are."""
        query = QueryPhoto(image, focuses, self._galleries, embedder_of, limits)
        return Search(self._galleries, focuses, query, embedder_of, filters).ranked(k, exact=exact)

    def search_any(
        self,
        focuses: Sequence[Focus],
        image: str | Path,
        embedder_of: EmbedderOf,
        k: int = 10,
        *,
        filters: Filters | None = None,
        limits: Limits = DEFAULT_LIMITS,
        **settings: Any,
    ) -> Hits:
        """`query`, in these prompt indexes; the query photo is a hit, as are plain photos that equal it."""
        query = QueryPhoto(image, focuses, self._galleries, embedder_of, limits)
        search = Search(self._galleries, focuses, query, embedder_of, filters)
        return search.run(k, **{"include_query": True, **settings})

    def find(  # type: ignore[override]
        self, focus: Focus, k: int = 10, *, filters: Filters | None = None
    ) -> Hits:
        """Among the vectors that there are."""
        return Search(self._galleries, [focus], None, self.embedder_of, filters).ranked(k)

    def find_any(
        self,
        focus: Focus,
        embedder_of: EmbedderOf,
        k: int = 10,
        *,
        filters: Filters | None = None,
        **settings: Any,
    ) -> Hits:
        """`find`, in this prompt index."""
        return Search(self._galleries, [focus], None, embedder_of, filters).run(k, **settings)

    def new_index(self, embedder: Embedder, prompt: str, gate_scale: float) -> PromptIndex:
        return self._indexes.of(embedder, prompt, gate_scale)

    def choices(
        self,
        focus: str,
        model: str | None = None,
        gate_scale: float | None = None,
        view: View | None = None,
    ) -> list[PromptIndex]:
        return self._indexes.choices(focus, model, gate_scale, view)

    def table(self, index: PromptIndex) -> Any:  # type: ignore[override]
        return table_of(self.place, self._folders.now, index)

    def indexed_heatmap(self, image: Path, index: PromptIndex) -> Floats | None:
        """The heatmap that is stored for this photo, wherever it lies; None if the index does not know it."""
        gallery = self._galleries.of(index)
        row = QueryPhoto(image, [Focus.on(index)], self._galleries, self.embedder_of).row_in(gallery)
        return None if row is None else gallery.heatmap_at(row)

    def missing(self, index: PromptIndex) -> int:
        return self._galleries.of(index).missing

    def reading(self, index: PromptIndex) -> Any:
        return self._galleries.reading(index)

    def heatmap(self, hit: Hit, part: FocusScore | None = None) -> Floats:
        return hit.heatmaps[hit.parts.index(part) if part else 0]

    def thumbnail(self, hit: Hit) -> bytes | None:
        return Store(self.place).thumbnail(hit.image_id)

    def prompt_features(self, index: PromptIndex, encode: Callable[[str], Any]) -> Floats:
        return features_of(self.place, index, encode)
