"""What a search says while a run of `index` has photos left to read, or after one that ended early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from steersearch.indexer.progress import ProgressEvent
from steersearch.indexer.query_terms import Focus
from steersearch.indexer.unfinished import is_unfinished, mark_unfinished
from tests.conftest import Run
from tests.toy_embedder import ToyEmbedder, save_photos
from tests.toy_library import Library


class Ends(ToyEmbedder):
    """The program ends at the second batch."""

    batch_size = 4

    def embed_with_unsteered(self, *given: Any) -> Any:
        if self.batches:
            raise KeyboardInterrupt
        return super().embed_with_unsteered(*given)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library.create(save_photos(tmp_path / "photos", 10), tmp_path / "library")


def asked(library: Library) -> Any:
    library, toy = Library.open(library.place), ToyEmbedder()
    aim = Focus.on(library.new_index(toy, "red", 1.0))
    return library.search_any([aim], library.folder / "001.png", lambda _: toy, 20, exact=True)


def test_a_first_run_that_ended_early_has_no_exact_answer(library: Library) -> None:
    """It was exact over the photos that had been read, and nothing said that there are more."""
    with pytest.raises(KeyboardInterrupt):
        library.index(Ends(), ["red"])
    searched = asked(library).searched
    assert 0 < searched.compared < 10
    assert not searched.is_exact
    assert not any(hit.exact for hit in asked(library))
    assert "approximate: the 4 photos indexed so far compared" in str(searched)
    assert "the last index has not ended: photos may be missing" in str(searched)
    library.index(ToyEmbedder(), ["red"])
    assert str(asked(library).searched) == "exact"
    assert not is_unfinished(library.place)


def test_an_update_that_ended_early_has_none_either(library: Library) -> None:
    library.index(ToyEmbedder(), ["red"])
    for number, path in enumerate(save_photos(library.folder / "more", 9).iterdir()):
        path.write_bytes(path.read_bytes() + bytes([number]))
    with pytest.raises(KeyboardInterrupt):
        library.index(Ends(), ["red"])
    assert not asked(library).searched.is_exact
    library.index(ToyEmbedder(), ["red"])
    assert asked(library).searched.is_exact


def test_the_marker_is_there_while_photos_are_read_and_goes_with_the_library(library: Library) -> None:
    seen = []
    library.index(ToyEmbedder(), ["red"], progress=lambda _: seen.append(is_unfinished(library.place)))
    assert any(seen)
    library.index(ToyEmbedder(), ["red"])
    assert not is_unfinished(library.place)
    mark_unfinished(library.place, "writer-killed", 1)
    library.delete()
    assert not library.place.exists()


def test_a_run_that_ends_takes_the_markers_of_killed_ones_and_leaves_those_of_others(
    library: Library,
) -> None:
    seen: list[bool] = []

    def index_beside(_: ProgressEvent) -> None:
        if not seen:
            mark_unfinished(library.place, "writer-killed", 1)
            seen.append(is_unfinished(library.place))
            Library.open(library.place).index(ToyEmbedder(), ["blue"])
            seen.append(is_unfinished(library.place))

    library.index(ToyEmbedder(), ["red"], progress=index_beside)
    assert seen == [True, True]
    assert not is_unfinished(library.place)


def test_another_prompt_for_known_photos_takes_nothing_from_other_answers(library: Library) -> None:
    library.index(ToyEmbedder(), ["red"])
    seen = []
    library.index(ToyEmbedder(), ["blue"], progress=lambda _: seen.append(is_unfinished(library.place)))
    assert seen
    assert not any(seen)


def test_json_says_so(run: Run, photos: Path) -> None:
    run("index", photos, "--prompt", "mug", "--model", "mini", "--library", "lib")
    mark_unfinished(Path("lib"), "writer-killed", 1)
    found = run("find", "mug", "--json", "--library", "lib")
    assert '"exact": false' in found.out
    assert "photos may be missing" in found.err
    assert "photos may be missing" in run("info", "--library", "lib").err
    assert '"is_unfinished": true' in run("info", "--json", "--library", "lib").out
    assert '"exact": true' not in run("query", photos / "red.jpg", "--json", "--library", "lib").out
