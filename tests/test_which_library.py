"""Which library a command takes, and what it refuses to guess."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from steersearch import api
from steersearch.core.errors import ArgumentError, FolderError, LibraryPlaceError, SteerSearchError
from steersearch.core.files import cache_folder
from steersearch.indexer.folders import PhotoFolder
from steersearch.indexer.manifest import LibraryManifest, write_library
from steersearch.indexer.place import default_place
from steersearch.settings import find_library, remember_library
from tests.conftest import Run
from tests.toy_embedder import ToyEmbedder, save_photos
from tests.toy_library import Library


def made(folder: Path, place: Path | None = None) -> Path:
    """The place of a library of `folder`, which is used now."""
    folder.mkdir(parents=True, exist_ok=True)
    place = place or default_place(folder)
    write_library(place, LibraryManifest(folders=(PhotoFolder(path=os.fspath(folder)),)))
    remember_library(place)
    return place


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_the_option_then_the_variable(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(here)
    monkeypatch.setenv("STEERSEARCH_LIBRARY", "named/by/variable")
    found = find_library("named/by/option", photo=here / "photo.jpg")
    assert (found.place, found.reason) == ("named/by/option", "--library")
    assert find_library(None).place == "named/by/variable"


def test_the_one_that_holds_the_query_photo_before_the_one_that_holds_the_current_folder(
    here: Path, tmp_path: Path
) -> None:
    holiday, trip = made(tmp_path / "holiday"), made(tmp_path / "holiday/trip")
    current = made(here)
    assert find_library(None, photo=tmp_path / "holiday/trip/a.jpg").place == trip  # the innermost
    assert find_library(None, photo=tmp_path / "holiday/a.jpg").place == holiday
    assert find_library(None, photo=Path("a.jpg")).place == current
    assert find_library(None, photo=tmp_path / "elsewhere/a.jpg").place == current
    assert find_library(None).place == current


def test_a_link_to_a_photo_lies_where_it_is_and_where_it_leads(here: Path, tmp_path: Path) -> None:
    holiday, current = made(tmp_path / "holiday"), made(here)
    (tmp_path / "holiday/a.jpg").touch()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "holiday/a.jpg")
    assert find_library(None, photo=tmp_path / "link.jpg").place == holiday
    (here / "link.jpg").symlink_to(tmp_path / "holiday/a.jpg")
    assert find_library(None, photo=here / "link.jpg").place == current


def test_several_below_the_current_folder_are_named(here: Path) -> None:
    one = made(here / "a")
    assert find_library(None).place == one
    other = made(here / "b/c")
    with pytest.raises(SteerSearchError) as several:
        find_library(None)
    assert f"{other} (of {here / 'b/c'}), {one} (of {here / 'a'}); name one" in str(several.value)
    (here / "a").rmdir()
    assert find_library(None).place == other


def test_the_one_used_last_is_for_reading_and_is_named(here: Path, tmp_path: Path) -> None:
    with pytest.raises(SteerSearchError, match="none was used before"):
        find_library(None)
    made(tmp_path / "first")
    last = made(tmp_path / "last")
    found = find_library(None)
    assert (found.place, found.reason) == (last, f"the most recently used, of {tmp_path / 'last'}")
    with pytest.raises(SteerSearchError, match=f"--library {last}$"):
        find_library(None, for_changes=True)


def test_of_two_libraries_of_a_folder_reading_takes_the_one_used_last_and_says_so(
    here: Path, tmp_path: Path
) -> None:
    made(here)
    second = made(here, tmp_path / "second")
    found = find_library(None)
    assert found.place == second
    assert found.reason.endswith("; the most recently used of the 2 libraries of that folder")
    with pytest.raises(SteerSearchError, match=f"2 libraries are of {here}: "):
        find_library(None, for_changes=True)


def test_commands_that_change_a_library_do_not_take_the_one_used_last(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library.create(save_photos(tmp_path / "photos", 3))
    library.index(ToyEmbedder(), ["red"])
    remember_library(library.place)
    monkeypatch.chdir("here")
    changing = (
        ["remove", "red"],
        ["remove", "--all", "--yes"],
        ["optimize"],
        ["verify", "--repair"],
    )
    for command in changing:
        done = run(*command)
        assert (done.code, done.out) == (1, "")
        assert f"the one used last, {library.place}, is not taken" in done.err
    assert [index.prompt for index in library.prompts()] == ["red"]
    for command in (["info"], ["verify"], ["find", "red"]):
        assert run(*command).code == 0


def test_a_photo_folder_that_is_gone_is_said_to_be_gone(run: Run, tmp_path: Path) -> None:
    library = Library.create(save_photos(tmp_path / "photos", 3), tmp_path / "library")
    library.index(ToyEmbedder(), ["red"])
    assert "is gone" not in run("find", "red", "--library", library.place).err
    library.folder.rename(tmp_path / "moved")
    for command in (["find", "red"], ["info"]):
        done = run(*command, "--library", library.place)
        assert done.code == 0
        assert "the photo folder photos is gone; if it moved: steersearch relocate " in done.err


# --------------------------------------------------------------------------------- what is no place for one


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("https://host/library", "is a URL"),
        ("ftp://host/library", "is a URL"),
        ("hf+https://host/library", "is a URL"),
        ("file:///data/library", "is a URL"),
        (Path("https://host/library"), "is a URL"),
        ("", "is empty"),
        ("  ", "is empty"),
        ("li\0brary", "contains a NUL character"),
        ("caf\udce9", "is not valid UTF-8"),
    ],
)
def test_what_is_no_folder_on_this_machine_is_refused(here: Path, place: str | Path, reason: str) -> None:
    photos = save_photos(here / "photos", 1)
    for refused in (
        lambda: Library.create(photos, place),
        lambda: Library.open(place),
        lambda: api.Library.open(place),
    ):
        with pytest.raises(LibraryPlaceError) as error:
            refused()
        assert error.value.reason.startswith(reason)
    assert [path.name for path in here.iterdir()] == ["photos"]


def test_a_url_is_refused_by_option_and_by_variable(
    run: Run, here: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photos(here, 1)
    monkeypatch.chdir(here)
    before = sorted(here.iterdir())
    for command in (["index", ".", "--prompt", "mug", "--model", tiny_model], ["find", "mug"], ["info"]):
        done = run(*command, "--library", "https://host/library")
        assert (done.code, done.out) == (1, "")
        assert "error: https://host/library: is a URL; give the path of a folder on this machine" in done.err
        with monkeypatch.context() as patched:
            patched.setenv("STEERSEARCH_LIBRARY", "ftp://host/library")
            assert "error: ftp://host/library: is a URL" in run(*command).err
    for command in (["demo", "s3://bucket"], ["train", "--preset", "mini", "-o", "s3://bucket"]):
        assert run(*command).code == 2
    assert sorted(here.iterdir()) == before


def test_an_empty_name_is_not_the_current_folder(
    run: Run, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a script writes it whose variable is not set."""
    library = Library.create(save_photos(tmp_path / "photos", 3))
    library.index(ToyEmbedder(), ["red"])
    monkeypatch.chdir(library.folder)
    for command in (["remove", "--all", "--yes"], ["remove", "red"], ["find", "red"]):
        done = run(*command, "--library", "")
        assert (done.code, done.out) == (1, "")
        assert "is empty; give the path of a folder" in done.err
    assert [index.prompt for index in library.prompts()] == ["red"]
    for command in (["index", "", "--prompt", "red"], ["demo", ""], ["train", "--preset", "mini", "-o", ""]):
        assert run(*command).code == 2
    with pytest.raises(FolderError, match="is empty"):
        Library.create("")


def test_a_cache_at_a_url_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEERSEARCH_CACHE", "s3://bucket/cache")
    with pytest.raises(ArgumentError, match="is a URL"):
        cache_folder()
