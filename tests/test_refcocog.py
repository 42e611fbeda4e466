"""refcocog: the published layout with odd rows, figures by hand, the stand-in."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steersearch.benchmarks.harness.benchmark import DataMissingError
from steersearch.benchmarks.harness.catalogue import card
from steersearch.benchmarks.harness.viewing import evenly
from steersearch.benchmarks.paper import refcocog_world
from steersearch.benchmarks.paper.refcocog import create
from steersearch.benchmarks.paper.refcocog_data import read_refcocog
from steersearch.core.errors import BenchmarkError
from tests.painted_method import COLOURS, PaintedMethod
from tests.published import coco_annotation, coco_image, outline, put_refcoco, ref

TRAIN = "images/mscoco/images/train2014"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures 60 x 40: black with a red box on the left, and a small blue one; good rows among bad ones."""
    (tmp_path / TRAIN).mkdir(parents=True)
    for number in (1, 2):
        picture = Image.new("RGB", (60, 40))
        picture.paste(COLOURS["red"], (0, 0, 30, 40))
        picture.paste(COLOURS["blue"], (45, 10, 47, 12))
        picture.save(tmp_path / TRAIN / f"COCO_train2014_{number:012d}.jpg", quality=100, subsampling=0)
    annotations = [
        coco_annotation(11, 1, [outline(0, 0, 30, 40)]),
        coco_annotation(12, 2, [outline(0, 0, 30, 40)]),
        coco_annotation(13, 2, [outline(45, 10, 47, 12)]),
        coco_annotation(14, 2, []),
    ]
    refs = [
        ref(1, 11, 1, ["the red box"], "train"),
        ref(2, 12, 2, ["the red box", "a box that is as red as a box can possibly be"], "val"),
        ref(3, 13, 2, ["the blue dot"], "val"),
        ref(4, 14, 2, ["its mask is empty"], "val"),
        ref(5, 77, 2, ["its annotation is unknown"], "val"),
        ref(6, 12, 2, ["another red one"], "test"),
    ]
    return put_refcoco(tmp_path, refs, [coco_image(i) for i in (1, 2)], annotations)


def test_refcocog_as_published(folder: Path) -> None:
    data = create(card("refcocog").settings({})).load(folder, None)
    assert [one.text for one in data.measured] == [
        "the red box",
        "a box that is as red as a box can possibly be",
        "the blue dot",
    ]
    assert [one.text for one in data.tuning] == ["the red box"]
    assert len(data.left_out) == 2
    assert "77 is not in instances.json" in data.left_out[0]
    assert data.left_out[1] == "row 3: its mask is empty"
    assert data.measured[0].picture().size == (60, 60)
    assert [one.text for one in read_refcocog(folder, "test", 5).measured] == ["another red one"]


def test_figures_by_hand(folder: Path) -> None:
    outcome = create({"split": "val"}).evaluate(PaintedMethod(4), read_refcocog(folder, "val", None))
    # the red box is the left half of 4 x 4 patches; the dot covers half of none, but most of one, and is found in it
    assert outcome.metrics["mean_iou"] == outcome.metrics["cumulative_iou"] == 100
    assert outcome.metrics["over_half"] == outcome.metrics["pointing"] == 100
    assert outcome.metrics["small"] == 1
    assert outcome.settings["tau"] == pytest.approx(math.exp(-outcome.settings["margin"]))
    assert [(row["words"], row["expressions"]) for row in outcome.rows] == [("1 to 4", 2), ("9 and more", 1)]


def test_a_wrong_place_is_no_overlap(folder: Path) -> None:
    method = PaintedMethod(4, {"red": "blue", "blue": "red"})
    metrics = create({"split": "val"}).evaluate(method, read_refcocog(folder, "val", None)).metrics
    assert metrics["pointing"] == 0
    assert metrics["mean_iou"] < 60


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    benchmark = create({"split": "val"})
    for place in (None, tmp_path / "none"):
        with pytest.raises(DataMissingError, match="steersearch bench refcocog --world"):
            benchmark.load(place, None)
    (folder / "instances.json").write_text("{}")
    with pytest.raises(BenchmarkError, match=r"instances\.json"):
        benchmark.load(folder, None)


def test_rows_at_equal_distances() -> None:
    assert evenly(range(10), 4) == [0, 2, 5, 7]
    assert evenly(range(3), 9) == evenly(range(3), None) == [0, 1, 2]


def test_the_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    small = replace(refcocog_world.CONFIG, photos=4, drawn_per_kind=1, plates=1)
    monkeypatch.setattr(refcocog_world, "CONFIG", small)
    monkeypatch.setattr(refcocog_world, "TUNING", 2)
    data = refcocog_world.build(3)
    assert (data.name, data.n, len(data.tuning)) == ("refcocog-world", 3, 8)
    assert all(one.mask.any() and one.mask.shape == (160, 160) for one in data.measured)
    assert not {one.index for one in data.measured} & {one.index for one in data.tuning}
    assert np.asarray(data.measured[0].picture()).shape == (160, 160, 3)
