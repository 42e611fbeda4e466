"""What is removed is gone, what is not stays, and nothing that a library did not make is ever deleted."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from steersearch.core.errors import (
    ArgumentError,
    LibraryBusyError,
    LibraryMissingError,
    PromptIndexMissing,
    SteerSearchError,
)
from steersearch.indexer.care import remove
from steersearch.indexer.care.remove import remove_library
from steersearch.indexer.place import LIBRARY_FILE
from steersearch.indexer.query_terms import Focus
from steersearch.indexer.writers import writing
from tests.toy_embedder import ToyEmbedder, save_photos
from tests.toy_library import Library


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
        patch.setattr(remove, step, ended)
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


@pytest.fixture
def precious(tmp_path: Path) -> dict[Path, bytes]:
    """A folder that is not the library's, with files of all the names that a library gives its own."""
    folder = tmp_path / "thesis"
    for name in ("chapter.tex", f"{'0' * 24}.arrow", ".writing-0123", "manifest.json", "data/1.lance"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"mine")
        os.utime(folder / name, (1, 1))
    return files(folder)


def lead_out(library: Library, folder: Path, target: Path) -> None:
    """Exchange a folder of the library for a link to `target`, as a library from somebody else may have one."""
    shutil.rmtree(library.place / folder)
    (library.place / folder).symlink_to(target)


@pytest.mark.parametrize("key", ["../../thesis", "{}/thesis", "..", "", "red", "x/../../../thesis"])
def test_a_manifest_names_no_folder_that_is_not_its_own(
    library: Library, tmp_path: Path, precious: dict[Path, bytes], key: str
) -> None:
    key = key.format(tmp_path)
    manifest = library.place / "prompts" / library.find_prompt_index("red").key / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "key": key}))
    assert [index.prompt for index in Library.open(library.place).prompts()] == ["blue"]
    with pytest.raises(ArgumentError, match="not the key of a prompt index"):
        library.remove(key)
    assert files(tmp_path / "thesis") == precious


@pytest.mark.parametrize(
    "name", ["snapshots", "snapshots/{}", "prompts", "prompts/{}", "lance/prompt_{}.lance"]
)
def test_nothing_is_deleted_through_a_link(
    library: Library, tmp_path: Path, precious: dict[Path, bytes], name: str
) -> None:
    index = library.find_prompt_index("red")
    folder = Path(name.format(index.key))
    lead_out(library, folder, tmp_path / "thesis")
    if folder.name in ("snapshots", "prompts"):
        (tmp_path / "thesis" / index.key).mkdir()
        for name in ("chapter.tex", f"{'0' * 24}.npy"):
            (tmp_path / "thesis" / index.key / name).write_bytes(b"mine")
    before = files(tmp_path / "thesis")
    photo = library.folder / "001.png"
    for act in (
        lambda: library.query(ToyEmbedder(), photo, "blue"),
        lambda: library.search([Focus.on(index)], photo, lambda _: ToyEmbedder()),
        lambda: library.index(ToyEmbedder(), ["red", "blue"]),
        library.optimize,
        lambda: library.verify(repair=True),
        lambda: library.remove(index.key),
        library.delete,
    ):
        with suppress(SteerSearchError):
            act()
        assert files(tmp_path / "thesis") == before
    assert precious.items() <= before.items()
