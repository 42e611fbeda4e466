"""Heatmaps on pictures: the peak stays where it was, ranges are shared, colours rise in lightness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from steersearch.core.heatmaps import colour, normalise, overlay, shared_vmax, upsample
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
    weak = PEAK / 4
    vmax = shared_vmax([weak, PEAK])
    assert vmax == pytest.approx(0.8)
    assert normalise(PEAK, vmax).max() == pytest.approx(1.0)
    assert normalise(weak, vmax).max() == pytest.approx(0.25)
    assert normalise(weak).max() == pytest.approx(1.0)
    assert normalise(PEAK, 0.4).max() == 1.0
    assert normalise(np.zeros((2, 2))).tolist() == [[0, 0], [0, 0]]
    assert shared_vmax([]) == 0.0


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


def test_an_overlay_of_a_crop_covers_only_what_the_model_saw() -> None:
    picture = Image.new("RGB", (200, 100), (128, 128, 128))
    region = Preprocess(size=32, mean=(0, 0, 0), std=(1, 1, 1)).region(picture.size)
    change = np.abs(np.asarray(overlay(picture, np.ones((2, 2)), region=region), dtype=int) - 128).sum(
        axis=-1
    )
    assert (change[:, 50:150] > 0).all()
    assert (change[:, :50] == 0).all()
    assert (change[:, 150:] == 0).all()


def test_a_shared_vmax_makes_overlays_comparable() -> None:
    picture = Image.new("RGB", (30, 20), (128, 128, 128))
    strong, weak = overlay(picture, PEAK, vmax=0.8), overlay(picture, PEAK / 4, vmax=0.8)
    assert np.asarray(strong).std() > 2 * np.asarray(weak).std()


@pytest.mark.parametrize("shape", [(4,), (1, 4, 4), (0, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a heatmap is"):
        upsample(np.zeros(shape), (8, 8))
