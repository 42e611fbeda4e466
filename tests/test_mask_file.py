"""One mask as tools write it: whatever the PNG's mode, the same pixels are in it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from steersearch.training.data.mask_codec import Mask, MaskError
from steersearch.training.data.mask_file import read_mask_file

SIZE = (160, 120)
DRAWN = Image.new("L", SIZE)
ImageDraw.Draw(DRAWN).ellipse((50, 30, 99, 89), fill=255)
TRUE: Mask = np.asarray(DRAWN) > 0
GREYS = [value for grey in range(256) for value in (grey, grey, grey)]


def shades(inside: int, outside: int = 0, dtype: type = np.uint8) -> Image.Image:
    return Image.fromarray(np.where(TRUE, inside, outside).astype(dtype))


def palette(*colours: tuple[int, int, int], inside: int, outside: int) -> Image.Image:
    image = shades(inside, outside)
    image.putpalette([value for colour in colours for value in colour])
    return image


def with_alpha(image: Image.Image, alpha: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(alpha)
    return image


def photograph() -> Image.Image:
    """Dark and bright pixels, and all between."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3), np.uint8))


def voc_colour(number: int) -> tuple[int, int, int]:
    """Of a class of VOC: the bits of its number, dealt out to the three channels from the highest down."""
    bits = [sum((number >> (3 * i + c) & 1) << (7 - i) for i in range(3)) for c in range(3)]
    return bits[0], bits[1], bits[2]


def voc(inside: int, border: bool) -> Image.Image:
    """As VOC's SegmentationObject: its palette, and around the thing a border that is void."""
    numbers = np.where(TRUE, inside, 0).astype(np.uint8)
    if border:
        outline = Image.new("L", SIZE)
        ImageDraw.Draw(outline).ellipse((48, 28, 101, 91), fill=1)
        numbers[(np.asarray(outline) > 0) & ~TRUE] = 255
    image = Image.fromarray(numbers)
    colours = [voc_colour(number) for number in range(256)]
    image.putpalette([value for colour in [*colours[:255], (224, 224, 192)] for value in colour])
    return image


def on_white(colour: tuple[int, int, int]) -> Image.Image:
    return Image.composite(Image.new("RGB", SIZE, colour), Image.new("RGB", SIZE, WHITE), DRAWN)


BLACK, WHITE, RED, OPAQUE = (0, 0, 0), (255, 255, 255), (255, 0, 0), Image.new("L", SIZE, 255)
WAYS: dict[str, Image.Image] = {
    "grey": DRAWN,
    "one bit": DRAWN.convert("1"),
    "0 and 1": shades(1),
    "1 and 2": shades(2, 1),
    "a number": shades(17),
    "white on grey": shades(255, 128),
    "two near blacks": Image.fromarray(np.where(TRUE, 255, np.arange(SIZE[0]) // 40 % 2 * 2).astype(np.uint8)),
    "off black and off white": shades(252, 3),
    "16 bits": shades(65535, dtype=np.uint16),
    "16 bits, 0 and 1": shades(1, dtype=np.uint16),
    "16 bits, dim": shades(257, dtype=np.uint16),
    "RGB": DRAWN.convert("RGB"),
    "RGB, red": Image.merge("RGB", (DRAWN, shades(0), shades(0))),
    "RGB, blue": Image.merge("RGB", (shades(0), shades(0), DRAWN)),
    "palette": palette(BLACK, WHITE, inside=1, outside=0),
    "palette, white first": palette(WHITE, BLACK, inside=0, outside=1),
    "palette, off black": palette((3, 3, 3), (250, 250, 250), inside=1, outside=0),
    "palette, white on blue": palette((0, 0, 255), WHITE, inside=1, outside=0),
    "palette, white on grey": palette((150, 150, 150), WHITE, inside=1, outside=0),
    "palette of greys": palette(*[(g, g, g) for g in range(256)], inside=255, outside=0),
    "palette without colours": palette(BLACK, BLACK, inside=1, outside=0),
    "adaptive palette": DRAWN.convert("RGB").quantize(2),
    "VOC, first class": voc(1, border=False),
    "VOC, a dark class": voc(8, border=False),
    "VOC with its void": voc(15, border=True),
    "VOC in RGB with its void": voc(15, border=True).convert("RGB"),
    "LA": with_alpha(DRAWN, OPAQUE),
    "LA, white cut out": with_alpha(Image.new("L", SIZE, 255), DRAWN),
    "LA, black cut out": with_alpha(Image.new("L", SIZE, 0), DRAWN),
    "LA, cut out by itself": with_alpha(DRAWN, DRAWN),
    "RGBA": with_alpha(DRAWN.convert("RGB"), OPAQUE),
    "RGBA, nearly opaque": with_alpha(DRAWN.convert("RGB"), Image.new("L", SIZE, 254)),
    "RGBA, red on transparent white": with_alpha(on_white(RED), DRAWN),
    "RGBA, black on transparent white": with_alpha(on_white(BLACK), DRAWN),
    "RGBA, a photograph cut out": with_alpha(photograph(), DRAWN),
    "RGBA, laid over at a third": with_alpha(Image.new("RGB", SIZE, RED), shades(85)),
}  # fmt: skip


def as_png(image: Image.Image, **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **how)
    return file.getvalue()


@pytest.mark.parametrize("way", WAYS)
def test_a_mask_is_the_same_however_it_is_written(way: str) -> None:
    assert np.array_equal(read_mask_file(as_png(WAYS[way])), TRUE)


def test_a_transparent_colour_of_the_file_counts_as_well() -> None:
    """PNG's tRNS: one number of a palette, or one grey, is transparent."""
    white = palette(WHITE, RED, inside=1, outside=0)
    assert np.array_equal(read_mask_file(as_png(white, transparency=0)), TRUE)
    assert np.array_equal(read_mask_file(as_png(shades(9, 200), transparency=200)), TRUE)


def test_black_and_white_counts_where_some_is_transparent() -> None:
    """A mask that was turned has transparent corners."""
    corner = OPAQUE.copy()
    corner.paste(0, (0, 0, 30, 30))
    assert np.array_equal(read_mask_file(as_png(with_alpha(DRAWN, corner))), TRUE)


def test_a_smoothed_edge_is_cut_in_its_middle() -> None:
    for small in ((40, 30), (80, 60)):
        smooth = DRAWN.resize(small, Image.Resampling.BILINEAR).resize(SIZE, Image.Resampling.BILINEAR)
        for image in (smooth, smooth.convert("RGB"), smooth.quantize(64), with_alpha(smooth, OPAQUE)):
            found = read_mask_file(as_png(image))
            assert (found & TRUE).sum() / (found | TRUE).sum() > 0.96
    few = DRAWN.resize((320, 240)).resize(SIZE, Image.Resampling.BOX).quantize(4)
    assert np.array_equal(read_mask_file(as_png(few)), TRUE)


@pytest.mark.parametrize("make", [lambda n: n, lambda n: n * 40, lambda n: n.astype(np.uint16) * 1000])
def test_numbered_things_are_all_in_it(make: Callable[[np.ndarray], np.ndarray]) -> None:
    """VisA numbers the sorts of damage, others instances: none is an edge of another."""
    numbers = TRUE.astype(np.uint8)
    numbers[5:25, 5:25] = 2
    numbers[90:115, 120:150] = 6
    assert np.array_equal(read_mask_file(as_png(Image.fromarray(make(numbers)))), numbers > 0)


def test_void_around_numbers_is_not_in_it() -> None:
    numbers = np.asarray(voc(15, border=True))
    assert (numbers == 255).any()
    assert np.array_equal(read_mask_file(as_png(Image.fromarray(numbers))), TRUE)


def test_nothing_and_everything() -> None:
    for image in (
        shades(0, 0),
        with_alpha(DRAWN, Image.new("L", SIZE, 0)),
        palette(BLACK, inside=0, outside=0),
    ):
        assert not read_mask_file(as_png(image)).any()
    for image in (shades(255, 255), shades(1, 1), with_alpha(shades(255, 255), OPAQUE)):
        assert read_mask_file(as_png(image)).all()


def test_what_is_no_mask(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match=r"its mask .*none\.png was not found"):
        read_mask_file(tmp_path / "none.png")
    (tmp_path / "a.jpg").write_bytes(b"GIF89a")
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        ("a.jpg", "not an image"),
        ("pipe", "a pipe, not a regular file"),
        (".", "a folder"),
    ):
        with pytest.raises(MaskError, match=f"not a PNG that can be read .*{reason}"):
            read_mask_file(tmp_path / path)
    content = as_png(DRAWN)
    with pytest.raises(MaskError, match="not a PNG that can be read"):
        read_mask_file(content[: len(content) // 2])
