"""Heatmaps on pictures: the peak stays where it was, ranges are shared, colours rise in lightness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from steersearch.core.heatmaps import (
    LEAST_RANGE,
    colour,
    normalise,
    overlay,
    shared_vmax,
    times_even,
    upsample,
)
from steersearch.core.preprocess import Preprocess

PEAK = np.array(
    [[0.0, 0.1, 0.0], [0.0, 0.1, 0.8]], dtype=np.float32
)  # (h, w) = (2, 3), highest at row 1, column 2


def test_upsampling_equals_torchs_bilinear() -> None:
    heatmap = np.random.default_rng(0).random((4, 6), dtype=np.float32)
    for size in ((40, 90), (33, 47), (4, 6)):
        expected = F.interpolate(
            torch.from_numpy(heatmap)[None, None], size, mode="bilinear", align_corners=False
        )
        found = upsample(heatmap, size)
        assert found.shape == size
        assert found == pytest.approx(expected[0, 0].numpy(), abs=1e-5)


def test_a_shared_range_keeps_a_weak_heatmap_weak() -> None:
    strong = np.zeros((4, 5), np.float32)
    strong[1, 2] = 0.8
    vmax = shared_vmax([strong / 4, strong])
    assert vmax == pytest.approx(0.8)
    assert normalise(strong, vmax).max() == pytest.approx(1.0)
    assert normalise(strong / 4, vmax).max() == pytest.approx(0.25)
    assert normalise(strong / 4).max() == pytest.approx(1.0)
    assert normalise(strong, 0.4).max() == 1.0
    assert normalise(np.zeros((2, 2))).tolist() == [[0, 0], [0, 0]]
    assert shared_vmax([]) == 0.0


def test_the_range_reaches_eight_times_an_even_spread_at_least() -> None:
    """Flat maps of 20 patches hold 1/20 everywhere; an eighth of 16 patches is 2, with 1/2 in each."""
    flat, on_an_eighth = np.full((4, 5), 1 / 20), np.zeros((4, 4))
    on_an_eighth[1, 1:3] = 1 / 2
    assert times_even(flat) == pytest.approx(np.ones((4, 5)))
    assert times_even(on_an_eighth).max() == LEAST_RANGE
    assert shared_vmax([flat, flat]) == pytest.approx(8 / 20)
    assert shared_vmax([on_an_eighth]) == pytest.approx(1 / 2)


@pytest.mark.parametrize("grid", [(4, 4), (24, 24)])
def test_a_flat_heatmap_looks_flat(grid: tuple[int, int]) -> None:
    picture = Image.new("RGB", (96, 96), (128, 128, 128))
    flat, found = np.full(grid, 1 / (grid[0] * grid[1])), np.zeros(grid)
    found[1, 1] = 1
    change = np.abs(np.asarray(overlay(picture, flat), dtype=int) - 128)
    assert change.max() <= 12  # of 255
    assert change.std(axis=(0, 1)).max() == 0
    assert np.abs(np.asarray(overlay(picture, found), dtype=int) - 128).max() > 50


def test_higher_values_are_lighter() -> None:
    shades = colour(np.linspace(0, 1, 50))
    assert shades.dtype == np.uint8
    lightness = shades @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > 0).all()


def test_an_overlay_marks_the_place_and_leaves_the_rest() -> None:
    picture = Image.new("RGB", (90, 60), (40, 90, 160))
    shown = np.asarray(overlay(picture, PEAK), dtype=int)
    change = np.abs(shown - np.asarray(picture, dtype=int)).sum(axis=-1)
    row, column = np.unravel_index(change.argmax(), change.shape)
    assert shown.shape == (60, 90, 3)
    assert row >= 30
    assert column >= 60
    assert change[:15, :15].max() <= 3
    assert np.array_equal(
        np.asarray(picture), np.full((60, 90, 3), (40, 90, 160))
    )  # the original is untouched


def test_an_overlay_mixes_colour_and_picture_by_hand() -> None:
    """At `vmax` 0.7 of the palest colour, at 0 the picture; half way, 0.35 of the middle colour."""
    picture = Image.new("RGB", (30, 10), (100, 100, 100))
    shown = np.asarray(overlay(picture, [[0.0, 0.4, 0.8]], vmax=0.8), dtype=float)
    assert shown[5, 0] == pytest.approx([100, 100, 100])
    assert shown[5, 14] == pytest.approx(0.65 * 100 + 0.35 * np.array([205, 66, 90]), abs=6)
    assert shown[5, 29] == pytest.approx(0.3 * 100 + 0.7 * np.array([250, 240, 160]), abs=1)


@pytest.mark.parametrize("crop_pct", [1.0, 0.9])
def test_an_overlay_of_a_crop_fades_what_the_model_did_not_see(crop_pct: float) -> None:
    picture = Image.new("RGB", (200, 100), (20, 100, 200))
    preprocess = Preprocess(size=32, mean=(0, 0, 0), std=(1, 1, 1), crop_pct=crop_pct)
    left, top, right, bottom = (round(edge) for edge in preprocess.region(picture.size))
    shown = np.asarray(overlay(picture, np.zeros((2, 2)), region=preprocess.region(picture.size)), dtype=int)
    seen = np.zeros((100, 200), bool)
    seen[top:bottom, left:right] = True
    assert (shown[seen] == (20, 100, 200)).all()
    assert (np.ptp(shown[~seen], axis=-1) == 0).all()  # grey
    assert (shown[~seen] > 170).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2), (2, 301)])
@pytest.mark.parametrize("crop_pct", [1.0, 0.9])
def test_any_picture_can_be_covered(size: tuple[int, int], crop_pct: float) -> None:
    """In a very narrow picture the region that the model saw is less than a pixel wide."""
    picture = Image.new("RGB", size, (20, 100, 200))
    preprocess = Preprocess(size=32, mean=(0, 0, 0), std=(1, 1, 1), crop_pct=crop_pct)
    for region in (preprocess.region(size), None):
        for grid in ((1, 1), (3, 4)):
            shown = overlay(picture, np.ones(grid), vmax=1, region=region)
            assert shown.size == size
            assert (np.asarray(shown) == (181, 198, 172)).all(axis=-1).any()  # 0.7 of the palest over it


def test_a_shared_vmax_makes_overlays_comparable() -> None:
    picture = Image.new("RGB", (30, 20), (128, 128, 128))
    strong, weak = overlay(picture, PEAK, vmax=0.8), overlay(picture, PEAK / 4, vmax=0.8)
    assert np.asarray(strong).std() > 2 * np.asarray(weak).std()


@pytest.mark.parametrize("shape", [(4,), (1, 4, 4), (0, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a heatmap is"):
        upsample(np.zeros(shape), (8, 8))
