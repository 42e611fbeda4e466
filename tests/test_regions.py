"""Region vectors: what is kept of the frozen backbone, how small it is, and that every photo gets them once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersearch.indexer import regions
from steersearch.indexer import store as store_module
from steersearch.indexer.manifest import UnsteeredIndex
from steersearch.indexer.regions import (
    Regions,
    RegionSnapshot,
    open_region_snapshot,
    pack_regions,
    region_snapshot_is_true,
    regions_of,
    unpack_regions,
)
from steersearch.indexer.schema import FileRecord, paths_in
from steersearch.indexer.store import Store, UnsteeredVector
from tests.toy_embedder import CONSTANT, ToyEmbedder, save_photo, save_photos
from tests.toy_library import Library

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def unsteered_key(library: Library) -> str:
    return UnsteeredIndex.beside(library.prompts()[0]).key


def snapshot_of(library: Library) -> RegionSnapshot:
    return open_region_snapshot(library.place, unsteered_key(library))


def test_patches_that_are_alike_make_a_region() -> None:
    left, right = np.float32([1, 0, 0]), np.float32([0, 2, 0])
    patches = np.stack([np.stack([left, left, right, right])] * 3)  # (3, 4, 3)
    regions = regions_of(patches, count=4)
    np.testing.assert_array_equal(regions.vectors[regions.patches], patches)
    assert len(regions.vectors) == 2


def test_as_many_regions_as_patches_keep_every_patch() -> None:
    patches = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    regions = regions_of(patches, count=6)
    np.testing.assert_array_equal(regions.patches, [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(regions.vectors, patches.reshape(6, 5))


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 9), st.integers(0, 1000))
def test_a_region_is_the_mean_of_its_patches(height: int, width: int, count: int, seed: int) -> None:
    patches = np.random.default_rng(seed).normal(size=(height, width, 4)).astype(np.float32)
    regions = regions_of(patches, count)
    assert regions.patches.shape == (height, width)
    assert 1 <= len(regions.vectors) <= min(count, height * width) or len(regions.vectors) == height * width
    for number, vector in enumerate(regions.vectors):
        np.testing.assert_allclose(vector, patches[regions.patches == number].mean(axis=0), atol=1e-5)


def test_products_in_parts_give_the_regions_of_whole_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    patches = np.random.default_rng(0).normal(size=(14, 14, 192)).astype(np.float32)
    in_parts = regions_of(patches)
    monkeypatch.setattr("steersearch.core.vectors._ONE_THREAD", 2**40)
    whole = regions_of(patches)
    np.testing.assert_array_equal(in_parts.patches, whole.patches)
    np.testing.assert_allclose(in_parts.vectors, whole.vectors, atol=1e-5)


@given(st.integers(1, 5), st.integers(1, 9), st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_packed_regions_differ_by_rounding_only(count: int, dim: int, size: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = (size * rng.normal(size=(count, dim))).astype(np.float32)
    patches = rng.integers(0, count, (3, 2)).astype(np.uint8)
    packed = pack_regions(Regions(vectors, patches))
    read = unpack_regions(packed)
    np.testing.assert_array_equal(read.patches, patches)
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    assert (np.abs(read.vectors - vectors) <= largest / 200 + 1e-4).all()
    assert len(packed) == 8 + 6 + count * (2 + dim)


def test_every_photo_gets_its_regions_in_the_same_pass(tmp_path: Path) -> None:
    save_photo(tmp_path / "photos/red.png", RED)
    save_photo(tmp_path / "photos/blue.png", BLUE)
    save_photo(tmp_path / "photos/copy.png", RED)
    library, embedder = Library.create(tmp_path / "photos", tmp_path / "library"), ToyEmbedder()
    library.index(embedder, ["red", "green"])
    assert embedder.batches == [(2, 2)]
    photos, (part,) = Store(library.place).with_unsteered(
        unsteered_key(library), lambda found: (pa.concat_tables(found.photos()), list(found.parts()))
    )
    rows = dict(zip(*(photos.column(c).to_pylist() for c in ("path", "row")), strict=True))
    assert list(rows) == ["blue.png", "copy.png", "red.png"]
    of = {path: unpack_regions(part.regions[row]) for path, row in rows.items()}
    halves = np.float32([[200 / 255, 0, 0, CONSTANT]] * 2)
    np.testing.assert_allclose(of["red.png"].vectors, halves, atol=0.01)
    np.testing.assert_array_equal(of["copy.png"].vectors, of["red.png"].vectors)


def test_a_library_from_before_gets_its_regions_with_its_next_index(tmp_path: Path) -> None:
    photos, embedder = save_photos(tmp_path / "photos", 5), ToyEmbedder()
    library = Library.create(photos, tmp_path / "library")
    library.index(embedder, ["red"], regions=False)
    assert set(Store(library.place).contents_with_features(unsteered_key(library))) == set()
    counts = library.index(embedder, ["red"])
    assert (counts.added, counts.forward_passes) == (5, 5)
    assert len(Store(library.place).contents_with_features(unsteered_key(library))) == 5
    assert library.index(embedder, ["red"]).reused == 5


def test_a_second_model_gets_regions_of_its_own(tmp_path: Path) -> None:
    library = Library.create(save_photos(tmp_path / "photos", 3), tmp_path / "library")
    library.index(ToyEmbedder(), ["red"])
    library.index(ToyEmbedder("other"), ["red"])
    keys = [UnsteeredIndex.beside(index).key for index in library.prompts()]
    assert [len(Store(library.place).contents_with_features(key)) for key in keys] == [3, 3]
    assert len(set(keys)) == 2


def test_the_snapshot_says_the_regions_of_each_photo(tmp_path: Path) -> None:
    for name, colour in {"blue": BLUE, "green": GREEN, "red": RED, "red2": RED}.items():
        save_photo(tmp_path / f"photos/{name}.png", colour)
    library = Library.create(tmp_path / "photos", tmp_path / "library")
    library.index(ToyEmbedder(), ["red"])
    for snapshot in (snapshot_of(library), snapshot_of(library)):  # as made, and as read
        assert paths_in(snapshot.photos.column("path")) == ["blue.png", "green.png", "red.png", "red2.png"]
        arrays = snapshot.arrays
        assert arrays is not None
        assert snapshot.rows[2] == snapshot.rows[3]
        order = snapshot.rows[:3]  # of blue, green and red among the contents
        assert sorted(order) == [0, 1, 2]
        np.testing.assert_array_equal(arrays.patches[0], [[0], [1]])
        tokens = np.float32([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]]) * 200 / 255
        tokens[:, 3] = CONSTANT
        unit = tokens - tokens.mean(axis=0)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        np.testing.assert_allclose(arrays.vectors[order, 0] * arrays.scale / 127, unit, atol=0.02)
        np.testing.assert_allclose(arrays.centred(tokens), unit, atol=0.02)
        np.testing.assert_allclose(np.linalg.norm(arrays.embeddings.astype(float), axis=1), 1, atol=1e-3)


def test_photos_without_regions_are_in_the_snapshot_too(tmp_path: Path) -> None:
    library = Library.create(save_photos(tmp_path / "photos", 2), tmp_path / "library")
    library.index(ToyEmbedder(), ["red"])
    save_photos(tmp_path / "photos", 4)
    library.index(ToyEmbedder(), ["red"], regions=False)
    rows = snapshot_of(library).rows
    assert sorted(rows[:2]) == [0, 1]
    assert list(rows[2:]) == [-1, -1]


def test_without_any_regions_the_snapshot_lists_the_photos(tmp_path: Path) -> None:
    library = Library.create(save_photos(tmp_path / "photos", 2), tmp_path / "library")
    library.index(ToyEmbedder(), ["red"], regions=False)
    for snapshot in (snapshot_of(library), snapshot_of(library)):  # as made, and as read
        assert paths_in(snapshot.photos.column("path")) == ["000.png", "001.png"]
        assert snapshot.arrays is None


def test_a_damaged_snapshot_is_made_again(tmp_path: Path) -> None:
    library = Library.create(save_photos(tmp_path / "photos", 2), tmp_path / "library")
    library.index(ToyEmbedder(), ["red"])
    (file,) = (library.place / "snapshots").glob("frozen_*/*.vectors.npy")
    file.write_bytes(b"not an array")
    assert sorted(snapshot_of(library).rows) == [0, 1]


@pytest.mark.parametrize("view", ["squash", "tile"])
def test_the_model_says_the_same_frozen_as_without_a_prompt(view: str) -> None:
    from PIL import Image

    from steersearch.core.predictor import Predictor
    from steersearch.core.steervit import NO_STEERING

    embedder = Predictor.from_pretrained("mini", "cpu").with_view(view)  # type: ignore[arg-type]
    pixels = np.stack([embedder.preprocess(Image.new("RGB", (40, 30), c)) for c in (RED, BLUE)])
    prompt = np.random.default_rng(0).normal(size=(3, 384)).astype(np.float32)
    frozen, steered = embedder.embed_with_unsteered(pixels, [prompt], 1.0)
    np.testing.assert_allclose(
        steered[0].embeddings, embedder.embed_pixels(pixels, [prompt], 1.0)[0].embeddings, atol=1e-6
    )
    (plain,) = embedder.encode(embedder.to_device(pixels), [NO_STEERING])
    np.testing.assert_allclose(frozen.embeddings, plain.embedding("cls").detach().numpy(), atol=1e-6)
    assert frozen.patches.shape == (2, *embedder.grid, embedder.dim)
    np.testing.assert_allclose(
        frozen.patches.reshape(2, -1, embedder.dim), plain.patches.detach().numpy(), atol=1e-5
    )


def test_a_snapshot_that_is_made_in_parts_is_the_one_of_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photos with fewer regions, contents without a photo, and a copy included."""
    monkeypatch.setattr(store_module, "_BATCH", 7)
    monkeypatch.setattr(regions, "_TOGETHER", 3)
    store, key, rng = Store(tmp_path), "toy-000000000000", np.random.default_rng(5)
    store.ensure_images()
    store.ensure_unsteered_table(key, 6)
    made = {}
    for number in range(40):
        count = 5 if number % 4 else 3
        patches = rng.integers(0, count, (4, 4), dtype=np.uint8)
        patches.flat[:count] = np.arange(count)
        made[f"{number:02}"] = Regions(rng.normal(size=(count, 6)).astype(np.float32), patches)
    unit = rng.normal(size=(40, 6)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    rows = [UnsteeredVector(id, unit[int(id)], pack_regions(found)) for id, found in made.items()]
    store.write_unsteered(key, rows[:20])
    store.write_unsteered(key, rows[20:])
    store.write_images([FileRecord(f"{39 - int(id)}.png", id, 1, 1) for id in made if id not in ("03", "30")])
    store.write_images([FileRecord("copy.png", "07", 1, 1)])

    found = open_region_snapshot(tmp_path, key)
    assert found.arrays is not None
    of = [unpack_regions(pack_regions(one)) for id, one in made.items() if id not in ("03", "30")]
    weights = [np.bincount(r.patches.ravel(), minlength=len(r.vectors)) for r in of]
    total = np.sum([w @ r.vectors for w, r in zip(weights, of, strict=True)], axis=0)
    mean = (total / (16 * len(of))).astype(np.float32)
    np.testing.assert_array_equal(found.arrays.mean, mean)
    for row, r in enumerate(of):
        centred = r.vectors - mean
        expected = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        got = found.arrays.unit_vectors(np.array([row]))[0]
        np.testing.assert_allclose(got[: len(expected)], expected, atol=0.01)
        assert (got[len(expected) :] == got[0]).all()
        np.testing.assert_array_equal(found.arrays.patches[row], r.patches)
    assert len(found.arrays) == 38
    assert np.array_equal(found.arrays.embeddings, np.delete(unit, [3, 30], axis=0).astype(np.float16))
    row_of = dict(zip(paths_in(found.photos.column("path")), found.rows.tolist(), strict=True))
    assert row_of["copy.png"] == row_of["32.png"] == 6
    assert region_snapshot_is_true(tmp_path, key)
