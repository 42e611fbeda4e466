from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersearch.core.errors import FaissConflictError
from steersearch.indexer import faiss_index, search
from steersearch.indexer.faiss_index import FlatIndex
from steersearch.indexer.search import Row, Snapshot, open_snapshot, refresh_snapshot
from steersearch.indexer.store import ImageRecord, Store, Vector

KEY = "mug-0123456789ab"
Floats = npt.NDArray[np.float32]


def brute_force(vectors: Floats, query: Floats, k: int) -> list[tuple[float, int]]:
    scores = [float(np.dot(row.astype(np.float64), query.astype(np.float64))) for row in vectors]
    order = sorted(range(len(scores)), key=lambda row: (-scores[row], row))
    return [(scores[row], row) for row in order[:k]]


@st.composite
def galleries(draw: st.DrawFn) -> tuple[Floats, Floats, int]:
    """Vectors of small whole numbers, so that sums are exact and many scores are equal."""
    dim, rows = draw(st.integers(1, 9)), draw(st.integers(0, 80))
    element = st.integers(-1, 1)
    distinct = draw(st.lists(st.lists(element, min_size=dim, max_size=dim), min_size=1, max_size=6))
    picks = draw(st.lists(st.integers(0, len(distinct) - 1), min_size=rows, max_size=rows))
    vectors = np.array([distinct[i] for i in picks], dtype=np.float32).reshape(rows, dim)
    query = np.array(draw(st.lists(element, min_size=dim, max_size=dim)), dtype=np.float32)
    return vectors, query, draw(st.integers(1, 100))


@settings(deadline=None, max_examples=300)
@given(galleries())
def test_equals_brute_force_with_ties_by_row_and_k_above_the_number_of_rows(
    gallery: tuple[Floats, Floats, int],
) -> None:
    vectors, query, k = gallery
    assert FlatIndex.of(vectors).search(query, k) == brute_force(vectors, query, k)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(1, 40), st.integers(1, 200))
def test_equals_brute_force_on_unit_vectors_and_their_copies(seed: int, rows: int, k: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(rows, dim)).astype(np.float32)
    vectors[rng.integers(rows, size=rows // 3)] = vectors[0]  # copies of a photo
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = vectors[0] if seed % 2 else vectors[-1]
    found, expected = FlatIndex.of(vectors).search(query, k), brute_force(vectors, query, k)
    np.testing.assert_allclose([s for s, _ in found], [s for s, _ in expected], rtol=1e-12, atol=1e-12)
    copies = [row for score, row in found if score == found[0][0]]
    assert copies == sorted(copies)
    if dim > 3:  # in few dimensions different vectors may have scores that differ by rounding alone
        assert [row for _, row in found] == [row for _, row in expected]


def test_a_long_tie_at_the_edge_is_cut_by_row() -> None:
    vectors = np.tile(np.array([[0.6, 0.8]], np.float32), (5000, 1))
    vectors[4000] = [0.8, 0.6]
    rows = [row for _, row in FlatIndex.of(vectors).search(np.array([1, 0], np.float32), 4)]
    assert rows == [4000, 0, 1, 2]


def test_an_index_on_disk_finds_the_same(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    index = FlatIndex.of(vectors)
    (tmp_path / "x.faiss").write_bytes(index.to_bytes())
    read = FlatIndex.read(tmp_path / "x.faiss")
    assert len(read) == 50
    assert read.search(vectors[3], 50) == index.search(vectors[3], 50)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    store.ensure_images()
    store.ensure_prompt_table(KEY, 2)
    add(store, "b.jpg", "B", [0.0, 1.0])
    add(store, "a.jpg", "A", [1.0, 0.0])
    add(store, "c.jpg", "B", [0.0, 1.0])
    return store


def add(store: Store, path: str, image_id: str, embedding: list[float]) -> None:
    heatmap = np.array([[0.25, 0.75]], np.float32)
    store.write_vectors(KEY, [Vector(image_id, np.array(embedding, np.float32), heatmap)])
    store.write_images([ImageRecord(path, image_id, 1, 1)])


def paths(snapshot: Snapshot) -> list[str]:
    return [row.path for row in snapshot.search(np.array([0.6, 0.8], np.float32), 10)]


def files(place: Path) -> list[str]:
    return sorted(path.name for path in (place / "snapshots" / KEY).iterdir())


def test_a_snapshot_ranks_the_gallery(store: Store, tmp_path: Path) -> None:
    snapshot = open_snapshot(tmp_path, KEY)
    rows = snapshot.search(np.array([0.6, 0.8], np.float32), 10)
    low, high = (float(np.float32(score)) for score in (0.6, 0.8))
    assert rows == [Row("b.jpg", "B", high), Row("c.jpg", "B", high), Row("a.jpg", "A", low)]
    heatmap = snapshot.heatmap("A")
    assert heatmap is not None
    np.testing.assert_allclose(heatmap, [[0.25, 0.75]], atol=0.002)
    assert snapshot.heatmap("nobody") is None


def test_a_snapshot_ranks_by_presence(store: Store, tmp_path: Path) -> None:
    heatmap, one = np.ones((1, 1), np.float32), np.array([1, 0], np.float32)
    store.write_vectors(KEY, [Vector("E", one, heatmap, 0.5), Vector("D", one, heatmap, 1.5)])
    store.write_images([ImageRecord(f"{name}.jpg", name[0].upper(), 1, 1) for name in ("e2", "d", "e1")])
    snapshot = open_snapshot(tmp_path, KEY)
    expected = [("d.jpg", 1.5), ("e1.jpg", 0.5), ("e2.jpg", 0.5)]
    assert [(row.path, row.score) for row in snapshot.most_present(3)] == expected
    rest = snapshot.most_present(9)[3:]  # of these no presence is known
    assert [row.path for row in rest] == ["a.jpg", "b.jpg", "c.jpg"]
    assert np.isnan([row.score for row in rest]).all()


def forbid_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(place: Path) -> Any:
        raise AssertionError("the tables were opened")

    monkeypatch.setattr(search, "Store", opened)


def test_a_current_snapshot_is_read_without_the_tables(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh_snapshot(tmp_path, KEY)
    forbid_tables(monkeypatch)
    assert paths(open_snapshot(tmp_path, KEY)) == ["b.jpg", "c.jpg", "a.jpg"]
    refresh_snapshot(tmp_path, KEY)


def test_a_change_of_either_table_is_noticed_and_the_old_snapshot_is_swept_away(
    store: Store, tmp_path: Path
) -> None:
    refresh_snapshot(tmp_path, KEY)
    before = files(tmp_path)
    store.remove_images([file for file in store.known_files() if file.path == "b.jpg"])
    assert paths(open_snapshot(tmp_path, KEY)) == ["c.jpg", "a.jpg"]
    add(store, "d.jpg", "D", [0.6, 0.8])
    assert paths(open_snapshot(tmp_path, KEY)) == ["d.jpg", "c.jpg", "a.jpg"]
    after = files(tmp_path)
    assert len(after) == 2
    assert not set(before) & set(after)


@pytest.mark.parametrize("suffix", [".faiss", ".arrow"])
@pytest.mark.parametrize("damage", ["deleted", "truncated"])
def test_a_damaged_snapshot_is_made_again(store: Store, tmp_path: Path, suffix: str, damage: str) -> None:
    refresh_snapshot(tmp_path, KEY)
    (file,) = (tmp_path / "snapshots" / KEY).glob(f"*{suffix}")
    whole = file.read_bytes()
    if damage == "deleted":
        file.unlink()
    else:
        file.write_bytes(whole[: len(whole) // 2])
    assert paths(open_snapshot(tmp_path, KEY)) == ["b.jpg", "c.jpg", "a.jpg"]
    assert file.read_bytes() == whole


def test_what_is_read_while_another_process_writes_is_not_kept(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_gallery = Store.gallery

    def gallery_then_write(self: Store, key: str) -> Any:
        gallery = read_gallery(self, key)
        add(store, "d.jpg", "D", [0.6, 0.8])
        return gallery

    monkeypatch.setattr(Store, "gallery", gallery_then_write)
    assert paths(open_snapshot(tmp_path, KEY)) == ["b.jpg", "c.jpg", "a.jpg"]
    monkeypatch.undo()
    assert not (tmp_path / "snapshots").exists()
    assert paths(open_snapshot(tmp_path, KEY)) == ["d.jpg", "b.jpg", "c.jpg", "a.jpg"]


def test_a_library_that_may_not_be_written_can_be_searched(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, write: object) -> None:
        raise PermissionError(13, "Permission denied", os.fspath(path))

    monkeypatch.setattr(search, "write_atomically", refuse)
    assert paths(open_snapshot(tmp_path, KEY)) == ["b.jpg", "c.jpg", "a.jpg"]
    assert "could not be kept" in caplog.text


def test_half_written_files_of_killed_processes_are_swept_away_once_old(store: Store, tmp_path: Path) -> None:
    refresh_snapshot(tmp_path, KEY)
    old, young = (tmp_path / "snapshots" / KEY / f".writing-{name}" for name in ("old", "young"))
    for path in (old, young):
        path.touch()
    os.utime(old, (0, 0))
    add(store, "d.jpg", "D", [0.6, 0.8])
    refresh_snapshot(tmp_path, KEY)
    assert not old.exists()
    assert young.exists()


def test_two_faiss_packages_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_index, "_is_installed", lambda name: True)
    with pytest.raises(FaissConflictError, match="pip uninstall -y faiss-cpu faiss-gpu-cu12"):
        faiss_index.FlatIndex.of(np.eye(3, dtype=np.float32))


def test_an_index_on_gpus_gives_the_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU here: that a clone is searched where FAISS reports one, and scored from the original."""
    import faiss

    cloned = []
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(
        faiss,
        "index_cpu_to_all_gpus",
        lambda index: cloned.append(index) or faiss.clone_index(index),
        raising=False,
    )
    vectors = np.eye(4, dtype=np.float32)
    index = faiss_index.FlatIndex.of(vectors)
    assert len(cloned) == 1
    assert [row for _, row in index.search(vectors[2], 2)] == [2, 0]
