"""How maps cover masks, against torchmetrics, slow direct versions, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersearch.benchmarks.harness.pixel_metrics import (
    choose_margin,
    intersections_and_unions,
    iou,
    near_best,
    patch_cover,
)


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
