"""Visual Genome by MDETR: phrases with boxes, joined with masks that were made from these."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from steersearch.core.errors import ArgumentError, DataError, SampleError
from steersearch.training.data.folder import FolderWriter
from steersearch.training.data.importers.visual_genome import VisualGenome, expressions
from steersearch.training.data.samples import Boxed, Sample
from steersearch.training.data.sources import open_source
from tests.published import box_mask, mdetr_annotation, mdetr_image, put_mdetr, put_picture

CAPTION = "Man wearing a red hat. Is the dog on the grass? two people near a car. What is it?"


def span(*words: str) -> tuple[tuple[int, int], ...]:
    return tuple((CAPTION.index(word), CAPTION.index(word) + len(word)) for word in words)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    put_picture(tmp_path / "VG_100K/2.jpg")
    put_picture(tmp_path / "VG_100K_2/1.jpg")
    images = [
        mdetr_image(0, "COCO_train2014_000000000009.jpg", "A dog.", "coco"),
        mdetr_image(1, "1.jpg", CAPTION),
        mdetr_image(2, "2.jpg", "the sky"),
        mdetr_image(3, "3.jpg", "its picture is missing. A second one. "),
        {"id": 4, "file_name": "2.jpg", "caption": None},
    ]
    annotations = [
        mdetr_annotation(0, 0, [1, 1, 5, 5], [[0, 5]]),
        mdetr_annotation(1, 2, [0, 0, 60, 20], [[0, 7]]),
        mdetr_annotation(2, 1, [5, 5, 10, 20], span("Man")),
        mdetr_annotation(3, 1, [6, 5, 8, 4], span("red", "hat")),
        mdetr_annotation(4, 1, [20, 20, 10, 10], span("two", "people")),
        mdetr_annotation(5, 1, [30, 20, 10, 10], span("people", "two")),
        mdetr_annotation(6, 1, [40, 20, 15.5, 10.25], span("car")),
        mdetr_annotation(7, 1, [1, 30, 9, 9], span("dog")),
        mdetr_annotation(8, 1, [1, 30, 9, 9], span("What")),
        mdetr_annotation(9, 1, [1, 30, 9, 9], []),
        mdetr_annotation(10, 3, [1, 30, 9, 9], [[0, 3]]),
        mdetr_annotation(11, 3, [1, 30, 9, 9], [[25, 30]]),
        mdetr_annotation(12, 77, [1, 30, 9, 9], [[0, 3]]),
        mdetr_annotation(13, 1, [1, 30, 9, 9], [[0, 3000]]),
        {"id": 14, "image_id": 1, "bbox": [1, 2, 3]},
        mdetr_annotation(15, 2, [3, 3, 0, 5], [[4, 7]]),
    ]
    return put_mdetr(tmp_path / "final_mixed_train.json", images, annotations)


def test_phrases_with_their_boxes(file: Path) -> None:
    source = VisualGenome(file)
    rows = [source.read(i) for i in range(len(source))]
    assert [
        (row.image.parent.name, row.expression, row.boxes.tolist()) for row in rows if isinstance(row, Boxed)
    ] == [
        ("VG_100K_2", "Man wearing a red hat", [[5, 5, 10, 20]]),
        ("VG_100K_2", "red hat", [[6, 5, 8, 4]]),
        ("VG_100K_2", "dog", [[1, 30, 9, 9]]),
        ("VG_100K_2", "two people near a car", [[20, 20, 10, 10], [30, 20, 10, 10]]),
        ("VG_100K_2", "car", [[40, 20, 15.5, 10.25]]),
        ("VG_100K", "the sky", [[0, 0, 60, 20]]),
    ]
    assert [(row.row, row.split, row.source) for row in map(source.row, range(2))] == [
        ("annotation 2", "train", "visual genome"),
        ("annotation 3", "train", "visual genome"),
    ]
    with pytest.raises(SampleError, match="it has boxes and no mask; make masks: steersearch train masks"):
        source[0]
    assert list(source) == []


def test_what_cannot_be_used(file: Path) -> None:
    source = VisualGenome(file)
    assert sorted((s.reason, s.rows) for s in source.skips) == [
        ("annotations: a field is missing or wrong", 1),
        ("annotations: its image 77 is not in the file before it", 1),
        ("annotations: its tokens_positive are not spans of the caption", 1),
        ("images: no file_name and caption", 1),
        ("its picture 3.jpg was not found", 2),
        ("the phrase is empty or a question word", 2),
    ]
    last = source.read(len(source) - 1)
    assert str(last) == f"{file}, annotation 15: its box is empty"


def test_masks_are_joined_by_the_rows_names(file: Path, tmp_path: Path) -> None:
    hat = box_mask(6, 5, 14, 9)
    with FolderWriter(tmp_path / "masks/expressions-00000.jsonl") as rows:
        rows.add("VG_100K_2/1.jpg", "red hat", hat, row_id="annotation 3")
        rows.add("VG_100K_2/1.jpg", "else", hat, row_id="annotation 999")
    (tmp_path / "masks/source.json").write_text('{"images": ".."}')
    source = open_source(file, images=tmp_path, masks=tmp_path / "masks")
    assert len(source) == len(VisualGenome(file))
    for again in (source, pickle.loads(pickle.dumps(source))):
        (sample,) = list(again)
        assert isinstance(sample, Sample)
        assert sample.expression == "red hat"
        assert (sample.mask == hat).all()
    with pytest.raises(ArgumentError, match="only visual-genome"):
        open_source(tmp_path / "masks", images=tmp_path, masks=tmp_path)


@pytest.mark.parametrize(("image", "phrase"), [("VG_100K/2.jpg", "red hat"), ("VG_100K_2/1.jpg", "blue hat")])
def test_masks_of_another_file_are_refused(file: Path, tmp_path: Path, image: str, phrase: str) -> None:
    with FolderWriter(tmp_path / "masks/expressions-00000.jsonl") as rows:
        rows.add(image, phrase, box_mask(6, 5, 14, 9), row_id="annotation 3")
    (tmp_path / "masks/source.json").write_text('{"images": ".."}')
    with pytest.raises(DataError, match=f'annotation 3 is "{phrase}" of .*, here "red hat" of 1.jpg'):
        VisualGenome(file, masks=tmp_path / "masks")


def test_boxes_of_an_id_that_two_captions_have_stay_with_the_first(tmp_path: Path) -> None:
    put_picture(tmp_path / "1.jpg")
    images = [mdetr_image(1, "1.jpg", "a dog"), mdetr_image(1, "1.jpg", "a red hat")]
    annotations = [mdetr_annotation(1, 1, [5, 5, 10, 20], [[0, 5]])]
    source = VisualGenome(put_mdetr(tmp_path / "train.json", images, annotations))
    assert [source.row(i).expression for i in range(len(source))] == ["a dog"]
    assert [skip.reason for skip in source.skips] == ["images: an image before it has its id, 1"]


@pytest.mark.parametrize(
    ("caption", "phrases", "expected"),
    [
        ("a dog", [((2, 5),)], ["a dog"]),
        ("Is there a dog?", [((11, 14),)], ["dog"]),
        ("One. Two, and three. ", [((0, 3),), ((5, 8),), ((14, 19),)], ["One", "Two, and three", "three"]),
        ("a 3.5 m pole by it. ", [((8, 12),)], ["a 3.5 m pole by it"]),
        ("it", [((0, 2),)], [None]),
        ("...", [((0, 3),)], [None]),
        ("", [()], [None]),
    ],
)
def test_expressions(
    caption: str, phrases: list[tuple[tuple[int, int], ...]], expected: list[str | None]
) -> None:
    assert list(expressions(caption, phrases).values()) == expected


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    put_picture(tmp_path / "1.jpg")
    with pytest.raises(DataError, match="not captions in MDETR's layout"):
        VisualGenome(put_mdetr(tmp_path / "final_mixed_train.json", [], []))
    file = put_mdetr(tmp_path / "final_mixed_train.json", [mdetr_image(0, "1.jpg", "a dog")], [])
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match="may be truncated"):
        VisualGenome(file)


def test_the_index_is_small(tmp_path: Path) -> None:
    put_picture(tmp_path / "1.jpg")
    caption = "a man with a hat. " * 12
    images = [mdetr_image(i, "1.jpg", caption) for i in range(400)]
    spans = [[[18 * k, 18 * k + 5]] for k in range(12)]
    annotations = [
        mdetr_annotation(12 * i + k, i, [1, 1, 5, 5], spans[k]) for i in range(400) for k in range(12)
    ]
    source = VisualGenome(put_mdetr(tmp_path / "final_mixed_train.json", images, annotations))
    assert len(source) == 4800
    assert len(pickle.dumps(source)) < 100 * len(source)
    assert np.unique([source.row(i).expression for i in range(24)]).tolist() == ["a man with a hat"]
