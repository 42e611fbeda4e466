from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersearch.core.errors import LibraryPlaceError
from steersearch.indexer import checksums
from steersearch.indexer import snapshot as snapshots
from steersearch.indexer.faiss_index import (
    FlatIndex,
    IVFIndex,
    best_rows,
    choose_nprobe,
    products,
    scores_of,
)
from steersearch.indexer.ranking import rank
from steersearch.indexer.schema import FileRecord
from steersearch.indexer.snapshot import Snapshot, open_snapshot, refresh_snapshot
from steersearch.indexer.store import Store, Vector

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


def exact_search(vectors: Floats, query: Floats, k: int) -> list[tuple[float, int]]:
    """The rows that the flat index makes candidates, scored and ranked as a query does it."""
    rows = best_rows(FlatIndex(vectors).scores(query), k)
    scores = scores_of(vectors, rows, query)
    return [(float(scores[i]), int(rows[i])) for i in np.lexsort((rows, -scores))[:k]]


@given(galleries())
def test_equals_brute_force_with_ties_by_row_and_k_above_the_number_of_rows(
    gallery: tuple[Floats, Floats, int],
) -> None:
    vectors, query, k = gallery
    assert exact_search(vectors, query, k) == brute_force(vectors, query, k)


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(1, 40), st.integers(1, 200))
def test_equals_brute_force_on_unit_vectors_and_their_copies(seed: int, rows: int, k: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(rows, dim)).astype(np.float32)
    vectors[rng.integers(rows, size=rows // 3)] = vectors[0]  # copies of a photo
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = vectors[0] if seed % 2 else vectors[-1]
    found, expected = exact_search(vectors, query, k), brute_force(vectors, query, k)
    np.testing.assert_allclose([s for s, _ in found], [s for s, _ in expected], rtol=1e-12, atol=1e-12)
    copies = [row for score, row in found if score == found[0][0]]
    assert copies == sorted(copies)
    if dim > 3:  # in few dimensions different vectors may have scores that differ by rounding alone
        assert [row for _, row in found] == [row for _, row in expected]


def test_a_long_tie_at_the_edge_is_cut_by_row() -> None:
    vectors = np.tile(np.array([[0.6, 0.8]], np.float32), (50_000, 1))
    vectors[4000] = [0.8, 0.6]
    rows = [row for _, row in exact_search(vectors, np.array([1, 0], np.float32), 4)]
    assert rows == [4000, 0, 1, 2]


@pytest.mark.parametrize("rows", [0, 1, 5, 4000])
def test_products_of_a_few_vectors(rows: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(rows, 33)).astype(np.float32)
    query = np.random.default_rng(1).normal(size=33)  # float64, as any caller may have it
    np.testing.assert_allclose(products(vectors, query), vectors @ query, rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]


def clustered(rows: int, dim: int = 16, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(20, dim))
    vectors = centres[rng.integers(20, size=rows)] + 0.3 * rng.normal(size=(rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_cells_find_most_of_the_nearest_and_only_what_is_allowed(tmp_path: Path) -> None:
    vectors = clustered(20_000)
    index = IVFIndex.of(vectors)
    with (tmp_path / "x.faiss").open("wb") as file:
        index.write(file)
    read = IVFIndex.read(tmp_path / "x.faiss")
    assert len(read) == 20_000
    assert 1 < read.nprobe < read.nlist
    allowed = np.random.default_rng(1).random(20_000) < 0.5
    for mask in (None, allowed):
        shares = []
        for row in range(0, 20_000, 1000):
            found = read.candidates(vectors[row], 50, mask)
            np.testing.assert_array_equal(found, index.candidates(vectors[row], 50, mask))
            assert mask is None or mask[found].all()
            scores = np.where(True if mask is None else mask, vectors @ vectors[row], -2)
            shares.append(len(set(found.tolist()) & set(np.argsort(-scores)[:10].tolist())) / 10)
        assert np.mean(shares) > 0.95


def test_where_faiss_reports_gpus_a_copy_there_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU here: that one copy is made, and searched only for what a GPU can do."""
    import faiss

    copied = []
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    copy = lambda index: copied.append(index) or faiss.clone_index(index)  # noqa: E731
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", copy, raising=False)
    setting = {"set_index_parameter": lambda _, index, name, value: setattr(index, name, value)}
    monkeypatch.setattr(faiss, "GpuParameterSpace", type("Space", (), setting), raising=False)
    vectors = clustered(3000)
    index = IVFIndex.of(vectors)
    everything = np.ones(3000, dtype=bool)
    on_processor = index.candidates(vectors[2], 20, everything)
    assert not copied
    for _ in range(2):
        assert sorted(index.candidates(vectors[2], 20)) == sorted(on_processor)
    assert len(copied) == 1


@pytest.mark.parametrize(
    ("cells", "dim", "probes"),
    [(2048, 768, 18), (2048, 384, 36), (2048, 1536, 18), (2048, 128, 109), (512, 128, 64), (16, 768, 16), (1, 4, 1)],
)  # fmt: skip
def test_cells_looked_into_by_dimension(cells: int, dim: int, probes: int) -> None:
    assert choose_nprobe(cells, dim) == probes


def test_cells_say_how_many_they_can_give() -> None:
    index = IVFIndex.of(clustered(3000))
    assert index.reaches(1)
    assert not index.reaches(3000)


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
    store.write_images([FileRecord(path, image_id, 1, 1)])


def paths(snapshot: Snapshot) -> list[str]:
    ranking = rank([snapshot], [np.array([0.6, 0.8], np.float32)], [1.0], 10)
    return [snapshot.value("path", row) for row in ranking.rows]


def files(place: Path) -> list[str]:
    return sorted(path.name for path in (place / "snapshots" / KEY).iterdir())


def test_rounding_leaves_no_cosine_above_1(store: Store, tmp_path: Path) -> None:
    add(store, "d.jpg", "D", [1.0000001, 0.0])
    ranking = rank([open_snapshot(tmp_path, KEY)], [np.array([1.0000001, 0.0], np.float32)], [1.0], 1)
    assert ranking.scores.tolist() == [1.0]


def test_a_snapshot_holds_the_gallery(store: Store, tmp_path: Path) -> None:
    for snapshot in (open_snapshot(tmp_path, KEY), open_snapshot(tmp_path, KEY)):  # made, read
        ranking = rank([snapshot], [np.array([0.6, 0.8], np.float32)], [1.0], 10)
        low, high = (float(np.float32(score)) for score in (0.6, 0.8))
        assert ranking.rows.tolist() == [1, 2, 0]
        assert ranking.scores.tolist() == [high, high, low]
        assert [snapshot.row_at(path) for path in ("a.jpg", "b.jpg", "c.jpg")] == [0, 1, 2]
        assert [snapshot.row_at(path) for path in ("", "a", "b.jpg2", "zz")] == [None] * 4
        assert (snapshot.row_of("A"), snapshot.row_of("B"), snapshot.row_of("C")) == (0, 1, None)
        assert [snapshot.row_of("A", near=path) for path in ("a.jpg", "b.jpg", "zz")] == [0, 0, 0]
        assert snapshot.row_of("nobody", near="a.jpg") is None
        np.testing.assert_allclose(snapshot.heatmap_at(0), [[0.25, 0.75]], atol=0.002)


def test_a_snapshot_holds_presence(store: Store, tmp_path: Path) -> None:
    heatmap, one = np.ones((1, 1), np.float32), np.array([1, 0], np.float32)
    store.write_vectors(KEY, [Vector("E", one, heatmap, 0.5)])
    store.write_images([FileRecord(f"{name}.jpg", "E", 1, 1) for name in ("e2", "e1")])
    for _ in range(2):  # made, then read
        presence = open_snapshot(tmp_path, KEY).presence
        assert np.isnan(presence[:3]).all()  # of a, b and c none is known
        assert presence[3:].tolist() == [0.5, 0.5]


def forbid_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(place: Path) -> Any:
        raise AssertionError("the tables were opened")

    monkeypatch.setattr(snapshots, "Store", opened)


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
    store.remove_images([file for file in store.known() if file.path == "b.jpg"])
    assert paths(open_snapshot(tmp_path, KEY)) == ["c.jpg", "a.jpg"]
    add(store, "d.jpg", "D", [0.6, 0.8])
    assert paths(open_snapshot(tmp_path, KEY)) == ["d.jpg", "c.jpg", "a.jpg"]
    after = files(tmp_path)
    assert [name.partition(".")[2] for name in after] == ["arrow", "npy"]
    assert not set(before) & set(after)


@pytest.mark.parametrize("suffix", [".npy", ".faiss", ".sample", ".arrow"])
@pytest.mark.parametrize("damage", ["deleted", "truncated"])
def test_a_damaged_snapshot_is_made_again(
    store: Store, tmp_path: Path, suffix: str, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "APPROXIMATE_FROM", 2)  # with cells
    refresh_snapshot(tmp_path, KEY)
    (file,) = (tmp_path / "snapshots" / KEY).glob(f"*{suffix}")
    whole = file.read_bytes()
    if damage == "deleted":
        file.unlink()
    else:
        file.write_bytes(whole[: len(whole) // 2])
    assert paths(open_snapshot(tmp_path, KEY)) == ["b.jpg", "c.jpg", "a.jpg"]
    assert file.read_bytes() == whole


def test_a_snapshot_of_files_that_do_not_belong_together_is_made_again(store: Store, tmp_path: Path) -> None:
    refresh_snapshot(tmp_path, KEY)
    (file,) = (tmp_path / "snapshots" / KEY).glob("*.npy")
    np.save(file, np.eye(2, dtype=np.float32))
    assert paths(open_snapshot(tmp_path, KEY)) == ["b.jpg", "c.jpg", "a.jpg"]


def test_what_is_read_while_another_process_writes_is_not_kept(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows = snapshots.write_rows

    def write_rows_then_add(*arguments: Any) -> None:
        write_rows(*arguments)
        add(store, "d.jpg", "D", [0.6, 0.8])

    monkeypatch.setattr(snapshots, "write_rows", write_rows_then_add)
    assert paths(open_snapshot(tmp_path, KEY)) == ["d.jpg", "b.jpg", "c.jpg", "a.jpg"]
    monkeypatch.undo()
    assert not list(tmp_path.glob("snapshots/*/*.arrow"))
    assert paths(open_snapshot(tmp_path, KEY)) == ["d.jpg", "b.jpg", "c.jpg", "a.jpg"]


def test_a_library_that_may_not_be_written_can_be_searched(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(place: Path, path: Path, write: object) -> None:
        raise LibraryPlaceError(place, "cannot be written (Permission denied)")

    monkeypatch.setattr(checksums, "write_inside", refuse)
    assert paths(open_snapshot(tmp_path, KEY)) == ["b.jpg", "c.jpg", "a.jpg"]
    assert "could not be written" in caplog.text


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
