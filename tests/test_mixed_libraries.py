"""Files of another library among those of one, and tables under another's name: whatever answers, it is not theirs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from steersearch.core.errors import LibraryDamagedError
from steersearch.indexer import store
from steersearch.indexer.checksums import check_structure
from tests.conftest import Run
from tests.toy_embedder import ToyEmbedder, save_photo
from tests.toy_library import Library

NAMES = [f"IMG_{number:04}.png" for number in range(6)]


def made(root: Path, seed: int) -> Library:
    """Of photos that have the names of any other camera, but show something else."""
    for number, name in enumerate(NAMES):
        save_photo(root / "photos" / name, (number * seed * 17 % 256, number * 31 % 256, seed))
    library = Library.create(root / "photos", root / "library")
    library.index(ToyEmbedder(), ["red", "blue"])
    return library


@pytest.fixture
def ours(tmp_path: Path) -> Library:
    return made(tmp_path / "ours", 1)


@pytest.fixture
def theirs(tmp_path: Path) -> Library:
    return made(tmp_path / "theirs", 2)


def answers(library: Library) -> list[list[tuple[str, float]]]:
    """Steered and unsteered; opened anew."""
    library, photo = Library.open(library.place), library.folder / NAMES[2]
    hits = [
        library.query(ToyEmbedder(), photo, "red"),
        library.query(ToyEmbedder(), photo, "blue"),
        super(Library, library).query(photo, k=10),
    ]
    return [[(hit.path.name, round(hit.score, 5)) for hit in one] for one in hits]


@pytest.mark.parametrize("kind", ["*", "*.npy", "*.arrow"])
def test_snapshots_of_another_library_answer_nothing(ours: Library, theirs: Library, kind: str) -> None:
    """As after a copy of one library onto another; both have the same prompts and as many versions."""
    expected = answers(ours)
    for file in (theirs.place / "snapshots").glob(f"*/{kind}"):
        to = ours.place / file.relative_to(theirs.place)
        to.parent.mkdir(exist_ok=True)
        shutil.copy(file, to)
    assert answers(ours) == expected


def test_a_library_that_was_made_anew_while_it_was_open_is_asked_anew(ours: Library) -> None:
    photo = ours.folder / NAMES[2]
    ours.query(ToyEmbedder(), photo, "red")
    shutil.rmtree(ours.place)
    for name in NAMES[3:]:
        save_photo(ours.folder / name, (250, 3, 3))
    Library.create(ours.folder, ours.place).index(ToyEmbedder(), ["red", "blue"])
    found = [(hit.path, hit.score) for hit in ours.query(ToyEmbedder(), photo, "red")]
    again = [(hit.path, hit.score) for hit in Library.open(ours.place).query(ToyEmbedder(), photo, "red")]
    assert found == again


def test_a_snapshot_whose_name_is_of_versions_alone_is_still_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As earlier versions named them; a large one takes minutes to make."""
    with monkeypatch.context() as earlier:
        earlier.setattr(store, "commits", lambda place, name: [])
        library = made(tmp_path, 1)
        expected = answers(library)
    files = sorted((library.place / "snapshots").glob("*/*"))
    assert answers(library) == expected
    assert sorted((library.place / "snapshots").glob("*/*")) == files
    save_photo(library.folder / "new.png", (1, 2, 3))
    library.index(ToyEmbedder(), ["red", "blue"])
    assert not set(files) & set((library.place / "snapshots").glob("*/*"))


def test_tables_that_were_swapped_are_refused_and_repaired(ours: Library) -> None:
    expected = answers(ours)
    red, blue = sorted((ours.place / "lance").glob("prompt_*"), reverse=True)
    shutil.move(red, aside := red.with_name("aside"))
    shutil.move(blue, red)
    shutil.move(aside, blue)
    with pytest.raises(LibraryDamagedError, match=f"it is the table {blue.name} under another name"):
        check_structure(red)
    with pytest.raises(LibraryDamagedError, match="under another name"):
        Library.open(ours.place).index(ToyEmbedder(), ["red", "blue"])
    assert sum(finding.is_problem for finding in Library.open(ours.place).verify()) == 2
    Library.open(ours.place).verify(repair=True)
    assert not any(finding.is_problem for finding in Library.open(ours.place).verify())
    Library.open(ours.place).index(ToyEmbedder(), ["red", "blue"])
    assert answers(ours) == expected


def test_a_photo_that_was_overwritten_since_is_said_to_have_changed(run: Run, photos: Path) -> None:
    run("index", photos, "--prompt", "mug", "--model", "mini")
    assert "changed" not in run("find", "mug").err
    shutil.copy(photos / "red.jpg", photos / "blue.jpg")
    found = run("find", "mug", "--json")
    assert "1 of these 6 photos has changed since the last index" in found.err
    changed = [row["path"] for row in map(json.loads, found.out.splitlines()) if row.get("changed")]
    assert changed == [os.fspath(photos / "blue.jpg")]
    run("index", photos)
    assert "changed" not in run("find", "mug").err
