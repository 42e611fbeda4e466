"""Arguments of the Python interface as programs really give them: they mean what they say, or are refused in words."""

from __future__ import annotations

import math
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from steersearch import SteerViT
from steersearch.core.errors import ArgumentError, ConfigError, ImageError, SteerSearchError
from steersearch.indexer.query_terms import as_focuses
from tests.toy_embedder import ToyEmbedder, save_photos
from tests.toy_library import Library


@pytest.fixture
def library(tmp_path: Path) -> Library:
    library = Library.create(save_photos(tmp_path / "photos", 5), tmp_path / "library")
    library.index(ToyEmbedder(), ["red", "blue"])
    return library


def found(
    library: Library, image: Any = "003.png", focus: Any = "red", **options: Any
) -> list[tuple[str, float]]:
    if isinstance(image, str):
        image = library.folder / image
    hits = super(Library, library).query(image, focus, **options)
    return [(hit.path.name, hit.score) for hit in hits]


@pytest.mark.parametrize("name", ["prompts", "exclude"])
@pytest.mark.parametrize("text", ["red", b"red"])
def test_one_text_is_no_list_of_letters(library: Library, name: str, text: Any) -> None:
    """Each letter of "red" was indexed as a prompt, and each of "*.png" left photos out."""
    with pytest.raises(ArgumentError, match=f"{name} = .*must be a list, such as"):
        super(Library, library).index(**{name: text})
    assert [index.prompt for index in library.prompts()] == ["red", "blue"]


@pytest.mark.parametrize("focus", [{"red": 1.0, "blue": -1.0}, b"red", 5, 1.5])
def test_what_is_no_focus_is_refused(library: Library, focus: Any) -> None:
    """Of a mapping the weights were left out."""
    with pytest.raises(ArgumentError, match="must be a text, or several, such as"):
        found(library, focus=focus)


@pytest.mark.parametrize("half", [np.float32(0.5), np.float64(0.5), Fraction(1, 2)])
def test_any_real_number_is_a_weight(half: Any) -> None:
    assert [one.weight for one in as_focuses(["a", ("b", half), ("c", np.int64(-2))])] == [1, 0.5, -2]
    for bad in (10**400, math.nan, "1", 1j):
        with pytest.raises(ArgumentError, match=r"weight|must be a text"):
            as_focuses([("a", bad)])  # type: ignore[list-item]


def test_a_whole_number_of_hits(library: Library) -> None:
    assert len(found(library, k=np.int64(2))) == len(found(library, k=np.array(2))) == 2
    for bad in (2.0, "2", None, np.float32(2), 0):
        with pytest.raises(ArgumentError, match=r"k = .*must be at least 1, and a whole number"):
            found(library, k=bad)


def test_paths_of_any_kind(library: Library) -> None:
    class Entry:
        def __fspath__(self) -> str:
            return os.fspath(library.folder / "003.png")

    expected = found(library)
    path = library.folder / "003.png"
    for image in (os.fsencode(path), Entry(), np.str_(path), [path], (os.fsencode(path),)):
        assert found(library, image) == expected
    for bad in (None, 5):
        with pytest.raises(ArgumentError, match="must be a path, or several"):
            found(library, bad)
    with pytest.raises(ImageError, match="NUL"):
        found(library, "003.png\0")


@pytest.mark.parametrize("bad", [math.nan, math.inf, "1"])
def test_a_gate_scale_is_a_finite_number(library: Library, bad: Any) -> None:
    with pytest.raises(ArgumentError, match=r"gate_scale = .*must be a finite number|not finite"):
        found(library, focus="green", gate_scale=bad)
    assert [index.prompt for index in library.prompts()] == ["red", "blue"]


@pytest.mark.parametrize(
    ("option", "bad"),
    [
        ("budget_s", "5s"), ("budget_s", math.nan), ("after", 2020), ("before", np.datetime64("2020-01-01")),
        ("folder", "x" * 5000), ("folder", "x" * 300 + "/y"), ("folder", b"nowhere"),
    ],
)  # fmt: skip
def test_an_option_that_is_none_is_named(library: Library, option: str, bad: Any) -> None:
    with pytest.raises(ArgumentError, match=f"^{option} = "):
        found(library, **{option: bad})


# ------------------------------------------------------------------------------------------------------------ the model


@pytest.fixture(scope="module")
def mini() -> SteerViT:
    return SteerViT.from_pretrained("mini")


@pytest.mark.parametrize("orientation", [3, 6])
def test_an_opened_photo_is_seen_upright_as_its_file_is(
    mini: SteerViT, tmp_path: Path, orientation: int
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)
    exif = Image.Exif()
    exif[0x112] = orientation
    photo = Image.fromarray(pixels).resize((320, 240))
    photo.save(tmp_path / "a.png", exif=exif)
    by_path = mini.embed([tmp_path / "a.png"])
    with Image.open(tmp_path / "a.png") as opened:
        assert np.allclose(mini.embed([opened]), by_path, atol=1e-5)
    assert not np.allclose(mini.embed([photo]), by_path, atol=1e-2)


def test_pictures_may_come_one_by_one(mini: SteerViT) -> None:
    pictures = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    assert np.array_equal(mini.embed(picture for picture in pictures), mini.embed(pictures))


@pytest.mark.parametrize("bad", [np.zeros((5, 5, 3), np.uint8), None, b"a.jpg", 5])
def test_what_is_no_picture_is_refused(mini: SteerViT, bad: Any) -> None:
    with pytest.raises(ConfigError, match="must be pictures of PIL, or paths"):
        mini.embed([bad])


def test_a_picture_without_pixels_is_refused(mini: SteerViT) -> None:
    with pytest.raises(ImageError, match="no pixels"):
        mini.embed([Image.new("RGB", (0, 5))])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_model_takes_a_finite_gate_scale(mini: SteerViT, bad: float) -> None:
    """NaN made vectors of NaN."""
    with pytest.raises(SteerSearchError, match="must be a finite number"):
        mini.embed([Image.new("RGB", (40, 30))], prompt="mug", gate_scale=bad)
