"""The plain folder: every kind of mask, odd lines, a writer whose files are whole or absent."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from steersearch.core.errors import DataError
from steersearch.training.data.folder import Folder, FolderWriter
from steersearch.training.data.mask_codec import encode_rle
from steersearch.training.data.samples import Boxed, Boxes, Sample, Skip
from tests.published import SIZE, box_mask, outline, put_picture

MASK = box_mask(10, 5, 30, 25)


def put_lines(folder: Path, *lines: object, name: str = "expressions.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    texts = (line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    (folder / name).write_bytes(b"\n".join(texts))
    return folder


def row(**fields: Any) -> dict[str, Any]:
    return {"image": "photos/one.png", "expression": "the wrench", "mask": encode_rle(MASK)} | fields


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put_picture(tmp_path / "data/photos/one.png")
    put_picture(tmp_path / "data/two.jpg", (30, 50))
    (tmp_path / "data/masks").mkdir()
    Image.fromarray(MASK).save(tmp_path / "data/masks/one.png")
    return tmp_path / "data"


def test_every_kind_of_mask(folder: Path) -> None:
    counts = [40 * 10 + 5] + [20, 20] * 19 + [20, 40 * 30 + 15]
    put_lines(
        folder,
        row(mask="masks/one.png", split="train", id="a"),
        row(mask={"size": [40, 60], "counts": counts}),
        row(),
        row(mask=[outline(10, 5, 30, 25)], expression="  the  left\twrench ", split="val"),
        row(image="two.jpg", mask=None, box=[1, 2, 3, 4.5]),
        row(image="two.jpg", mask=None, box=[[1, 2, 3, 4], [5, 6, 7, 8]]),
    )
    source = Folder(folder)
    read = [source.read(i) for i in range(len(source))]
    assert source.skips == []
    for found in read[:4]:
        assert isinstance(found, Sample)
        assert (found.mask == MASK).all()
        assert found.image == folder / "photos/one.png"
    assert [found.expression for found in read[:4]] == ["the wrench"] * 3 + ["the left wrench"]
    assert [found.split for found in read] == ["train"] * 3 + ["val"] + ["train"] * 2
    assert {found.source for found in read} == {"data"}
    assert [found.boxes.tolist() for found in read[4:] if isinstance(found, Boxed)] == [
        [[1, 2, 3, 4.5]],
        [[1, 2, 3, 4], [5, 6, 7, 8]],
    ]
    assert source.row_id(0) == "a"
    assert [s.expression for s in Folder(folder, split="val")] == ["the left wrench"]


def test_odd_lines(folder: Path) -> None:
    put_lines(
        folder,
        b"\xef\xbb\xbf" + json.dumps(row()).encode() + b"\r",
        b"",
        b"no JSON",
        b"[1, 2]",
        b'{"image": "two.jpg", "expression": "gr\xfcn", "box": [1, 2, 3, 4]}',
        row(expression=" "),
        row(expression=None),
        row(expression=["a"]),
        row(image="missing.jpg"),
        row(image="../outside.jpg"),
        row(image="/etc/hostname"),
        row(image=7),
        row(mask=None),
        row(split=3),
        b"[" * 10_000,
        row(image="photos"),
    )
    source = Folder(folder)
    assert len(source) == 1
    assert {skip.row: skip.reason for skip in source.skips} == {
        "line 3": "it is not JSON",
        "line 4": "it is not a JSON object",
        "line 5": "its expression is not UTF-8",
        "line 6": "its expression is empty",
        "line 7": "its expression is missing",
        "line 8": "its expression is not a text",
        "line 9": "its picture missing.jpg was not found",
        "line 10": "the path '../outside.jpg' leads out of the folder",
        "line 11": "the path '/etc/hostname' leads out of the folder",
        "line 12": "it names no image",
        "line 13": "it has neither mask nor box",
        "line 14": "its split is not a text",
        "line 15": "it is not JSON",
        "line 16": "its picture photos was not found",
    }
    assert all(skip.path == folder / "expressions.jsonl" for skip in source.skips)
    assert isinstance(source.read(0), Sample)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"mask": "masks/none.png"}, "was not found"),
        ({"mask": "../masks/one.png"}, "leads out of the folder"),
        ({"mask": "two.jpg"}, "its mask is not a PNG"),
        ({"mask": 7}, "it has no mask"),
        ({"mask": []}, "its mask is empty"),
        ({"mask": {"size": [40, 60], "counts": [2400]}}, "its mask is empty"),
        ({"mask": {"size": [4, 6], "counts": [0, 24]}}, "its mask is 6 × 4 pixels, its picture 60 × 40"),
        ({"mask": None, "box": [1, 2, 3]}, "its box is not"),
        ({"mask": None, "box": "x"}, "its box is not"),
        ({"mask": None, "box": []}, "its box is not"),
        ({"mask": None, "box": [1, 2, -3, 4]}, "its box is empty"),
        ({"mask": None, "box": [1, 2, float("nan"), 4]}, "its box is empty"),
    ],
)
def test_rows_whose_mask_cannot_be_used(folder: Path, fields: dict[str, Any], reason: str) -> None:
    source = Folder(put_lines(folder, row(**fields)))
    found = source.read(0)
    assert isinstance(found, Skip)
    assert (found.path, found.row) == (folder / "expressions.jsonl", "line 1")
    assert reason in found.reason


def test_a_file_that_changes_under_the_reader(folder: Path) -> None:
    source = Folder(put_lines(folder, row(), row()))
    put_lines(folder, row(expression="now it is longer"))
    assert isinstance(source.read(1), Skip)
    (folder / "expressions.jsonl").unlink()
    found = source.read(0)
    assert isinstance(found, Skip)
    assert found.reason == "No such file or directory"


def test_several_files_and_pictures_elsewhere(folder: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    put_lines(made, row(expression="third"), name="expressions-00001.jsonl")
    put_lines(made, row(expression="second"), name="expressions-00000.jsonl")
    put_lines(made, row(expression="first"))
    assert len(Folder(made)) == 0
    (made / "source.json").write_text(json.dumps({"name": "tools", "images": "../data"}))
    source = Folder(made)
    assert [(s.expression, s.source) for s in source] == [
        ("first", "tools"),
        ("second", "tools"),
        ("third", "tools"),
    ]
    assert len(Folder(made, tmp_path)) == 0
    (made / "source.json").write_text(json.dumps({"images": "../none"}))
    with pytest.raises(DataError, match="no such folder of pictures"):
        Folder(made)
    assert len(list(Folder(made, folder))) == 3
    (made / "source.json").write_text("{")
    with pytest.raises(DataError, match=r"source\.json: cannot be read"):
        Folder(made)


def test_what_is_no_folder_of_ours(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no expressions\.jsonl in it"):
        Folder(tmp_path)


@given(
    st.lists(
        st.tuples(st.text(min_size=1).filter(str.strip), st.integers(0, 59), st.integers(1, 60)), max_size=4
    )
)
def test_what_is_written_is_read(folder: Path, rows: list[tuple[str, int, int]]) -> None:
    path = folder / "expressions-7.jsonl"
    rows = [(text, a, b) for text, a, b in rows if a < b and text.isprintable()]
    with FolderWriter(path) as writer:
        for text, left, right in rows:
            writer.add("photos/one.png", text, box_mask(left, 0, right, 40), split="val", row_id=text)
        writer.add("two.jpg", "a box", Boxes(np.array([[1, 2, 3, 4.5]], np.float32)))
    source = Folder(folder)
    samples = list(source)
    assert [s.expression for s in samples] == [" ".join(text.split()) for text, _, _ in rows]
    for sample, (_, left, right) in zip(samples, rows, strict=True):
        assert (sample.mask == box_mask(left, 0, right, 40)).all()
    assert isinstance(source.read(len(rows)), Boxed)
    path.unlink()


def test_a_writer_that_fails_leaves_nothing(folder: Path) -> None:
    def write() -> None:
        with FolderWriter(folder / "expressions.jsonl") as writer:
            writer.add("photos/one.png", "a", MASK)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write()
    assert sorted(path.name for path in folder.iterdir()) == ["masks", "photos", "two.jpg"]


def test_readers_keep_little(folder: Path) -> None:
    put_lines(folder, *[row(expression=f"the wrench number {i}", pad="x" * 2000) for i in range(3000)])
    source = Folder(folder)
    assert len(pickle.dumps(source)) < 110 * len(source)
    assert source[2999].mask.shape == SIZE


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_picture_with_a_damaged_exif_block_is_used(folder: Path) -> None:
    Image.new("RGB", (60, 40)).save(
        folder / "photos/exif.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01" * 40
    )
    source = Folder(put_lines(folder, row(image="photos/exif.jpg")))
    assert isinstance(source.read(0), Sample)


def test_the_documented_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parent.parent / "docs/training.md").read_text("utf-8")
    lines, python = (text.split(f"```{language}\n")[1].split("```")[0] for language in ("json", "python"))
    monkeypatch.chdir(tmp_path)
    put_picture(tmp_path / "tools/photos/bench.jpg", (480, 640))
    (tmp_path / "tools/masks").mkdir()
    Image.fromarray(box_mask(9, 9, 99, 99, (480, 640))).save(tmp_path / "tools/masks/bench-wrench.png")
    (tmp_path / "tools/expressions-1.jsonl").write_text(lines, "utf-8")
    rows = [Folder(tmp_path / "tools").read(i) for i in range(4)]
    assert [row.expression for row in rows if not isinstance(row, Skip)] == [
        "the wrench", "the left nut", "the bolt", "the hammer",
    ]  # fmt: skip
    exec(compile(python, "docs/training.md", "exec"), {})
    assert len(list(Folder(tmp_path / "tools"))) == 4
