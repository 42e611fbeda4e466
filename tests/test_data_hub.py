"""The authors' Parquet files: pictures by their rules, odd rows, and files that are cut or damaged."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steersearch.core.errors import DataError
from steersearch.training.data.importers import steervit as hub_masks
from steersearch.training.data.importers.steervit import HubMasks
from steersearch.training.data.samples import Skip
from tests.published import box_mask, png, put_parquet, put_picture

MASK = box_mask(3, 4, 20, 30)


def row(image_id: str | None = "COCO_train2014_000000000001", **fields: Any) -> dict[str, Any]:
    base = {
        "image_id": image_id,
        "mask": png(MASK),
        "referential_expression": "the man",
        "dataset": "refcoco",
    }
    return base | fields


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    put_picture(root / "coco/train2014/COCO_train2014_000000000001.jpg")
    put_picture(root / "coco/val2014/COCO_val2014_000000000002.jpg")
    put_picture(root / "visual_genome/VG_100K/10.jpg")
    put_picture(root / "visual_genome/VG_100K_2/10.jpg", (20, 20))
    put_picture(root / "visual_genome/VG_100K_2/11.jpg")
    put_picture(root / "mapillary/a1b2.jpg")
    return root


def test_pictures_lie_where_the_authors_say(tmp_path: Path, images: Path) -> None:
    rows = [
        row(),
        row("COCO_val2014_000000000002.jpg", dataset="lvis"),
        row("COCO_train2014_000000000001", dataset="visual genome"),  # the name decides first
        row("10", dataset="visual genome"),
        row("11.jpg", dataset="visual genome"),
        row("a1b2", dataset="mapillary", referential_expression=" a  pole "),
    ]
    put_parquet(tmp_path / "hub/data/train-00000-of-00001.parquet", rows)
    put_parquet(tmp_path / "hub/data/validation-00000-of-00001.parquet", rows[:1])
    source = HubMasks(tmp_path / "hub", images)
    assert source.skips == []
    samples = list(source)
    assert [str(s.image.relative_to(images)) for s in samples] == [
        "coco/train2014/COCO_train2014_000000000001.jpg",
        "coco/val2014/COCO_val2014_000000000002.jpg",
        "coco/train2014/COCO_train2014_000000000001.jpg",
        "visual_genome/VG_100K/10.jpg",
        "visual_genome/VG_100K_2/11.jpg",
        "mapillary/a1b2.jpg",
        "coco/train2014/COCO_train2014_000000000001.jpg",
    ]
    assert all((s.mask == MASK).all() for s in samples)
    assert [s.split for s in samples] == ["train"] * 6 + ["validation"]
    assert [s.source for s in samples[3:6]] == ["visual genome", "visual genome", "mapillary"]
    assert samples[5].expression == "a pole"
    assert len(HubMasks(tmp_path / "hub", images, "validation")) == 1
    assert len(list(pickle.loads(pickle.dumps(source)))) == 7
    with pytest.raises(DataError, match='no split "test"; it has: train, validation'):
        HubMasks(tmp_path / "hub", images, "test")


def test_odd_rows(tmp_path: Path, images: Path) -> None:
    rows = [
        row(referential_expression=""),
        row(referential_expression=None),
        row(None),
        row("77", dataset="visual genome"),
        row("77", dataset="visual genome"),
        row("x", dataset="somewhere"),
        row(mask=None),
        row(mask=b"no picture"),
        row(mask=png(np.zeros_like(MASK))),
        row(mask=png(MASK[:10])),
        row(),
    ]
    file = put_parquet(tmp_path / "train.parquet", rows, group=3)
    source = HubMasks(file, images)
    assert {(s.path, s.row, s.reason, s.rows) for s in source.skips} == {
        (file, "row 0", "its expression is empty", 1),
        (file, "row 1", "its expression is missing", 1),
        (file, "row 2", "it names no picture", 1),
        (images, "", "the picture 77 was not found", 2),
        (file, "row 5", 'its dataset "somewhere" is unknown', 1),
    }
    read = [source.read(i) for i in range(len(source))]
    assert [(s.row, s.reason.partition(" (")[0]) for s in read if isinstance(s, Skip)] == [
        ("row 6", "it has no mask"),
        ("row 7", "its mask is not a PNG that can be read"),
        ("row 8", "its mask is empty"),
        ("row 9", "its mask is 60 × 10 pixels, its picture 60 × 40"),
    ]
    assert [s.expression for s in source] == ["the man"]


def test_a_text_that_is_no_utf8_is_one_row(tmp_path: Path, images: Path) -> None:
    file = put_parquet(tmp_path / "train.parquet", [row(), row(referential_expression="gr?n"), row()])
    raw = file.read_bytes()
    assert raw.count(b"gr?n") >= 1
    file.write_bytes(raw.replace(b"gr?n", b"gr\xfcn"))
    source = HubMasks(file, images)
    assert [(s.row, s.reason) for s in source.skips] == [("row 1", "its expression is not UTF-8")]
    assert len(list(source)) == 2


def test_damage_costs_no_more_than_its_group_or_file(tmp_path: Path, images: Path) -> None:
    rows = [row(referential_expression=f"man {i}", mask=noisy(i)) for i in range(40)]
    good = put_parquet(tmp_path / "train-00000-of-00003.parquet", rows, group=10)
    masks = put_parquet(tmp_path / "train-00001-of-00003.parquet", rows, group=10)
    cut = put_parquet(tmp_path / "train-00002-of-00003.parquet", rows, group=10)
    cut.write_bytes(cut.read_bytes()[:-100])
    spoil(masks, group=1, column="mask.bytes")
    spoil(good, group=2, column="referential_expression")
    source = HubMasks(tmp_path, images)
    assert [(s.path, s.row, s.rows) for s in source.skips] == [(good, "rows 20 to 29", 10), (cut, "", 1)]
    assert source.skips[0].reason.startswith("damaged (")
    assert source.skips[1].reason.startswith("not a Parquet file, or truncated (")
    assert len(source) == 70
    bad = [s for s in (source.read(i) for i in range(70)) if isinstance(s, Skip)]
    assert [s.row for s in bad] == [f"row {i}" for i in range(10, 20)]
    assert all(s.path == masks and s.reason.startswith("its row group cannot be read (") for s in bad)
    assert len(list(source)) == 60


def test_a_file_of_the_set_that_is_missing_is_said(tmp_path: Path, images: Path) -> None:
    files = [
        put_parquet(tmp_path / name, [row(mask=noisy(1))])
        for name in ("train-00001-of-00003.parquet", "validation-00000-of-00002.parquet")
    ]
    missing = "its file {} is missing".format
    assert [skip.reason for skip in HubMasks(tmp_path, images, "train").skips] == [
        missing("train-00000-of-00003.parquet"),
        missing("train-00002-of-00003.parquet"),
    ]
    assert HubMasks(files[0], images).skips == []  # no more was asked for


def noisy(seed: int) -> bytes:
    return png(np.random.default_rng(seed).random(MASK.shape) < 0.5)


def spoil(file: Path, group: int, column: str) -> None:
    """Overwrite the header of a column's page."""
    metadata = pq.read_metadata(file).row_group(group)
    found = next(metadata.column(i) for i in range(5) if metadata.column(i).path_in_schema == column)
    start = found.dictionary_page_offset or found.data_page_offset
    raw = bytearray(file.read_bytes())
    raw[start : start + 24] = b"\xff" * 24
    file.write_bytes(raw)


def test_what_is_wrong_as_a_whole(tmp_path: Path, images: Path) -> None:
    with pytest.raises(DataError, match=r"no \.parquet file in it"):
        HubMasks(tmp_path, images)
    file = tmp_path / "train.parquet"
    pq.write_table(pa.table({"image_id": ["1"], "caption": ["x"]}), file)
    with pytest.raises(
        DataError, match="no column mask, referential_expression, dataset; it has: image_id, caption"
    ):
        HubMasks(file, images)
    put_parquet(file, [row()])
    with pytest.raises(DataError, match=r"none of its pictures are in .*; name their folder: --images"):
        HubMasks(file)
    with pytest.raises(DataError, match="no such folder of pictures"):
        HubMasks(file, tmp_path / "nowhere")


def test_neighbours_share_one_reading(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = HubMasks(put_parquet(tmp_path / "train.parquet", [row()] * 30, group=10), images)
    opened: list[Path] = []
    open_file = pq.ParquetFile
    monkeypatch.setattr(
        hub_masks.pq, "ParquetFile", lambda path, **how: opened.append(path) or open_file(path, **how)
    )
    assert len(list(source)) == 30
    assert len(opened) == 3


def test_a_pipe_among_the_files_is_not_waited_for(tmp_path: Path, images: Path) -> None:
    os.mkfifo(tmp_path / "train-0.parquet")
    put_parquet(tmp_path / "train-1.parquet", [row()])
    source = HubMasks(tmp_path, images)
    assert len(list(source)) == 1
    assert [skip.path.name for skip in source.skips] == ["train-0.parquet"]
    assert "a pipe, not a regular file" in source.skips[0].reason


def test_a_row_group_that_would_fill_memory_is_left_out(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few kilobytes can hold millions of equal rows."""
    monkeypatch.setattr(hub_masks, "MOST_ROWS", 20)
    put_parquet(tmp_path / "train-0.parquet", [row()] * 21)
    put_parquet(tmp_path / "train-1.parquet", [row()])
    source = HubMasks(tmp_path, images)
    assert len(source) == 1
    assert [skip.rows for skip in source.skips] == [21]
    assert "too large: 21 rows" in source.skips[0].reason
