"""Preprocessing equals timm's; odd files are read as a viewer shows them, or refused with the reason."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from steersearch.core.backbone import timm_preprocess
from steersearch.core.errors import ConfigError, ImageError
from steersearch.core.images.reader import read_picture
from steersearch.core.preprocess import Preprocess, View, open_image, view_of


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize((width, height))
    grain = rng.integers(-20, 20, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))


# ------------------------------------------------------------------------------------- timm's own transform

TRUNKS = {  # what timm's evaluation transform does for each family, from its pretrained configurations
    "vit_base_patch14_dinov2.lvd142m": (1.0, "crop"),
    "vit_base_patch16_224.mae": (0.9, "crop"),
    "vit_base_patch16_siglip_224.webli": (0.9, "crop"),
    "vit_base_patch16_siglip_224.v2_webli": (0.9, "crop"),
    "vit_base_patch16_clip_384.openai_ft_in12k_in1k": (0.95, "squash"),
}


@cache
def timms_transform(name: str, side: int) -> Any:
    import timm
    from timm.data import create_transform, resolve_data_config

    card = timm.get_pretrained_cfg(name).to_dict()
    return create_transform(**resolve_data_config({"input_size": (3, side, side)}, pretrained_cfg=card))


@pytest.mark.parametrize("name", TRUNKS)
@pytest.mark.parametrize("size", [(640, 480), (301, 517), (336, 336), (50, 37), (1000, 336), (373, 373)])
def test_it_equals_timms_evaluation_transform(name: str, size: tuple[int, int]) -> None:
    picture = noise(*size)
    preprocess = timm_preprocess(name, 336)
    pixels = preprocess(picture)
    assert pixels.dtype == np.float32
    assert torch.equal(torch.from_numpy(pixels), timms_transform(name, 336)(picture))
    assert (preprocess.crop_pct, preprocess.mode) == TRUNKS[name]


@given(
    size=st.tuples(st.integers(1, 260), st.integers(1, 260)).filter(lambda size: max(size) <= 8 * min(size)),
    side=st.sampled_from([30, 32, 49, 56]),
    name=st.sampled_from(sorted(TRUNKS)),
)
def test_it_equals_timms_at_every_size(size: tuple[int, int], side: int, name: str) -> None:
    """Odd sides, sizes below the backbone's, and every rounding on the way."""
    picture = noise(*size)
    pixels = timm_preprocess(name, side)(picture)
    assert torch.equal(torch.from_numpy(pixels), timms_transform(name, side)(picture))


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGBA", "PA", "CMYK", "I;16"])
def test_pictures_of_other_modes_are_rgb_on_white_first(mode: str) -> None:
    name = "vit_base_patch16_224.mae"
    colours = noise(61, 43)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(colours)[..., 0].astype(np.uint16) * 257)
        upright = colours.getchannel(0).convert("RGB")
    elif mode in ("LA", "RGBA", "PA"):
        picture = colours.convert("RGBA")
        alpha = np.indices((43, 61)).sum(axis=0).astype(np.uint8)
        picture.putalpha(Image.fromarray(alpha))
        picture = picture.convert(mode)
        shown = np.asarray(picture.convert("RGBA")).astype(float)
        opacity = shown[..., 3:] / 255
        upright = Image.fromarray((shown[..., :3] * opacity + 255 * (1 - opacity)).round().astype(np.uint8))
    else:
        picture = colours.convert(mode)
        upright = picture.convert("RGB")
    pixels = torch.from_numpy(timm_preprocess(name, 32)(picture))
    expected = timms_transform(name, 32)(upright)
    step = 1 / 255 / min(timm_preprocess(name, 32).std)
    assert (pixels - expected).abs().max() <= (
        1.01 * step if "A" in mode else 0
    )  # Pillow composites in integers


# --------------------------------------------------------------------------------------------------- views

PLAIN = Preprocess(size=32, mean=(0, 0, 0), std=(1, 1, 1), crop_pct=0.9)
VIEWS: tuple[View, ...] = ("crop", "squash", "tile")
sizes = st.tuples(st.integers(8, 240), st.integers(8, 240))


def marked_corners(size: tuple[int, int], mark: int) -> Image.Image:
    """A black picture with a white square in each corner."""
    picture = Image.new("RGB", size)
    for x in (0, size[0] - mark):
        for y in (0, size[1] - mark):
            picture.paste((255, 255, 255), (x, y, x + mark, y + mark))
    return picture


@given(size=sizes)
def test_squash_and_tile_keep_the_very_corners(size: tuple[int, int]) -> None:
    picture = marked_corners(size, max(1, min(size) // 16))
    for view in ("squash", "tile"):
        pixels = PLAIN.with_view(view)(picture)[0]
        corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert corners.min() > 0.5 * pixels.max() > 0.02, view
        assert PLAIN.with_view(view).region(size) == pytest.approx((0, 0, *size))


@pytest.mark.parametrize("name", ["vit_base_patch16_224.mae", "vit_base_patch16_siglip_224.webli"])
def test_a_crop_loses_the_corners_even_of_a_square(name: str) -> None:
    """The trap of crop_pct 0.9: a squash that kept it would cut the borders as well."""
    own, picture = timm_preprocess(name, 96), marked_corners((400, 400), 16)
    black = [(0 - mean) / std for mean, std in zip(own.mean, own.std, strict=True)]
    assert np.allclose(own(picture).max(axis=(1, 2)), black, atol=0.02)
    for view in ("squash", "tile"):
        seen = own.with_view(view)
        assert seen.crop_pct == 1
        assert seen(picture)[0, 0, 0] == pytest.approx((1 - seen.mean[0]) / seen.std[0])
    assert own.with_view("crop") == own


def test_a_wide_picture_loses_its_sides_to_a_crop() -> None:
    assert PLAIN.with_view("crop")(marked_corners((400, 100), 40)).max() == 0


def test_a_tile_shows_a_small_thing_on_four_times_as_many_patches() -> None:
    picture = Image.new("RGB", (256, 256))
    picture.paste((255, 255, 255), (64, 128, 96, 160))  # an eighth of the side

    def covered(view: View) -> int:
        pixels = PLAIN.with_view(view)(picture)[0]
        patches = pixels.reshape(pixels.shape[0] // 4, 4, -1, 4).mean(axis=(1, 3))
        return int((patches > 0.5).sum())

    assert (covered("squash"), covered("tile")) == (1, 4)


@given(size=sizes)
def test_tiles_are_a_squash_to_twice_the_side(size: tuple[int, int]) -> None:
    picture, large = noise(*size), Preprocess(size=64, mean=(0, 0, 0), std=(1, 1, 1), mode="squash")
    pixels = PLAIN.with_view("tile")(picture)
    assert pixels.shape == (3, 64, 64)
    assert np.array_equal(pixels, large(picture))


@given(size=sizes, view=st.sampled_from(VIEWS))
@example(size=(239, 23), view="crop")
def test_region_is_what_the_pixels_show(size: tuple[int, int], view: View) -> None:
    """Pixels that say their own coordinates: those that come out are those of the region."""
    width, height = size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    picture = Image.fromarray(np.stack([x, y, 0 * x], axis=-1).astype(np.uint8))
    preprocess = PLAIN.with_view(view)
    left, top, right, bottom = preprocess.region(size)
    seen = preprocess(picture) * 255
    middle = (np.arange(preprocess.side) + 0.5) / preprocess.side
    inner = slice(preprocess.side // 4, -preprocess.side // 4)  # the filter bends the ramp at the borders
    # The crop begins at a whole pixel of the resized picture, and each value was rounded to 8 bits twice.
    assert np.abs(seen[0].mean(axis=0) - (left + middle * (right - left) - 0.5))[inner].max() < 1.5
    assert np.abs(seen[1].mean(axis=1) - (top + middle * (bottom - top) - 0.5))[inner].max() < 1.5


def test_a_stored_view_is_named_unless_it_is_a_backbones_own() -> None:
    for view in VIEWS:
        assert view_of(json.loads(json.dumps(PLAIN.with_view(view).to_dict()))) == view
    assert view_of(timm_preprocess("vit_base_patch16_clip_384.openai_ft_in12k_in1k", 32).to_dict()) is None
    assert view_of({"size": 4}) is None


def test_settings_of_older_prompt_indexes_keep_their_keys() -> None:
    """As recorded before there were views: a key that changed would make an index that is never found again."""
    from steersearch.core.vectors import VectorSettings
    from steersearch.indexer.manifest import new_prompt_index

    for mode, key in (("crop", "the-red-mug-a06413b92b48"), ("squash", "the-red-mug-cf7704494955")):
        stored = {
            "size": 128, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
            "interpolation": "bicubic", "crop_pct": 1.0, "mode": mode,
        }  # fmt: skip
        settings = Preprocess.from_dict(stored)
        assert settings.to_dict() == stored
        index = new_prompt_index(
            "the red mug",
            1.0,
            model_id="mini",
            weights_hash="d8a4" * 16,
            preprocessing=VectorSettings.of(settings, "cls").to_dict(),
            dim=128,
        )
        assert (index.key, index.view) == (key, mode)


def test_a_very_long_strip_needs_no_huge_picture() -> None:
    strip = Image.new("RGB", (3, 60_000), (10, 200, 30))
    pixels = Preprocess(size=64, mean=(0, 0, 0), std=(1, 1, 1))(strip)
    assert np.allclose(pixels.mean(axis=(1, 2)) * 255, (10, 200, 30))


def test_it_survives_json_and_refuses_nonsense() -> None:
    preprocess = Preprocess(size=64, mean=(0.1, 0.2, 0.3), std=(1, 2, 3), crop_pct=0.9, mode="squash")
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess
    wrong = [("size", 0), ("crop_pct", 1.2), ("mode", "pad"), ("interpolation", "magic"), ("std", (0, 1, 1))]
    for field, value in wrong:
        with pytest.raises(ConfigError, match=field):
            Preprocess.from_dict(preprocess.to_dict() | {field: value})
    with pytest.raises(ConfigError, match=r"crop_pct = 0\.9: must be 1"):
        Preprocess.from_dict(preprocess.to_dict() | {"mode": "tile"})


@pytest.mark.parametrize("view", ["crop", "squash"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_is_resized_from_its_true_sides(orientation: int, view: View, tmp_path: Path) -> None:
    """1065 × 801 pixels are 134 × 101 at an eighth: nearly a pixel more than the picture has."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise(1065, 801).save(tmp_path / "a.jpg", quality=95, exif=exif)
    whole, reduced = (read_picture(tmp_path / "a.jpg", at_least=side) for side in (None, 100))
    assert sorted(reduced.image.size) == [101, 134]
    left, top, right, bottom = reduced.box
    assert sorted([right - left, bottom - top]) == [801 / 8, 1065 / 8]
    preprocess = Preprocess(size=96, mean=(0, 0, 0), std=(1 / 255, 1 / 255, 1 / 255), mode=view)
    expected = preprocess(whole)
    assert np.abs(preprocess(reduced) - expected).mean() < 1.2  # of 255
    assert np.abs(preprocess(reduced.image) - expected).mean() > 2


# ----------------------------------------------------------------------------------------------- open_image

CORNERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], dtype=np.uint8)  # R G / B Y


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = Image.fromarray(CORNERS).resize((80, 48), Image.Resampling.NEAREST)
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)
    opened = open_image(tmp_path / "photo.png")
    assert opened.mode == "RGB"
    assert np.array_equal(np.asarray(opened), np.asarray(upright))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_exif_block_does_not_cost_the_picture(tmp_path: Path) -> None:
    noise(20, 20).save(tmp_path / "photo.jpg", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff garbage")
    assert open_image(tmp_path / "photo.jpg").size == (20, 20)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64 * 4).reshape(4, 64).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "scan.png")
    Image.fromarray(values).save(tmp_path / "scan.tiff")
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "wide.tiff")
    for name in ("scan.png", "scan.tiff", "wide.tiff"):
        assert np.abs(np.asarray(open_image(tmp_path / name))[..., 0] - values / 257.0).max() <= 0.5, name


def test_float_grey_without_a_range_is_scaled_by_its_own(tmp_path: Path) -> None:
    values = np.array([[-2.0, 0.0, 2.0]], dtype=np.float32)
    Image.fromarray(values).save(tmp_path / "map.tiff")
    assert np.asarray(open_image(tmp_path / "map.tiff"))[0, :, 0].tolist() == [0, 128, 255]


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (200, 0, 0, 0)).save(tmp_path / "clear.png")
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((0, 0), 1)
    palette.save(tmp_path / "palette.png", transparency=0)
    Image.new("LA", (4, 4), (0, 128)).save(tmp_path / "half.png")
    assert np.asarray(open_image(tmp_path / "clear.png")).min() == 255
    shown = np.asarray(open_image(tmp_path / "palette.png"))
    assert shown[0, 0].tolist() == [0, 0, 255]
    assert shown[1, 1].tolist() == [255, 255, 255]
    assert np.asarray(open_image(tmp_path / "half.png"))[0, 0].tolist() == [127, 127, 127]


def test_other_kinds_of_picture_are_read(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "print.jpg")
    red = np.asarray(open_image(tmp_path / "print.jpg"))[0, 0].astype(int)
    assert red[0] > 240
    assert red[1:].max() < 15
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("lime", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert np.asarray(open_image(tmp_path / "moving.gif"))[0, 0].tolist() == [0, 255, 0]
    Image.new("1", (8, 8), 1).save(tmp_path / "bits.png")
    assert np.asarray(open_image(tmp_path / "bits.png")).min() == 255
    noise(9, 5).save(tmp_path / "Ünïcode 写真.webp")
    assert open_image(tmp_path / "Ünïcode 写真.webp").size == (9, 5)


def test_files_that_are_no_pictures_are_refused_with_the_reason(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jpg"
    noise(200, 200).save(whole)
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:3000])
    (tmp_path / "header.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no picture at all")
    (tmp_path / "folder.jpg").mkdir()
    reasons = {
        "cut.jpg": "truncated",
        "header.png": "truncated|not an image",
        "empty.jpg": "empty",
        "text.jpg": "not an image",
        "folder.jpg": "not a file",
        "gone.jpg": "no such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(ImageError, match=reason) as caught:
            open_image(tmp_path / name)
        assert caught.value.path == tmp_path / name
        assert str(tmp_path / name) in str(caught.value)


def test_a_damaged_avif_is_named_and_not_a_runtime_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.avif"
    Image.new("RGB", (64, 48), "teal").save(path)
    whole = path.read_bytes()
    refused = 0
    for at in range(len(whole) // 2, len(whole)):  # the compressed picture lies at the end
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            open_image(path)
        except ImageError as error:
            refused += error.path == path
    assert refused > 0
