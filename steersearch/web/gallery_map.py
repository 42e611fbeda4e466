"""A library as points in the plane, under a prompt or none: similar photos lie together."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import numpy as np

from steersearch.core.errors import MissingExtraError
from steersearch.core.vectors import Floats
from steersearch.indexer.snapshot import Snapshot

Method = Literal["pca", "umap"]
_FITTED_ON = 20_000  # photos, drawn at random, by which the axes are found
_SEED = 1234
_KEPT = 32


@dataclass(frozen=True)
class GalleryMap:
    """image_ids: of the points.  points: (n, 2) float32 in [-1, 1].  explained: the share of the variance that the two
    axes have; None of a UMAP."""

    image_ids: list[str]
    points: Floats
    explained: float | None


class Maps:
    """Maps of galleries, kept as long as these do not change."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str, Method], GalleryMap] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, gallery: Snapshot, method: Method, like: GalleryMap | None = None) -> GalleryMap:
        """The map of a gallery. like: turned and mirrored so that photos lie as near as can be to where they lie in
        this one. Raises MissingExtraError for "umap" without its package."""
        name = (gallery.name, "" if like is None else str(id(like)), method)
        with self._lock:
            if name not in self._kept:
                self._kept[name] = gallery_map(gallery, method, like)
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            return self._kept[name]


def gallery_map(gallery: Snapshot, method: Method, like: GalleryMap | None = None) -> GalleryMap:
    """See `Maps.of`."""
    vectors = np.asarray(gallery.flat.all, dtype=np.float32)
    ids: list[str] = gallery.table.column("image_id").to_pylist()
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
    points: Floats = (vectors - mean) @ axes[:, :-3:-1]
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
    """Centred, so that all but a few outliers lie in [-1, 1], and these on its edge."""
    if not len(points):
        return points.astype(np.float32)
    centred = points - np.median(points, axis=0)
    reach = np.quantile(np.abs(centred), 0.995) or 1.0
    return np.clip(centred / (1.05 * max(reach, 1e-9)), -1, 1).astype(np.float32)


def _turned(points: Floats, ids: list[str], like: GalleryMap) -> Floats:
    """Orthogonal Procrustes: the turn and reflection that bring the photos of both maps nearest to each other."""
    rows = {id: row for row, id in enumerate(like.image_ids)}
    both = [(row, rows[id]) for row, id in enumerate(ids) if id in rows]
    if len(both) < 3:
        return points
    here, there = np.array(both).T
    left, _, right = np.linalg.svd(points[here].T @ like.points[there])
    return np.asarray(points @ (left @ right), dtype=np.float32)
