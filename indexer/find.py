"""Photos that show what a prompt names, found without a query photo.

Presence says of each photo by itself how surely the prompt's object is in it. The surest photos then say together
what that object looks like here: their embeddings are steered to it, so a photo that is like them shows it too. Both
together find more than either (measured: benchmarks/ours/find.py), where some of the surest photos are right.
"""

from __future__ import annotations

import numpy as np

from steersearch.indexer.faiss_index import Doubles, Floats, Rows
from steersearch.indexer.filters import Mask
from steersearch.indexer.ranking import Ranking
from steersearch.indexer.score_statistics import ScoreStatistics
from steersearch.indexer.snapshot import Snapshot

_SUREST = 10  # photos that say what the object looks like; in a gallery of less than a hundred, every tenth
_PRESENCE = 0.5  # weight of presence, where that of likeness to the surest photos is 1
_DIGITS = (
    6  # of a score that count: equal photos are to have equal ones, however a product of matrices was cut up
)


def rank_by_presence(gallery: Snapshot, k: int, passing: Mask | None = None) -> Ranking:
    """The k best photos, equal ones by path; all, if there are fewer. `cosines` of the ranking are presences.

    passing: which rows are ranked; None: all. A photo whose presence is not known is not, and plays no part.
    """
    known = np.flatnonzero(~np.isnan(gallery.presence))
    presence = gallery.presence[known]
    vectors = gallery.flat.all
    embeddings = vectors if len(known) == len(vectors) else vectors[known]
    scores = find_scores(presence, embeddings, gallery.table.column("image_id").take(known).to_pylist())
    ranked = np.arange(len(known)) if passing is None else np.flatnonzero(passing[known])
    best = ranked[np.argsort(-scores[ranked], kind="stable")[:k]]
    statistics = ScoreStatistics.of(scores.astype(np.float32))
    parts = presence[best].astype(np.float64)[:, None]
    return Ranking(known[best], scores[best], parts, statistics, len(ranked))


def find_scores(presence: Floats, embeddings: Floats, image_ids: list[str]) -> Doubles:
    """How surely each of n photos shows the object, (n,): the weighed mean of its likeness to the surest photos and of
    its presence, each in standard deviations above its mean over the photos.

    presence (n,); embeddings (n, dim), unit length; image_ids (n,): copies of one content count once among the surest.
    """
    if len(presence) == 0:
        return np.empty(0)
    surest = _surest(presence, image_ids)
    weights = np.exp(presence[surest].astype(np.float64) - presence.max())
    together = weights @ embeddings[surest].astype(np.float64)
    together /= max(float(np.linalg.norm(together)), 1e-12)
    likeness = embeddings @ together.astype(np.float32)
    scores: Doubles = (_standardised(likeness) + _PRESENCE * _standardised(presence)) / (1 + _PRESENCE)
    return scores.round(_DIGITS)


def _surest(presence: Floats, image_ids: list[str]) -> Rows:
    """Rows of the highest presence, at most one of each content."""
    wanted = min(_SUREST, -(-len(presence) // 10))
    rows: dict[str, int] = {}
    for row in np.argsort(-presence, kind="stable").tolist():
        rows.setdefault(image_ids[row], row)
        if len(rows) == wanted:
            break
    return np.array(list(rows.values()), dtype=np.int64)


def _standardised(values: Floats) -> Doubles:
    wide = values.astype(np.float64)
    spread = float(wide.std())
    return (wide - wide.mean()) / spread if spread > 1e-9 else np.zeros_like(wide)
