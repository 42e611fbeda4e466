"""Rows carry checksums: what is not what was written is left out, counted and said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from steersearch.core.errors import ModelMismatchError, SteerSearchError
from steersearch.core.prompts import EncodedPrompt
from steersearch.core.vectors import Embedded, Floats
from steersearch.indexer.manifest import UnsteeredIndex
from steersearch.indexer.query_terms import Focus
from steersearch.indexer.schema import CHECKSUM, checksums_of
from steersearch.indexer.store import Store
from tests.toy_embedder import ToyEmbedder, save_photo, save_photos
from tests.toy_library import Library, as_before_schema_7


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """Five photos, and a file that is none."""
    photos = save_photos(tmp_path / "photos", 5)
    (photos / "none.png").write_bytes(b"none")
    library = Library.create(photos, tmp_path / "library")
    library.index(ToyEmbedder(), ["red"])
    return library


def rot(library: Library, table: str, row: int, **values: Any) -> None:
    """Let a row, by the order of the keys, say something else, and its checksum what it said."""
    opened = lancedb.connect(library.place / "lance").open_table(table)
    key = "path" if table == "images" else "image_id"
    rows = opened.to_arrow().sort_by(key)
    opened.delete(f"{key} = '{rows.column(key)[row].as_py()}'")
    opened.add(pa.Table.from_pylist([{**rows.to_pylist()[row], **values}], schema=rows.schema))


def names(library: Library) -> tuple[str, str]:
    """Of the table of "red", and of the frozen one."""
    (index,) = library.prompts()
    return f"prompt_{index.key}", f"frozen_{UnsteeredIndex.beside(index).key}"


def found(library: Library) -> list[str]:
    return [hit.path.name for hit in library.query(ToyEmbedder(), library.folder / "004.png", "red", k=9)]


@pytest.mark.parametrize(
    "values",
    [
        {"width": 7}, {"image_id": "0" * 32}, {"size": 1}, {"mtime_ns": 1}, {"status": "skipped"}, {"status": "oj"},
        {"reason": "why"}, {"path": "009.png"}, {"taken_at_source": "EXIF"}, {"taken_at_precision": "day"},
        {"checksum": None}, {"checksum": 5}, {"path": "/etc/000.png"}, {"path": "../000.png"},
    ],
)  # fmt: skip
def test_a_photo_whose_row_is_another_is_left_out_and_said(
    library: Library, values: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    before = found(library)
    rot(library, "images", 0, **values)
    hits = library.query(ToyEmbedder(), library.folder / "004.png", "red", k=9)
    assert [hit.path.name for hit in hits] == [name for name in before if name != "000.png"]
    assert not any(hit.exact for hit in hits)
    assert "1 of the photos cannot be found, because their vectors are damaged" in caplog.text
    assert "steersearch verify --repair" in caplog.text


@pytest.mark.parametrize(
    "values",
    [
        {"embedding": [0.6, 0.8, 0, 0]},
        {"heatmap": b"\2\0\1\0\xff\x10"},
        {"presence": 0.5},
        {"presence": None},
    ],
)
def test_a_vector_that_is_another_is_left_out_and_said(
    library: Library, values: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    rot(library, names(library)[0], 2, **values)
    hits = library.query(ToyEmbedder(), library.folder / "004.png", "red", k=9)
    assert len(hits) == 4
    assert not any(hit.exact for hit in hits)
    assert "1 of the photos cannot be found" in caplog.text
    toy = ToyEmbedder()
    library.search_any([Focus.on(library.prompts()[0])], library.folder / "004.png", lambda _: toy)
    assert toy.is_untouched  # what is damaged is not steered again and again


def test_what_the_frozen_backbone_said_counts_as_unknown_where_it_is_another(library: Library) -> None:
    rot(library, names(library)[1], 1, embedding=[1, 0, 0, 0])
    key = names(library)[1].removeprefix("frozen_")
    (photos,) = Store(library.place).with_unsteered(key, lambda gallery: list(gallery.photos()))
    rows = photos.column("row").to_pylist()
    assert sorted(rows) == [-1, 0, 1, 2, 3]


def test_a_thumbnail_that_is_another_is_none(library: Library) -> None:
    store = Store(library.place)
    first, second, *_ = sorted(store.thumbnail_ids())
    thumbnail = store.thumbnail(first)
    assert thumbnail is not None
    rot(library, "thumbnails", 0, thumbnail=thumbnail[:-1] + b"\0")
    assert store.thumbnail(first) is None
    assert store.thumbnail(second) is not None
    assert len(found(library)) == 5  # no answer is made of it


def test_a_column_that_is_null_changes_no_checksum() -> None:
    rows = pa.table({"path": ["a", "b"], "width": pa.array([1, None], pa.int32())})
    wider = rows.append_column("more", pa.nulls(2, pa.string()))
    before, after = checksums_of(rows, ("path", "width")), checksums_of(wider, ("path", "width", "more"))
    np.testing.assert_array_equal(before, after)
    swapped = pa.table({"path": ["b", "a"], "width": pa.array([1, None], pa.int32())})
    assert not set(before) & set(checksums_of(swapped, ("path", "width")))


def without_checksums(library: Library) -> None:
    """Make of it what a version before schema 4 would have written."""
    as_before_schema_7(library.place)
    for table in (library.place / "lance").iterdir():
        opened = lancedb.connect(library.place / "lance").open_table(table.stem)
        opened.drop_columns([name for name in opened.schema.names if name.endswith("checksum")])
    for key in (library.place / "prompts").iterdir():
        features = np.load(key / "features.npy")
        np.save(key / "features.npy", features)
    for file in (library.place / "library.json", *library.place.glob("prompts/*/manifest.json")):
        fields = {name: value for name, value in json.loads(file.read_text()).items() if name != "checksum"}
        file.write_text(json.dumps({**fields, "schema_version": 3}))


def test_an_older_library_is_read_without_and_gets_its_checksums_with_the_next_run(library: Library) -> None:
    before = found(library)
    without_checksums(library)
    assert found(library) == before
    assert Library.open(library.place).index(ToyEmbedder()).forward_passes == 0
    for table in ("images", *names(library)):
        rows = lancedb.connect(library.place / "lance").open_table(table).to_arrow()
        assert rows.column(CHECKSUM).null_count == 0
    assert found(library) == before
    assert library.verify() == []
    rot(library, "images", 0, width=7)
    assert len(found(library)) == 4


def test_a_vector_of_an_older_library_that_cannot_be_right_gets_no_checksum(library: Library) -> None:
    without_checksums(library)
    rot(library, names(library)[0], 0, embedding=[2, 0, 0, 0])
    Library.open(library.place).index(ToyEmbedder())
    assert len(found(library)) == 4


class Odd(ToyEmbedder):
    """Gives query photos another vector than it should."""

    def __init__(self, vector: Sequence[float]) -> None:
        super().__init__()
        self.vector = np.array([vector], dtype=np.float32)

    def embed_pixels(
        self, pixels: Floats, prompt_features: Sequence[Floats | None], gate_scale: float
    ) -> list[Embedded]:
        (found,) = super().embed_pixels(pixels, prompt_features, gate_scale)
        return [Embedded(self.vector, found.heatmaps, found.presence)]


@pytest.mark.parametrize(
    ("vector", "error"), [([1, 0, 0, float("nan")], SteerSearchError), ([1.0, 0.0], ModelMismatchError)]
)
def test_a_query_is_finite_and_as_wide_as_the_gallery(
    library: Library, tmp_path: Path, vector: list[float], error: type[Exception]
) -> None:
    outside = save_photo(tmp_path / "outside.png", (9, 9, 9))
    with pytest.raises(error):
        library.query(Odd(vector), outside, "red")


def test_an_encoded_prompt_that_is_another_is_made_again(
    library: Library, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outside = save_photo(tmp_path / "outside.png", (90, 9, 9))
    before = [(hit.path, hit.score) for hit in library.query(ToyEmbedder(), outside, "red")]
    features = library.place / "prompts" / library.prompts()[0].key / "features.npy"
    whole = bytearray(features.read_bytes())
    whole[whole.index(np.float32(1).tobytes())] ^= 8
    features.write_bytes(whole)
    toy = ToyEmbedder()
    again = Library.open(library.place)  # which has embedded no photo
    assert [(hit.path, hit.score) for hit in again.query(toy, outside, "red")] == before
    assert toy.encoded == ["red"]
    assert 'the encoded prompt "red" was damaged and is encoded again' in caplog.text
    np.testing.assert_array_equal(
        library.prompt_features(
            library.prompts()[0], lambda prompt: EncodedPrompt(np.zeros((1, 1), np.float32))
        ),
        ToyEmbedder().encode_prompt("red").tokens,
    )
