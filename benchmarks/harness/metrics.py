"""Retrieval metrics as pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def core_precision(
    embeddings: npt.NDArray[np.float32],
    objects: Sequence[str],
    image_ids: Sequence[str],
    target: str,
    k: int = 1,
    *,
    gallery: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float64]:
    """Precision at k of CORE for one scene under one prompt, one value per query (CORE protocol, facts C1).

    embeddings: (G, D) of all pictures of the scene, any length; compared by cosine
    objects:    (G,) the object added to each picture;  image_ids: (G,) its base picture
    target:     queries are the pictures with this object; a hit is another picture with it
    gallery:    (G, D) of the same pictures, if they are embedded differently as gallery
    A query's gallery excludes all variants of its base picture. Ties count as the mean over their orders. Queries
    without any right answer, since all pictures with the object have one base, are dropped, as in the authors' script.
    Raises ValueError if fewer than k pictures remain, no picture has the object, or an embedding is not finite.
    """
    unit = unit_rows(embeddings)
    found = unit if gallery is None else unit_rows(gallery)
    if not (np.isfinite(unit).all() and np.isfinite(found).all()):
        raise ValueError("an embedding is not finite")
    names, bases = np.asarray(objects), np.asarray(image_ids)
    queries = np.flatnonzero(names == target)
    if len(queries) == 0:
        raise ValueError(f'no picture has the object "{target}"')
    if len(set(bases[queries])) == 1:
        return np.empty(0)
    scores = unit[queries] @ found.T
    scores[bases[queries][:, None] == bases[None, :]] = -np.inf
    if k > int(np.isfinite(scores).sum(axis=1).min()):
        raise ValueError(f"k is {k}, but a query has fewer pictures of other base pictures to find")
    last = -np.sort(-scores, axis=1)[:, k - 1 : k]  # the k-th greatest score of each query
    above, level = scores > last, scores == last
    right = names == target
    places = k - above.sum(axis=1)  # left for tied scores
    by_chance = places * (level & right).sum(axis=1) / level.sum(axis=1)
    precision: npt.NDArray[np.float64] = ((above & right).sum(axis=1) + by_chance) / k
    return precision


def unit_rows(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows at unit length; a row of zeros stays zero."""
    rows: npt.NDArray[np.float32] = vectors / np.maximum(
        np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12
    )
    return rows


def percent(shares: Any) -> float:
    """The mean of shares, or one share, in percent with two decimals."""
    return round(100 * float(np.mean(shares)), 2)
