"""Several query photos: by their mean, or by any of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steersearch import Library
from steersearch.core.errors import ArgumentError, ImageError
from steersearch.core.predictor import Predictor
from tests.conftest import Run, draw_picture

PROMPTS = ["the red mug", "bookshelf"]
SAID = {False: "by the mean of 2 photos", True: "by any of 2 photos"}


@pytest.fixture
def library(photos: Path, tiny_model: Path, word_encoder: None) -> Library:
    library = Library.create(photos, model=str(tiny_model))
    library.index(prompts=PROMPTS)
    return library


def scores_by_hand(
    library: Library, focuses: dict[str, float], names: list[str], any_of: bool
) -> dict[str, float]:
    """By photo: Σ weight · cosine / Σ |weight| with the mean at unit length, or the best of it with each photo."""
    indexes = [library.find_prompt_index(text) for text in focuses] or [library.unsteered_index()]
    weights = np.array(list(focuses.values()) or [1.0])
    totals = []
    for index in indexes:
        gallery = library.gallery(index)
        paths = gallery.table.column("path").to_pylist()
        vectors = np.asarray(gallery.flat.all, dtype=np.float64)
        queries = vectors[[paths.index(name) for name in names]]
        if not any_of:
            mean = queries.mean(axis=0, keepdims=True)
            queries = mean / np.linalg.norm(mean)
        totals.append(vectors @ queries.T)
    scores = np.tensordot(weights, np.stack(totals), 1).max(axis=1) / np.abs(weights).sum()
    return dict(zip(paths, scores, strict=True))


@pytest.mark.parametrize("any_of", [False, True], ids=["mean", "any"])
@pytest.mark.parametrize(
    "focuses", [{}, {PROMPTS[0]: 1.0}, {PROMPTS[0]: 1.0, PROMPTS[1]: -0.5}], ids=["none", "one", "two"]
)
def test_scores_are_those_of_the_mean_or_the_best_of_any(
    library: Library, photos: Path, focuses: dict[str, float], any_of: bool
) -> None:
    names = ["red.jpg", "blue.jpg"]
    asked = [photos / name for name in names]
    hits = library.query(asked, list(focuses.items()) or None, any_of=any_of, include_query=True)
    expected = scores_by_hand(library, focuses, names, any_of)
    assert {hit.path.name: hit.score for hit in hits} == pytest.approx(expected, abs=1e-5)
    assert [hit.path.name for hit in hits] == sorted(expected, key=lambda name: -expected[name])
    for hit in hits:  # the cosines beside a score add up to it
        parts = sum(part.weight * part.score for part in hit.parts) / sum(map(abs, focuses.values()), 1e-12)
        assert not hit.parts or hit.score == pytest.approx(parts, abs=1e-5)
    assert SAID[any_of] in str(hits.searched)
    assert hits.exact


@pytest.mark.parametrize("any_of", [False, True], ids=["mean", "any"])
@pytest.mark.parametrize("focus", [PROMPTS[0], None, "a new lamp"], ids=["indexed", "none", "new"])
def test_all_query_photos_and_their_copies_are_left_out(
    photos: Path, tiny_model: Path, word_encoder: None, focus: str | None, any_of: bool
) -> None:
    Image.open(photos / "red.jpg").save(photos / "anew.jpg", quality=80)
    library = Library.create(photos, model=str(tiny_model))
    library.index(prompts=PROMPTS)
    asked = [photos / "red.jpg", photos / "blue.jpg"]
    hits = library.query(asked, focus, any_of=any_of)
    assert {hit.path.name for hit in hits} == {"black.jpg", "green.jpg", "white.jpg", "yellow.jpg"}
    assert {path.name for path in hits.searched.left_out} == {"anew.jpg", "blue.jpg", "red.jpg"}
    assert "left out: query photos and their copies, 3 photos" in str(hits.searched)
    assert len(library.query(asked, focus, any_of=any_of, include_query=True)) == 7


def test_a_copy_far_from_the_mean_is_left_out(photos: Path, tiny_model: Path, word_encoder: None) -> None:
    Image.open(photos / "red.jpg").save(photos / "anew.jpg", quality=80)
    library = Library.create(photos, model=str(tiny_model))
    library.index(prompts=PROMPTS)
    asked = [photos / "red.jpg", *(photos / f"{name}.jpg" for name in ("blue", "green", "white", "yellow"))]
    kept = library.query(asked, PROMPTS[0], include_query=True)
    copy = next(hit for hit in kept if hit.path.name == "anew.jpg")
    assert copy.score < 0.95  # by its score it would pass for no copy
    assert [hit.path.name for hit in library.query(asked, PROMPTS[0])] == ["black.jpg"]


def test_photos_from_outside_count_with_those_of_the_library(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger.jpg"
    draw_picture(stranger, "yellow", seed=77)
    index = library.find_prompt_index(PROMPTS[0])
    gallery = library.gallery(index)
    model = Predictor.from_pretrained(library.model)
    own = np.asarray(gallery.flat.all)[gallery.table.column("path").to_pylist().index("red.jpg")]
    mean = own + model.embed([stranger], PROMPTS[0])[0].numpy()
    expected = np.asarray(gallery.flat.all) @ (mean / np.linalg.norm(mean))
    hits = library.query([photos / "red.jpg", stranger], PROMPTS[0], include_query=True)
    assert sorted(hit.score for hit in hits) == pytest.approx(sorted(expected.tolist()), abs=1e-5)


@pytest.mark.parametrize("any_of", [False, True], ids=["mean", "any"])
def test_a_new_focus_is_answered_as_if_it_had_been_indexed(
    library: Library, photos: Path, any_of: bool
) -> None:
    names = ["red.jpg", "blue.jpg"]
    asked = [photos / name for name in names]
    hits = library.query(asked, "kettle", any_of=any_of, exact=True, include_query=True)
    assert (hits.exact, hits.compared) == (True, 6)
    expected = scores_by_hand(library, {"kettle": 1.0}, names, any_of)
    assert {hit.path.name: hit.score for hit in hits} == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("any_of", [False, True], ids=["mean", "any"])
def test_text_json_and_page_say_by_what(run: Run, library: Library, photos: Path, any_of: bool) -> None:
    asked = ["query", photos / "red.jpg", photos / "blue.jpg", "--focus", PROMPTS[0]]
    asked += ["--any"] if any_of else []
    done = run(*asked, "--html", "page.html")
    assert (done.code, SAID[any_of] in done.err) == (0, True), done.err
    page = Path("page.html").read_text()
    assert SAID[any_of] in page
    assert ("The query photo, red.jpg" in page, "The query photo, blue.jpg" in page) == (True, True)
    rows = [json.loads(line) for line in run(*asked, "--json").out.splitlines()]
    assert len(rows) == 4
    assert {(row["query_photos"], row["by"]) for row in rows} == {(2, "any" if any_of else "mean")}


def test_what_does_not_go_together_is_refused(run: Run, library: Library, photos: Path) -> None:
    one, two = photos / "red.jpg", photos / "blue.jpg"
    assert run("query", one, two, "--region", "10%,10%,60%,90%").code == 2
    assert run("query", one, "--any").code == 2
    with pytest.raises(ArgumentError, match="single image"):
        library.query([one, two], region="10%,10%,60%,90%")
    with pytest.raises(ArgumentError, match="3 photos, and there are 2"):
        library.query([one, two], region="10%,10%,60%,90%//")
    with pytest.raises(ArgumentError, match="marks no part"):
        library.query([one, two], region="/")
    assert run("query", one, "--region", "10%,10%,60%,90%/").code == 2
    with pytest.raises(ArgumentError, match="several"):
        library.query(one, any_of=True)
    with pytest.raises(ArgumentError, match="at least one"):
        library.query([])


@pytest.mark.parametrize("focus", [PROMPTS[0], None, "a new lamp"], ids=["indexed", "none", "new"])
def test_one_that_cannot_be_read_is_named(
    run: Run, library: Library, photos: Path, tmp_path: Path, focus: str | None
) -> None:
    (tmp_path / "broken.jpg").write_text("no picture")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        library.query([photos / "red.jpg", tmp_path / "broken.jpg"], focus)
    done = run("query", photos / "red.jpg", tmp_path / "broken.jpg", *(["--focus", focus] if focus else []))
    assert (done.code, "broken.jpg" in done.err) == (1, True)
