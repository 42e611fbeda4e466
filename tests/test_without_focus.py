"""Indexing without a prompt, and searching with a photo alone: plain similarity of unsteered vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steersearch.core.errors import ArgumentError, ModelMismatchError, PromptError
from steersearch.indexer.embedder import LazyEmbedder
from steersearch.indexer.hits import Hits
from steersearch.indexer.library import Library
from steersearch.indexer.manifest import unsteered_file, unsteered_keys
from steersearch.views.page import write_page
from tests.toy_embedder import CONSTANT, ToyEmbedder, save_photo

COLOURS = {
    "red.png": (200, 0, 0),
    "pink.png": (220, 90, 90),
    "blue.png": (0, 0, 220),
    "grey.png": (90, 90, 90),
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, colour in COLOURS.items():
        save_photo(tmp_path / "photos" / name, colour)
    return tmp_path / "photos"


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    return save_photo(tmp_path / "stranger.png", (230, 30, 30))


def opened(photos: Path, model: ToyEmbedder | LazyEmbedder | None = None) -> Library:
    return Library.create(photos, model or ToyEmbedder(), place=photos.parent / "library")


def names(hits: Hits) -> list[str]:
    return [hit.path.name for hit in hits]


def never() -> ToyEmbedder:
    raise AssertionError("the model was loaded")


def known() -> LazyEmbedder:
    """A model that is known and must not be loaded."""
    toy = ToyEmbedder()
    return LazyEmbedder(
        never, model_id=toy.model_id, weights_hash=toy.weights_hash, preprocessing=toy.preprocessing
    )


def test_a_folder_is_indexed_without_a_prompt_and_nothing_is_computed_twice(photos: Path) -> None:
    counts = opened(photos).index()
    assert (counts.added, counts.forward_passes, dict(counts.readings)) == (4, 4, {})
    again = opened(photos, known()).index()
    assert (again.reused, again.added, again.forward_passes) == (4, 0, 0)
    library = Library.open(photos.parent / "library")
    assert (library.model, library.prompts(), library.verify()) == ("toy", [], [])


def test_any_focus_can_be_searched_the_likeliest_photos_first(photos: Path, stranger: Path) -> None:
    opened(photos).index()
    hits = opened(photos).query(stranger, "red", k=1, budget_s=60)
    assert hits[0].path.name == "pink.png"  # its red channel is the nearest
    assert hits.searched.focuses[0].index.model_id == "toy"


def test_without_a_focus_whole_photos_are_compared(photos: Path, stranger: Path) -> None:
    opened(photos).index()
    hits = opened(photos).query(stranger)
    vectors = {
        name: np.array([*colour, CONSTANT * 255])
        for name, colour in (COLOURS | {"stranger": (230, 30, 30)}).items()
    }
    query = vectors.pop("stranger")
    cosines = {
        name: float(v @ query / np.linalg.norm(v) / np.linalg.norm(query)) for name, v in vectors.items()
    }
    assert names(hits) == sorted(cosines, key=lambda name: -cosines[name])
    assert [hit.score for hit in hits] == pytest.approx(sorted(cosines.values(), reverse=True), abs=2e-3)
    assert str(hits.searched) == "exact; no focus: plain similarity"
    assert (hits.exact, hits.compared, hits.of, hits[0].prompt, hits[0].parts) == (True, 4, 4, "", ())
    with pytest.raises(ArgumentError, match="has no heatmap: the search had no focus"):
        _ = hits[0].heatmap


def test_a_photo_that_the_library_has_needs_no_model(photos: Path) -> None:
    opened(photos).index(["green"])  # a prompt brings the unsteered vectors with it
    assert names(opened(photos, known()).query(photos / "red.png"))[0] == "pink.png"


def test_photos_without_an_unsteered_vector_are_counted(photos: Path, stranger: Path) -> None:
    opened(photos).index()
    save_photo(photos / "rose.png", (230, 40, 40))
    opened(photos).index(["red"], regions=False)
    hits = opened(photos).query(stranger)
    assert "rose.png" not in names(hits)
    assert str(hits.searched) == "approximate: 4 of 5 photos compared; no focus: plain similarity"
    assert not hits[0].exact
    filtered = opened(photos).query(stranger, where="path >= 'red'")
    assert (names(filtered), filtered.compared, filtered.of) == ([], 1, 2)  # one of two is not enough


def test_where_there_are_no_unsteered_vectors_the_command_that_makes_them_is_said(
    photos: Path, stranger: Path
) -> None:
    opened(photos).index(["red"], regions=False)
    with pytest.raises(ArgumentError, match=f"needs unsteered vectors.*steersearch index {photos}"):
        opened(photos).query(stranger)
    with pytest.raises(PromptError, match="nothing to index: no prompt is given or known"):
        Library.create(photos, ToyEmbedder("other"), place=photos.parent / "new").index(regions=False)


def test_what_steers_is_refused_without_a_focus(photos: Path, stranger: Path) -> None:
    opened(photos).index()
    with pytest.raises(ArgumentError, match=r"gate_scale = 0.5: needs a focus"):
        opened(photos).query(stranger, gate_scale=0.5)
    with pytest.raises(ArgumentError, match=r"budget_s = 2: needs a focus"):
        opened(photos).query(stranger, budget_s=2)


def test_other_weights_do_not_answer(photos: Path, stranger: Path) -> None:
    opened(photos).index()
    changed = ToyEmbedder()
    changed.weights_hash = "0" * 64
    with pytest.raises(ModelMismatchError, match="unsteered vectors was made with other weights of toy"):
        opened(photos, changed).query(stranger)


def test_a_library_without_a_record_of_its_unsteered_vectors_answers(photos: Path, stranger: Path) -> None:
    library = opened(photos)
    library.index(["red"])
    (key,) = unsteered_keys(library.place)
    unsteered_file(library.place, key).unlink()  # as older versions left it
    assert names(opened(photos).query(stranger)) == ["red.png", "pink.png", "grey.png", "blue.png"]


def test_a_damaged_record_is_found_and_set_aside(photos: Path) -> None:
    library = opened(photos)
    library.index()
    (key,) = unsteered_keys(library.place)
    file = unsteered_file(library.place, key)
    file.write_text(file.read_text().replace('"toy"', '"toys"'))
    (finding,) = library.verify()
    assert "their record is damaged" in finding.what
    library.verify(repair=True)
    assert opened(photos).index().forward_passes == 0
    assert library.verify() == []


def test_deleting_the_library_leaves_nothing(photos: Path) -> None:
    library = opened(photos)
    library.index()
    library.delete()
    assert not library.place.exists()


def test_the_page_says_that_there_was_no_focus(photos: Path, stranger: Path, tmp_path: Path) -> None:
    opened(photos).index()
    write_page(tmp_path / "page.html", [opened(photos).query(stranger, k=2)])
    html = (tmp_path / "page.html").read_text()
    assert "Photos similar as a whole" in html
    assert "exact; no focus: plain similarity; 2 of 4 photos shown" in html
    assert "<li>unsteered vectors of model toy" in html
    assert "Heatmap" not in html
