"""Augment: picture and mask stay together, the mask is not lost, left stays left, the model sees all of it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import timm
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from steersearch.core.preprocess import Preprocess
from steersearch.training.augment import (
    LEAST_PIXELS,
    Augment,
    View,
    augment,
    change_colours,
    crop_box,
    cut_out,
    has_direction,
    mask_box,
    patch_cover,
    random_crop,
    squash,
    to_pixels,
    warp,
)
from steersearch.training.data.mask_codec import Mask

KINDS: list[Augment] = ["release", "light", "none"]
RED, GREEN = (220, 30, 30), (30, 200, 60)


def blob_picture(
    width: int, height: int, blob: tuple[float, float, float, float]
) -> tuple[Image.Image, Mask]:
    """Green, with a red ellipse (centre and radii as shares of the sides), and the ellipse's mask."""
    y, x = (np.mgrid[:height, :width] + 0.5) / np.array([height, width]).reshape(2, 1, 1)
    mask = ((x - blob[0]) / blob[2]) ** 2 + ((y - blob[1]) / blob[3]) ** 2 <= 1
    return Image.fromarray(np.where(mask[..., None], RED, GREEN).astype(np.uint8)), mask


def agreement(image: Image.Image, mask: Mask) -> float:
    """IoU of the mask and of what is redder than green, which changes of colour here do not undo."""
    pixels = np.asarray(image, np.int64)
    red = pixels[..., 0] > pixels[..., 1]
    return float((red & mask).sum() / max(1, (red | mask).sum()))


@given(
    width=st.integers(40, 160),
    height=st.integers(40, 160),
    blob=st.tuples(*[st.floats(0.1, 0.9)] * 2, *[st.floats(0.15, 0.45)] * 2),
    kind=st.sampled_from(KINDS),
    shrunk=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_picture_and_mask_go_through_the_same_geometry(
    width: int,
    height: int,
    blob: tuple[float, float, float, float],
    kind: Augment,
    shrunk: bool,
    seed: int,
) -> None:
    image, mask = blob_picture(width, height, blob)
    if shrunk:  # as a cached picture is
        image = image.resize((112, 112), Image.Resampling.BICUBIC)
    view = augment(image, mask, "the red thing", 112, kind, np.random.default_rng(seed))
    assert (view.image.size, view.image.mode, view.mask.shape, view.mask.dtype) == (
        (112, 112), "RGB", (112, 112), np.bool_
    )  # fmt: skip
    assert view.mask.any()
    assert agreement(view.image, view.mask) > 0.75


@given(x=st.integers(0, 90), y=st.integers(0, 70), side=st.integers(4, 8), seed=st.integers(0, 2**32))
def test_a_small_mask_anywhere_is_never_lost(x: int, y: int, side: int, seed: int) -> None:
    mask = np.zeros((78, 98), np.bool_)
    mask[y : y + side, x : x + side] = True
    assert mask.sum() >= LEAST_PIXELS
    view = augment(Image.new("RGB", (98, 78)), mask, "it", 64, "release", np.random.default_rng(seed))
    assert view.mask.any()


@given(
    word=st.sampled_from("left RIGHT Leftmost top, bottom-most west (upper) clockwise".split()),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**32),
)
def test_expressions_with_a_direction_are_never_mirrored(word: str, kind: Augment, seed: int) -> None:
    image, mask = blob_picture(80, 60, (0.2, 0.5, 0.1, 0.2))
    view = augment(image, mask, f"the mug {word} of it", 64, kind, np.random.default_rng(seed))
    left, _, right, _ = mask_box(view.mask)
    assert (left + right) / 2 < 32  # after any crop and warp


@pytest.mark.parametrize("kind", ["release", "light"])
def test_others_are_mirrored_half_the_time(kind: Augment) -> None:
    image, mask = blob_picture(80, 60, (0.2, 0.5, 0.1, 0.2))
    mirrored = 0
    for seed in range(200):
        box = mask_box(augment(image, mask, "a bright mug", 32, kind, np.random.default_rng(seed)).mask)
        mirrored += (box[0] + box[2]) / 2 > 16
    assert 75 <= mirrored <= 125  # 100 ± 3.5 standard deviations


def test_only_whole_words_are_directions() -> None:
    assert has_direction("Rightmost one")
    assert has_direction("at the TOP.")
    assert has_direction("left-hand")
    assert not any(
        map(has_direction, ["a bright light", "leftover pizza", "the stop sign", "Easter", "topping"])
    )


def test_none_is_the_squash_and_the_same_as_torchvisions() -> None:
    from torchvision.transforms.v2 import functional as tv

    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (50, 90, 3), np.uint8))
    mask = rng.random((50, 90)) < 0.5
    view = augment(image, mask, "a mug", 40, "none", rng)
    expected = tv.resize(image, [40, 40], interpolation=tv.InterpolationMode.BICUBIC)
    nearest = tv.resize(Image.fromarray(mask), [40, 40], interpolation=tv.InterpolationMode.NEAREST)
    assert np.array_equal(np.asarray(view.image), np.asarray(expected))
    assert np.array_equal(view.mask, np.asarray(nearest))


def test_crops_are_of_the_stated_size_and_shape() -> None:
    """Read from a picture whose colours are its coordinates."""
    y, x = np.mgrid[:200, :240]
    image = Image.fromarray(np.stack([x, y, 0 * x], axis=-1).astype(np.uint8))
    areas, ratios = [], []
    for seed in range(150):
        view = random_crop(image, np.ones((200, 240), np.bool_), 60, np.random.default_rng(seed))
        pixels = np.asarray(view.image, np.float64)
        across, down = (np.ptp(pixels.mean(axis=axis)[:, c]) * 60 / 59 for axis, c in ((0, 0), (1, 1)))
        areas.append(across * down / (200 * 240))
        ratios.append(across / down)
    assert 0.62 < min(areas) < 0.70
    assert 0.9 < max(areas) <= 1.02
    assert 0.83 < min(ratios) < 0.95
    assert 1.1 < max(ratios) < 1.2


@pytest.mark.parametrize(("size", "share", "middle"), [
    ((1920, 1080), 0.98, (323, 0, 1597, 1080)), ((1200, 800), 0.31, (128, 0, 1072, 800)),
    ((1080, 1920), 0.97, (0, 324, 1080, 1595)),
])  # fmt: skip
def test_wide_pictures_are_cut_to_their_middle_as_released(
    size: tuple[int, int], share: float, middle: tuple[int, int, int, int]
) -> None:
    """The shares are those of the released code; before, these pictures were squashed whole."""
    boxes = [crop_box(size, np.random.default_rng(seed)) for seed in range(400)]
    assert boxes.count(middle) / 400 == pytest.approx(share, abs=0.06)
    for left, top, right, bottom in boxes:
        assert 0.849 < (right - left) / (bottom - top) < 1.181


def test_a_wide_picture_is_squashed_only_where_its_middle_lacks_the_mask() -> None:
    image, mask = Image.new("RGB", (320, 120)), np.zeros((120, 320), np.bool_)
    mask[50:60, 150:160] = True
    views = [random_crop(image, mask, 64, np.random.default_rng(seed)) for seed in range(20)]
    assert {round(mask_box(view.mask)[2] - mask_box(view.mask)[0]) for view in views} <= {
        4,
        5,
    }  # of 10 in 142
    mask = np.roll(mask, 150, axis=1)  # at the right border
    view = random_crop(image, mask, 64, np.random.default_rng(0))
    assert np.array_equal(view.mask, squash(image, mask, 64).mask)


def test_a_mask_that_no_crop_keeps_leaves_the_whole_picture() -> None:
    image, mask = Image.new("RGB", (100, 80)), np.zeros((80, 100), np.bool_)
    mask[[0, 0, -1, -1], [0, -1, 0, -1]] = True  # four corners, fewer than LEAST_PIXELS
    for seed in range(5):
        view = random_crop(image, mask, 200, np.random.default_rng(seed))
        assert view.mask[[0, 0, -1, -1], [0, -1, 0, -1]].all()


def test_an_empty_mask_stays_empty_and_does_not_hinder() -> None:
    image, _ = blob_picture(120, 90, (0.5, 0.5, 0.2, 0.2))
    empty, kinds = np.zeros((90, 120), np.bool_), Counter[bool]()
    for seed in range(30):
        view = augment(image, empty, "a dog", 64, "release", np.random.default_rng(seed))
        assert not view.mask.any()
        kinds[np.array_equal(np.asarray(view.image), np.asarray(squash(image, empty, 64).image))] += 1
    assert kinds[True] <= 1


def test_a_warp_that_would_lose_the_mask_is_not_made() -> None:
    image = Image.new("RGB", (64, 64), "white")
    mask = np.zeros((64, 64), np.bool_)
    mask[:4, :4] = True
    view = squash(image, mask, 64)
    outcomes = [warp(view, np.random.default_rng(seed)) for seed in range(40)]
    assert any(found is view for found in outcomes)
    assert any(found is not view for found in outcomes)
    assert all(np.count_nonzero(found.mask) >= LEAST_PIXELS for found in outcomes)


def test_a_warp_is_the_released_codes() -> None:
    """Bicubic, by whole pixels; an empty mask is not warped."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as released

    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8))
    mask = np.ones((50, 50), np.bool_)
    moves = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        angle, moved = rng.uniform(-8, 8), rng.integers(-3, 4, size=2).tolist()
        scale, shear = rng.uniform(0.9, 1.1), rng.uniform(-3, 3, size=2).tolist()
        expected = released.affine(image, angle, moved, scale, shear, InterpolationMode.BICUBIC, 0)
        found = warp(View(image, mask), np.random.default_rng(seed))
        assert np.array_equal(np.asarray(found.image), np.asarray(expected))
        moves |= set(moved)
    assert moves == {-3, -2, -1, 0, 1, 2, 3}
    empty = View(image, np.zeros_like(mask))
    assert warp(empty, np.random.default_rng(0)) is empty


def test_changes_of_colour_are_as_large_as_stated() -> None:
    grey = Image.new("RGB", (8, 8), (100, 100, 100))
    levels = [
        np.asarray(change_colours(grey, np.random.default_rng(seed), tone=0.25, hue=0.1)).mean()
        for seed in range(100)
    ]
    assert 74 <= min(levels) < 80
    assert 120 < max(levels) <= 126
    red = Image.new("RGB", (8, 8), (200, 40, 40))
    hues = [
        np.asarray(change_colours(red, np.random.default_rng(seed), tone=0.0, hue=0.1).convert("HSV"))[
            0, 0, 0
        ]
        for seed in range(100)
    ]
    around = ((np.array(hues, np.int64) + 128) % 256) - 128
    assert -27 <= around.min() < -18
    assert 18 < around.max() <= 27


def test_the_same_generator_gives_the_same_view() -> None:
    image, mask = blob_picture(90, 70, (0.5, 0.4, 0.3, 0.2))
    first, again, other = (
        augment(image, mask, "a mug", 48, "release", np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert np.array_equal(np.asarray(first.image), np.asarray(again.image))
    assert np.array_equal(first.mask, again.mask)
    assert not np.array_equal(np.asarray(first.image), np.asarray(other.image))


@pytest.mark.parametrize(
    "trunk", ["vit_base_patch16_224.mae", "vit_base_patch16_siglip_224", "vit_base_patch14_dinov2"]
)
def test_the_model_sees_the_whole_picture_whatever_the_backbone_would_cut(trunk: str) -> None:
    data = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(trunk).to_dict())
    size = 56
    preprocess = Preprocess(
        size=size, mean=data["mean"], std=data["std"], interpolation=data["interpolation"],
        crop_pct=data["crop_pct"], mode="squash",
    )  # fmt: skip
    image = Image.new("RGB", (90, 70))
    image.paste((255, 255, 255), (0, 0, 4, 4))  # marked at two corners, which a central crop of 0.9 cuts off
    image.paste((255, 255, 255), (86, 66, 90, 70))
    mask = np.asarray(image)[..., 0] > 0
    view = augment(image, mask, "the marks", size, "none", np.random.default_rng(0))
    pixels = to_pixels(view.image, preprocess)
    assert pixels.shape == (3, size, size)
    bright = (pixels * np.array(data["std"])[:, None, None] + np.array(data["mean"])[:, None, None])[0] > 0.5
    assert bright[0, 0]
    assert bright[-1, -1]
    assert (bright & view.mask).sum() / (bright | view.mask).sum() > 0.6
    zoomed = preprocess(image)  # what the backbone's own settings would make of it
    assert preprocess.crop_pct == 1 or not np.allclose(zoomed, pixels)


def test_cover_is_each_patchs_share() -> None:
    mask = np.zeros((8, 8), np.bool_)
    mask[:4, :6] = True
    mask[7, 0] = True
    assert patch_cover(mask, 4).tolist() == [1, 0.5, 1 / 16, 0]


def test_what_is_cut_out_lies_large_on_plain_grey() -> None:
    image, mask = blob_picture(200, 100, (0.8, 0.2, 0.04, 0.12))
    for seed in range(20):
        found, share = cut_out(image, mask, "it", 80, np.random.default_rng(seed))
        pixels = np.asarray(found, np.int64)
        assert (np.ptp(pixels[share == 0], axis=0) == 0).all()
        assert 100 <= pixels[0, 0, 0] < 160
        left, top, right, bottom = mask_box(share > 0.5)
        assert 0.47 * 80 <= max(right - left, bottom - top) <= 0.77 * 80
        assert (right - left) / (bottom - top) == pytest.approx(16 / 24, abs=0.08)
        assert abs((left + right) / 2 - 40) < 9
        assert abs((top + bottom) / 2 - 40) < 9
        assert agreement(found, share > 0.5) > 0.9
    grey, share = cut_out(image, np.zeros_like(mask), "a dog", 80, np.random.default_rng(0))
    assert len(grey.getcolors()) == 1
    assert (share == 1).all()
