"""The replay of an anytime search: what is found once all is steered, and no photograph answers itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steersearch.benchmarks.engineering.any_focus import Part, answer, evaluate, write_library
from steersearch.benchmarks.engineering.photo_gallery import LabelledPhoto, Shown
from steersearch.indexer.manifest import new_unsteered_index
from steersearch.indexer.regions import RegionSnapshot, open_region_snapshot

PHOTOS, GRID, WIDTH = 40, 4, 16


@pytest.fixture
def gallery() -> Part:
    """Random features; every fourth photograph shows a cat, the next one a dog, the rest say nothing."""
    rng = np.random.default_rng(0)
    words = {0: ("cat",), 1: ("dog",)}
    photos = [
        LabelledPhoto(Path(f"/photos/{i:02}.png"), tuple(Shown(w, w, 1.0) for w in words.get(i % 4, ())))
        for i in range(PHOTOS)
    ]
    embeddings = rng.normal(size=(1, PHOTOS, WIDTH)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=-1, keepdims=True)
    patches = rng.normal(size=(PHOTOS, GRID, GRID, WIDTH)).astype(np.float16)
    heatmaps = np.full((1, PHOTOS, GRID, GRID), 1 / GRID**2, np.float32)
    return Part(photos, patches, rng.normal(size=(PHOTOS, WIDTH)).astype(np.float32), embeddings, heatmaps)


@pytest.fixture
def snapshot(gallery: Part, tmp_path: Path) -> RegionSnapshot:
    index = new_unsteered_index(model_id="m", weights_hash="0" * 64, preprocessing={"size": 64}, dim=WIDTH)
    write_library(tmp_path, gallery, index)
    return open_region_snapshot(tmp_path, index.key)


def test_a_photograph_of_the_gallery_is_no_answer_to_itself(gallery: Part, snapshot: RegionSnapshot) -> None:
    assert snapshot.arrays is not None
    for q in (0, 4):
        found = answer(snapshot.arrays, snapshot.rows, gallery, gallery, 0, q, (0.5, 1.0))
        assert q not in found.first.values()
        scores = gallery.embeddings[0] @ gallery.embeddings[0, q]
        assert found.first["exact"] == np.argsort(-scores)[1]  # after itself
        assert found.first["1"] == found.first["exact"]
        assert found.found[1] == 1.0


def test_a_hit_of_which_nothing_is_known_is_neither_right_nor_wrong(
    gallery: Part, snapshot: RegionSnapshot
) -> None:
    assert snapshot.arrays is not None
    figures = evaluate(snapshot.arrays, snapshot.rows, gallery, gallery, {"the cat": "cat"}, (0.5, 1.0))
    nearest = []
    for q in range(0, PHOTOS, 4):
        scores = gallery.embeddings[0] @ gallery.embeddings[0, q]
        nearest.append(int(np.argsort(-scores)[1]))
    known = [photo for photo in nearest if photo % 4 < 2]
    right = figures["right_first_hit"]
    assert isinstance(right, dict)
    assert right["exact"] == round(np.mean([photo % 4 == 0 for photo in known]), 3)
    assert figures["queries"] == 10
    assert figures["shares_steered"] == (0.5, 1.0)
