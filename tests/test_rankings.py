"""Ranking metrics against scikit-learn, against naive versions, and by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersearch.benchmarks.rankings import (
    average_precision,
    cosine_distances,
    ndcg,
    recall_at,
    silhouettes,
)

learn = pytest.importorskip("sklearn.metrics")


@st.composite
def ranked(draw: st.DrawFn, most: int = 40) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Scores with many ties, and labels of which at least one is True."""
    size = draw(st.integers(2, most))
    scores = draw(st.lists(st.integers(-3, 3), min_size=size, max_size=size))
    wanted = draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(any))
    return np.array(scores, np.float64) / 4, np.array(wanted)


def test_average_precision_by_hand() -> None:
    # ranks of what is wanted: 1 and 3 -> (1/1 + 2/3) / 2
    assert average_precision([0.9, 0.5, 0.4, 0.1], [1, 0, 1, 0]) == pytest.approx(5 / 6)
    # all tied: one threshold, precision is the share of what is wanted
    assert average_precision([0.5] * 4, [0, 1, 0, 0]) == pytest.approx(1 / 4)


@given(ranked())
def test_average_precision_is_that_of_scikit_learn(case: tuple[npt.ArrayLike, npt.ArrayLike]) -> None:
    scores, wanted = case
    assert average_precision(scores, wanted) == pytest.approx(learn.average_precision_score(wanted, scores))


def test_average_precision_is_that_of_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    rng = np.random.default_rng(0)
    scores, wanted = rng.integers(0, 9, 200) / 9, rng.random(200) < 0.2
    theirs = metrics.binary_average_precision(torch.tensor(scores), torch.tensor(wanted, dtype=torch.int64))
    assert average_precision(scores, wanted) == pytest.approx(float(theirs), abs=1e-6)


def test_ndcg_by_hand() -> None:
    gain = 1 / math.log2(3) + 1 / math.log2(5)  # ranks 2 and 4
    assert ndcg([4, 3, 2, 1], [0, 1, 0, 1]) == pytest.approx(gain / (1 + 1 / math.log2(3)))
    assert ndcg([4, 3, 2, 1], [1, 1, 0, 0]) == pytest.approx(1)


@given(ranked())
def test_ndcg_is_that_of_scikit_learn(case: tuple[npt.NDArray[np.float64], npt.ArrayLike]) -> None:
    scores, wanted = case
    assert ndcg(scores, wanted) == pytest.approx(learn.ndcg_score([np.asarray(wanted, int)], [scores]))


def test_recall_by_hand() -> None:
    scores = [[3, 2, 1], [1, 2, 3], [1, 1, 1]]
    wanted = [[1, 0, 1], [1, 0, 0], [1, 0, 0]]
    assert recall_at(scores, wanted, 1).tolist() == pytest.approx([1 / 2, 0, 1 / 3])
    assert recall_at(scores, wanted, 2).tolist() == pytest.approx([1 / 2, 0, 2 / 3])


@given(ranked(5), st.integers(1, 5))
def test_recall_is_the_mean_over_all_orders_of_ties(
    case: tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]], k: int
) -> None:
    scores, wanted = case
    k = min(k, len(scores))
    orders = [
        list(order)
        for order in itertools.permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    naive = np.mean([wanted[order[:k]].sum() / wanted.sum() for order in orders])
    assert recall_at(scores[None], wanted[None], k)[0] == pytest.approx(naive)


@given(st.integers(0, 10_000), st.integers(2, 5))
def test_silhouettes_are_those_of_scikit_learn(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, 6)])  # some may have one point only
    away = cosine_distances(rng.integers(-2, 3, (len(labels), 3)) + 0.5)
    theirs = learn.silhouette_samples(away, labels, metric="precomputed")
    np.testing.assert_allclose(silhouettes(away, labels), theirs, atol=1e-12)


def test_silhouettes_by_hand() -> None:
    away = [[0, 1, 4], [1, 0, 2], [4, 2, 0]]
    assert silhouettes(away, ["a", "a", "b"]).tolist() == pytest.approx([3 / 4, 1 / 2, 0])
    assert silhouettes(np.zeros((3, 3)), [0, 0, 1]).tolist() == [0, 0, 0]  # all in one place


def test_cosine_distances_are_those_of_scikit_learn() -> None:
    vectors = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    np.testing.assert_allclose(cosine_distances(vectors), learn.pairwise.cosine_distances(vectors), atol=1e-6)


def test_what_has_no_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing is relevant"):
        average_precision([1, 2], [0, 0])
    with pytest.raises(ValueError, match="nothing is relevant"):
        ndcg([1, 2], [0, 0])
    with pytest.raises(ValueError, match="a query has nothing relevant"):
        recall_at([[1, 2], [1, 2]], [[1, 0], [0, 0]], 1)
    with pytest.raises(ValueError, match="k is 3, of 2"):
        recall_at([[1, 2]], [[1, 0]], 3)
    with pytest.raises(ValueError, match="one class"):
        silhouettes([[0, 1], [1, 0]], [5, 5])
    with pytest.raises(ValueError, match="not a finite number"):
        average_precision([1, np.nan], [0, 1])
    with pytest.raises(ValueError, match="shape"):
        average_precision([1, 2, 3], [0, 1])
