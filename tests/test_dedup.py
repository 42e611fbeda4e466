"""Copies of a photo are folded into the best of them, and named; what only looks alike is left."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from steersearch.indexer.dedup import Comparison, Shown, differences, folded
from steersearch.indexer.hits import Hit, Hits, Method, Searched
from steersearch.indexer.query_terms import Focus
from tests import drawn_copies as drawn
from tests.toy_embedder import ToyEmbedder, save_photo
from tests.toy_library import Library


def searched(found: int) -> Searched:
    return Searched((), found, found, Method.exact)


def hits(*paths: Path) -> Hits:
    """Hits in this order; the content of a file is named after it, up to a hyphen."""
    among = searched(len(paths))
    found = [
        Hit(path, 1 - 0.01 * i, i + 1, path.stem.split("-")[0], 1.0, (), among)
        for i, path in enumerate(paths)
    ]
    return Hits(found, among)


def no_thumbnails(image_ids: Sequence[str]) -> Mapping[str, bytes]:
    return {}


def thumbnail(image: Image.Image) -> bytes:
    jpeg = io.BytesIO()
    ImageOps.contain(image.convert("RGB"), (256, 256)).save(jpeg, "JPEG", quality=85)
    return jpeg.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> drawn.Folder:
    return drawn.Folder(tmp_path_factory.mktemp("pictures"))


def are_copies(folder: drawn.Folder, one: Image.Image, two: Image.Image, quality: int = 85) -> bool:
    first, second = folder.save(one, 92), folder.save(two, quality)
    return Comparison({file.image_id: file.thumbnail for file in (first, second)}).is_copy(first, second)


@pytest.mark.parametrize("draw", drawn.FAMILIES, ids=lambda draw: draw.__name__)
def test_pictures_that_look_alike_are_no_copies(
    draw: Callable[[int], Image.Image], folder: drawn.Folder
) -> None:
    one, two = (draw(number) for number in (2, 3))
    assert not are_copies(folder, one, two)


@pytest.mark.parametrize(
    "draw", [drawn.page, drawn.code, drawn.night, drawn.photo], ids=lambda draw: draw.__name__
)
@pytest.mark.parametrize("kind", ["quality 40", "half the size", "turned"])
def test_the_same_picture_saved_anew_is_a_copy(
    draw: Callable[[int], Image.Image], kind: str, folder: drawn.Folder
) -> None:
    change, quality = drawn.COPIES[kind]
    image = draw(1)
    assert are_copies(folder, image, change(image), quality)


@pytest.mark.parametrize("kind", ["cut, 1 % each side", "cut, 2 % each side", "cut, 5 % of one side"])
def test_a_photo_that_was_cut_a_little_is_a_copy(kind: str, folder: drawn.Folder) -> None:
    image = drawn.photo(3)
    assert are_copies(folder, image, drawn.COPIES[kind][0](image))


@pytest.mark.parametrize("kind", drawn.VERSIONS)
def test_a_version_is_no_copy(kind: str, folder: drawn.Folder) -> None:
    image = drawn.photo(2)
    assert not are_copies(folder, image, drawn.VERSIONS[kind][0](image))


def test_plain_pictures_are_distinguished_by_their_colour(folder: drawn.Folder) -> None:
    sky = Image.new("RGB", (300, 200), (120, 170, 230))
    assert are_copies(folder, sky, sky, quality=40)
    for colour in ((130, 175, 232), (240, 240, 245), (120, 170, 215)):
        assert not are_copies(folder, sky, Image.new("RGB", (300, 200), colour))


def test_what_cannot_be_read_is_no_copy(tmp_path: Path) -> None:
    image = drawn.photo(1)
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        image.save(path)
    small = dict.fromkeys(("a", "b"), thumbnail(image))
    (hit,) = folded(lambda count: hits(*paths), 2, lambda ids: small)
    assert hit.copies == (paths[1],)
    assert len(folded(lambda count: hits(*paths), 2, lambda ids: {"a": small["a"], "b": b"damaged"})) == 2
    paths[1].unlink()
    assert len(folded(lambda count: hits(*paths), 2, lambda ids: small)) == 2


def test_files_of_one_content_are_folded_wherever_they_lie() -> None:
    all_hits = hits(*map(Path, ("/a", "/b", "/a-1", "/c", "/b-1", "/a-2")))
    found = folded(lambda count: all_hits, 10, no_thumbnails)
    assert [hit.path.name for hit in found] == ["a", "b", "c"]
    assert [hit.rank for hit in found] == [1, 2, 3]
    assert [[path.name for path in hit.copies] for hit in found] == [["a-1", "a-2"], ["b-1"], []]
    assert found.searched is all_hits.searched


def test_more_is_requested_until_k_are_left_or_there_are_no_more() -> None:
    asked: list[int] = []
    paths = [*(Path(f"/a-{number}") for number in range(20)), *(Path(f"/{letter}") for letter in "bcdefgh")]

    def search(count: int) -> Hits:
        asked.append(count)
        return Hits(hits(*paths)[:count], searched(27))

    found = folded(search, 4, no_thumbnails)
    assert [hit.image_id for hit in found] == ["a", "b", "c", "d"]
    assert len(found[0].copies) == 19
    assert asked == [12, 36]
    assert len(folded(search, 100, no_thumbnails)) == 8


@pytest.mark.parametrize("regions", [True, False])
def test_a_query_folds_copies(tmp_path: Path, regions: bool) -> None:
    photos = tmp_path / "photos"
    for name, colour in {
        "red.png": (200, 0, 0),
        "red again.png": (200, 0, 0),
        "red anew.bmp": (201, 1, 1),
        "rather red.png": (215, 0, 0),
        "blue.png": (0, 0, 200),
    }.items():
        save_photo(photos / name, colour)
    library = Library.create(photos, tmp_path / "library")
    library.index(ToyEmbedder(), ["red"], regions=regions)
    aims = [Focus.on(library.find_prompt_index("red"))]
    expected = {"red again.png": ["red anew.bmp", "red.png"], "rather red.png": [], "blue.png": []}
    found = library.search_any(aims, photos / "red.png", lambda _: ToyEmbedder(), 3, collapse=True)
    assert sorted(hit.rank for hit in found) == [1, 2, 3]
    copies = {hit.path.name: sorted(path.name for path in hit.copies) for hit in found}
    assert {frozenset([name, *names]) for name, names in copies.items()} == {
        frozenset([name, *names]) for name, names in expected.items()
    }
    assert len(library.search_any(aims, photos / "red.png", lambda _: ToyEmbedder(), 5)) == 5
    found = library.find_any(aims[0], lambda _: ToyEmbedder(), 3, collapse=True)
    copies = {hit.path.name: sorted(path.name for path in hit.copies) for hit in found}
    assert {frozenset([name, *names]) for name, names in copies.items()} == {
        frozenset([name, *names]) for name, names in expected.items()
    }


@pytest.mark.parametrize("size", [(128, 96), (117, 203), (40, 512)])
def test_pictures_differ_by_the_worst_of_all_blocks_and_of_those_half_a_block_later(
    size: tuple[int, int],
) -> None:
    rng = np.random.default_rng(1)
    one, other = (rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8) for _ in range(2))
    other = (0.8 * one + 0.2 * other).astype(np.uint8)
    shown = [Shown.of(Image.fromarray(pixels)) for pixels in (one, other)]
    *_, found = differences(shown[0], shown[1], np.zeros(4), 512)
    a, b = (np.asarray(each.image.getchannel("Y"), dtype=np.float64) for each in shown)
    block, noise, worst = max(size) // 16, 36 + 0.02 * a.var(), 0.0
    starts = [sorted({*range(0, side, block), *range(block // 2, side, block)}) for side in a.shape]
    for top, left in ((top, left) for top in starts[0] for left in starts[1]):
        if top + block <= a.shape[0] and left + block <= a.shape[1]:
            x, y = (values[top : top + block, left : left + block] for values in (a, b))
            worst = max(worst, ((x - y) ** 2).mean() / (x.var() + y.var() + noise))
    assert found == pytest.approx(worst, rel=1e-4)
