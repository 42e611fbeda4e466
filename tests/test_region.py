"""Searching with a marked region of the query photo: boxes, what they match, and how the answer says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steersearch.core.errors import ArgumentError
from steersearch.core.preprocess import Preprocess
from steersearch.core.vectors import VectorSettings
from steersearch.indexer.embedder import LazyEmbedder
from steersearch.indexer.hits import Hits
from steersearch.indexer.library import Library
from steersearch.indexer.region import Region, as_region
from tests.conftest import Run
from tests.toy_embedder import SIZE, ToyEmbedder


@pytest.mark.parametrize(
    ("given", "box"),
    [
        ("120,80,300,260", Region(120, 80, 300, 260)),
        (" 1.5, 2 ,3,4.25 ", Region(1.5, 2, 3, 4.25)),
        ("10%,20%,50%,60%", Region(10, 20, 50, 60, in_percent=True)),
        ((1, 2, 3, 4), Region(1, 2, 3, 4)),
    ],
)
def test_a_region_is_read(given: str, box: Region) -> None:
    assert as_region(given) == box
    assert as_region(str(box)) == box


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("1,2,3", "must be left,top,right,bottom"),
        ("1,2,3,4,5", "must be left,top,right,bottom"),
        ("10%,2,30,40", "all in pixels"),
        ("-1,2,3,4", "must be left,top,right,bottom"),
        ("5,2,5,4", "right must be greater than left"),
        ("1,9,5,4", "bottom than top"),
        ("0%,0%,101%,50%", "beyond 100%"),
        ((1, 2, float("nan"), 4), "numbers of at least 0"),
        ((1, 2, 3), "must be left, top, right, bottom"),
    ],
)
def test_what_is_no_region_is_refused(given: str, reason: str) -> None:
    with pytest.raises(ArgumentError, match=reason):
        as_region(given)


def test_the_patches_of_a_region_are_those_with_their_centre_in_it() -> None:
    size, whole = (80, 40), (0, 0, 80, 40)
    found = as_region("20,0,60,20").patches(size, whole, (4, 4))
    assert np.argwhere(found).tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    tiny = as_region("1,1,3,3").patches(size, whole, (4, 4))
    assert np.argwhere(tiny).tolist() == [[0, 0]]
    cropped = as_region("20,0,40,40").patches(size, (20, 0, 60, 40), (4, 4))
    assert np.argwhere(cropped)[:, 1].tolist() == [0, 1] * 4
    with pytest.raises(ArgumentError, match="the model sees less than half of it"):
        as_region("0,0,30,40").patches(size, (20, 0, 60, 40), (4, 4))
    with pytest.raises(ArgumentError, match="does not lie in the photo, which has 80 × 40 pixels"):
        as_region("0,0,81,40").patches(size, whole, (4, 4))


def test_several_boxes_mark_all_of_their_patches_and_no_other() -> None:
    whole = (0, 0, 80, 40)
    marked = as_region("0,0,20,10;40,20,80,30")
    assert as_region(str(marked)) == marked
    found = marked.patches((80, 40), whole, (4, 4))
    assert np.argwhere(found).tolist() == [[0, 0], [2, 2], [2, 3]]
    with pytest.raises(ArgumentError, match="must be left,top,right,bottom"):
        as_region("0,0,20,10;")
    with pytest.raises(ArgumentError, match="must be 1 to 500 boxes"):
        as_region(";".join(["0,0,20,10"] * 501))


# ------------------------------------------------------------------------------------------------------------- searches

RED, GREEN, BLUE = (200, 30, 30), (30, 160, 60), (40, 60, 200)
TOP = "0%,0%,100%,40%"
SEEN = Preprocess(size=SIZE, mean=(0, 0, 0), std=(1, 1, 1), mode="squash")


class Toy(ToyEmbedder):
    """Two patches: the colours of the upper and of the lower half."""

    def __init__(self) -> None:
        super().__init__(preprocessing=VectorSettings.of(SEEN, "mean").to_dict())


def halves(path: Path, top: tuple[int, int, int], bottom: tuple[int, int, int]) -> Path:
    image = Image.new("RGB", (64, 96), top)
    image.paste(bottom, (0, 48, 64, 96))
    path.parent.mkdir(exist_ok=True)
    image.save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    halves(folder / "red over green.png", RED, GREEN)
    halves(folder / "red.png", RED, RED)
    halves(folder / "green.png", GREEN, GREEN)
    halves(folder / "blue.png", BLUE, BLUE)
    return folder


@pytest.fixture
def library(photos: Path) -> Library:
    library = Library.create(photos, Toy(), place=photos.parent / "library")
    library.index()
    return library


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    return halves(tmp_path / "stranger.png", RED, BLUE)


def names(hits: Hits) -> list[str]:
    return [hit.path.stem for hit in hits]


def test_the_photos_that_show_what_the_region_shows_come_first(
    library: Library, photos: Path, stranger: Path
) -> None:
    for photo in (stranger, photos / "red over green.png"):  # seen by the model, and by its stored regions
        hits = library.query(photo, region=TOP, include_query=True)
        assert set(names(hits)[:2]) == {"red", "red over green"}
        assert [hit.score for hit in hits[:2]] == pytest.approx([1, 1], abs=0.02)
        assert hits[2].score < 0.5
        assert str(hits.searched) == "exact; by the region 0%,0%,100%,40% of the query photo"
    below = library.query(stranger, region=(0, 60, 64, 96))
    assert names(below)[0] == "blue"
    assert (below.searched.prompt, below.searched.region) == ("", Region(0, 60, 64, 96))


def test_several_boxes_search_by_what_is_in_any_of_them(library: Library, photos: Path) -> None:
    both = library.query(photos / "red over green.png", region="0%,0%,50%,40%;0%,60%,100%,100%")
    assert set(names(both)[:2]) == {"red", "green"}
    assert "by 2 marked boxes of the query photo" in str(both.searched)


@pytest.mark.parametrize("any_of", [False, True], ids=["mean", "any"])
@pytest.mark.parametrize("other", ["0%,0%,100%,40%", ""], ids=["parts", "whole"])
def test_parts_of_several_photos_count_in_the_mean_or_by_the_best(
    library: Library, photos: Path, stranger: Path, other: str, any_of: bool
) -> None:
    asked = [stranger, photos / "green.png"]
    hits = library.query(asked, region=f"{TOP}/{other}", any_of=any_of, include_query=True)
    red, green = (
        {hit.path: hit.score for hit in library.query(photo, region=part, include_query=True)}
        for photo, part in ((stranger, TOP), (asked[1], "0%,0%,100%,100%"))
    )
    wanted = {path: max(red[path], green[path]) if any_of else (red[path] + green[path]) / 2 for path in red}
    assert {hit.path: hit.score for hit in hits} == pytest.approx(wanted, abs=1e-5)
    assert any_of or names(hits)[0] == "red over green"
    boxes = "2 marked boxes" if other else "1 marked box"
    how = "any" if any_of else "the mean"
    assert str(hits.searched) == f"exact; by {boxes} of the query photos; by {how} of 2 photos"
    if not other:  # what is whole lights up nowhere
        hit = next(hit for hit in hits if hit.path.stem == "red over green")
        assert hit.heatmap[:, 0].tolist() == pytest.approx([1, 0], abs=1e-6)


def test_a_hit_shows_where_it_matches(library: Library, stranger: Path) -> None:
    hit = next(hit for hit in library.query(stranger, region=TOP) if hit.path.stem == "red over green")
    assert hit.heatmap.shape == (2, 1)
    assert hit.heatmap[:, 0].tolist() == pytest.approx([1, 0], abs=1e-6)


def test_no_photo_of_the_gallery_goes_through_the_model(
    library: Library, photos: Path, stranger: Path
) -> None:
    toy = Toy()

    def never() -> Toy:
        raise AssertionError("the model was loaded")

    known = {"model_id": "toy", "weights_hash": toy.weights_hash, "preprocessing": toy.preprocessing}
    again = Library.open(library.place, LazyEmbedder(never, **known))
    assert names(again.query(photos / "red over green.png", region=TOP))[0] == "red"
    Library.open(library.place, toy).query(stranger, region=TOP)
    assert toy.batches == [(1, 0)]  # the query photo alone


def test_region_and_focus_both_count(library: Library, stranger: Path) -> None:
    library.index(["blue"])
    hits = library.query(stranger, "blue", region=TOP)
    assert str(hits.searched) == "exact; by the region 0%,0%,100%,40% of the query photo and the focus"
    words = {hit.path: hit.score for hit in library.query(stranger, "blue")}
    boxes = {hit.path: hit.score for hit in library.query(stranger, region=TOP)}

    def standardised(scores: dict[Path, float]) -> dict[Path, float]:
        values = np.array(list(scores.values()))
        return {path: float((score - values.mean()) / values.std()) for path, score in scores.items()}

    by_words, by_boxes = standardised(words), standardised(boxes)
    for hit in hits:
        assert hit.score == pytest.approx((by_words[hit.path] + by_boxes[hit.path]) / 2, abs=1e-3)
        assert hit.parts[0].score == pytest.approx(words[hit.path], abs=1e-6)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits[0].heatmap.shape == (2, 1)  # of the focus


def test_filters_and_photos_without_regions(library: Library, photos: Path, stranger: Path) -> None:
    hits = library.query(stranger, region=TOP, where="path LIKE 'red%'")
    assert (len(hits), hits.compared, hits.of) == (2, 2, 2)
    halves(photos / "later.png", RED, (1, 2, 3))
    library.index(["red"], regions=False)
    for focus in (None, "red"):
        hits = library.query(stranger, focus, region=TOP)
        assert (hits.exact, hits.compared, hits.of) == (False, 4, 5)
        assert "later" not in names(hits)
    other = Library.create(photos, Toy(), place=photos.parent / "other")
    other.index(["red"], regions=False)
    with pytest.raises(ArgumentError, match="needs the regions of photos"):
        other.query(stranger, "red", region=TOP)


def test_what_steers_is_refused_with_a_region_alone(library: Library, stranger: Path) -> None:
    with pytest.raises(ArgumentError, match="needs a focus"):
        library.query(stranger, region=TOP, budget_s=2)


def test_a_region_and_a_focus_that_no_photo_can_be_steered_under(
    library: Library, photos: Path, stranger: Path
) -> None:
    photos.rename(photos.parent / "away")
    with pytest.raises(ArgumentError, match="leave the focus out to search by the region alone"):
        library.query(stranger, "green", region=TOP)
    assert len(library.query(stranger, region=TOP)) == 4


def test_the_command_line(run: Run, photos: Path, stranger: Path, tiny_model: Path) -> None:
    run("index", photos, "--model", tiny_model)
    done = run("query", stranger, "--region", "0,0,64,40", "--json", "-k", 1)
    (row,) = map(json.loads, done.out.splitlines())
    assert (row["region"], row["prompt"], row["unsteered"]) == ("0,0,64,40", None, True)
    assert "by the region 0,0,64,40 of the query photo, by unsteered vectors" in done.err
    done = run("query", stranger, "--region", "0,0,4000,64")
    assert done.code == 1
    assert "does not lie in the photo, which has 64 × 96 pixels" in done.err
    assert run("query", stranger, "--region", "left").code == 2
    assert run("query", stranger, "--region", "0,0,64,40", "-o", "page.html").code == 0
    page = Path("page.html").read_text()
    assert "Photos that match the marked region" in page
    assert page.count('alt="Heatmap of the region on it"') == 4
    assert "The score is the mean cosine of the patches in the region" in page
    both = run("query", stranger, "--region", "0,0,64,40", "--focus", "red", "--html", "both.html")
    assert both.code == 0
    assert "match the marked region and are similar in “red”" in Path("both.html").read_text()
