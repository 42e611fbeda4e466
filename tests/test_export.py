"""Exported files hold what the tables hold, read back by the programs they are for."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from PIL import Image

from steersearch.core.errors import ArgumentError, OutputError
from steersearch.indexer.care import export
from steersearch.indexer.care.export import export_parts, table_of
from tests.toy_embedder import ToyEmbedder, save_photo, vector_of
from tests.toy_library import Library

RED, BLUE = (200, 0, 0), (0, 0, 200)


@pytest.fixture
def table(tmp_path: Path) -> Any:
    """A photo with a date, one without, one of whose presence nothing is known."""
    photos = tmp_path / "photos"
    save_photo(photos / "a" / "blue.png", BLUE, size=(7, 5))
    exif = Image.Exif()
    exif[0x8769] = {0x9003: "2024:05:06 07:08:09"}
    Image.new("RGB", (30, 20), RED).save(photos / "red.png", exif=exif)
    library = Library.create(photos, tmp_path / "library")
    library.index(ToyEmbedder(), ["red"])
    (index,) = library.prompts()
    return table_of(library.place, library._folders.now, index)


def export_table(table: Any, path: Path, named: str | None = None, *, force: bool = False) -> list[Path]:
    return export_parts(lambda: [table], path, named, force=force)


def test_the_table(table: Any) -> None:
    names = (
        "path image_id embedding presence width height taken_at taken_at_precision taken_at_source path_bytes"
    )
    assert table.schema.names == names.split()
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 4)
    blue, red = table.to_pylist()
    assert (blue["path"], blue["width"], blue["height"], blue["taken_at"]) == ("a/blue.png", 7, 5, None)
    assert (red["path"], red["width"], red["taken_at"]) == ("red.png", 30, datetime(2024, 5, 6, 7, 8, 9))
    assert (red["taken_at_precision"], red["taken_at_source"]) == ("second", "EXIF DateTimeOriginal")
    assert (blue["taken_at_precision"], blue["taken_at_source"]) == (None, "none")
    np.testing.assert_allclose(blue["embedding"], vector_of(BLUE, "red"), atol=1e-6)
    assert red["presence"] > blue["presence"]
    about = json.loads(table.schema.metadata[b"steersearch"])
    assert (about["prompt"], about["gate_scale"], about["model_id"], about["dim"]) == ("red", 1.0, "toy", 4)


def test_formats_that_hold_it_all(table: Any, tmp_path: Path) -> None:
    assert export_table(table, tmp_path / "x.parquet") == [tmp_path / "x.parquet"]
    kept = pyarrow.parquet.read_table(tmp_path / "x.parquet")
    assert kept.to_pylist() == table.to_pylist()  # Parquet has no seconds, so the types are not all the same
    assert kept.schema.metadata[b"steersearch"] == table.schema.metadata[b"steersearch"]
    for name in ("x.arrow", "x.Feather"):
        export_table(table, tmp_path / name)
        assert pyarrow.feather.read_table(tmp_path / name).equals(table, check_metadata=True)


def test_vectors_alone_have_their_rows_beside_them(table: Any, tmp_path: Path) -> None:
    files = export_table(table, tmp_path / "x.vectors", "faiss")
    assert files == [tmp_path / "x.rows.jsonl", tmp_path / "x.vectors"]
    rows = [json.loads(line) for line in files[0].read_text().splitlines()]
    assert [(row["path"], row["taken_at"]) for row in rows] == [
        ("a/blue.png", None),
        ("red.png", "2024-05-06T07:08:09"),
    ]
    names = "path image_id presence width height taken_at taken_at_precision taken_at_source"
    assert list(rows[0]) == names.split()
    expected = np.array(table.column("embedding").to_pylist(), np.float32)
    index = faiss.read_index(str(files[1]))
    np.testing.assert_array_equal(index.reconstruct_n(0, 2), expected)
    assert index.search(vector_of(RED, "red")[None], 1)[1].tolist() == [[1]]


def test_a_name_that_is_no_utf_8_leads_to_its_file_in_every_format(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    save_photo(photos / os.fsdecode(b"caf\xe9.png"), RED)
    save_photo(photos / "d.png", BLUE)
    library = Library.create(photos, tmp_path / "library")
    library.index(ToyEmbedder(), ["red"])
    table = library.table(library.prompts()[0])
    for name in ("x.parquet", "x.faiss"):
        export_table(table, tmp_path / name)
    rows = pyarrow.parquet.read_table(tmp_path / "x.parquet").to_pylist()
    assert [(row["path"], row["path_bytes"]) for row in rows] == [
        ("caf\N{REPLACEMENT CHARACTER}.png", b"caf\xe9.png"),
        ("d.png", None),
    ]
    lines = [json.loads(line) for line in (tmp_path / "x.rows.jsonl").read_text().splitlines()]
    paths = [line["path"] for line in lines]
    assert [os.fsencode(path) for path in paths] == [b"caf\xe9.png", b"d.png"]
    assert all((photos / path).is_file() for path in paths)


def test_nothing_is_replaced_unrequested(table: Any, tmp_path: Path) -> None:
    for blocked in (tmp_path / "x.faiss", tmp_path / "x.rows.jsonl"):
        blocked.write_text("precious")
        with pytest.raises(OutputError, match="--force") as error:
            export_table(table, tmp_path / "x.faiss")
        assert error.value.path == blocked
        assert blocked.read_text() == "precious"
        blocked.unlink()
    (tmp_path / "x.parquet").write_text("old")
    export_table(table, tmp_path / "x.parquet", force=True)
    assert pyarrow.parquet.read_table(tmp_path / "x.parquet").column("width").to_pylist() == [7, 30]


def test_what_cannot_be_written(table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, reason in (
        (tmp_path / "gone" / "x.parquet", "there is no folder"),
        (tmp_path / "photos", "it is a folder"),
        (Path("s3://bucket/x.parquet"), "it is a URL"),
        (Path(""), "it is a folder"),
    ):
        with pytest.raises(OutputError, match=reason):
            export_table(table, path, "parquet")
    with pytest.raises(ArgumentError, match="its suffix names no format"):
        export_table(table, tmp_path / "x.csv")
    with pytest.raises(ArgumentError, match="must be one of parquet, arrow"):
        export_table(table, tmp_path / "x.parquet", "csv")

    def full(parts: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(export._WRITERS, "parquet", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match="No space left"):
        export_table(table, tmp_path / "x.parquet")
    assert sorted(tmp_path.iterdir()) == before


def test_a_prompt_index_without_photos(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no")
    library = Library.create(tmp_path / "photos", tmp_path / "library")
    library.index(ToyEmbedder(), ["red"])
    table = library.table(library.prompts()[0])
    assert (len(table), table.schema.field("embedding").type.list_size) == (0, 4)
    for suffix in ("parquet", "arrow", "faiss"):
        export_table(table, tmp_path / f"x.{suffix}", force=True)
    assert faiss.read_index(str(tmp_path / "x.faiss")).ntotal == 0
