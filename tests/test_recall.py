"""The recall gate: no approximate index that misses near photos is ever searched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steersearch.indexer import recall as recalls
from steersearch.indexer import snapshot as snapshots
from steersearch.indexer.faiss_index import Floats, IVFIndex
from steersearch.indexer.hits import Method
from steersearch.indexer.library_info import Coverage
from steersearch.indexer.ranking import rank
from steersearch.indexer.recall import ExactAnswers, first_good
from steersearch.indexer.schema import FileRecord
from steersearch.indexer.snapshot import Snapshot, measured_recall, open_snapshot, snapshot_is_true
from steersearch.indexer.store import Store, Vector
from tests.test_search import clustered

KEY, ROWS = "red-000000000000", 3000
index_of = IVFIndex.of


def unit(vectors: Floats) -> Floats:
    found: Floats = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return found


def shuffled(vectors: Floats) -> IVFIndex:
    """An index whose vectors were corrupted after it was trained: each row holds that of another photo."""
    return index_of(vectors[np.random.default_rng(9).permutation(len(vectors))])


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(snapshots, "APPROXIMATE_FROM", ROWS)
    store = Store(tmp_path)
    store.ensure_images()
    store.ensure_prompt_table(KEY, 16)
    add(store, clustered(ROWS))
    return store


def add(store: Store, vectors: Floats, prefix: str = "a") -> None:
    heatmap = np.ones((1, 1), np.float32)
    names = [f"{prefix}{row:05}" for row in range(len(vectors))]
    store.write_vectors(
        KEY, [Vector(name, vector, heatmap) for name, vector in zip(names, vectors, strict=True)]
    )
    store.write_images([FileRecord(f"{name}.jpg", name, 1, 1) for name in names])


def answers_as_exact_search(gallery: Snapshot) -> Method:
    """How the gallery is searched, which must find what an exact search finds."""
    methods, shares = set(), []
    for row in range(0, len(gallery), 100):
        query = [gallery], [gallery.flat.all[row]], [1.0]
        found, true = rank(*query, 5), rank(*query, 5, exact=True)
        methods.add(found.method)
        shares.append(len({*found.rows.tolist()} & {*true.rows.tolist()}) / 5)
    assert np.mean(shares) >= 0.95
    (method,) = methods
    return method


def test_exact_answers_are_those_of_brute_force_without_the_photo_itself() -> None:
    vectors = clustered(500)
    answers = ExactAnswers.of(vectors)
    assert len(answers.rows) == 200
    products = vectors @ vectors.T
    np.fill_diagonal(products, -np.inf)
    expected = np.sort(products[answers.rows], axis=1)[:, -10]
    np.testing.assert_allclose(answers.least, expected, atol=1e-6)
    few = ExactAnswers.of(vectors[:3])
    assert few.num_neighbours == 2
    assert ExactAnswers.of(vectors[:1]).recall(IVFIndex.of(vectors[:1]), vectors[:1]) == 1.0


def test_recall_counts_ties_as_found() -> None:
    copies = np.repeat(clustered(20), 100, axis=0)
    assert ExactAnswers.of(copies).recall(IVFIndex.of(copies), copies) == 1.0


def test_a_good_index_is_searched_and_its_recall_kept(store: Store, tmp_path: Path) -> None:
    for _ in range(2):  # made, read
        gallery = open_snapshot(tmp_path, KEY)
        assert gallery.recall is not None
        assert gallery.recall >= 0.95
        assert answers_as_exact_search(gallery) is Method.ivf
    assert measured_recall(tmp_path, KEY) == gallery.recall
    assert snapshot_is_true(tmp_path, KEY)


def test_a_corrupted_index_is_not_used_and_all_photos_are_compared(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(IVFIndex, "of", shuffled)
    for _ in range(2):  # made, read
        gallery = open_snapshot(tmp_path, KEY)
        assert (gallery.ivf, gallery.sample) == (None, None)
        assert answers_as_exact_search(gallery) is Method.exact
    assert "it is not used" in caplog.text
    assert not list((tmp_path / "snapshots" / KEY).glob("*.faiss"))
    assert snapshot_is_true(tmp_path, KEY)
    coverage = Coverage(index=None, photos=ROWS, missing=0, recall=measured_recall(tmp_path, KEY))  # type: ignore[arg-type]
    assert "Searches compare all photos" in coverage.why_exact


def test_the_cells_of_the_earlier_index_are_kept_if_a_new_one_is_bad(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    open_snapshot(tmp_path, KEY)
    monkeypatch.setattr(IVFIndex, "of", shuffled)
    add(store, clustered(500, seed=0), "b")
    for _ in range(2):  # made, read
        gallery = open_snapshot(tmp_path, KEY)
        assert len(gallery) == ROWS + 500
        assert answers_as_exact_search(gallery) is Method.ivf
    assert "the cells of the earlier one are kept" in caplog.text


def test_a_search_of_one_cell_where_neighbours_lie_in_many_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Vectors without any structure: the neighbours of each lie in all cells."""
    vectors = unit(np.random.default_rng(0).normal(size=(4000, 128)))

    def one_cell() -> IVFIndex:
        ivf = IVFIndex.of(vectors)
        ivf.nprobe = 1
        return ivf

    gated = first_good(vectors, [one_cell])
    assert gated.ivf is None
    assert 0 < gated.recall < 0.95


def test_more_cells_are_probed_before_an_index_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = clustered(20_000)
    answers = ExactAnswers.of(vectors)

    def few_cells() -> Any:
        ivf = IVFIndex.of(vectors)
        ivf.nprobe = 1
        return ivf

    assert answers.recall(few_cells(), vectors) < recalls.LEAST_RECALL
    gated = first_good(vectors, [few_cells])
    assert gated.ivf is not None
    assert gated.ivf.nprobe > 1
    assert gated.recall == answers.recall(gated.ivf, vectors)
    wide = IVFIndex.of(vectors)
    wide.nprobe = 100
    with (tmp_path / "x.faiss").open("wb") as file:
        wide.write(file)
    assert IVFIndex.read(tmp_path / "x.faiss").nprobe == 100
