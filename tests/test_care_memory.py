"""The care of a library takes memory to which its pictures and vectors add nothing: tables of 200 MB are gone through
in less than 600 MB, of which what LanceDB holds and what is read at once is most."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from steersearch.benchmarks.engineering.fresh_process import call_fresh, peak_memory
from steersearch.core.vectors import Floats
from steersearch.indexer.care.migrate import bring_forward
from steersearch.indexer.care.optimize import optimize
from steersearch.indexer.care.tables import Tables
from steersearch.indexer.care.verify import Verification
from steersearch.indexer.database import Database
from steersearch.indexer.folders import PhotoFolder
from steersearch.indexer.library import Library
from steersearch.indexer.manifest import (
    LibraryManifest,
    new_prompt_index,
    read_library,
    write_library,
    write_prompt_index,
)
from steersearch.indexer.schema import (
    IMAGES,
    THUMBNAIL_CHECKSUM,
    THUMBNAILS,
    added_columns,
    images_schema,
    pack_heatmap,
    prompt_schema,
    prompt_table,
    thumbnails_schema,
    with_checksums,
)
from steersearch.indexer.store import Store

Rows = Callable[[range], dict[str, Any]]
DIM = 2048
MOST = 600e6  # bytes; it was 720 to 850 MB, and more for larger tables


def write(place: Path, name: str, schema: Any, steps: Iterable[range], rows: Rows) -> None:
    """Write rows with these numbers to a table, a commit for each step."""
    database = Database(place)
    database.create(name, schema)
    for numbers in steps:
        part = with_checksums(name, pa.table(rows(numbers))).select(schema.names).cast(schema)
        database.change(name, partial(_add, rows=part))


def _add(table: Any, rows: Any) -> None:
    table.add(rows)


def steps(count: int, at_once: int) -> list[range]:
    return [range(start, min(start + at_once, count)) for start in range(0, count, at_once)]


def ids(numbers: range) -> list[str]:
    return [f"{number:064x}" for number in numbers]


def jpegs(numbers: range, size: int) -> list[bytes]:
    return [np.random.default_rng(number).bytes(size) for number in numbers]


def thumbnail_rows(numbers: range, size: int) -> dict[str, Any]:
    return {"image_id": ids(numbers), "thumbnail": jpegs(numbers, size)}


def photo_rows(numbers: range) -> dict[str, Any]:
    return {
        "path": [f"{number:08d}.jpg" for number in numbers],
        "image_id": ids(numbers),
        "size": [1] * len(numbers),
        "mtime_ns": [1] * len(numbers),
        "width": pa.array([8] * len(numbers), pa.int32()),
        "height": pa.array([8] * len(numbers), pa.int32()),
        "taken_at": pa.nulls(len(numbers), pa.timestamp("s")),
        "taken_at_precision": pa.nulls(len(numbers), pa.string()),
        "taken_at_source": ["none"] * len(numbers),
        "status": ["ok"] * len(numbers),
        "reason": pa.nulls(len(numbers), pa.string()),
    }


def vector_rows(numbers: range) -> dict[str, Any]:
    vectors: Floats = np.random.default_rng(numbers[0]).random((len(numbers), DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return {
        "image_id": ids(numbers),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM),
        "heatmap": [pack_heatmap(np.ones((8, 8), np.float32))] * len(numbers),
        "presence": pa.array(np.ones(len(numbers), np.float32)),
    }


def new_library(place: Path, photos: int) -> None:
    place.mkdir()
    write_library(place, LibraryManifest(folders=(PhotoFolder(path=str(place.parent / "photos")),)))
    write(place, IMAGES, images_schema(), steps(photos, 5000), photo_rows)


# ------------------------------------------------------------------------------------------------ in a fresh process


def above(step: str, place: str) -> int:
    """The peak of memory of this step beyond what a process with LanceDB takes, in bytes."""
    tables = Tables(Path(place))
    tables.dim(IMAGES)
    before = peak_memory()
    STEPS[step](Path(place))
    return peak_memory() - before


STEPS: dict[str, Callable[[Path], object]] = {
    "optimize": optimize,
    "migrate": bring_forward,
    "repair": lambda place: Verification(place, str, repair=True).run(),
    "export": lambda place: Library.open(place).export("red", place.parent / "x.parquet"),
}


# ---------------------------------------------------------------------------------------------------------- the steps


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "library"


@pytest.mark.slow
def test_optimize(place: Path) -> None:
    """Of which the second run, whose first file has most of the rows, took the more."""
    new_library(place, 2030)
    wide = partial(thumbnail_rows, size=100_000)
    write(place, THUMBNAILS, thumbnails_schema(), steps(2000, 100), wide)
    first = call_fresh(above, step="optimize", place=str(place))
    write(
        place,
        THUMBNAILS,
        thumbnails_schema(),
        [range(start, start + 10) for start in (2000, 2010, 2020)],
        wide,
    )
    second = call_fresh(above, step="optimize", place=str(place))
    assert max(first, second) < MOST
    assert len(list(place.glob("lance/thumbnails.lance/data/*"))) == 1


@pytest.mark.slow
def test_the_migration_to_schema_7(place: Path) -> None:
    new_library(place, 0)
    shutil.rmtree(place / "lance")
    write_library(place, replace(read_library(place), schema_version=6))
    added = added_columns()
    schema = pa.schema([*images_schema(), added["thumbnail"], added[THUMBNAIL_CHECKSUM]])

    def old_rows(numbers: range) -> dict[str, Any]:
        return photo_rows(numbers) | {"thumbnail": jpegs(numbers, 12_000)}

    write(place, IMAGES, schema, steps(16_000, 1000), old_rows)
    assert call_fresh(above, step="migrate", place=str(place)) < MOST
    assert len(Store(place).contents_with_thumbnails()) == 16_000


@pytest.mark.slow
def test_the_repair_of_thumbnails(place: Path) -> None:
    new_library(place, 16_000)
    write(place, THUMBNAILS, thumbnails_schema(), steps(16_000, 1000), partial(thumbnail_rows, size=12_000))
    first = f"image_id = '{ids(range(1))[0]}'"
    Database(place).change(THUMBNAILS, lambda table: table.update(first, {"thumbnail": b"x"}))
    assert call_fresh(above, step="repair", place=str(place)) < MOST
    assert len(Store(place).contents_with_thumbnails()) == 15_999


@pytest.fixture
def with_vectors(place: Path) -> Path:
    """25,000 photos with vectors of 8 kB."""
    new_library(place, 25_000)
    index = new_prompt_index("red", 1.0, model_id="toy", weights_hash="0" * 64, preprocessing={}, dim=DIM)
    write(place, prompt_table(index.key), prompt_schema(DIM), steps(25_000, 1000), vector_rows)
    write_prompt_index(place, index)
    return place


@pytest.mark.slow
def test_an_export(with_vectors: Path) -> None:
    assert call_fresh(above, step="export", place=str(with_vectors)) < MOST
    file = pyarrow.parquet.ParquetFile(with_vectors.parent / "x.parquet")
    assert file.metadata.num_rows == 25_000
