from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersearch.indexer.schema import FileRecord, pack_heatmap, unpack_heatmap
from steersearch.indexer.store import Store, Vector, stamp

KEY = "mug-0123456789ab"
ODD_NAMES = ["it's.jpg", "''.jpg", "a\\b.jpg", "new\nline.jpg", "100%_.jpg", 'q".jpg', "日本😀.jpg", "--.jpg"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    store.ensure_images()
    store.ensure_prompt_table(KEY, 3)
    return store


def record(path: str, image_id: str = "id", **other: Any) -> FileRecord:
    return FileRecord(path, image_id, 10, 123, **other)


def vector(image_id: str, *embedding: float) -> Vector:
    return Vector(image_id, np.array(embedding, np.float32), np.array([[0.25, 0.75]], np.float32))


def test_records_come_back_as_they_were_written(store: Store) -> None:
    date = (datetime(2024, 5, 6, 7, 8, 9), "second", "EXIF DateTimeOriginal")
    whole = FileRecord("a/b.jpg", "A", 10, 2**60, 640, 480, *date)
    store.write_images([whole, record("bad.jpg", "B", reason="the file is empty")])
    assert sorted(store.known(), key=lambda file: file.path) == [
        FileRecord("a/b.jpg", "A", 10, 2**60),
        FileRecord("bad.jpg", "B", 10, 123, reason="the file is empty"),
    ]
    (found,) = store.records(["A", "B", "unknown"]).values()
    assert found.as_row() == whole.as_row()  # a skipped file is no original for a copy


def test_the_first_thumbnail_of_a_content_stays(store: Store) -> None:
    store.write_thumbnails({"A": b"jpeg", "it's": b"another"})
    store.write_thumbnails({"A": b"later", "B": b"third"})
    assert store.thumbnail_ids() == {"A", "B", "it's"}
    assert store.thumbnails(["A", "B", "it's", "nobody"]) == {"A": b"jpeg", "B": b"third", "it's": b"another"}
    assert store.thumbnail("nobody") is None


def test_without_tables_there_is_no_thumbnail(tmp_path: Path) -> None:
    store = Store(tmp_path / "of a run that was killed at once")
    assert (store.thumbnails(["A"]), store.thumbnail_ids()) == ({}, set())


def test_a_row_is_replaced_by_path_and_of_one_batch_the_last_counts(store: Store) -> None:
    store.write_images([record("a.jpg", "1")])
    store.write_images(
        [record("a.jpg", "2"), record("a.jpg", "3"), record("b.jpg", "4"), record("b.jpg", "5")]
    )
    assert {file.path: file.image_id for file in store.known()} == {"a.jpg": "3", "b.jpg": "5"}
    assert len(store.known()) == 2


def test_odd_names_are_stored_found_and_removed(store: Store) -> None:
    store.write_images([record(name, f"id{i}") for i, name in enumerate(ODD_NAMES)])
    assert {file.path for file in store.known()} == set(ODD_NAMES)
    for name in ODD_NAMES:
        store.remove_images([file for file in store.known() if file.path == name])
        assert name not in {file.path for file in store.known()}
    assert not store.known()


def test_removing_spares_a_row_that_was_updated_meanwhile(store: Store) -> None:
    store.write_images([record("a.jpg", "old"), record("b.jpg", "old")])
    seen = store.known()
    store.write_images([record("a.jpg", "new")])
    store.remove_images(seen)
    assert [(file.path, file.image_id) for file in store.known()] == [("a.jpg", "new")]


def test_more_rows_than_fit_one_filter(store: Store) -> None:
    store.write_images([record(f"{i}.jpg", f"id{i}") for i in range(1201)])
    assert len(store.records(f"id{i}" for i in range(1201))) == 1201
    store.remove_images(store.known())
    assert not store.known()


def test_the_first_vector_of_a_content_stays(store: Store) -> None:
    store.write_vectors(KEY, [vector("A", 1, 0, 0), vector("A", 1, 0, 0), vector("B", 0, 1, 0)])
    store.write_vectors(KEY, [vector("A", 0, 0, 1), vector("C", 0, 0, 1)])
    store.write_images([record("a.jpg", "A"), record("c.jpg", "C")])
    assert store.embedded_ids(KEY) == {"A", "B", "C"}
    gallery = store.gallery(KEY)
    assert gallery.paths == ["a.jpg", "c.jpg"]
    np.testing.assert_array_equal(gallery.embeddings, [[1, 0, 0], [0, 0, 1]])


def test_the_gallery_is_sorted_and_holds_usable_photos_with_vectors_only(store: Store) -> None:
    store.write_vectors(KEY, [vector("A", 1, 0, 0), vector("B", 0, 1, 0), vector("gone", 0, 0, 1)])
    store.write_images(
        [
            record("z.jpg", "A"),
            record("a copy.jpg", "A"),
            record("m.jpg", "B"),
            record("no vector yet.jpg", "N"),
            record("skipped.jpg", "B", reason="truncated"),
        ]
    )
    gallery = store.gallery(KEY)
    assert gallery.paths == ["a copy.jpg", "m.jpg", "z.jpg"]
    assert gallery.image_ids == ["A", "B", "A"]
    np.testing.assert_array_equal(gallery.embeddings, [[1, 0, 0], [0, 1, 0], [1, 0, 0]])
    assert gallery.embeddings.dtype == np.float32
    np.testing.assert_allclose(unpack_heatmap(gallery.heatmaps[0]), [[0.25, 0.75]], atol=0.002)


def test_an_empty_gallery(store: Store) -> None:
    gallery = store.gallery(KEY)
    assert gallery.paths == []
    assert gallery.embeddings.shape == (0, 3)


def test_a_prompt_table_that_was_never_made_has_no_vectors(store: Store) -> None:
    assert store.embedded_ids("other-0") == set()


def test_the_stamp_changes_with_either_table_and_with_nothing_else(store: Store, tmp_path: Path) -> None:
    stamps = [stamp(tmp_path, KEY)]
    store.write_images([record("a.jpg")])
    stamps.append(stamp(tmp_path, KEY))
    store.write_vectors(KEY, [vector("A", 1, 0, 0)])
    stamps.append(stamp(tmp_path, KEY))
    store.remove_images(store.known())
    stamps.append(stamp(tmp_path, KEY))
    assert len(set(stamps)) == 4
    store.ensure_prompt_table("other-0", 3)
    store.write_vectors("other-0", [vector("A", 1, 0, 0)])
    store.write_images([])
    store.known()
    assert stamp(tmp_path, KEY) == stamps[-1]


@given(st.integers(1, 5), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_heatmaps_survive_packing_but_for_rounding(height: int, width: int, seed: int) -> None:
    heatmap = np.random.default_rng(seed).dirichlet(np.ones(height * width)).astype(np.float32)
    heatmap = heatmap.reshape(height, width)
    unpacked = unpack_heatmap(pack_heatmap(heatmap))
    assert unpacked.shape == (height, width)
    assert unpacked.dtype == np.float32
    np.testing.assert_allclose(unpacked.sum(), 1, rtol=1e-5)
    np.testing.assert_allclose(unpacked, heatmap, atol=heatmap.max() * 2 / 255)


def test_a_peaked_heatmap_keeps_its_faint_background() -> None:
    heatmap = np.full((24, 24), 0.5 / 575, np.float32)
    heatmap[3, 7] = 0.5
    unpacked = unpack_heatmap(pack_heatmap(heatmap))
    assert unpacked.argmax() == 3 * 24 + 7
    assert unpacked[3, 7] == pytest.approx(0.5, abs=0.03)


def test_threads_that_make_a_table_at_once_lose_no_row(tmp_path: Path) -> None:
    for number in range(25):
        stores = [Store(tmp_path / str(number)) for _ in range(4)]
        (tmp_path / str(number)).mkdir()
        begin = threading.Barrier(len(stores), timeout=600)

        def write(writer: int, stores: list[Store] = stores, begin: threading.Barrier = begin) -> None:
            begin.wait()
            stores[writer].ensure_images()
            stores[writer].write_images([record(f"own-{writer}", "O")])

        with ThreadPoolExecutor(len(stores)) as threads:
            list(threads.map(write, range(len(stores))))
        assert sorted(file.path for file in stores[0].known()) == [f"own-{i}" for i in range(4)]


def write_same_and_own_keys(place: str, writer: int, barrier: Any) -> None:
    store = Store(Path(place))
    barrier.wait(600)
    store.ensure_images()  # at the same moment: nobody has made the tables yet
    store.ensure_prompt_table(KEY, 3)
    for i in range(10):
        store.write_images([record(f"same-{i}", "S"), record(f"own-{writer}-{i}", "O")])
        store.write_vectors(KEY, [vector(f"same-{i}", 1, 0, 0), vector(f"own-{writer}-{i}", 0, 1, 0)])


def test_two_processes_that_write_the_same_new_keys_leave_each_once(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(2)
    writers = [
        spawn.Process(target=write_same_and_own_keys, args=(str(tmp_path), i, barrier)) for i in range(2)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(600)
    assert [writer.exitcode for writer in writers] == [0, 0]
    store = Store(tmp_path)
    expected = [f"own-{w}-{i}" for w in range(2) for i in range(10)] + [f"same-{i}" for i in range(10)]
    assert sorted(file.path for file in store.known()) == expected
    vectors = lancedb.connect(tmp_path / "lance").open_table(f"prompt_{KEY}")
    assert sorted(vectors.to_arrow().column("image_id").to_pylist()) == expected
