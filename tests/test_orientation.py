"""EXIF's orientations: a picture and its mask or box stay together, whichever way the picture is read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from steersearch.training.data.folder import Folder
from steersearch.training.data.importers.lvis import Lvis
from steersearch.training.data.importers.refcoco import RefCoco
from steersearch.training.data.importers.steervit import HubMasks
from steersearch.training.data.importers.visual_genome import VisualGenome
from steersearch.training.data.mask_codec import Mask, encode_rle
from steersearch.training.data.orientation import Frame
from steersearch.training.data.samples import Boxed, Reading, Sample, Source
from tests.published import (
    box_mask,
    coco_annotation,
    coco_image,
    lvis_category,
    mdetr_annotation,
    mdetr_image,
    outline,
    png,
    put_json,
    put_mdetr,
    put_parquet,
    put_refcoco,
    ref,
)  # fmt: skip

ORIENTATIONS = range(1, 9)
BOX = (6, 4, 30, 13)  # left, top, right, bottom of the thing, on the picture as it is stored
SIZES = [(40, 60), (50, 50)]  # (H, W); in a square no size tells how a mask was drawn


def put_thing(path: Path, size: tuple[int, int], orientation: int) -> Mask:
    """A picture, dark but for the thing, stored under this orientation. Returns the thing's mask on it as stored."""
    mask = box_mask(*BOX, size)
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.where(mask[..., None], 230, 20).astype(np.uint8).repeat(3, axis=2))
    image.save(path, "PNG", exif=exif)  # under any suffix: exact to the pixel
    return mask


def as_shown(mask: Mask, orientation: int) -> Mask:
    """By Pillow."""
    image = Image.fromarray(mask)
    exif = image.getexif()
    exif[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


def hub(root: Path, size: tuple[int, int], orientation: int) -> Source:
    name = "COCO_train2014_000000000001"
    mask = put_thing(root / f"coco/train2014/{name}.jpg", size, orientation)
    row = {"image_id": name, "mask": png(mask), "referential_expression": "it", "dataset": "refcoco"}
    return HubMasks(put_parquet(root / "train.parquet", [row]), root)


def lvis(root: Path, size: tuple[int, int], orientation: int) -> Source:
    put_thing(root / "train2014/COCO_train2014_000000000001.jpg", size, orientation)
    content = {
        "images": [coco_image(1, size)],
        "annotations": [coco_annotation(1, 1, [outline(*BOX)])],
        "categories": [lvis_category(1, "thing")],
    }
    return Lvis(put_json(root / "lvis_v1_train.json", content))


def refcoco(root: Path, size: tuple[int, int], orientation: int) -> Source:
    put_thing(root / "images/mscoco/images/train2014/COCO_train2014_000000000001.jpg", size, orientation)
    annotation = coco_annotation(11, 1, encode_rle(box_mask(*BOX, size)))
    return RefCoco(put_refcoco(root, [ref(1, 11, 1, ["it"])], [coco_image(1, size)], [annotation]))


def folder(root: Path, size: tuple[int, int], orientation: int, kind: str = "png") -> Source:
    """Ours: masks are drawn on the picture as a viewer shows it."""
    shown = as_shown(put_thing(root / "a.png", size, orientation), orientation)
    Image.fromarray(shown).save(root / "mask.png")
    left, top, right, bottom = Image.fromarray(shown).getbbox() or (0, 0, 0, 0)
    masks = {"png": "mask.png", "code": encode_rle(shown), "outline": [outline(left, top, right, bottom)]}
    line = {"image": "a.png", "expression": "it", "mask": masks[kind]}
    (root / "expressions.jsonl").write_text(json.dumps(line))
    return Folder(root)


def together(source: Source, frame: Frame) -> bool:
    """Whether the mask lies exactly on the thing that is seen."""
    source.read_as(Reading(frame))
    sample = source[0]
    return np.array_equal(np.asarray(source.picture(0))[..., 0] > 100, sample.mask)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("frame", ["shown", "stored"])
@pytest.mark.parametrize("make", [hub, lvis, refcoco, folder])
def test_a_mask_lies_on_its_thing(make: object, frame: Frame, size: tuple[int, int], tmp_path: Path) -> None:
    for orientation in ORIENTATIONS:
        source: Source = make(tmp_path / str(orientation), size, orientation)  # type: ignore[operator]
        assert together(source, frame), orientation


@pytest.mark.parametrize("kind", ["code", "outline"])
def test_codes_and_outlines_of_ones_own_are_drawn_on_what_a_viewer_shows(kind: str, tmp_path: Path) -> None:
    for orientation in ORIENTATIONS:
        for size in SIZES:
            place = tmp_path / f"{orientation}-{size[0]}"
            assert together(folder(place, size, orientation, kind), "shown"), orientation


def test_a_mask_of_the_stored_size_is_one_of_the_stored_picture(tmp_path: Path) -> None:
    """Where EXIF turns by a quarter the size tells, whatever the format says."""
    for orientation in (5, 6, 7, 8):
        source = folder(tmp_path / str(orientation), SIZES[0], orientation)
        stored = box_mask(*BOX, SIZES[0])
        Image.fromarray(stored).save(tmp_path / str(orientation) / "mask.png")
        assert together(source, "shown")
        assert together(source, "stored")


def test_what_is_stored_is_read_as_it_is(tmp_path: Path) -> None:
    """As the released code does: Pillow's own pixels, and the expression's own white space."""
    source = hub(tmp_path, SIZES[0], 6)
    source.read_as(Reading("stored"))
    assert np.array_equal(
        np.asarray(source.picture(0)), np.asarray(Image.open(source.row(0).image).convert("RGB"))
    )
    name = "COCO_train2014_000000000001"
    row = {
        "image_id": name,
        "mask": png(box_mask(*BOX)),
        "referential_expression": " a  pole\n",
        "dataset": "lvis",
    }
    file = put_parquet(tmp_path / "train.parquet", [row])
    for frame, said in (("stored", " a  pole\n"), ("shown", "a pole")):
        source = HubMasks(file, tmp_path)
        source.read_as(Reading(frame))  # type: ignore[arg-type]
        assert source[0].expression == said


def test_boxes_are_turned_with_their_picture(tmp_path: Path) -> None:
    left, top, right, bottom = BOX
    for orientation in ORIENTATIONS:
        root = tmp_path / str(orientation)
        stored = put_thing(root / "VG_100K/1.jpg", SIZES[0], orientation)
        annotation = mdetr_annotation(1, 1, (left, top, right - left, bottom - top), [[0, 5]])
        source = VisualGenome(
            put_mdetr(root / "final.json", [mdetr_image(1, "1.jpg", "a man.")], [annotation])
        )
        found = source.read(0)
        assert isinstance(found, Boxed)
        x, y, wide, high = found.boxes[0].tolist()
        box = Image.fromarray(as_shown(stored, orientation)).getbbox()
        assert (x, y, x + wide, y + high) == box, orientation


def test_an_empty_mask_is_skipped_or_kept(tmp_path: Path) -> None:
    name = "COCO_train2014_000000000001"
    put_thing(tmp_path / f"coco/train2014/{name}.jpg", SIZES[0], 1)
    row = {
        "image_id": name,
        "mask": png(np.zeros(SIZES[0], np.bool_)),
        "referential_expression": "it",
        "dataset": "a",
    }
    source = HubMasks(put_parquet(tmp_path / "train.parquet", [row]), tmp_path)
    assert getattr(source.read(0), "reason", "") == "its mask is empty"
    source.read_as(Reading(keep_empty=True))
    found = source.read(0)
    assert isinstance(found, Sample)
    assert found.absent
    assert found.mask.shape == SIZES[0]
