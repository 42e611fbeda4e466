"""Bytes that are not what was written, anywhere in a library: an answer is right, says that it is incomplete, or is an
error with words. None is wrong and called exact."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steersearch.core.errors import SteerSearchError
from steersearch.indexer.library import Aim, Library
from tests.toy_embedder import ToyEmbedder, save_photo, save_photos

Answer = tuple[bool, list[tuple[str, float]]]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, a library of them in which lists of deleted rows and several versions lie, and a photo that
    is not indexed."""
    root = tmp_path_factory.mktemp("kept")
    library = Library.create(save_photos(root / "photos", 9), root / "library")
    library.index(ToyEmbedder(), ["red", "blue"], exclude=["drafts/"])
    (library.folder / "002.png").unlink()
    save_photo(library.folder / "sub/000.png", (1, 2, 3), size=(30, 30))
    library.index(ToyEmbedder(), ["red", "blue"])
    for focus in ("red", "blue"):
        library.query(ToyEmbedder(), library.folder / "004.png", focus)
    save_photo(root / "outside.png", (90, 9, 9))
    return root


def answers(kept: Path, place: Path) -> list[Answer | None]:
    """What the library at `place` says to a photo that it knows and to another, without a photo, and to a new focus."""
    toy, photos = ToyEmbedder(), kept / "photos"

    def find() -> Any:
        library = Library.open(place)
        return library.find_any(Aim(library.find_prompt_index("red")), lambda _: toy, 20)

    def any_focus() -> Any:
        library = Library.open(place)
        aim = Aim(library.new_index(toy, "green", 1.0))
        return library.search_any([aim], photos / "004.png", lambda _: toy, 20, exact=True)

    asked: list[Callable[[], Any]] = [
        lambda: Library.open(place).query(toy, photos / "004.png", "red", k=20),
        lambda: Library.open(place).query(toy, kept / "outside.png", "blue", k=20),
        lambda: Library.open(place).query(toy, photos / "001.png", ["red", ("blue", -0.5)], k=20),
        find,
        any_focus,
    ]
    return list(map(said, asked))


def said(ask: Callable[[], Any]) -> Answer | None:
    """Whether an answer is exact, and its hits with scores and heatmaps; None for an error with words."""
    try:
        hits = ask()
        return hits.searched.is_exact, [(hit.path.as_posix(), round(hit.score, 5)) for hit in hits]
    except SteerSearchError:
        return None


def damaged(content: bytes, rng: random.Random) -> bytes:
    """One to four bytes another, a part zeroed, or the end gone."""
    changed = bytearray(content)
    kind = rng.random()
    if kind < 0.7:
        for _ in range(rng.choice((1, 1, 1, 4))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    elif kind < 0.85:
        start = rng.randrange(len(changed))
        changed[start : start + 64] = bytes(len(changed[start : start + 64]))
    else:
        del changed[rng.randrange(len(changed)) :]
    return bytes(changed)


def files(library: Path) -> list[Path]:
    """Its files with something in them, relative to it."""
    found = (path for path in library.rglob("*") if path.is_file() and path.stat().st_size)
    return sorted(path.relative_to(library) for path in found)


def rot(kept: Path, work: Path, numbers: range) -> None:
    """Damage a file of a library, ask it, and compare with what a sound one says; once for each number."""
    place, names = work / "library", files(kept / "library")
    shutil.copytree(kept / "library", place)
    expected = answers(kept, place)
    assert None not in expected
    for number in numbers:
        rng = random.Random(number)
        shutil.rmtree(place)
        shutil.copytree(kept / "library", place)
        path = place / rng.choice(names)
        path.write_bytes(damaged(path.read_bytes(), rng))
        for found, right in zip(answers(kept, place), expected, strict=True):
            assert found is None or found == right or not found[0], (number, path, found, right)


def test_no_answer_is_wrong_and_called_exact(kept: Path, tmp_path: Path) -> None:
    rot(kept, tmp_path, range(30))


@pytest.mark.slow
def test_no_answer_of_many_is_wrong_and_called_exact(kept: Path, tmp_path: Path) -> None:
    rot(kept, tmp_path, range(30, 1500))


def repair(kept: Path, work: Path, numbers: range) -> None:
    """Damage a file of a library, repair it, bring it up to date, and compare what it says then."""
    place = work / "library"
    names = [name for name in files(kept / "library") if name.name not in ("library.json", "exclude.json")]
    shutil.copytree(kept / "library", place)
    expected = answers(kept, place)[:4]
    for number in numbers:
        rng = random.Random(number)
        shutil.rmtree(place)
        shutil.copytree(kept / "library", place)
        path = place / rng.choice(names)
        path.write_bytes(damaged(path.read_bytes(), rng))
        library = Library.open(place)
        left = [finding for finding in library.verify(repair=True) if finding.is_problem]
        assert all("only its model can encode it again" in finding.advice for finding in left), (path, left)
        library.index(ToyEmbedder(), ["red", "blue"])
        assert [finding for finding in library.verify(deep=True) if finding.is_problem] == [], (number, path)
        assert answers(kept, place)[:4] == expected, (number, path)


def test_after_a_repair_and_a_run_a_library_is_as_it_was(kept: Path, tmp_path: Path) -> None:
    repair(kept, tmp_path, range(12))


@pytest.mark.slow
def test_after_many_repairs_and_runs_a_library_is_as_it_was(kept: Path, tmp_path: Path) -> None:
    repair(kept, tmp_path, range(12, 300))
