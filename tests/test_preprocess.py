"""Preprocessing equals timm's; odd files are read as a viewer shows them, or refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from steersearch.core.errors import ConfigError, ImageError
from steersearch.core.preprocess import Preprocess, open_image
from steersearch.core.trunk import timm_preprocess


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize((width, height))
    grain = rng.integers(-20, 20, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    "name",
    [
        "vit_base_patch14_dinov2.lvd142m",
        "vit_base_patch16_224.mae",
        "vit_base_patch16_siglip_224.webli",
        "vit_base_patch16_siglip_224.v2_webli",
        "vit_base_patch16_siglip_384.webli",  # squashes
    ],
)
@pytest.mark.parametrize("size", [(640, 480), (301, 517), (336, 336), (50, 37), (1000, 336), (373, 373)])
def test_it_equals_timms_evaluation_transform(name: str, size: tuple[int, int]) -> None:
    import timm
    from timm.data import create_transform, resolve_data_config

    settings = resolve_data_config(
        {"input_size": (3, 336, 336)}, pretrained_cfg=timm.get_pretrained_cfg(name).to_dict()
    )
    picture = noise(*size)
    expected = create_transform(**settings, is_training=False)(picture)
    pixels = timm_preprocess(name, 336)(picture)
    assert pixels.dtype == np.float32
    assert torch.equal(torch.from_numpy(pixels), expected)


def test_squash_keeps_the_borders_and_crop_loses_them() -> None:
    picture = Image.new("RGB", (400, 100))
    picture.paste((255, 255, 255), (0, 0, 50, 100))
    plain = {"size": 40, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    crop, squash = Preprocess(**plain), Preprocess(**plain, mode="squash")  # type: ignore[arg-type]
    assert crop(picture).max() == 0
    assert squash(picture)[:, :, 0].min() == 1
    assert crop.region((400, 100)) == (150, 0, 250, 100)
    assert squash.region((400, 100)) == (0, 0, 400, 100)


def test_region_is_what_the_pixels_show() -> None:
    ramp = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (120, 1))).convert("RGB")
    preprocess = Preprocess(size=60, mean=(0, 0, 0), std=(1, 1, 1), crop_pct=0.5)
    left, top, right, bottom = preprocess.region(ramp.size)
    row = preprocess(ramp)[0, 0] * 255
    assert (right - left, bottom - top) == (60, 60)
    assert row[0] == pytest.approx(left, abs=1.5)
    assert row[-1] == pytest.approx(right - 1, abs=1.5)


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


def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise(100, 100).save(tmp_path / "photo.png")
    assert open_image(tmp_path / "photo.png", max_megapixels=0.01).size == (100, 100)
    with pytest.raises(ImageError, match=r"too large: 0 megapixels, at most 0\.009"):
        open_image(tmp_path / "photo.png", max_megapixels=0.009)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)  # Pillow's own limit raises at twice this
    with pytest.raises(ImageError, match="too large"):
        open_image(tmp_path / "photo.png")


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
