"""Heatmaps on pictures: the peak stays where it was, ranges are shared, colours rise in lightness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from steersearch.core.heatmaps import (
    LEAST_RANGE,
    OUTLINE,
    colour,
    outlined,
    overlay,
    shared_vmax,
    strengths,
    times_even,
    upsample,
)
from steersearch.core.preprocess import Preprocess

# (h, w) = (2, 3), highest at row 1, column 2.
PEAK = np.array([[0.0, 0.1, 0.0], [0.0, 0.1, 0.8]], dtype=np.float32)


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
    assert strengths(strong, vmax).max() == pytest.approx(1.0)
    assert strengths(strong / 4, vmax).max() == pytest.approx(
        1 / 2
    )  # 4 times an even spread of up to 16 times
    assert shared_vmax([]) == 0.0


def test_the_range_reaches_eight_times_an_even_spread_at_least() -> None:
    """Flat maps of 20 patches hold 1/20 everywhere; an eighth of 16 patches is 2, with 1/2 in each."""
    flat, on_an_eighth = np.full((4, 5), 1 / 20), np.zeros((4, 4))
    on_an_eighth[1, 1:3] = 1 / 2
    assert times_even(flat) == pytest.approx(np.ones((4, 5)))
    assert times_even(on_an_eighth).max() == LEAST_RANGE
    assert shared_vmax([flat, flat]) == pytest.approx(8 / 20)
    assert shared_vmax([on_an_eighth]) == pytest.approx(1 / 2)


def test_strengths_count_doublings_of_an_even_spread() -> None:
    """16 patches, an even spread is 1/16: 1/32 is below it, then one and two doublings, up to 8 times."""
    heatmap = np.full((4, 4), 1 / 32)
    heatmap[0] = [1 / 16, 2 / 16, 4 / 16, 8 / 16]
    assert strengths(heatmap, 8 / 16)[0] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert strengths(heatmap)[0] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert strengths(heatmap, 16 / 16)[0] == pytest.approx([0, 1 / 4, 2 / 4, 3 / 4])
    assert strengths(heatmap, 1 / 16)[0] == pytest.approx([0, 1 / 3, 2 / 3, 1])  # a range below 8 is 8
    assert (strengths(heatmap)[1:] == 0).all()
    assert strengths(heatmap).dtype == np.float32


@pytest.mark.parametrize("grid", [(1, 1), (4, 4), (24, 24)])
def test_a_flat_heatmap_has_no_colour(grid: tuple[int, int]) -> None:
    picture = Image.new("RGB", (96, 96), (10, 128, 240))
    flat = np.full(grid, 1 / (grid[0] * grid[1]))
    noise = np.random.default_rng(0).uniform(-0.05, 0.05, grid)
    for heatmap, most in ((flat, 0), (flat * (1 + noise), 6)):  # in steps of 255
        shown = np.asarray(overlay(picture, strengths(heatmap)), dtype=int)
        assert np.ptp(shown, axis=-1).max() <= most
    found = np.zeros((24, 24))
    found[1, 1] = 1
    assert np.ptp(np.asarray(overlay(picture, strengths(found)), dtype=int), axis=-1).max() > 50


def test_higher_values_are_lighter() -> None:
    shades = colour(np.linspace(0, 1, 50))
    assert shades.dtype == np.uint8
    lightness = shades @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > 0).all()


def test_an_overlay_marks_the_place_and_leaves_the_rest_grey() -> None:
    picture = Image.new("RGB", (90, 60), (40, 90, 160))
    shown = np.asarray(overlay(picture, PEAK / PEAK.max()), dtype=int)
    colourful = np.ptp(shown, axis=-1)
    row, column = np.unravel_index(colourful.argmax(), colourful.shape)
    assert shown.shape == (60, 90, 3)
    assert row >= 30
    assert column >= 60
    assert colourful[:15, :15].max() <= 3
    assert np.array_equal(
        np.asarray(picture), np.full((60, 90, 3), (40, 90, 160))
    )  # the original is untouched


def test_an_overlay_mixes_colour_and_grey_by_hand() -> None:
    """100 in grey, lightened by 0.15 of the way to white: 123. At 1 0.7 of the palest colour lies over it."""
    picture = Image.new("RGB", (30, 10), (100, 100, 100))
    shown = np.asarray(overlay(picture, [[0.0, 0.5, 1.0]]), dtype=float)
    assert shown[5, 0] == pytest.approx([123, 123, 123], abs=1)
    assert shown[5, 14] == pytest.approx(0.65 * 123 + 0.35 * np.array([205, 66, 90]), abs=6)
    assert shown[5, 29] == pytest.approx(0.3 * 123 + 0.7 * np.array([250, 240, 160]), abs=1)


@pytest.mark.parametrize("crop_pct", [1.0, 0.9])
def test_an_overlay_of_a_crop_fades_what_the_model_did_not_see(crop_pct: float) -> None:
    picture = Image.new("RGB", (200, 100), (20, 100, 200))
    preprocess = Preprocess(size=32, mean=(0, 0, 0), std=(1, 1, 1), crop_pct=crop_pct)
    left, top, right, bottom = (round(edge) for edge in preprocess.region(picture.size))
    shown = np.asarray(overlay(picture, np.zeros((2, 2)), preprocess.region(picture.size)), dtype=int)
    seen = np.zeros((100, 200), bool)
    seen[top:bottom, left:right] = True
    grey = round(0.299 * 20 + 0.587 * 100 + 0.114 * 200)
    assert (abs(shown[seen] - (grey + 0.15 * (255 - grey))) <= 1).all()
    assert (abs(shown[~seen] - (grey + 0.7 * (255 - grey))) <= 1).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2), (2, 301)])
@pytest.mark.parametrize("crop_pct", [1.0, 0.9])
def test_any_picture_can_be_covered(size: tuple[int, int], crop_pct: float) -> None:
    """In a very narrow picture the region that the model saw is less than a pixel wide."""
    picture = Image.new("RGB", size, (20, 100, 200))
    preprocess = Preprocess(size=32, mean=(0, 0, 0), std=(1, 1, 1), crop_pct=crop_pct)
    for region in (preprocess.region(size), None):
        for grid in ((1, 1), (3, 4)):
            shown = overlay(picture, np.ones(grid), region)
            assert shown.size == size
            assert np.ptp(np.asarray(shown, dtype=int), axis=-1).max() > 50  # the palest colour is on it


def test_a_shared_vmax_makes_overlays_comparable() -> None:
    picture = Image.new("RGB", (30, 20), (128, 128, 128))
    strong, weak = (overlay(picture, np.clip(values / 0.8, 0, 1)) for values in (PEAK, PEAK / 4))
    assert np.asarray(strong).std() > 2 * np.asarray(weak).std()


@pytest.mark.parametrize("shape", [(4,), (1, 4, 4), (0, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a heatmap is"):
        upsample(np.zeros(shape), (8, 8))


def test_an_outline_leaves_what_is_inside_and_outside() -> None:
    mask = np.zeros((10, 20), np.bool_)
    mask[2:8, 5:15] = True
    # Four times as large: the mask covers x from 20 to 59, y from 8 to 31.
    image = Image.new("L", (80, 40), 120)
    shown = outlined(image, mask)
    assert (shown.mode, shown.size) == ("RGB", image.size)
    light, dark = OUTLINE
    assert [shown.getpixel((x, 20)) for x in (18, 19, 20, 21, 22, 57, 58, 59, 60, 61)] == [
        (120, 120, 120), dark, light, light, (120, 120, 120), (120, 120, 120), light, light, dark, (120, 120, 120),
    ]  # fmt: skip
    assert image.getpixel((20, 20)) == 120
    assert outlined(image, np.zeros((10, 20))).getcolors() == [(80 * 40, (120, 120, 120))]
