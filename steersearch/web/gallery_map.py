"""A library as points in the plane, under a prompt or none: similar photos lie together."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from steersearch.api import Library
from steersearch.core.errors import ArgumentError, MissingExtraError
from steersearch.core.vectors import Floats
from steersearch.indexer.filters import places_in
from steersearch.indexer.snapshot import Snapshot
from steersearch.web.photos import PhotoList

Method = Literal["pca", "umap"]
_FITTED_ON = 8_000  # photos, drawn at random, by which the axes are found
UMAP_MOST = 20_000  # photos
_SEED = 1234
_KEPT = 32


@dataclass(frozen=True)
class GalleryMap:
    """image_ids: Arrow column, of the points.  points: (n, 2) float32 in [-1, 1].  explained: the share of the variance
    that the two axes have; None of a UMAP."""

    image_ids: Any
    points: Floats
    explained: float | None

    def of(self, photos: PhotoList) -> Floats:
        """(n, 2): the point of each photo of the list; NaN for one without a vector."""
        rows = places_in(photos.image_ids, self.image_ids)
        placed = np.full((len(photos), 2), np.nan, dtype=np.float32)
        placed[rows >= 0] = self.points[rows[rows >= 0]]
        return placed


class Maps:
    """Maps of galleries, kept while these do not change. While one is made, only requests for the same one wait."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, ...], Future[GalleryMap]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, library: Library, focus: str | None, method: Method) -> GalleryMap:
        """The map under an indexed prompt, turned and mirrored to lie as near as can be to that by unsteered vectors;
        focus None: the latter.

        Raises PromptIndexMissing, and for "umap" MissingExtraError without its package, ArgumentError for too many
        photos.
        """
        plain = library.unsteered_index() if library.has_unsteered or not focus else None
        index = library.find_prompt_index(focus) if focus else plain
        assert index is not None
        like = None if index is plain or plain is None else plain
        name = (method, *(library.gallery_name(one) for one in (index, like) if one is not None))
        with self._lock:
            made = self._kept.pop(name, None)
            is_mine = made is None
            self._kept[name] = made = made or Future()
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        if is_mine:
            try:
                turned_like = None if like is None else self.of(library, None, method)
                made.set_result(gallery_map(library.gallery(index), method, turned_like))
            except BaseException as error:
                self._kept.pop(name, None)
                made.set_exception(error)
        return made.result()


def gallery_map(gallery: Snapshot, method: Method, like: GalleryMap | None = None) -> GalleryMap:
    """See `Maps.of`."""
    vectors = np.asarray(gallery.flat.all, dtype=np.float32)
    ids = gallery.table.column("image_id")
    if method == "umap" and len(vectors) > UMAP_MOST:
        reason = f"takes minutes for {len(vectors):,} photos, and cannot be stopped; it is offered up to {UMAP_MOST:,}"
        raise ArgumentError("method", method, reason)
    points, explained = _umap(vectors) if method == "umap" else _pca(vectors)
    points = _scaled(points)
    if like is not None:
        points = _scaled(_turned(points, ids, like))
    return GalleryMap(ids, points, explained)


def _pca(vectors: Floats) -> tuple[Floats, float | None]:
    """(n, 2): the vectors along the two axes in which they differ most."""
    if len(vectors) < 3:
        return np.eye(len(vectors), 2, dtype=np.float32), None
    chosen = np.random.default_rng(_SEED).permutation(len(vectors))[:_FITTED_ON]
    mean = vectors[chosen].mean(axis=0)
    centred = vectors[chosen] - mean
    variances, axes = np.linalg.eigh(centred.T @ centred)
    two = axes[:, :-3:-1]
    points: Floats = vectors @ two - mean @ two
    return points, float(variances[-2:].sum() / max(variances.sum(), 1e-12))


def _umap(vectors: Floats) -> tuple[Floats, None]:
    try:
        from umap import UMAP
    except ImportError:
        raise MissingExtraError("umap-learn", "bench", "a map by UMAP") from None
    if len(vectors) < 16:
        return _pca(vectors)[0], None
    neighbours = min(15, len(vectors) - 1)
    made = UMAP(n_neighbors=neighbours, metric="cosine", random_state=_SEED, init="pca").fit_transform(
        vectors
    )
    return np.asarray(made, dtype=np.float32), None


def _scaled(points: Floats) -> Floats:
    """Moved and enlarged so that all but a few outliers fill [-1, 1], and these lie on its edge."""
    if not len(points):
        return points.astype(np.float32)
    low, high = np.quantile(points, (0.0025, 0.9975), axis=0)
    reach = max(float((high - low).max()) / 2, 1e-9)
    return np.asarray(np.clip((points - (low + high) / 2) / (1.05 * reach), -1, 1), dtype=np.float32)


def _turned(points: Floats, ids: Any, like: GalleryMap) -> Floats:
    """Orthogonal Procrustes: the turn and reflection that bring the photos of both maps nearest to each other."""
    there = places_in(ids, like.image_ids)
    here = np.flatnonzero(there >= 0)
    if len(here) < 3:
        return points
    own, other = points[here], like.points[there[here]]
    left, _, right = np.linalg.svd((own - own.mean(axis=0)).T @ (other - other.mean(axis=0)))
    return np.asarray(points @ (left @ right), dtype=np.float32)
