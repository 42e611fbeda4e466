"""Faults as they come: kills, several runs at once, a disk that is full or may only be read. All of it for real."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steersearch.benchmarks.engineering import kills
from steersearch.benchmarks.engineering.kills import (
    ColourEmbedder,
    Run,
    all_rows,
    draw_photos,
    killed_and_resumed,
)
from steersearch.core.errors import LibraryPlaceError
from steersearch.indexer.query_terms import Focus
from tests.toy_embedder import ToyEmbedder, save_photo, save_photos
from tests.toy_library import Library


def test_the_embedder_of_the_kills_gives_the_same_bits_in_whatever_batch() -> None:
    embedder = ColourEmbedder()
    pixels = np.random.default_rng(0).random((17, 3, kills.SIDE, kills.SIDE), dtype=np.float32)
    prompts = [embedder.encode_prompt(prompt).tokens for prompt in kills.PROMPTS_OF_KILLS]
    whole, together = embedder.embed_with_unsteered(pixels, prompts, 1.0)
    for i in range(len(pixels)):
        alone, (first, *_) = embedder.embed_with_unsteered(pixels[i : i + 1], prompts, 1.0)
        assert alone.embeddings.tobytes() == whole.embeddings[i : i + 1].tobytes()
        assert first.embeddings.tobytes() == together[0].embeddings[i : i + 1].tobytes()
        assert first.heatmaps.tobytes() == together[0].heatmaps[i : i + 1].tobytes()


def test_five_kills_at_random_moments_each_resumed(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", 80)
    Run(photos, tmp_path / "undisturbed", kills.PROMPTS_OF_KILLS, 0.0).finish()
    expected = all_rows(tmp_path / "undisturbed")
    moments = random.Random(7)
    deaths = 0
    for number in range(5):
        place = tmp_path / f"killed-{number}"
        deaths += killed_and_resumed(photos, place, moments.uniform(0, 1), commit_seconds=0.0) is not None
        assert all_rows(place) == expected
    assert deaths > 0


def test_four_runs_at_once_with_overlapping_prompts_while_photos_come_and_go(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", 60)
    found = kills.four_at_once(photos, tmp_path)
    assert found["prompts"] == 4


def index_on_and_on(folder: str, place: str, began: Any) -> None:
    library = Library.create(folder, place)
    for i in range(6, 12):
        save_photo(Path(folder) / f"{i:03}.png", (i, 0, 0))
        library.index(ToyEmbedder(), ["red", "blue"], commit_seconds=0)
        began.set()


def test_queries_beside_a_run_are_always_answered(tmp_path: Path) -> None:
    photos, place = save_photos(tmp_path / "photos", 6), tmp_path / "library"
    Library.create(photos, place).index(ToyEmbedder(), ["red", "blue"])
    spawn = multiprocessing.get_context("spawn")
    began = spawn.Event()
    run = spawn.Process(target=index_on_and_on, args=(str(photos), str(place), began))
    run.start()
    assert began.wait(600)
    seen = set()
    while run.is_alive():
        hits = Library.open(place).query(ToyEmbedder(), photos / "003.png", "red", k=100)
        assert hits[0].score == pytest.approx(1)
        assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
        assert len({hit.path for hit in hits}) == len(hits)
        seen.add(len(hits))
    run.join(600)
    assert run.exitcode == 0
    assert min(seen) >= 6
    assert len(Library.open(place).query(ToyEmbedder(), photos / "003.png", "red", k=100)) == 12


def mount(*arguments: str) -> None:
    try:
        subprocess.run(["mount", *arguments], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("may not mount a small disk here")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of half a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk))
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_ends_the_run_and_a_larger_one_continues_it(small_disk: Path, tmp_path: Path) -> None:
    photos, place = draw_photos(tmp_path / "photos", 250), small_disk / "library"
    library = Library.create(photos, place)
    with pytest.raises(
        LibraryPlaceError, match=r"cannot be written \(.*(No space left|storage full).*\); what was"
    ):
        library.index(ColourEmbedder(), ["red"], commit_seconds=0)
    assert 0 < library.info().photos < 248
    assert not any(finding.is_problem for finding in library.verify())
    mount("-o", "remount,size=64m", str(small_disk))
    library.index(ColourEmbedder(), ["red"], commit_seconds=0)
    Library.create(photos, tmp_path / "undisturbed").index(ColourEmbedder(), ["red"])
    assert all_rows(place) == all_rows(tmp_path / "undisturbed")


def test_a_place_that_may_only_be_read_is_searched_and_checked_but_not_written(
    small_disk: Path, tmp_path: Path
) -> None:
    photos, place = save_photos(tmp_path / "photos", 4), small_disk / "library"
    library = Library.create(photos, place)
    library.index(ToyEmbedder(), ["red"])
    (place / "snapshots").rename(place / "away")  # so that the search has to do without it
    before = sorted(place.rglob("*"))
    mount("-o", "remount,ro", str(small_disk))
    assert os.access(place, os.R_OK)
    assert len(library.query(ToyEmbedder(), photos / "001.png", "red")) == 4
    assert library.verify(deep=True) == []
    assert len(library.table(library.prompts()[0])) == 4
    for refused in (
        lambda: library.index(ToyEmbedder(), ["blue"]),
        library.optimize,
        library.delete,
        lambda: library.verify(repair=True),
    ):
        with pytest.raises(LibraryPlaceError, match="Read-only file system"):
            refused()
    assert sorted(place.rglob("*")) == before


def test_a_disk_that_is_full_loses_no_answer_that_was_computed(
    small_disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos, place = save_photos(tmp_path / "photos", 60), small_disk / "library"
    Library.create(photos, place).index(ToyEmbedder(), ["red"])
    shutil.copytree(place, tmp_path / "undisturbed")
    whole, full = Library.open(tmp_path / "undisturbed"), Library.open(place)
    expected = found(whole, photos)
    before = all_rows(place)
    with suppress(OSError), (small_disk / "other").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert found(full, photos) == expected
    assert "could not be kept" in caplog.text
    assert "No space left" in caplog.text
    assert all_rows(place) == before
    assert not any(finding.is_problem for finding in full.verify())
    mount("-o", "remount,size=64m", str(small_disk))
    assert found(Library.open(place), photos) == expected
    assert len(Library.open(place).prompts()) == 3


def found(library: Library, photos: Path) -> list[tuple[bool, list[tuple[str, float]]]]:
    """What is said to focuses that nobody indexed, with every photo steered."""
    model = ToyEmbedder()
    aims = [Focus.on(library.new_index(model, prompt, 1.0)) for prompt in ("green", "blue")]
    answers = (
        library.find_any(aims[0], lambda _: model, 100, exact=True),
        library.search_any(aims, photos / "003.png", lambda _: model, 100, exact=True),
    )
    return [(hits.searched.is_exact, [(hit.path.name, hit.score) for hit in hits]) for hits in answers]
