"""More like these photos, less like those: Rocchio's rule on a library's vectors.

J. J. Rocchio, Relevance feedback in information retrieval, 1971: the query is the mean of the liked photos less a share
of the mean of the others. Without liked photos it is the gallery's mean less that share.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from steersearch.core.errors import ArgumentError
from steersearch.core.vectors import Floats
from steersearch.indexer.snapshot import Snapshot

LESS = 0.5  # share of the mean of the photos that are not liked


def rocchio(gallery: Snapshot, more: Sequence[str], less: Sequence[str]) -> Floats:
    """(n,) float32: the cosine of every photo of the gallery with the query. more, less: image_ids.

    Raises ArgumentError where there are none, or none of them has a vector here.
    """
    if not more and not less:
        raise ArgumentError("more", [], "choose a photo to lead to, or in less one to lead away from")
    vectors = np.asarray(gallery.flat.all, dtype=np.float32)
    ids = gallery.table.column("image_id").to_pylist()
    liked = np.isin(ids, list(more))
    unliked = np.isin(ids, list(less))
    if not liked.any() and not unliked.any():
        raise ArgumentError(
            "more", len(more), "none of these photos has a vector here; index the library again"
        )
    query = vectors[liked].mean(axis=0) if liked.any() else vectors.mean(axis=0)
    if unliked.any():
        query = query - LESS * vectors[unliked].mean(axis=0)
    cosines: Floats = vectors @ (query / max(float(np.linalg.norm(query)), 1e-12))
    return cosines
