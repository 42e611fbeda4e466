"""`optimize`: nothing that counts changes, nobody who reads notices, whenever it ends."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from steersearch.core.errors import LibraryBusyError
from steersearch.indexer import snapshot
from steersearch.indexer.care import optimize
from steersearch.indexer.care.optimize import Optimized
from steersearch.indexer.care.tables import Tables
from steersearch.indexer.schema import IMAGES, paths_in, prompt_table, unsteered_table
from steersearch.indexer.store import GalleryParts, Store, UnsteeredGallery, num_versions, stamp
from steersearch.indexer.writers import writing
from tests.conftest import wait_until
from tests.toy_embedder import ToyEmbedder, save_photo, save_photos
from tests.toy_library import Library


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """Ten photos under one prompt, written in ten steps."""
    library = Library.create(save_photos(tmp_path / "photos", 10), tmp_path / "library")
    library.index(ToyEmbedder(), ["red"], batch_size=1, commit_seconds=0)
    return library


def rows(library: Library) -> list[tuple[str, str, list[float], bytes, bytes | None]]:
    """All that the tables say of the photos under "red", but for their times."""
    store = Store(library.place)
    found = store.gallery(library.find_prompt_index("red").key)
    thumbnails = [store.thumbnail(image_id) for image_id in found.image_ids]
    return list(
        zip(found.paths, found.image_ids, found.embeddings.tolist(), found.heatmaps, thumbnails, strict=True)
    )


def test_many_small_steps_become_one(library: Library) -> None:
    before = rows(library)
    done = library.optimize()
    assert (done.versions_before, done.versions_after) == (11, 1)
    assert done.bytes_after < done.bytes_before / 2
    assert rows(library) == before
    tables = [len(list(table.glob("data/*"))) for table in library.place.glob("lance/*.lance")]
    assert tables == [1, 1, 1, 1]  # photos, thumbnails, "red", and what the frozen backbone says
    key = library.prompts()[0].key
    name = snapshot.snapshot_name(library.place, key)
    assert (library.place / "snapshots" / key / f"{name}.arrow").exists()  # for the next query


def test_once_more_changes_nothing(library: Library) -> None:
    library.optimize()
    before = stamp(library.place, library.prompts()[0].key)
    done = library.optimize()
    assert done == Optimized(done.bytes_after, done.bytes_after, 1, 1)
    assert stamp(library.place, library.prompts()[0].key) == before


@pytest.mark.parametrize("which", ["photos", "vectors"])
def test_a_gallery_is_read_again_where_a_table_is_compacted_meanwhile(library: Library, which: str) -> None:
    key, counts = library.prompts()[0].key, list[int]()
    name = IMAGES if which == "photos" else prompt_table(key)

    def paths(gallery: GalleryParts) -> list[str]:
        counts.append(gallery.count)
        if len(counts) == 1:
            Tables(library.place).compact(name)
        parts = list(gallery.parts(["path", "embedding"]))
        return [path for part in parts for path in paths_in(part.column("path"))]

    assert Store(library.place).with_gallery(key, paths) == [f"{number:03}.png" for number in range(10)]
    assert counts == [10, 10]


@pytest.mark.parametrize("which", ["photos", "features"])
def test_regions_are_read_again_where_a_table_is_compacted_meanwhile(library: Library, which: str) -> None:
    key, counts = library.unsteered_index().key, list[int]()
    name = IMAGES if which == "photos" else unsteered_table(key)

    def rows(gallery: UnsteeredGallery) -> int:
        counts.append(gallery.count)
        if len(counts) == 1:
            Tables(library.place).compact(name)
        return sum(len(part.regions) for part in gallery.parts()) + sum(map(len, gallery.photos()))

    assert Store(library.place).with_unsteered(key, rows) == 20
    assert counts[-1] == 10


def test_what_killed_processes_left_is_swept(library: Library) -> None:
    orphans = [
        library.place / "lance" / "images.lance" / "data" / "0123.lance",
        library.place / "snapshots" / "gone-0123456789ab" / "0123.faiss",
        library.place / "prompts" / library.prompts()[0].key / ".writing-0123",
    ]
    for orphan in orphans:
        orphan.parent.mkdir(exist_ok=True)
        orphan.write_bytes(b"half of it")
        os.utime(orphan, (1, 1))
    fresh = library.place / "snapshots" / library.prompts()[0].key / ".writing-4567"
    fresh.write_bytes(b"somebody is at it")
    library.optimize()
    assert [orphan.exists() for orphan in orphans] == [False] * 3
    assert not orphans[1].parent.exists()
    assert fresh.exists()


def test_beside_a_writer_it_refuses_and_deletes_nothing(library: Library) -> None:
    with writing(library.place), pytest.raises(LibraryBusyError):
        library.optimize()
    assert num_versions(library.place) == 11


def test_a_run_that_leaves_many_versions_compacts_them(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows(library)
    monkeypatch.setattr(optimize, "MANY_VERSIONS", 11)
    library.index(ToyEmbedder())
    assert num_versions(library.place) == 11
    monkeypatch.setattr(optimize, "MANY_VERSIONS", 10)
    with writing(library.place):
        assert library.index(ToyEmbedder()).reused == 10
    assert num_versions(library.place) == 11  # somebody else was writing
    library.index(ToyEmbedder())
    assert num_versions(library.place) == 1
    assert rows(library) == before


def test_no_room_for_compaction_is_a_remark_after_a_run_and_an_error_when_requested(
    library: Library, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: object, name: str) -> None:
        raise RuntimeError("lance error: No space left on device (os error 28), /src/writer.rs:9")

    monkeypatch.setattr(optimize.Tables, "compact", full)
    monkeypatch.setattr(optimize, "MANY_VERSIONS", 10)
    assert library.index(ToyEmbedder()).reused == 10
    assert "could not be compacted" in caplog.text
    assert "No space left on device" in caplog.text


def read_on_and_on(place: str, began: Any, stop: Any) -> None:
    """Everything that a reader can do; an error ends the process with exit code 1."""
    library = Library.open(place)
    (index,) = library.prompts()
    while not stop.is_set():
        hits = library.query(ToyEmbedder(), library.folder / "003.png", "red", k=3)
        assert (hits[0].path.name, hits[0].score) == ("003.png", pytest.approx(1))
        assert library.heatmap(hits[0]).shape == (2, 1)
        assert library.thumbnail(hits[0])
        assert len(Store(library.place).gallery(index.key).paths) >= 10
        assert library.info().photos >= 10
        began.set()


@pytest.mark.slow
def test_a_reader_never_notices(library: Library) -> None:
    spawn = multiprocessing.get_context("spawn")
    began, stop = spawn.Event(), spawn.Event()
    reader = spawn.Process(target=read_on_and_on, args=(str(library.place), began, stop))
    reader.start()
    assert began.wait(600)
    for i in range(10, 30):
        save_photo(library.folder / f"{i:03}.png", (i, 0, 0))
        library.index(ToyEmbedder())
        library.optimize()
        assert reader.is_alive()
    stop.set()
    reader.join(600)
    assert reader.exitcode == 0


def index_and_optimize_on_and_on(place: str, number: Any) -> None:
    library = Library.open(place)
    while True:
        save_photo(library.folder / f"new {number.value:03}.png", (number.value, 0, 0))
        library.index(ToyEmbedder())
        library.optimize()
        number.value += 1


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_the_same_rows(library: Library, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    moments = random.Random(5)
    number = spawn.Value("i", 0)
    for _ in range(3):
        process = spawn.Process(target=index_and_optimize_on_and_on, args=(str(library.place), number))
        process.start()
        reached = number.value
        wait_until(lambda reached=reached: number.value > reached)
        time.sleep(moments.uniform(0, 0.3))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(600)
        assert library.info().photos >= 10 + number.value
    library.index(ToyEmbedder())
    library.optimize()
    undisturbed = Library.create(library.folder, tmp_path / "undisturbed")
    undisturbed.index(ToyEmbedder(), ["red"])
    assert rows(library) == rows(undisturbed)
