"""mosaic: VOC2012 as it is published, composites on disk, figures worked out by hand, the stand-in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steersearch.benchmarks.harness.benchmark import DataMissingError, run
from steersearch.benchmarks.harness.catalogue import card
from steersearch.benchmarks.paper import mosaic_world, published
from steersearch.benchmarks.paper.mosaic import MosaicBenchmark, create
from steersearch.benchmarks.paper.mosaic_data import (
    CLASSES,
    TILE,
    read_mosaics,
    read_voc,
    stitch,
    stitch_labels,
    write_mosaics,
)
from steersearch.core.errors import BenchmarkError
from tests.painted_method import COLOURS, PaintedMethod

CAR, CAT, BUS = (CLASSES.index(name) + 1 for name in ("car", "cat", "bus"))
WORDS = {"car": "red", "cat": "blue", "bus": "green"}  # what the painted method takes for the class


def write_voc(root: Path) -> Path:
    """Five pictures in VOC2012's layout; the list has blank lines, and pictures are also grey, and one only void."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    pictures = {
        "2007_000033": ((80, 80), [((0, 0, 40, 80), CAR, "red"), ((40, 0, 80, 80), 0, "black")]),
        "2007_000042": ((80, 40), [((0, 0, 80, 40), CAT, "blue")]),
        "2007_000061": ((40, 80), [((0, 0, 40, 80), CAR, "red")]),
        "2007_000123": ((60, 60), [((0, 0, 60, 60), 255, "white")]),
        "2007_000129": ((64, 64), [((0, 0, 64, 64), BUS, "green")]),
    }
    for name, (size, areas) in pictures.items():
        picture, labels = Image.new("RGB", size), Image.new("P", size)
        labels.putpalette([i % 256 for i in range(768)])
        for box, label, colour in areas:
            picture.paste(COLOURS[colour], box)
            labels.paste(label, box)
        if name == "2007_000123":
            picture = picture.convert("L")
        picture.save(root / f"JPEGImages/{name}.jpg", quality=95)
        labels.save(root / f"SegmentationClass/{name}.png")
    Image.new("RGB", (9, 9)).save(root / "JPEGImages/2008_000001.jpg")  # not in the list
    (root / "ImageSets/Segmentation/val.txt").write_text("\n".join([*pictures, "", " "]) + "\n")
    return root


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "VOCdevkit/VOC2012")


def test_composites_of_voc(voc: Path) -> None:
    data = read_voc(voc.parent.parent)
    assert [mosaic.classes for mosaic in data.mosaics] == [tuple(sorted((CAR, CAT))), (BUS,)]
    picture, labels = data.mosaics[0].picture(), data.mosaics[0].labels()
    assert picture.size == (2 * TILE, 2 * TILE) == labels.shape
    assert (labels[:TILE, : TILE // 2] == CAR).all()
    assert (labels[:TILE, TILE // 2 : TILE] == 0).all()
    assert (labels[: TILE // 4, TILE:] == 0).all()  # a wide picture lies in the middle of its tile
    assert (labels[TILE // 4 : 3 * TILE // 4, TILE:] == CAT).all()
    assert (labels[TILE:, : TILE // 4] == 0).all()
    assert (labels[TILE:, TILE // 4 : 3 * TILE // 4] == CAR).all()
    assert (labels[TILE:, TILE:] == 255).all()
    assert picture.getpixel((TILE + 10, TILE // 2))[2] > 200
    assert picture.getpixel((10, TILE + 10)) == (0, 0, 0)
    assert picture.getpixel((2 * TILE - 9, 2 * TILE - 9)) == pytest.approx((255, 255, 255), abs=3)
    assert (data.mosaics[1].labels()[:TILE, TILE:] == 0).all()  # the last composite has one picture


def test_figures_by_hand(voc: Path) -> None:
    benchmark = create(card("mosaic").settings({}))
    outcome = benchmark.evaluate(PaintedMethod(8, WORDS), benchmark.load(voc, None))
    # red is where the cars are, blue the cat, green the bus: nothing else has these colours
    assert outcome.metrics["ap"] == outcome.metrics["ap_head"] == outcome.metrics["ap_class_mean"] == 100
    assert outcome.metrics["pairs"] == outcome.metrics["pairs_any_cover"] == 3
    # of 64 patches: 8 + 8 of the cars, 8 of the cat, 16 of the bus
    assert outcome.metrics["chance"] == pytest.approx(100 * (16 + 8 + 16) / 64 / 3)
    assert outcome.intervals["ap"] == pytest.approx((100 * 3 / (3 + 1.96**2), 100), abs=0.01)  # Wilson
    assert [row["class"] for row in outcome.rows] == ["bus", "car", "cat"]
    # under "the cat", cars score lowest of all but the white tile
    assert outcome.metrics["ap_wrong_prompt"] < 40


def test_what_covers_less_than_half_of_each_patch_counts_only_by_any_cover(voc: Path) -> None:
    labels = Image.new("L", (40, 80))
    labels.paste(CAR, (0, 0, 8, 8))
    labels.save(voc / "SegmentationClass/2007_000061.png")
    Image.new("L", (80, 80)).save(voc / "SegmentationClass/2007_000033.png")
    benchmark = MosaicBenchmark("the {}")
    outcome = benchmark.evaluate(PaintedMethod(8, WORDS), benchmark.load(voc, None))
    assert (outcome.metrics["pairs"], outcome.metrics["pairs_any_cover"]) == (2, 3)
    assert [row.get("ap") for row in outcome.rows] == [100, None, 100]  # bus, car, cat
    with pytest.raises(BenchmarkError, match="no class covers half of a patch"):
        benchmark.evaluate(PaintedMethod(1, WORDS), benchmark.load(voc, None))


def test_prompts_follow_the_template(voc: Path) -> None:
    benchmark = create(card("mosaic").settings({"template": "a photo of a {}"}))
    method = PaintedMethod(8, WORDS)
    benchmark.evaluate(method, benchmark.load(voc, 1))
    assert set(method.asked[-2:]) == {"a photo of a car", "a photo of a cat"}


def test_a_method_without_attention_is_measured_by_its_head(voc: Path) -> None:
    benchmark = MosaicBenchmark("the {}")
    data = benchmark.load(voc, None)
    outcome = benchmark.evaluate(PaintedMethod(8, WORDS, lacks=["attention"]), data)
    assert outcome.settings["map"] == "score map of the head"
    assert outcome.metrics["ap"] == 100
    assert "ap_head" not in outcome.metrics
    with pytest.raises(BenchmarkError, match=r"no attention.*no maps"):
        benchmark.evaluate(PaintedMethod(8, WORDS, lacks=["attention", "maps"]), data)


def test_composites_on_disk_are_the_same(voc: Path, tmp_path: Path) -> None:
    data = read_voc(voc)
    write_mosaics(data, tmp_path / "built")
    first = (tmp_path / "built/000.png").stat().st_mtime_ns
    write_mosaics(data, tmp_path / "built")  # goes on where it was stopped
    with pytest.raises(BenchmarkError, match="it holds composites of other data"):
        write_mosaics(replace(data, data_hash="another"), tmp_path / "built")
    assert (tmp_path / "built/000.png").stat().st_mtime_ns == first
    read = MosaicBenchmark("the {}").load(tmp_path / "built", None)
    assert (read.name, read.source, read.classes) == ("mosaic", "real", CLASSES)
    for ours, theirs in zip(read.mosaics, data.mosaics, strict=True):
        assert ours.classes == theirs.classes
        np.testing.assert_array_equal(ours.labels(), theirs.labels())
        np.testing.assert_array_equal(np.asarray(ours.picture()), np.asarray(theirs.picture()))
    (tmp_path / "built/001-labels.png").unlink()
    with pytest.raises(BenchmarkError, match=r"001-labels.png: is missing"):
        read_mosaics(tmp_path / "built")
    (tmp_path / "built/mosaic.json").write_text("{}")
    with pytest.raises(BenchmarkError, match="not a list of composites"):
        read_mosaics(tmp_path / "built")


def test_what_is_wrong_is_named(voc: Path, tmp_path: Path) -> None:
    benchmark = MosaicBenchmark("the {}")
    for place in (None, tmp_path / "elsewhere"):
        with pytest.raises(DataMissingError, match="steersearch bench mosaic --world"):
            benchmark.load(place, None)
    labels = voc / "SegmentationClass/2007_000042.png"
    for image, reason in (
        (Image.new("RGB", (80, 40)), "pixels are RGB, not numbers of classes"),
        (Image.new("L", (80, 40), 21), "class 21, and there are 20"),
        (Image.new("L", (40, 80)), "40 × 80 pixels, its picture 80 × 40"),
    ):
        image.save(labels)
        with pytest.raises(BenchmarkError, match=f"2007_000042.png: .*{reason}"):
            benchmark.load(voc, None)
    labels.write_bytes(b"no picture")
    with pytest.raises(BenchmarkError, match=r"2007_000042.png: cannot be read"):
        benchmark.load(voc, None)
    labels.unlink()
    with pytest.raises(BenchmarkError, match=r"2007_000042.png: is missing, though val.txt names it"):
        benchmark.load(voc, None)


def test_a_list_with_a_byte_order_mark_names_the_same_pictures(voc: Path) -> None:
    listed, before = voc / "ImageSets/Segmentation/val.txt", read_voc(voc).data_hash
    text = listed.read_text().replace("\n", "\r\n")
    listed.write_bytes(text.encode("utf-8-sig"))
    assert read_voc(voc).data_hash == before
    listed.write_bytes(text.encode("utf-16"))
    with pytest.raises(BenchmarkError, match=r"val\.txt: not a text in UTF-8"):
        read_voc(voc)


def test_a_tile_keeps_the_shape_of_its_picture() -> None:
    sheet = stitch([Image.new("RGB", (100, 50), "white")], 20)
    assert sheet.getbbox() == (0, 5, 20, 15)
    labels = stitch_labels([np.full((50, 100), 3, np.uint8)], 20)
    assert Image.fromarray(labels).getbbox() == (0, 5, 20, 15)


def test_the_stand_in_is_always_the_same_and_says_what_it_is() -> None:
    data = mosaic_world.build(1)
    assert (data.name, data.source, data.n) == ("mosaic-world", "generated stand-in", 1)
    assert data.data_hash == mosaic_world.build(1).data_hash
    labels = data.mosaics[0].labels()
    assert set(np.unique(labels)) - {0} == set(data.mosaics[0].classes)
    assert 4 <= len(data.mosaics[0].classes) <= 8
    assert 0.1 < (labels > 0).mean() < 0.6


def test_the_papers_figures_stand_beside_real_data_only(voc: Path) -> None:
    benchmark = MosaicBenchmark("the {}")
    method = PaintedMethod(8, WORDS)
    record = run(benchmark, method, lambda: benchmark.load(voc, None))
    steered = replace(record, model="dinov2-base-research")
    assert record.partial == ["5 photos, published are 1,449"]
    assert published.beside(steered) == {}
    steered = replace(steered, data={k: v for k, v in record.data.items() if k != "partial"})
    assert published.beside(steered) == {"ap": 50.2}
    assert published.beside(replace(steered, model="dinov2-base-research+gate0")) == {"ap": 14.3}
    assert published.beside(record) == {}
    assert published.beside(replace(steered, data={**steered.data, "source": "generated stand-in"})) == {}
