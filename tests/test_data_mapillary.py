"""Describe Anything's regions: the published layout, and odd regions."""

from __future__ import annotations

import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest

from steersearch.core.errors import DataError
from steersearch.training.data.importers.mapillary import Mapillary
from steersearch.training.data.mask_codec import encode_rle
from steersearch.training.data.samples import Skip
from tests.published import box_mask, put_json, put_picture

MASK = box_mask(3, 4, 20, 30)
CAPTION = "A tall street lamp with a curved arm. Its pole is grey\nand slightly rusty."


def region(number: int, image: str = "a1b2.jpg", **fields: Any) -> dict[str, Any]:
    return {
        "ann_id": number, "img_id": image.rpartition(".")[0], "image": f"training/images/{image}",
        "tar_file": "00000.tar", "mask_rle": encode_rle(MASK), "caption": CAPTION,
    } | fields  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put_picture(tmp_path / "Mapillary/images/a1b2.jpg")
    put_json(
        tmp_path / "Mapillary/annotations.json",
        {
            "a1b2": [
                region(1),
                region(2, caption=""),
                region(3, mask_rle=None),
                region(4, mask_rle={"size": [40, 60], "counts": "!"}),
                region(5, image=""),
                "no region",
            ],
            "c3d4": [region(6, "c3d4.jpg"), region(7, "c3d4.jpg")],
            "e5f6": [],
            "note": "no list",
        },
    )
    return tmp_path / "Mapillary"


def test_a_row_per_region(folder: Path) -> None:
    source = Mapillary(folder)
    for again in (source, Mapillary(folder / "annotations.json"), pickle.loads(pickle.dumps(source))):
        (sample,) = list(again)
        assert (
            sample.expression == "A tall street lamp with a curved arm. Its pole is grey and slightly rusty."
        )
        assert (sample.image, sample.image_id, sample.split) == (folder / "images/a1b2.jpg", "a1b2", "train")
        assert sample.source == "mapillary"
        assert (sample.mask == MASK).all()


def test_what_cannot_be_used(folder: Path) -> None:
    source = Mapillary(folder)
    assert [(s.row, s.reason) for s in source.skips] == [
        ("image a1b2, region 2", "its expression is empty"),
        ("image a1b2, region 5", "it names no image"),
        ("image a1b2, region None", "it is not a region (a JSON object)"),
        ("image c3d4, region 6", "its picture c3d4.jpg was not found"),
        ("image c3d4, region 7", "its picture c3d4.jpg was not found"),
        ("image note, region None", "it is not a region (a JSON object)"),
    ]
    read = [source.read(i) for i in range(len(source))]
    assert [(s.row, s.reason) for s in read if isinstance(s, Skip)] == [
        ("image a1b2, region 3", "it has no mask"),
        ("image a1b2, region 4", "its run-length code is damaged (a letter that cannot be in one)"),
    ]


def test_the_pictures_of_mapillary_vistas_itself(folder: Path, tmp_path: Path) -> None:
    put_picture(tmp_path / "vistas/training/images/c3d4.jpg")
    put_picture(tmp_path / "vistas/validation/images/a1b2.jpg")
    assert [s.image.parent.parent.name for s in Mapillary(folder, tmp_path / "vistas")] == [
        "validation", "training", "training",
    ]  # fmt: skip


def test_pictures_that_are_still_packed(folder: Path) -> None:
    with tarfile.open(folder / "images/00000.tar", "w") as tar:
        tar.add(folder / "images/a1b2.jpg", "a1b2.jpg")
    (folder / "images/a1b2.jpg").unlink()
    with pytest.raises(DataError, match=r"00000\.tar: its pictures are still packed"):
        Mapillary(folder)


def test_there_is_no_other_split(folder: Path) -> None:
    assert len(Mapillary(folder, split="train")) == len(Mapillary(folder))
    with pytest.raises(DataError, match='no split "val"; it has: train'):
        Mapillary(folder, split="val")
