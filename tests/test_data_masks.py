"""Masks from COCO's codes: against pycocotools where it is installed, recorded results of it, and by hand."""

from __future__ import annotations

import io
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from steersearch.training.data.folder import read_mask_file
from steersearch.training.data.mask_codec import (
    MaskError,
    decode_rle,
    decode_segmentation,
    draw_polygon,
    encode_rle,
)

# Of pycocotools.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=24))

# Polygons in pictures of 8 × 9 (H × W), and what pycocotools 2.0.11 makes of them.
RECORDED = [
    ([1, 1, 5, 1, 5, 5, 1, 5.0], "94400000o0"),
    ([0, 0, 9, 0, 9, 8, 0, 8], "0X2"),
    ([2.5, 0.3, 8.9, 3.1, 4.4, 7.9, -3, 5.5], "2521O110O01N1O2N1ON"),
    ([1, 1, 1, 1, 6, 2, 3, 7, 3, 7], "9173M10M2Og0"),
    ([-5, -5, 20, 3, 4, 30], "0X2"),
]


def picture(text: str) -> np.ndarray:
    """Rows of "#" and "." as a mask."""
    return np.array([[letter == "#" for letter in row] for row in text.split()])


def test_a_code_by_hand() -> None:
    """Down the columns: 2 outside, 1 inside; 1 outside, 2 inside."""
    mask = picture(".. .# ##")
    assert (decode_rle({"size": [3, 2], "counts": [2, 1, 1, 2]}) == mask).all()
    assert encode_rle(mask) == {"size": [3, 2], "counts": "2111"}


def test_a_mask_that_begins_inside_has_a_first_count_of_zero() -> None:
    assert encode_rle(np.ones((2, 3), np.bool_)) == {"size": [2, 3], "counts": "06"}


@given(MASKS)
def test_codes_go_there_and_back(mask: np.ndarray) -> None:
    code = encode_rle(mask)
    assert (decode_rle(code) == mask).all()
    assert (decode_rle(code | {"counts": code["counts"].encode()}) == mask).all()


@given(MASKS)
def test_codes_are_those_of_pycocotools(mask: np.ndarray) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encode_rle(mask) == {"size": theirs["size"], "counts": theirs["counts"].decode()}
    plain = coco.frPyObjects({"size": list(mask.shape), "counts": counts_of(mask)}, *mask.shape)
    assert (decode_rle({"size": list(mask.shape), "counts": plain["counts"].decode()}) == mask).all()


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.lists(
        st.one_of(st.floats(-20, 60), st.integers(-5, 45), st.sampled_from([0.5, 1.5, 39.5])),
        min_size=6,
        max_size=20,
    ),
)
def test_polygons_are_those_of_pycocotools(size: tuple[int, int], corners: list[float]) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    corners = [float(c) for c in corners[: len(corners) // 2 * 2]]
    theirs = coco.decode(coco.frPyObjects([corners], *size))[..., 0]
    assert (draw_polygon(corners, size) == theirs.astype(bool)).all()


@pytest.mark.parametrize(("outline", "recorded"), RECORDED)
def test_polygons_as_recorded(outline: list[float], recorded: str) -> None:
    assert encode_rle(draw_polygon(outline, (8, 9)))["counts"] == recorded


def test_a_square_by_hand() -> None:
    """From corner (1, 1) to (3, 4): the pixels whose centres lie inside."""
    mask = draw_polygon([1, 1, 3, 1, 3, 4, 1, 4], (5, 5))
    assert (mask == picture("..... .##.. .##.. .##.. .....")).all()


def test_parts_are_united() -> None:
    one, two = [0, 0, 2, 0, 2, 2, 0, 2], [3, 3, 5, 3, 5, 5, 3, 5]
    union = draw_polygon(one, (5, 5)) | draw_polygon(two, (5, 5))
    assert (decode_segmentation([one, two], (5, 5)) == union).all()
    assert (decode_segmentation([encode_rle(union), one], (5, 5)) == union).all()
    assert (decode_segmentation(one, (5, 5)) == draw_polygon(one, (5, 5))).all()
    assert not decode_segmentation([[1, 1, 3, 3]], (5, 5)).any()  # two corners enclose nothing


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ({"size": [2, 2], "counts": [1, 2]}, "3 of 4 pixels"),
        ({"size": [2, 2], "counts": [1, 9, -6]}, "below zero or beyond"),
        ({"size": [2, 2], "counts": [10**30]}, "too large"),
        ({"size": [2, 2], "counts": "o"}, "a letter that cannot be in one"),
        ({"size": [2, 2], "counts": "4 "}, "a letter that cannot be in one"),
        ({"size": [2, 2], "counts": "\N{SNOWMAN}"}, "below zero or beyond"),
        ({"size": [2, 2], "counts": "o" * 40 + "0"}, "too large"),
        ({"size": [2, 2], "counts": ""}, "0 of 4 pixels"),
        ({"size": [2, 2], "counts": None}, "no counts"),
        ({"size": [2, 2], "counts": [1.5, 2.5]}, "no counts"),
        ({"size": [2, 2]}, "no counts"),
        ({"size": [0, 2], "counts": [0]}, "no usable size"),
        ({"size": [10**6, 10**6], "counts": [10**12]}, "no usable size"),
        ({"size": "22", "counts": [4]}, "no usable size"),
        ({"counts": [4]}, "no usable size"),
    ],
)
def test_damaged_codes(code: dict[str, object], reason: str) -> None:
    with pytest.raises(MaskError, match=reason):
        decode_rle(code)


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[1, 1, 2, 2, 3]], "pairs"),
        ([[1, 1, 2, 2, 3, float("nan")]], "nowhere near"),
        ([[1, 1, 2, 2, 3, 1e300]], "nowhere near"),
        ([[-9e5, 0, 9e5, 1] * 40], "its outline is far too long"),  # 3 GB of points
        ([[1, 1, 2, 2, 3, "x"]], "not a list of numbers"),
        ([[1, 1, 2, 2, [3], 4]], "not a list of numbers"),
        (["x"], "neither polygons"),
        (None, "no mask"),
        ("x", "no mask"),
        ({"size": [5, 4], "counts": [20]}, "4 × 5 pixels, its picture 5 × 5"),
    ],
)
def test_damaged_segmentations(segmentation: object, reason: str) -> None:
    with pytest.raises(MaskError, match=reason):
        decode_segmentation(segmentation, (5, 5))


@given(st.text(max_size=30), st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_any_text_is_a_mask_or_refused(text: str, size: tuple[int, int]) -> None:
    with suppress(MaskError):
        assert decode_rle({"size": list(size), "counts": text}).shape == size


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16", "RGB", "RGBA", "LA"])
def test_png_masks_of_any_kind(mode: str) -> None:
    mask = picture(".#. ### ...")
    grey = Image.fromarray(mask.astype(np.uint8) * (1 if mode in ("P", "I;16") else 255))
    png = io.BytesIO()
    if mode == "P":
        grey.putpalette([0, 0, 0, 200, 0, 0])
        grey.save(png, "PNG")
    elif mode == "I;16":
        Image.fromarray(mask.astype(np.uint16)).save(png, "PNG")
    else:
        grey.convert(mode).save(png, "PNG")
    assert (read_mask_file(io.BytesIO(png.getvalue())) == mask).all()
    with pytest.raises(MaskError, match="not a PNG that can be read"):
        read_mask_file(io.BytesIO(png.getvalue()[:-30]))


def counts_of(mask: np.ndarray) -> list[int]:
    """Plain counts, one pixel at a time."""
    counts, inside = [0], False
    for pixel in mask.T.reshape(-1).tolist():
        if pixel != inside:
            counts.append(0)
            inside = pixel
        counts[-1] += 1
    return counts
