"""Metrics of ranked lists, of labelled embeddings, and of score maps against masks (facts C6), from scikit-learn and
SciPy, of the extra `bench`.

None depends on the order of rows: tied scores count as the mean over their orders, or together. Every distinct score is
a threshold. All raise ValueError for scores that are not finite, and if undefined, such as without a relevant entry.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from steersearch.core.errors import MissingExtraError

try:
    from scipy import ndimage
    from sklearn import metrics
except ImportError as error:  # checked at import, not after hours of measuring
    raise MissingExtraError("scikit-learn", "bench", "this benchmark") from error

Doubles = npt.NDArray[np.float64]
Masks = npt.NDArray[np.bool_]
PRO_LIMIT = 0.3  # false positive rate up to which per-region overlap counts


def average_precision(scores: npt.ArrayLike, relevant: npt.ArrayLike) -> float:
    """Area under the stepwise precision-recall curve; tied scores enter together. Any equal shapes."""
    values, wanted = _labelled(scores, relevant)
    _refuse_none(wanted)
    return float(metrics.average_precision_score(wanted, values))


def ndcg(scores: npt.ArrayLike, relevant: npt.ArrayLike) -> float:
    """Normalised discounted cumulative gain of the whole list (G,), G at least 2, relevance 0 or 1.

    Rank r counts 1 / log2(r + 1); tied entries share their ranks.
    """
    values, wanted = _labelled(scores, relevant)
    _refuse_none(wanted)
    return float(metrics.ndcg_score(wanted[None].astype(int), values[None]))


def silhouettes(distances: npt.ArrayLike, labels: npt.ArrayLike) -> Doubles:
    """Silhouettes (n,), from -1 to 1: how much closer each point is to its own class than to the next one.

    distances: (n, n), symmetric, 0 on the diagonal;  labels: (n,), at least two different ones and fewer than n.
    """
    names = np.asarray(labels)
    if len(np.unique(names)) < 2:
        raise ValueError("all points are of one class")
    found: Doubles = metrics.silhouette_samples(
        np.asarray(distances, np.float64), names, metric="precomputed"
    )
    return found


def cosine_distances(vectors: npt.ArrayLike) -> Doubles:
    """1 - cosine between all rows of (n, D) of any length: (n, n), 0 on the diagonal."""
    found: Doubles = metrics.pairwise.cosine_distances(np.asarray(vectors, np.float64))
    return found


def auroc(scores: npt.ArrayLike, masks: npt.ArrayLike) -> float:
    """The probability that a marked pixel scores higher than an unmarked one; ties count half. Any equal shapes."""
    values, marked = _both(scores, masks)
    return float(metrics.roc_auc_score(marked, values))


def best_f1(scores: npt.ArrayLike, masks: npt.ArrayLike) -> float:
    """F1max: the largest F1 of any threshold over all pixels. Any equal shapes."""
    values, marked = _both(scores, masks)
    precision, recall, _ = metrics.precision_recall_curve(marked, values)
    return float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max())


def pro(scores: npt.ArrayLike, masks: npt.ArrayLike, limit: float = PRO_LIMIT) -> float:
    """Per-region overlap: area under mean overlap with regions against false positive rate, up to `limit`.

    scores, masks: (n, H, W). A region is an 8-connected component of a mask; all sizes count alike. The rate is over
    all unmarked pixels. The curve is linear between its points and cut at `limit`; the area is divided by it, so that 1
    is best.
    """
    values, marked = _both(scores, masks)
    weights = np.where(marked, region_weights(np.asarray(masks, np.bool_)).ravel(), 1.0)
    rate, overlap, _ = metrics.roc_curve(marked, values, sample_weight=weights)
    within = np.searchsorted(rate, limit, "right")  # points of the curve up to the limit
    ends = slice(within - 1, within + 1)
    rate, overlap = [*rate[:within], limit], [*overlap[:within], np.interp(limit, rate[ends], overlap[ends])]
    return float(metrics.auc(rate, overlap)) / limit


def region_weights(masks: Masks) -> npt.NDArray[np.float64]:
    """(n, H, W): 1 / (pixels of its region x regions of all masks) for each marked pixel, else 0; sums to 1."""
    corners_touch = np.zeros((3, 3, 3))  # within a mask, not between masks
    corners_touch[1] = 1
    regions, count = ndimage.label(masks, corners_touch)
    sizes = np.bincount(regions.ravel())
    return np.where(regions > 0, 1 / (sizes[regions] * max(count, 1)), 0.0)


def _labelled(scores: npt.ArrayLike, wanted: npt.ArrayLike) -> tuple[Doubles, npt.NDArray[np.bool_]]:
    """Scores and labels, each (n,). Raises ValueError for unequal shapes and for scores that are not finite."""
    values, labels = np.asarray(scores, np.float64), np.asarray(wanted, np.bool_)
    if values.shape != labels.shape:
        raise ValueError(f"scores of shape {values.shape} for labels of shape {labels.shape}")
    if not np.isfinite(values).all():
        raise ValueError("a score is not a finite number")
    return values.ravel(), labels.ravel()


def _refuse_none(wanted: npt.NDArray[np.bool_]) -> None:
    if not wanted.any():
        raise ValueError("nothing is relevant")


def _both(
    scores: npt.ArrayLike, masks: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    values, marked = _labelled(scores, masks)
    if not marked.any() or marked.all():
        raise ValueError("everything is marked" if marked.any() else "nothing is marked")
    return values, marked
