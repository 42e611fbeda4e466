"""Metrics of rankings and of maps of scores, against slow direct versions, and by hand."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from steersearch.benchmarks.harness.rankings import (
    auroc,
    average_precision,
    best_f1,
    cosine_distances,
    ndcg,
    pro,
    region_weights,
    silhouettes,
)
from tests.test_imports import modules_after


def test_average_precision_by_hand() -> None:
    # ranks of what is wanted: 1 and 3 -> (1/1 + 2/3) / 2
    assert average_precision([0.9, 0.5, 0.4, 0.1], [1, 0, 1, 0]) == pytest.approx(5 / 6)
    # all tied: one threshold, precision is the share of what is wanted
    assert average_precision([0.5] * 4, [0, 1, 0, 0]) == pytest.approx(1 / 4)


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


def test_silhouettes_by_hand() -> None:
    away = [[0, 1, 4], [1, 0, 2], [4, 2, 0]]
    assert silhouettes(away, ["a", "a", "b"]).tolist() == pytest.approx([3 / 4, 1 / 2, 0])
    assert silhouettes(np.zeros((3, 3)), [0, 0, 1]).tolist() == [0, 0, 0]  # all in one place


Case = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]


@st.composite
def maps_and_masks(draw: st.DrawFn) -> Case:
    """Up to four small maps with many ties and their masks, some empty; both kinds of pixels occur."""
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    shape = tuple(draw(st.integers(*sides)) for sides in ((1, 4), (2, 9), (2, 9)))
    masks = rng.random(shape) < draw(st.sampled_from([0.1, 0.3, 0.6]))
    masks[rng.random(shape[0]) < 0.3] = False
    masks[0, 0, 0], masks[0, 1, 1] = True, False
    scores = rng.integers(0, draw(st.sampled_from([2, 5, 1000])), shape).astype(np.float32)
    return scores, masks


def test_auroc_by_hand() -> None:
    """Of the four pairs of a marked and an unmarked pixel, two are in order and one is tied."""
    assert auroc([0.9, 0.5, 0.5, 0.7], [1, 1, 0, 0]) == pytest.approx(2.5 / 4)


def test_best_f1_by_hand() -> None:
    """Thresholds .9, .7, .5 find 1 of 1, 1 of 2, 3 of 3 + 1: F1 is 1/2, 2/5, 6/7."""
    assert best_f1([0.9, 0.5, 0.5, 0.7, 0.1], [1, 1, 1, 0, 0]) == pytest.approx(6 / 7)


def slow_pro(scores: npt.NDArray[np.float32], masks: npt.NDArray[np.bool_], limit: float) -> float:
    """As it is defined: a threshold at a time, regions by SciPy, the area by thin trapezoids."""
    regions = []
    for number, mask in enumerate(masks):
        found, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [(number, found == label) for label in range(1, count + 1)]
    points = [(0.0, 0.0)]
    for threshold in sorted(set(scores.ravel().tolist()), reverse=True):
        above = scores >= threshold
        overlap = np.mean([above[number][region].mean() for number, region in regions])
        points.append((float(above[~masks].mean()), float(overlap)))
    rates, overlaps = (np.array(values) for values in zip(*points, strict=True))
    area = 0.0
    for i in range(1, len(points)):
        low, high = rates[i - 1], min(rates[i], limit)
        if high <= low:
            continue
        share = (high - low) / (rates[i] - rates[i - 1])
        at_high = overlaps[i - 1] + share * (overlaps[i] - overlaps[i - 1])
        area += (high - low) * (overlaps[i - 1] + at_high) / 2
    return area / limit


@given(maps_and_masks(), st.sampled_from([0.05, 0.3, 1.0]))
def test_pro_is_that_of_the_slow_version(case: Case, limit: float) -> None:
    scores, masks = case
    assert pro(scores, masks, limit) == pytest.approx(slow_pro(scores, masks, limit), abs=1e-9)


def test_pro_by_hand() -> None:
    mask = np.zeros((1, 2, 6), np.bool_)
    mask[0, :, 0] = True  # a region of 2 pixels
    mask[0, 0, 3] = True  # and one of 1; 9 pixels are outside
    scores = np.zeros((1, 2, 6))
    scores[0, 0, 0] = 3  # half of the first region, before any false positive
    scores[0, 0, 5] = 2  # one false positive: rate 1/9
    scores[0, 0, 3] = 1  # then the second region; all else, with the rest of the first, comes last
    # overlap .25 until 1/9; then .75 at 1/9, and along a line to 1 at rate 1
    at_limit = 0.75 + 0.25 * (0.3 - 1 / 9) / (8 / 9)
    expected = (0.25 / 9 + (0.75 + at_limit) / 2 * (0.3 - 1 / 9)) / 0.3
    assert pro(scores, mask) == pytest.approx(expected)
    assert pro(mask.astype(float), mask) == 1
    assert pro(-mask.astype(float), mask) == 0


@given(maps_and_masks())
def test_pro_of_one_region_up_to_1_is_auroc(case: Case) -> None:
    scores, masks = case
    masks = np.zeros_like(masks)
    masks[0, :2, :1] = True
    assert pro(scores, masks, 1.0) == pytest.approx(auroc(scores, masks))


def test_regions_weigh_alike() -> None:
    masks = np.zeros((2, 3, 3), np.bool_)
    masks[0, 0, :2] = masks[0, 2, 2] = masks[1] = True
    weights = region_weights(masks)
    assert weights.sum() == pytest.approx(1)
    assert weights[0, 0, 0] == pytest.approx(1 / 6)
    assert weights[0, 2, 2] == pytest.approx(1 / 3)
    assert region_weights(np.zeros((1, 2, 2), np.bool_)).sum() == 0


def test_what_has_no_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing is relevant"):
        average_precision([1, 2], [0, 0])
    with pytest.raises(ValueError, match="nothing is relevant"):
        ndcg([1, 2], [0, 0])
    with pytest.raises(ValueError, match="one class"):
        silhouettes([[0, 1], [1, 0]], [5, 5])
    with pytest.raises(ValueError, match="not a finite number"):
        average_precision([1, np.nan], [0, 1])
    with pytest.raises(ValueError, match="shape"):
        average_precision([1, 2, 3], [0, 1])
    scores = np.zeros((1, 2, 2))
    for metric in (auroc, best_f1, pro):
        with pytest.raises(ValueError, match="nothing is marked"):
            metric(scores, np.zeros((1, 2, 2)))
        with pytest.raises(ValueError, match="everything is marked"):
            metric(scores, np.ones((1, 2, 2)))
        with pytest.raises(ValueError, match="not a finite number"):
            metric(np.full((1, 2, 2), np.inf), np.eye(2)[None])


def test_cosine_distances_of_vectors_of_any_length() -> None:
    found = cosine_distances([[3, 0], [0, 0.5], [1, 1]])
    half = 1 - math.sqrt(0.5)
    assert found.tolist() == [pytest.approx(row) for row in ([0, 1, half], [1, 0, half], [half, half, 0])]


def test_without_the_extra_a_benchmark_says_so_before_it_measures() -> None:
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from steersearch.core.errors import MissingExtraError\n"
        "try:\n    import steersearch.benchmarks.paper.pods\n"
        "except MissingExtraError as error:\n    assert 'steersearch[bench]' in str(error); import wave\n"
        "import steersearch.benchmarks.paper.core, steersearch.benchmarks.harness.report"
    )
    assert "wave" in modules_after(code)
