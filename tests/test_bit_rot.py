"""Bytes that are not what was written, anywhere in a library: an answer is right, says that it is incomplete, or is an
error with words. None is wrong and called exact."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from steersearch.core.errors import LibraryDamagedError, SteerSearchError
from steersearch.indexer.care.verify import Finding
from steersearch.indexer.checksums import write_array
from steersearch.indexer.query_terms import Focus
from steersearch.indexer.store import Store
from tests.toy_embedder import ToyEmbedder, save_photo, save_photos
from tests.toy_library import Library

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
        return library.find_any(Focus.on(library.find_prompt_index("red")), lambda _: toy, 20)

    def any_focus() -> Any:
        library = Library.open(place)
        aim = Focus.on(library.new_index(toy, "green", 1.0))
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
    """One to four bytes another, a bit, a page zeroed, or the end gone."""
    changed = bytearray(content)
    kind = rng.choice(("bit", "bytes", "bytes", "page", "end"))
    if kind == "bit":
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif kind == "bytes":
        for _ in range(rng.choice((1, 1, 1, 4))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    elif kind == "page":
        size = min(4096, len(changed) // 2 + 1)
        start = rng.randrange(0, len(changed), size)
        changed[start : start + size] = bytes(len(changed[start : start + size]))
    else:
        del changed[rng.randrange(len(changed)) :]
    return bytes(changed)


def files(library: Path) -> list[Path]:
    """Its files with something in them, relative to it."""
    found = (path for path in library.rglob("*") if path.is_file() and path.stat().st_size)
    return sorted(path.relative_to(library) for path in found)


def withstand(kept: Path, work: Path, damages: Iterable[tuple[object, Callable[[Path], Path]]]) -> None:
    """Damage a library, which gives the file that was damaged; ask, verify and repair it, bring it up to date, and
    compare with a sound one; once for each."""
    place = work / "library"
    shutil.copytree(kept / "library", place)
    expected = answers(kept, place)
    assert None not in expected
    for name, damage in damages:
        shutil.rmtree(place)
        shutil.copytree(kept / "library", place)
        path = damage(place)
        for found, right in zip(answers(kept, place), expected, strict=True):
            assert found is None or found == right or not found[0], (name, path, found, right)
        shutil.rmtree(place)
        shutil.copytree(kept / "library", place)
        damage(place)
        if path.name == "library.json":
            with pytest.raises(LibraryDamagedError):
                Library.open(place)
            continue
        library = Library.open(place)
        assert problems(library.verify()) or path.name == "latest_version_hint.json", (name, path)
        left = problems(library.verify(repair=True))
        assert all("only its model can encode it again" in finding.advice for finding in left), (
            name,
            path,
            left,
        )
        library.index(ToyEmbedder(), ["red", "blue"])
        assert problems(library.verify(deep=True)) == [], (name, path)
        assert answers(kept, place)[:4] == expected[:4], (name, path)


def problems(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.is_problem]


def at_random(kept: Path, numbers: range) -> Iterator[tuple[object, Callable[[Path], Path]]]:
    """Damages, each by its number, every kind of file as often."""
    kinds: dict[str, list[Path]] = {}
    for path in files(kept / "library"):
        kinds.setdefault("/".join((*path.parts[:-1], path.suffix)), []).append(path)

    def damage(number: int, place: Path) -> Path:
        rng = random.Random(number)
        path = place / rng.choice(kinds[rng.choice(sorted(kinds))])
        content = path.read_bytes()
        while (changed := damaged(content, rng)) == content:
            pass
        path.write_bytes(changed)
        return path

    return ((number, partial(damage, number)) for number in numbers)


def test_a_damaged_library_is_never_wrong_is_found_out_and_repaired(kept: Path, tmp_path: Path) -> None:
    withstand(kept, tmp_path, at_random(kept, range(4)))


@pytest.mark.soak
def test_a_library_damaged_in_many_ways_is_never_wrong_is_found_out_and_repaired(
    kept: Path, tmp_path: Path
) -> None:
    withstand(kept, tmp_path, at_random(kept, range(4, 400)))


def overwrite(place: Path, pattern: str, new: bytes, before: bytes = b"", skip: int = 0) -> Path:
    """Overwrite bytes of the first file of this pattern that holds `before`, `skip` behind its end."""
    path = next(path for path in sorted(place.glob(pattern)) if before in path.read_bytes())
    content = bytearray(path.read_bytes())
    start = content.index(before) + len(before) + skip
    assert content[start : start + len(new)] != new
    content[start : start + len(new)] = new
    path.write_bytes(content)
    return path


def a_vector(place: Path) -> bytes:
    key = Library.open(place).find_prompt_index("red").key
    return Store(place).gallery(key).embeddings[0].tobytes()


def another_array(place: Path, array: npt.NDArray[Any]) -> Path:
    """In place of a search snapshot's vectors, with the checksums of its own."""
    path = next(place.glob("snapshots/red-*/*.npy"))
    write_array(place, path, array)
    return path


NAN = np.array([np.nan] * 4, "<f4").tobytes()
KNOWN: dict[str, Callable[[Path], Path]] = {
    "an exponent of an encoded prompt": lambda place: overwrite(
        place, "prompts/red-*/features.npy", b"\x60", b"}", 69 + 3
    ),
    "NaN in a table": lambda place: overwrite(place, "lance/prompt_red-*/data/*", NAN, a_vector(place), -16),
    "NaN in a snapshot": lambda place: overwrite(place, "snapshots/red-*/*.npy", NAN, b"\n"),
    "NaN in regions": lambda place: overwrite(place, "snapshots/frozen_*/*.mean.npy", NAN, b"\n"),
    "another dimension": lambda place: another_array(place, np.ones((9, 3), np.float32)),
    "another type": lambda place: another_array(place, np.ones((9, 4), np.float64)),
    "fewer rows": lambda place: another_array(place, np.ones((8, 4), np.float32)),
    "offsets of an Arrow file": lambda place: overwrite(
        place, "snapshots/red-*/*.arrow", b"\xff" * 16, b"", 1500
    ),
    "an empty table": lambda place: emptied(place, "lance/images.lance/data/*"),
    "an empty version": lambda place: emptied(place, "lance/images.lance/_versions/*"),
    "empty checksums": lambda place: emptied(place, "lance/prompt_red-*/checksums.json"),
}


def emptied(place: Path, pattern: str) -> Path:
    path = sorted(place.glob(pattern))[0]
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize("kind", KNOWN)
def test_damages_that_once_gave_wrong_answers(kept: Path, tmp_path: Path, kind: str) -> None:
    withstand(kept, tmp_path, [(kind, KNOWN[kind])])
