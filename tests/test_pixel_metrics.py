"""Pixel metrics against scikit-learn, SciPy, torchmetrics, slow direct versions, and by hand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersearch.benchmarks.pixel_metrics import (
    auroc,
    best_f1,
    choose_margin,
    components,
    intersections_and_unions,
    iou,
    near_best,
    patch_cover,
    pro,
    region_weights,
)

learn = pytest.importorskip("sklearn.metrics")
ndimage = pytest.importorskip("scipy.ndimage")

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


@given(maps_and_masks())
def test_auroc_is_that_of_scikit_learn(case: Case) -> None:
    scores, masks = case
    assert auroc(scores, masks) == pytest.approx(learn.roc_auc_score(masks.ravel(), scores.ravel()))


@given(maps_and_masks())
def test_best_f1_is_that_of_scikit_learns_curve(case: Case) -> None:
    scores, masks = case
    precision, recall, _ = learn.precision_recall_curve(masks.ravel(), scores.ravel())
    best = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
    assert best_f1(scores, masks) == pytest.approx(best)


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


@given(st.integers(0, 100_000), st.sampled_from([0.1, 0.4, 0.6, 1.0]))
def test_components_are_those_of_scipy(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 14, 2)) < share
    theirs, _ = ndimage.label(mask, np.ones((3, 3)))
    np.testing.assert_array_equal(components(mask), theirs)


def test_regions_weigh_alike() -> None:
    masks = np.zeros((2, 3, 3), np.bool_)
    masks[0, 0, :2] = masks[0, 2, 2] = masks[1] = True
    weights = region_weights(masks)
    assert weights.sum() == pytest.approx(1)
    assert weights[0, 0, 0] == pytest.approx(1 / 6)
    assert weights[0, 2, 2] == pytest.approx(1 / 3)
    assert region_weights(np.zeros((1, 2, 2), np.bool_)).sum() == 0


def test_patch_cover_is_exact_for_sides_that_do_not_divide() -> None:
    mask = np.zeros((3, 3), np.bool_)
    mask[:, 0] = True
    np.testing.assert_allclose(patch_cover(mask, (1, 2)), [[2 / 3, 0]])
    np.testing.assert_allclose(patch_cover(mask, (6, 6))[0], [1, 1, 0, 0, 0, 0])  # finer than the mask


@given(st.integers(0, 100_000))
def test_patch_cover_is_the_mean_of_each_cell(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((12, 8)) < 0.5
    cells = mask.reshape(3, 4, 4, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(patch_cover(mask, (3, 4)), cells)


def test_iou_is_that_of_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    rng = np.random.default_rng(1)
    ours, theirs = rng.random((2, 5, 6, 6)) < 0.4
    expected = [
        float(metrics.binary_jaccard_index(*map(torch.tensor, pair)))
        for pair in zip(ours, theirs, strict=True)
    ]
    np.testing.assert_allclose(iou(ours, theirs), expected, atol=1e-6)


def test_iou_of_empty_masks() -> None:
    empty, full = np.zeros((1, 2, 2)), np.ones((1, 2, 2))
    assert [iou(a, b)[0] for a, b in ((empty, empty), (empty, full), (full, full))] == [1, 0, 1]
    shared, union = intersections_and_unions(empty, full)
    assert (shared[0], union[0]) == (0, 4)
    with pytest.raises(ValueError, match="shape"):
        iou(np.zeros((1, 2, 2)), np.zeros((1, 2, 3)))


def test_a_margin_of_logits_is_a_share_of_the_best_probability() -> None:
    logits = np.log([[[0.5, 0.3, 0.2]]])
    assert near_best(logits, -np.log(0.55)).tolist() == [[[True, True, False]]]  # p >= .55 x .5


def test_the_chosen_margin_is_the_best_of_all() -> None:
    rng = np.random.default_rng(2)
    maps, meant = rng.normal(size=(6, 4, 4)), rng.random((6, 4, 4)) < 0.3
    chosen = iou(near_best(maps, choose_margin(maps, meant)), meant).mean()
    tried = [iou(near_best(maps, margin), meant).mean() for margin in np.linspace(0, 6, 50)]
    assert chosen >= max(tried) - 0.02
    marked = maps >= maps.max(axis=(1, 2), keepdims=True) - 1.0
    assert iou(near_best(maps, choose_margin(maps, marked)), marked).mean() > 0.95


def test_what_has_no_answer_is_refused() -> None:
    scores = np.zeros((1, 2, 2))
    for metric in (auroc, best_f1, pro):
        with pytest.raises(ValueError, match="nothing is marked"):
            metric(scores, np.zeros((1, 2, 2)))
        with pytest.raises(ValueError, match="everything is marked"):
            metric(scores, np.ones((1, 2, 2)))
        with pytest.raises(ValueError, match="not a finite number"):
            metric(np.full((1, 2, 2), np.inf), np.eye(2)[None])
