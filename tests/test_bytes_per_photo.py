"""What a photo takes in a library: pictures are kept once, beside no vector, however often photos are updated."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steersearch.indexer.care.tables import Tables
from steersearch.indexer.database import Database
from steersearch.indexer.place import bytes_below
from steersearch.indexer.store import Store
from tests.toy_embedder import ToyEmbedder
from tests.toy_library import Library

PHOTOS, PROMPTS = 40, ("red", "blue")
# Bytes a photo of everything else here: vectors of 4 numbers, heatmaps, paths, snapshots.
BESIDE_PICTURES = 1000
PER_COMMIT = 75_000  # bytes that LanceDB writes for a version of a table, however small


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With so much detail that a thumbnail takes about 20 kB."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(PHOTOS):
        small = Image.fromarray(rng.integers(0, 255, (128, 128, 3), dtype=np.uint8))
        small.resize((512, 512)).save(folder / f"{number}.jpg", quality=90)
    return folder


@pytest.fixture
def library(photos: Path, tmp_path: Path) -> Library:
    library = Library.create(photos, tmp_path / "library")
    library.index(ToyEmbedder(), PROMPTS)
    library.optimize()
    return library


def pictures(library: Library) -> int:
    """Bytes of all thumbnails."""
    store = Store(library.place)
    kept = store.thumbnails(store.photos().column("image_id").to_pylist())
    assert len(kept) == PHOTOS
    return sum(map(len, kept.values()))


def touch(photos: Path, at: int) -> None:
    """As a copy or a backup does: each file has another time and the same content."""
    for path in photos.iterdir():
        os.utime(path, (at, at))


def test_a_photo_takes_its_thumbnail_and_little_more(library: Library) -> None:
    of_pictures, total = pictures(library), bytes_below(library.place)
    assert of_pictures > 10_000 * PHOTOS  # else the bound below would say nothing of pictures
    tables = len(Tables(library.place).names())
    assert of_pictures < total < of_pictures + BESIDE_PICTURES * PHOTOS + PER_COMMIT * tables


def test_no_table_with_vectors_has_pictures(library: Library) -> None:
    """Nor has a snapshot: an update of a vector never copies a picture, nor a picture a vector."""
    tables, of_pictures = Tables(library.place), pictures(library)
    database = Database(library.place)
    for name in tables.names():
        schema, size = database.read(name, lambda table: table.schema), bytes_below(tables.folder(name))
        assert ("embedding" in schema.names) == (name not in ("images", "thumbnails"))
        assert (size > of_pictures) == (name == "thumbnails")
        assert ("thumbnail" in schema.names) == (name == "thumbnails")
    assert bytes_below(library.place / "snapshots") < BESIDE_PICTURES * PHOTOS


def test_updates_again_and_again_do_not_grow_it(library: Library, photos: Path) -> None:
    """Before `optimize`, a round of new times adds each photo's row at most once, no picture, and no vector."""
    compact, of_pictures = bytes_below(library.place), pictures(library)
    others = [name for name in Tables(library.place).names() if name != "images"]
    sizes = [bytes_below(Tables(library.place).folder(name)) for name in others]
    for number in range(4):
        touch(photos, 1_500_000_000 + 10 * number)
        assert library.index(ToyEmbedder(), PROMPTS).reused == PHOTOS
        assert [bytes_below(Tables(library.place).folder(name)) for name in others] == sizes
        assert bytes_below(library.place) < compact + (number + 1) * (BESIDE_PICTURES * PHOTOS + PER_COMMIT)
    assert bytes_below(library.place) < 2 * of_pictures  # which is stored once
    library.optimize()
    assert bytes_below(library.place) < 1.05 * compact
    assert pictures(library) == of_pictures


def test_new_contents_replace_the_old(library: Library, photos: Path) -> None:
    """Every photo edited in place: after `optimize --forget-removed` nothing of the old ones is left."""
    compact = bytes_below(library.place)
    kept = {path: path.read_bytes() for path in photos.iterdir()}
    try:
        for path, content in kept.items():
            with Image.open(io.BytesIO(content)) as image:
                image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path, quality=90)
        assert library.index(ToyEmbedder(), PROMPTS).added == PHOTOS
        library.optimize(forget_removed=True)
        assert bytes_below(library.place) < 1.05 * compact
    finally:
        for path, content in kept.items():
            path.write_bytes(content)
