"""Folding copies: hits that show the same photo again stand behind the best of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from steersearch.indexer.embedder import Floats
from steersearch.indexer.query import Hit, Hits
from steersearch.indexer.region_snapshot import open_region_snapshot
from steersearch.indexer.regions import FrozenIndex

# Cosine of two photos' frozen embeddings from which they are taken for copies. Of 3,000 generated photos none comes
# nearer than .88 to another of 10,000 (mini); of copies saved anew at quality 40 98 % do: benchmarks/LOG.md.
SAME_PHOTO = 0.9
_MORE = 3  # times as many hits are asked for at first, and again where too many of them are copies


def folded(
    search: Callable[[int], Hits[Hit]], k: int, embeddings: Callable[[Sequence[str]], Mapping[str, Floats]]
) -> Hits[Hit]:
    """The k best hits of `search(count)` that are not copies of one another; each says what was folded into it.

    Copies are photos of the same content, and those whose frozen embeddings have a cosine of SAME_PHOTO or more.
    embeddings: contents -> what the frozen trunk says of them (dim,), of unit length, as far as it is known. Copies
    that rank far behind their photo may be left unsaid: no more hits are looked at than it takes to find k.
    """
    asked = _MORE * k
    while True:
        hits = search(asked)
        known = embeddings([hit.image_id for hit in hits])
        kept = list(_fold(hits, known))
        if len(kept) >= k or len(hits) < asked:
            first = (replace(hit, rank=rank) for rank, hit in enumerate(kept[:k], start=1))
            return Hits(first, hits.searched)
        asked *= _MORE


def _fold(hits: Sequence[Hit], known: Mapping[str, Floats]) -> Iterator[Hit]:
    kept: list[Hit] = []
    copies: list[list[Path]] = []
    for hit in hits:
        number = next((i for i, other in enumerate(kept) if _is_copy(hit, other, known)), None)
        if number is None:
            kept.append(hit)
            copies.append([])
        else:
            copies[number].append(hit.path)
    for hit, paths in zip(kept, copies, strict=True):
        yield replace(hit, copies=tuple(paths))


def _is_copy(hit: Hit, other: Hit, known: Mapping[str, Floats]) -> bool:
    if hit.image_id == other.image_id:
        return True
    one, two = known.get(hit.image_id), known.get(other.image_id)
    return one is not None and two is not None and float(one @ two) >= SAME_PHOTO


def frozen_embeddings(place: Path, index: FrozenIndex, image_ids: Sequence[str]) -> dict[str, Floats]:
    """What the frozen trunk says of these contents, as far as it is known: (dim,) float32, unit length."""
    snapshot = open_region_snapshot(place, index.key)
    if snapshot.arrays is None:
        return {}
    rows = dict(zip(snapshot.image_ids, snapshot.rows.tolist(), strict=True))
    found = {image_id: rows[image_id] for image_id in image_ids if rows.get(image_id, -1) >= 0}
    return {i: np.asarray(snapshot.arrays.embeddings[row], dtype=np.float32) for i, row in found.items()}
