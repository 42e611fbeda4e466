"""The photos of a query: each decoded once, with one forward pass for all focuses that can share it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from steersearch.core.errors import ArgumentError, ImageError, ModelMismatchError
from steersearch.core.images.limits import DEFAULT_LIMITS, Limits
from steersearch.core.images.picture import Picture
from steersearch.core.images.reader import read_picture
from steersearch.core.objects import ObjectPath, as_place, real_path
from steersearch.core.preprocess import least_side
from steersearch.core.vectors import Floats, Unsteered, VectorSettings
from steersearch.indexer.embedder import Embedder, QueryFeatures, known_identity, not_finite, query_features
from steersearch.indexer.galleries import Galleries
from steersearch.indexer.loader import content_hash
from steersearch.indexer.manifest import PromptIndex, UnsteeredIndex
from steersearch.indexer.prompt_features import features_of
from steersearch.indexer.query_terms import Focus
from steersearch.indexer.region import Area, Part, Parts, parts_of
from steersearch.indexer.regions import RegionArrays, regions_of
from steersearch.indexer.scan import changed_at
from steersearch.indexer.snapshot import Snapshot

Rows = npt.NDArray[np.int64]

_MARKED = 4  # vectors of a marked region


@dataclass(frozen=True)
class Marked:
    """What a marked region of the photo shows.

    vectors: (q, dim) float32, as `RegionArrays.centred` gives them.  shares: (q,), of the region's patches.
    inside: (Hp, Wp), which patches of the photo they are.
    """

    vectors: Floats
    shares: Floats
    inside: npt.NDArray[np.bool_]


class QueryPhoto:
    """The photo at `path` under some focuses, whose prompt indexes need not exist, or `unsteered`.

    photos, any_of: as of `QueryPhotos`.
    A photo of the library has its stored vectors and heatmaps; another is decoded and embedded on first use.
    embedder_of: returns the model of an index.
    limits: a photo that exceeds them is refused if it has to be decoded.
    """

    any_of = False

    def __init__(
        self,
        path: str | Path,
        focuses: Sequence[Focus],
        galleries: Galleries,
        embedder_of: Callable[[PromptIndex | UnsteeredIndex], Embedder],
        limits: Limits = DEFAULT_LIMITS,
        *,
        unsteered: UnsteeredIndex | None = None,
    ) -> None:
        self.path = as_place(path)
        self._indexes = [focus.index for focus in focuses]
        self._galleries, self._embedder_of, self._limits = galleries, embedder_of, limits
        self._unsteered = unsteered
        self._computed: dict[str, QueryFeatures] = {}
        self._unsteered_seen: dict[str, Unsteered] = {}
        self._known: str | None = None

    @property
    def photos(self) -> tuple[QueryPhoto, ...]:
        return (self,)

    @cached_property
    def picture(self) -> Picture:
        """The decoded photo, perhaps at a reduced scale. Raises ImageError."""
        shown_to: list[PromptIndex | UnsteeredIndex] = list(self._indexes)
        if self._unsteered is not None:
            shown_to.append(self._unsteered)
        needed = max((least_side(index.preprocessing) or 0) for index in shown_to) or None
        return read_picture(self.path, at_least=needed, limits=self._limits)

    def embedding(self, index: PromptIndex) -> Floats:
        """(dim,) float32, unit length: the stored vector, else the model's.

        Raises ImageError, ModelMismatchError, SteerSearchError.
        """
        gallery = self._galleries.of(index)
        row = self.row_in(gallery)
        if row is None:
            return self._features(index).embedding
        stored: Floats = gallery.flat.vectors[np.array([row])][0]
        return stored

    def unsteered_embedding(self, gallery: Snapshot) -> Floats:
        """(dim,) float32, unit length: the stored vector in the gallery of `unsteered`, else the model's.

        Raises ImageError, ModelMismatchError, SteerSearchError.
        """
        row, index = self.row_in(gallery), self._unsteered
        assert index is not None
        if row is not None:
            stored: Floats = gallery.flat.vectors[np.array([row])][0]
            return stored
        return np.asarray(self._seen_unsteered(index).embeddings[0], dtype=np.float32)

    def _seen_unsteered(self, index: UnsteeredIndex) -> Unsteered:
        """The backbone's own features of the photo."""
        if index.key in self._unsteered_seen:
            return self._unsteered_seen[index.key]
        picture = self.picture  # raises for an unreadable photo before a model is loaded
        embedder = self._embedder_of(index)
        if embedder.dim != index.dim or not known_identity(embedder).fits(
            index.weights_hash, index.preprocessing
        ):
            raise ModelMismatchError.of(index.prompt, index.model_id, embedder.model_id)
        found, _ = embedder.embed_with_unsteered(embedder.preprocess(picture)[None], [], 0.0)
        if not np.isfinite(found.embeddings).all():
            raise not_finite(self.path, index.prompt, index.model_id)
        self._unsteered_seen[index.key] = found
        return found

    def marked(
        self, part: Part | None, index: UnsteeredIndex, gallery: Snapshot, arrays: RegionArrays, rows: Rows
    ) -> Marked:
        """What a part of the photo shows: by the stored regions where the gallery has the photo, else by the model.

        part: None: all that the model sees.  rows: of each photo of the gallery its row in `arrays`.
        Raises ArgumentError for a part that does not lie in what the model sees of the photo; ImageError,
        ModelMismatchError, SteerSearchError.
        """
        row = self.row_in(gallery)
        size = (
            self.picture.size if row is None else (gallery.value("width", row), gallery.value("height", row))
        )
        seen = VectorSettings.from_dict(index.preprocessing).preprocess.region(size)
        grid = (arrays.patches.shape[1], arrays.patches.shape[2])
        inside = np.ones(grid, dtype=bool) if part is None else part.patches(size, seen, grid)
        if row is None:
            tokens = self._seen_unsteered(index).patches[0]
            if tokens.shape[:2] != inside.shape:
                raise ModelMismatchError.of(index.prompt, index.model_id, self._embedder_of(index).model_id)
            found = regions_of(tokens[inside][:, None], _MARKED)
            vectors, numbers = arrays.centred(found.vectors), found.patches.ravel()
        else:
            stored, vectors = arrays.patches[rows[row]], arrays.unit_vectors(rows[row : row + 1])[0]
            numbers, whole = stored[inside], np.bincount(stored.ravel(), minlength=len(vectors))
        sizes = np.bincount(numbers, minlength=len(vectors)).astype(np.float32)
        if row is not None:  # what lies mostly outside of the marked box is its background
            sizes *= sizes / np.maximum(whole, 1)
        used = sizes > 0
        return Marked(vectors[used], sizes[used] / sizes.sum(), inside)

    def heatmap(self, index: PromptIndex) -> Floats:
        """(Hp, Wp) float32, sums to 1. Raises as `embedding`, and LibraryDamagedError."""
        gallery = self._galleries.of(index)
        row = self.row_in(gallery)
        return self._features(index).heatmap if row is None else gallery.heatmap_at(row)

    def features(
        self, indexes: Sequence[PromptIndex], prompt_features: Sequence[Floats], *, patches: bool = False
    ) -> list[QueryFeatures]:
        """The photo under prompt indexes of one model and one gate_scale, from one forward pass.

        prompt_features: of each, (L, Dt) float32.  patches: also the unsteered patch tokens.
        Raises ImageError, ModelMismatchError, SteerSearchError.
        """
        embedder = self._embedder_of(indexes[0])
        _ = embedder.dim  # loads it, to learn its weights_hash
        for index in indexes:
            if not known_identity(embedder).fits(index.weights_hash, index.preprocessing):
                raise ModelMismatchError.of(index.prompt, index.model_id, embedder.model_id)
        found = query_features(
            embedder, self.picture, prompt_features, indexes[0].gate_scale, patches=patches
        )
        for index, one in zip(indexes, found, strict=True):
            if one.embedding.shape != (index.dim,):
                raise ModelMismatchError.of(index.prompt, index.model_id, embedder.model_id)
            if not np.isfinite(one.embedding).all():
                raise not_finite(self.path, index.prompt, index.model_id)
            self._computed[index.key] = one
            if self.image_id:
                self._galleries.queried.add(self.image_id, index.key, one)
        return found

    def _features(self, index: PromptIndex) -> QueryFeatures:
        if index.key not in self._computed and (
            kept := self._galleries.queried.get(self.image_id, index.key)
        ):
            self._computed[index.key] = kept
        if index.key not in self._computed:
            _ = self.picture  # raises for an unreadable photo before a model is loaded
            alike = [other for other in self._indexes if self._shares_a_pass(index, other)]
            place, encode = self._galleries.place, self._embedder_of(index).encode_prompt
            self.features(alike, [features_of(place, one, encode) for one in alike])
        return self._computed[index.key]

    def _shares_a_pass(self, index: PromptIndex, other: PromptIndex) -> bool:
        """Whether `other` is `index`, or also lacks a stored vector and fits into the same forward pass."""
        if other.key == index.key:
            return True
        if other.key in self._computed or other.settings != index.settings:
            return False
        return self.row_in(self._galleries.of(other)) is None

    @property
    def computed(self) -> Mapping[str, QueryFeatures]:
        """What a model had to compute, by key of the prompt index."""
        return self._computed

    def recall(self, computed: Mapping[str, QueryFeatures]) -> None:
        """Take what was computed of this photo elsewhere, so that no model is asked."""
        self._computed |= computed

    def row_in(self, gallery: Snapshot) -> int | None:
        """The photo's row, found by path if size and time are unchanged, else by content hash."""
        row = self._row_in(gallery)
        if row is not None:
            self._known = gallery.value("image_id", row)
        return row

    def _row_in(self, gallery: Snapshot) -> int | None:
        real = self._real
        try:
            state = real.stat()
            stored = self._galleries.folders.stored(real)
            row = None if stored is None else gallery.row_at(stored)
            if row is not None:
                known = (gallery.value("size", row), gallery.value("mtime_ns", row))
                if known == (state.st_size, changed_at(state)):
                    return row
            return gallery.row_of(self._content)
        except OSError:  # reported when it is opened
            return None

    @property
    def image_id(self) -> str:
        """Its content hash, from the last gallery that had it, else from the file; "" if that cannot be read now."""
        if self._known is None:
            try:
                return self._content
            except OSError:
                return ""
        return self._known

    def is_at(self, path: Path) -> bool:
        """Whether `path` is its file."""
        if isinstance(path, ObjectPath) or isinstance(self._real, ObjectPath):
            return path == self._real
        try:
            return os.path.samefile(path, self._real)
        except OSError:
            return False

    @cached_property
    def _real(self) -> Path:
        return real_path(self.path)

    @cached_property
    def _content(self) -> str:
        return content_hash(self._real, self._limits.file)


@dataclass(frozen=True)
class QueryPhotos:
    """Several photos to search with: by the mean of their embeddings, or by any of them.

    any_of: what is embedded is (q, dim), a row per photo, of which `ranking.rank` takes the best; else (dim,), the mean
        at unit length.
    """

    photos: tuple[QueryPhoto, ...]
    any_of: bool

    def embedding(self, index: PromptIndex) -> Floats:
        """See `QueryPhoto.embedding`."""
        return self._joined([photo.embedding(index) for photo in self.photos])

    def unsteered_embedding(self, gallery: Snapshot) -> Floats:
        """See `QueryPhoto.unsteered_embedding`."""
        return self._joined([photo.unsteered_embedding(gallery) for photo in self.photos])

    def features(
        self, indexes: Sequence[PromptIndex], prompt_features: Sequence[Floats], *, patches: bool = False
    ) -> list[QueryFeatures]:
        """See `QueryPhoto.features`; patches and heatmaps of all photos are stacked, (q · Hp, Wp, …)."""
        each = [photo.features(indexes, prompt_features, patches=patches) for photo in self.photos]
        return [
            QueryFeatures(
                self._joined([one.embedding for one in of_index]),
                np.concatenate([one.heatmap for one in of_index]).astype(np.float32)
                / np.float32(len(of_index)),
                np.concatenate([one.patches for one in of_index if one.patches is not None])
                if patches
                else None,
            )
            for of_index in zip(*each, strict=True)
        ]

    def _joined(self, embeddings: Sequence[Floats]) -> Floats:
        return embedding_of_several(np.stack(embeddings), any_of=self.any_of)


def embedding_of_several(embeddings: Floats, *, any_of: bool) -> Floats:
    """What q query photos are searched with: their embeddings (q, dim) as they are, or their mean (dim,) at unit
    length."""
    if any_of:
        return embeddings
    mean = embeddings.mean(axis=0, dtype=np.float64)
    unit: Floats = (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)
    return unit


AnyQuery = QueryPhoto | QueryPhotos


def checked_images(
    image: str | Path | Sequence[str | Path], region: Area | None, *, any_of: bool
) -> list[str | Path]:
    """The query photos. Raises ArgumentError for a number of them that does not go with the rest."""
    if not isinstance(image, Iterable | os.PathLike):
        raise ArgumentError("image", image, "must be a path, or several")
    given = [image] if isinstance(image, str | bytes | os.PathLike) else list(image)
    images = [one if isinstance(one, str | Path) else os.fsdecode(one) for one in given]
    if bad := next((one for one in images if "\0" in os.fspath(one)), None):
        raise ImageError(bad, "not a path, as it holds a NUL character")
    if not images:
        raise ArgumentError("image", images, "name at least one")
    if any_of and len(images) == 1:
        raise ArgumentError("any_of", any_of, "needs several images")
    if isinstance(region, Parts) and len(region.each) != len(images):
        reason = f"is of {len(region.each):,} photos, and there are {len(images):,}"
        raise ArgumentError("region", str(region), reason)
    if region is not None and len(parts_of(region)) != len(images):
        reason = 'needs a single image, or a part of each: "/" between them, nothing for a whole photo'
        raise ArgumentError("region", str(region), reason)
    return images


def query_photos(
    images: Sequence[str | Path],
    focuses: Sequence[Focus],
    galleries: Galleries,
    embedder_of: Callable[[PromptIndex | UnsteeredIndex], Embedder],
    limits: Limits,
    unsteered: UnsteeredIndex | None,
    *,
    any_of: bool,
) -> AnyQuery:
    """One photo or several to search with, see `QueryPhoto` and `QueryPhotos`."""
    photos = tuple(
        QueryPhoto(image, focuses, galleries, embedder_of, limits, unsteered=unsteered) for image in images
    )
    return photos[0] if len(photos) == 1 else QueryPhotos(photos, any_of)
