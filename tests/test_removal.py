"""What is removed is gone, what is not stays, and nothing that a library did not make is ever deleted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from steersearch.core.errors import LibraryBusyError, LibraryMissingError, PromptIndexMissing
from steersearch.indexer import removal
from steersearch.indexer.library import Library
from steersearch.indexer.manifest import LIBRARY_FILE
from steersearch.indexer.removal import remove_library
from steersearch.indexer.writers import writing
from tests.toy_embedder import ToyEmbedder, save_photos


@pytest.fixture
def library(tmp_path: Path) -> Library:
    library = Library.create(save_photos(tmp_path / "photos", 4), tmp_path / "library")
    library.index(ToyEmbedder(), ["red", "blue"])
    return library


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_prompt_index_goes_and_the_other_stays(library: Library) -> None:
    photos, red = files(library.folder), library.find_prompt_index("red")
    before = files(library.place)
    library.remove(red.key)
    with pytest.raises(PromptIndexMissing):
        library.find_prompt_index("red")
    assert files(library.place) == {path: data for path, data in before.items() if red.key not in str(path)}
    assert files(library.folder) == photos
    assert library.verify() == []
    assert library.index(ToyEmbedder(), ["red"]).forward_passes == 4
    assert library.verify() == []


@pytest.mark.parametrize("step", ["remove_snapshot", "Tables"])
def test_a_removal_that_ends_early_leaves_an_unfinished_index(
    library: Library, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = library.find_prompt_index("red").key

    def ended(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(removal, step, ended)
        with pytest.raises(KeyboardInterrupt):
            library.remove(key)
    assert [index.prompt for index in library.prompts()] == ["blue"]
    assert library.unfinished() == [key]
    assert not any(finding.is_problem for finding in library.verify(repair=True))
    library.remove(key)
    assert library.unfinished() == []
    assert library.verify() == []


def test_a_library_is_deleted_with_all_that_it_made_and_nothing_else(library: Library) -> None:
    photos = files(library.folder)
    (library.place / "notes.txt").write_text("mine")
    library.delete()
    assert files(library.place) == {library.place / "notes.txt": b"mine"}
    assert files(library.folder) == photos
    (library.place / "notes.txt").unlink()
    library.index(ToyEmbedder(), ["red"])
    library.delete()
    assert not library.place.exists()


def test_a_deletion_that_ends_early_can_be_repeated(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", ended)
        with pytest.raises(KeyboardInterrupt):
            library.delete()
    again = Library.open(library.place)
    assert again.prompts() == []
    again.delete()
    assert not library.place.exists()


def test_a_folder_that_is_no_library_is_left_alone(library: Library, tmp_path: Path) -> None:
    other = save_photos(tmp_path / "other", 2)
    (other / "lance").mkdir()
    (other / "lance" / "thesis.tex").write_text("precious")
    before = sorted(other.rglob("*"))
    with pytest.raises(LibraryMissingError):
        remove_library(other)
    assert sorted(other.rglob("*")) == before


def test_nothing_is_removed_beside_a_writer(library: Library) -> None:
    before = {path for path in files(library.place) if path.parent.name != "locks"}
    with writing(library.place):
        for remove in (lambda: library.remove(library.prompts()[0].key), library.delete):
            with pytest.raises(LibraryBusyError):
                remove()
    assert {path for path in files(library.place) if path.parent.name != "locks"} == before
    assert (library.place / LIBRARY_FILE).exists()


def test_vectors_of_removed_photos_are_forgotten_on_demand(library: Library) -> None:
    gone = library.folder / "002.png"
    kept = gone.read_bytes()
    gone.unlink()
    library.index(ToyEmbedder())
    assert library.optimize().forgotten == 0
    assert library.optimize(forget_removed=True).forgotten == 3  # under two prompts, and without
    assert library.optimize(forget_removed=True).forgotten == 0
    gone.write_bytes(kept)
    assert library.index(ToyEmbedder()).forward_passes == 2
    assert library.verify() == []
