"""Metrics of ranked lists and of labelled embeddings, as pure functions of arrays.

None depends on the order in which rows are given: tied scores count as in all their orders on average, or together.
Scores and vectors must be finite; ValueError for what has no answer, such as a list in which nothing is relevant.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


def average_precision(scores: npt.ArrayLike, relevant: npt.ArrayLike) -> float:
    """Area under the precision-recall curve in steps: sum over thresholds of (recall gained) x precision.

    scores, relevant: of any, equal shape; higher scores come first, all tied ones at once (as scikit-learn has it).
    """
    thresholds, counts, found, wrong = counts_at_thresholds(*split(scores, relevant))
    if len(thresholds) == 0:
        raise ValueError("nothing is relevant")
    return float((counts * (found / (found + wrong))).sum() / counts.sum())


def ndcg(scores: npt.ArrayLike, relevant: npt.ArrayLike) -> float:
    """Discounted cumulative gain of the whole list over that of the ideal one, relevance 0 or 1.

    scores, relevant: (G,). Rank r counts 1 / log2(r + 1); tied entries share the ranks they take up.
    """
    values, wanted = np.asarray(scores, np.float64), np.asarray(relevant, np.bool_)
    _refuse_broken(values)
    if not wanted.any():
        raise ValueError("nothing is relevant")
    discounts = 1 / np.log2(np.arange(len(values)) + 2)
    _, place, sizes = np.unique(-values, return_inverse=True, return_counts=True)
    each = np.add.reduceat(discounts, np.cumsum(sizes) - sizes) / sizes
    return float(each[place[wanted]].sum() / discounts[: wanted.sum()].sum())


def recall_at(scores: npt.ArrayLike, relevant: npt.ArrayLike, k: int) -> Doubles:
    """Share of each query's relevant rows that are among its k best: (Q, G), (Q, G) bool -> (Q,).

    Where the k-th place is tied, what is tied there counts for the part of it that fits.
    """
    values, wanted = np.asarray(scores, np.float64), np.asarray(relevant, np.bool_)
    _refuse_broken(values)
    if not 1 <= k <= values.shape[1]:
        raise ValueError(f"k is {k}, of {values.shape[1]}")
    if not wanted.any(axis=1).all():
        raise ValueError("a query has nothing relevant")
    last = -np.sort(-values, axis=1)[:, k - 1 : k]
    surely, tied = values > last, values == last
    part = (k - surely.sum(axis=1, keepdims=True)) / tied.sum(axis=1, keepdims=True)
    shares: Doubles = ((surely + part * tied) * wanted).sum(axis=1) / wanted.sum(axis=1)
    return shares


def silhouettes(distances: npt.ArrayLike, labels: npt.ArrayLike) -> Doubles:
    """How much nearer each point is to its own class than to the nearest other, (n,), from -1 to 1.

    distances: (n, n), symmetric;  labels: (n,), at least two different ones. With a the mean distance to the others
    of its class and b the least mean distance to another class: (b - a) / max(a, b); 0 for a class of one.
    """
    away, names = np.asarray(distances, np.float64), np.asarray(labels)
    _refuse_broken(away)
    classes, own = np.unique(names, return_inverse=True)
    if len(classes) < 2:
        raise ValueError("all points are of one class")
    member = own[:, None] == np.arange(len(classes))
    sizes = member.sum(axis=0)
    sums = away @ member
    rows = np.arange(len(own))
    within = sums[rows, own] / np.maximum(sizes[own] - 1, 1)
    means = sums / sizes
    means[rows, own] = np.inf
    other = means.min(axis=1)
    widest = np.maximum(within, other)
    found = np.where(widest > 0, (other - within) / np.where(widest > 0, widest, 1), 0.0)
    return np.where(sizes[own] > 1, found, 0.0)


def cosine_distances(vectors: npt.ArrayLike) -> Doubles:
    """1 - cosine between all rows of (n, D) of any length: (n, n), 0 on the diagonal."""
    unit = np.asarray(vectors, np.float64)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    away: Doubles = np.clip(1 - unit @ unit.T, 0, 2)
    np.fill_diagonal(away, 0)
    return away


# ------------------------------------------------------------------------------------- shared with pixel metrics


def split(scores: npt.ArrayLike, wanted: npt.ArrayLike) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The scores of what is wanted and those of the rest, each rising. Raises ValueError if one is not finite."""
    values, inside = np.asarray(scores), np.asarray(wanted, np.bool_)
    if values.shape != inside.shape:
        raise ValueError(f"scores of shape {values.shape} for labels of shape {inside.shape}")
    _refuse_broken(values)
    return np.sort(values[inside]), np.sort(values[~inside])


def counts_at_thresholds(
    positive: npt.NDArray[Any], negative: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each distinct score of `positive`, rising: the score, how many have it, and how many of `positive` and of
    `negative` score at least as high. Both must be sorted, rising."""
    first = distinct(positive)
    thresholds, found = positive[first], len(positive) - first
    counts = np.diff(first, append=len(positive))
    return thresholds, counts, found, len(negative) - np.searchsorted(negative, thresholds)


def distinct(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Where each distinct value of sorted `values` begins."""
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])[: len(values)])


def _refuse_broken(values: npt.NDArray[Any]) -> None:
    if not np.isfinite(values).all():
        raise ValueError("a score is not a finite number")
