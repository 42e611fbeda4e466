"""anomaly: MVTec AD and VisA as they are published, figures by hand, the stand-in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steersearch.benchmarks.harness.benchmark import DataMissingError
from steersearch.benchmarks.harness.viewing import kept
from steersearch.benchmarks.paper import anomaly_world
from steersearch.benchmarks.paper.anomaly import PROMPTS, PUBLISHED_PROMPT, AnomalyBenchmark, create
from steersearch.benchmarks.paper.anomaly_data import Item, Items, kind_of, read_mvtec, read_visa
from steersearch.core.errors import BenchmarkError
from tests.painted_method import PaintedMethod

DAMAGE = dict.fromkeys(
    "anomaly defect damage flaw scratch crack stain hole part contamination".split(), "red"
)


def painted(size: tuple[int, int], box: tuple[int, int, int, int] | None) -> Image.Image:
    picture = Image.new("RGB", size, "white")
    if box is not None:
        picture.paste((255, 0, 0), box)
    return picture


def save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def mask_of(size: tuple[int, int], box: tuple[int, int, int, int], value: int = 255) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(value, box)
    return mask


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    """Two classes, with what lies about beside them: licence, hidden file, training pictures, other suffixes."""
    root = tmp_path / "mvtec"
    for number in range(3):
        save(root / f"metal_nut/train/good/{number:03d}.png", painted((32, 32), None))
        save(root / f"metal_nut/test/good/{number:03d}.png", painted((32, 32), None))
        box = (8 * number, 8, 8 * number + 8, 16)
        save(root / f"metal_nut/test/scratch/{number:03d}.png", painted((32, 32), box))
        save(root / f"metal_nut/ground_truth/scratch/{number:03d}_mask.png", mask_of((32, 32), box))
    save(root / "tile/test/good/000.PNG", painted((32, 32), None).convert("L"))
    save(root / "tile/test/glue_strip/000.png", painted((32, 32), (0, 0, 16, 16)))
    save(root / "tile/ground_truth/glue_strip/000_mask.png", mask_of((32, 32), (0, 0, 16, 16)))
    (root / "tile/test/good/._000.png").write_bytes(b"a file of the Finder")
    (root / "tile/license.txt").write_text("CC BY-NC-SA 4.0")
    (root / "readme.txt").write_text("MVTec AD")
    return root


@pytest.fixture
def visa(tmp_path: Path) -> Path:
    """Two objects; masks number the sorts of defects, a picture is not square, a row is of the split train."""
    root = tmp_path / "visa"
    save(root / "candle/Data/Images/Normal/0000.JPG", painted((40, 20), None))
    save(root / "candle/Data/Images/Normal/0001.JPG", painted((40, 20), None))
    save(root / "candle/Data/Images/Anomaly/000.JPG", painted((40, 20), (0, 0, 20, 10)))
    save(root / "candle/Data/Masks/Anomaly/000.png", mask_of((40, 20), (0, 0, 20, 10), 2))
    save(root / "pcb1/Data/Images/Normal/0000.JPG", painted((32, 32), None))
    save(root / "pcb1/Data/Images/Anomaly/000.JPG", painted((32, 32), (16, 16, 32, 32)))
    save(root / "pcb1/Data/Masks/Anomaly/000.png", mask_of((32, 32), (16, 16, 32, 32), 1))
    rows = [
        "object,split,label,image,mask",
        "candle,train,normal,candle/Data/Images/Normal/0000.JPG,",
        "candle,test,normal,candle/Data/Images/Normal/0001.JPG,",
        "candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png",
        "pcb1,test,normal,pcb1/Data/Images/Normal/0000.JPG,",
        "pcb1,test,anomaly,pcb1/Data/Images/Anomaly/000.JPG,pcb1/Data/Masks/Anomaly/000.png",
    ]
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\ufeff" + "\r\n".join(rows) + "\r\n", encoding="utf-8")
    return root


def test_mvtec_as_published(mvtec: Path) -> None:
    data = create({}).load(mvtec, None)
    assert (data.name, data.source, data.n) == ("anomaly/mvtec", "real", 8)
    assert [(item.object, item.defect) for item in data.items[2:5]] == [
        ("metal nut", ""),
        *[("metal nut", "scratch")] * 2,
    ]
    assert [(item.object, item.defect) for item in data.items[6:]] == [("tile", "glue_strip"), ("tile", "")]
    assert data.items[6].mask is not None
    assert data.items[6].mask()[:16, :16].all()
    assert [item.object for item in read_mvtec(mvtec, 2).items] == ["metal nut"] * 2 + ["tile"] * 2
    assert [bool(item.defect) for item in read_mvtec(mvtec, 2).items] == [False, True, True, False]
    (mvtec / "tile/ground_truth/glue_strip/000_mask.png").unlink()
    with pytest.raises(BenchmarkError, match=r"000_mask.png: is missing"):
        read_mvtec(mvtec)


def test_a_method_with_sentences_of_its_own_is_given_the_bare_name(mvtec: Path) -> None:
    class NameReader(PaintedMethod):
        prompt_is_object = True

    method = NameReader(words={"nut": "red", "tile": "red"})
    outcome = AnomalyBenchmark().evaluate(method, create({}).load(mvtec, None))
    assert set(method.asked) == {"metal nut", "tile"}
    assert outcome.settings["prompts"] == ["{}"]
    assert outcome.metrics["auroc"] == outcome.metrics["auroc_single"]


def test_visa_as_published(visa: Path) -> None:
    data = create({}).load(visa, None)
    assert (data.name, data.licence, data.n) == ("anomaly/visa", "CC BY 4.0", 4)
    assert [(item.object, item.defect) for item in data.items] == [
        ("candle", ""),
        ("candle", "anomaly"),
        ("pcb", ""),
        ("pcb", "anomaly"),
    ]
    listed = visa / "split_csv/1cls.csv"
    for row, reason in (
        ("candle,test,odd,candle/Data/Images/Normal/0001.JPG,", 'line 2: label "odd"'),
        ("candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,", "line 2: an anomaly without a mask"),
        ("candle,test,normal,candle/none.JPG,", "none.JPG: is missing"),
    ):
        listed.write_text(f"object,split,label,image,mask\n{row}\n")
        with pytest.raises(BenchmarkError, match=reason):
            read_visa(visa)
    listed.write_text("object,label\ncandle,normal\n")
    with pytest.raises(BenchmarkError, match="lacks the columns image, mask, split"):
        read_visa(visa)


def test_figures_by_hand(mvtec: Path) -> None:
    method = PaintedMethod(32, DAMAGE)
    outcome = AnomalyBenchmark().evaluate(method, read_mvtec(mvtec))
    # red is damage and nothing else is
    assert outcome.metrics["auroc"] > 99.5
    assert outcome.metrics["auroc"] == pytest.approx(outcome.metrics["auroc_single"], abs=0.01)
    assert outcome.metrics["f1"] > 95
    assert [(row["object"], row["pictures"], row["damaged"]) for row in outcome.rows] == [
        ("metal nut", 6, 3),
        ("tile", 2, 1),
    ]
    assert method.asked.count("the anomaly in the metal nut") == 2  # six pictures, three at a time
    assert len(set(method.asked)) == 2 * len(PROMPTS) == 20
    assert PROMPTS[0] == PUBLISHED_PROMPT


def test_variants_by_hand() -> None:
    # two pictures of 2 x 2 patches; the second is whole, but shows as much red in one of its corners
    reds = [painted((2, 2), (0, 0, 1, 1)), painted((2, 2), (1, 1, 2, 2))]
    mask = np.array([[True, False], [False, False]])
    items = (Item("nut", "scratch", kept(reds[0]), lambda: mask), Item("nut", "", kept(reds[1]), None))
    data = Items(name="t", source="real", licence="", data_hash="", items=items, side=2)
    metrics = AnomalyBenchmark().evaluate(PaintedMethod(2, DAMAGE), data).metrics
    # one marked pixel, seven others, of which one is as high: (6 + 1/2) / 7, F1 of 1 found among 2
    assert metrics["auroc"] == metrics["auroc_softmax"] == pytest.approx(100 * 6.5 / 7)
    assert metrics["f1"] == metrics["f1_sigmoid"] == pytest.approx(100 * 2 / 3)
    # overlap rises from 0 to 1 while the rate goes from 0 to 1/7, and stays
    assert metrics["pro"] == pytest.approx(100 * (0.3 - 1 / 14) / 0.3)


def test_pictures_that_are_not_square_are_seen_whole(visa: Path) -> None:
    outcome = AnomalyBenchmark().evaluate(PaintedMethod(32, DAMAGE), read_visa(visa))
    assert outcome.rows[0]["object"] == "candle"
    assert outcome.rows[0]["auroc"] > 99


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    benchmark = create({})
    for place in (None, tmp_path, tmp_path / "none"):
        with pytest.raises(DataMissingError, match="steersearch bench anomaly --world"):
            benchmark.load(place, None)
    assert kind_of(tmp_path) is None


def test_a_list_in_another_encoding_is_named(visa: Path) -> None:
    listed = visa / "split_csv/1cls.csv"
    listed.write_bytes(listed.read_text("utf-8-sig").encode("utf-16"))
    with pytest.raises(BenchmarkError, match=r"1cls\.csv: not a text in UTF-8"):
        create({}).load(visa, None)


def test_the_stand_in_is_always_the_same() -> None:
    data = anomaly_world.build(2)
    assert data.data_hash == anomaly_world.build(2).data_hash
    assert [(item.object, item.defect) for item in data.items[:2]] == [("tile", "scratch"), ("tile", "")]
    for item in data.items:
        assert (item.mask is None) == (item.defect == "")
        assert item.mask is None or 24 <= item.mask().sum() < 2500


def test_a_third_of_each_class_is_whole_and_every_defect_is_drawn() -> None:
    objects = anomaly_world.build().objects
    for name in ("tile", "suitcase"):
        defects = [item.defect for item in objects[name]]
        assert defects.count("") == len(defects) // 3
        assert set(defects) == {"", *anomaly_world.DEFECTS}


@pytest.mark.parametrize("defect", anomaly_world.DEFECTS)
def test_damage_changes_the_picture_where_its_mask_says(defect: str) -> None:
    rng = np.random.default_rng(5)
    where = np.zeros((160, 160), np.bool_)
    where[:, :100] = True
    before = Image.new("RGB", (160, 160), (90, 140, 190))
    after, mask = anomaly_world.damage(before, where, defect, rng)
    change = np.abs(np.asarray(after, int) - np.asarray(before, int)).max(axis=-1)
    assert mask[:, 100:].sum() == 0
    assert (change[mask] > 15).all()
    assert (change[~mask] > 0).mean() < 0.02
