"""bench quality: the published layouts, probe and nearest patches against direct versions, the stand-in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from steersearch.benchmarks.harness.benchmark import DataMissingError
from steersearch.benchmarks.harness.catalogue import card
from steersearch.benchmarks.harness.intervals import limits
from steersearch.benchmarks.harness.method import Method
from steersearch.benchmarks.harness.viewing import kept
from steersearch.benchmarks.paper import quality_world
from steersearch.benchmarks.paper.quality import (
    QualityBenchmark,
    _ious,
    _remembered,
    _segmented_rounds,
    create,
    labels_of_nearest,
    predict,
)
from steersearch.benchmarks.paper.quality_data import QualityData, Segmented, SegmentedSet, read_quality
from steersearch.core.errors import ArgumentError, BenchmarkError
from steersearch.training.world import composition, scenes
from steersearch.training.world.kinds import KINDS
from steersearch.training.world.things import draw_stock
from tests.painted_method import COLOURS, PaintedMethod


def paint(path: Path, colour: str, half: str | None = None, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (32, 24), COLOURS[colour])
    if half is not None:
        picture.paste(COLOURS[half], (0, 0, 16, 24))
    picture.convert(mode).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The four data sets side by side, with hidden files, pictures of other modes, and what is not read."""
    root = tmp_path / "data"
    for split, number in (("train", 4), ("val", 2)):
        for synset, colour in (("n02086240", "red"), ("n02087394", "blue")):
            for i in range(number):
                paint(root / f"imagewoof2/{split}/{synset}/{synset}_{i}.JPEG", colour)
    (root / "imagewoof2/train/n02086240/._n02086240_0.JPEG").write_bytes(b"a file of the Finder")
    (root / "imagewoof2/noisy_imagewoof.csv").write_text("path\n")

    lines = ["img_id,img_filename,y,split,place,place_filename"]
    birds = [
        ("red", 0, 0, 0),
        ("blue", 1, 0, 1),
        ("red", 0, 2, 0),
        ("red", 1, 2, 0),
        ("blue", 1, 2, 1),
        ("blue", 1, 1, 1),
    ]
    for i, (colour, y, split, place) in enumerate(birds):
        name = f"00{i}.Bird/bird {i}.jpg"
        paint(root / "waterbird_complete95_forest2water2" / name, colour, mode="L" if i == 5 else "RGB")
        lines.append(f"{i},{name},{y},{split},{place},/p/place/{i}.jpg")
    (root / "waterbird_complete95_forest2water2/metadata.csv").write_text("\n".join(lines) + "\n")

    for split in ("train", "test"):
        for name, colour in (("AM General Hummer SUV 2000", "green"), ("Audi TT RS Coupe 2012", "yellow")):
            paint(root / f"stanford_cars/{split}/{name}/00001.jpg", colour)

    ade = root / "ADEChallengeData2016"
    for split in ("training", "validation"):
        for i, half in enumerate((None, "red", "red")):
            name = f"ADE_{split[:-3]}_{i:08d}"
            paint(ade / f"images/{split}/{name}.jpg", "grey", half)
            labels = Image.new("L", (32, 24), 4)
            if half:
                labels.paste(20, (0, 0, 16, 24))
            (ade / f"annotations/{split}").mkdir(parents=True, exist_ok=True)
            labels.save(ade / f"annotations/{split}/{name}.png")
    (ade / "objectInfo150.txt").write_text(
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n"
        "4\t0.05\t9\t2\t1\tfloor, flooring\n"
        "20\t0.01\t9\t2\t0\tchair\n"
        "9\t0\t9\t0\t0\twindowpane, window\n"
    )
    return root


def test_what_is_published_is_read(folder: Path) -> None:
    data = read_quality(folder)
    assert data is not None
    assert [(one.name, one.prompt, one.classes, len(one.train), len(one.test)) for one in data.labelled] == [
        ("imagewoof", "the dog", 2, 8, 4),
        ("waterbirds", "the bird", 2, 2, 3),
        ("cars", "the car", 2, 2, 2),
    ]
    assert [picture.group for picture in data.labelled[1].test] == [0, 2, 3]
    assert data.labelled[0].read(0).mode == "RGB"
    assert data.segmented is not None
    assert data.segmented.classes == {4: "floor", 20: "chair", 9: "windowpane"}
    assert [one.present for one in data.segmented.test] == [{4}, {4, 20}, {4, 20}]
    limited = read_quality(folder, 2)
    assert limited is not None
    assert [picture.label for picture in limited.labelled[0].train] == [0, 1]
    assert limited.data_hash != data.data_hash
    assert read_quality(folder / "stanford_cars" / "train") is None


def test_figures_by_hand(folder: Path) -> None:
    benchmark = create(card("quality").settings({}))
    method = PaintedMethod(8, {"chair": "red", "floor": "grey"})
    outcome = benchmark.evaluate(method, benchmark.load(folder, None))
    metrics = outcome.metrics
    assert metrics["imagewoof"] == metrics["cars"] == 100  # a colour for each class
    assert metrics["waterbirds"] == pytest.approx(200 / 3)  # one red bird is labelled as the blue ones
    assert metrics["waterbirds_worst_group"] == 0
    assert metrics["fg_cls"] == pytest.approx((200 + 200 / 3) / 3)
    assert metrics["ade20k"] > 95  # but for the patches at the edge, all are like those remembered
    assert metrics["quality"] == pytest.approx((metrics["fg_cls"] + metrics["ade20k"]) / 2)
    for name in ("fg_cls", "ade20k", "quality"):
        low, high = outcome.intervals[name]
        assert low <= metrics[name] <= high
    assert {row["part"] for row in outcome.rows} == {"imagewoof", "waterbirds", "cars", "floor", "chair"}
    assert {"the dog", "the bird", "the car", "the floor", "the chair"} <= set(method.asked)


def test_parts_alone_have_no_mean(folder: Path) -> None:
    benchmark = create(card("quality").settings({}))
    outcome = benchmark.evaluate(PaintedMethod(4), benchmark.load(folder / "imagewoof2", None))
    assert set(outcome.metrics) == {"imagewoof"}


def test_what_is_wrong_is_named(folder: Path, tmp_path: Path) -> None:
    benchmark = create(card("quality").settings({}))
    for place in (None, tmp_path / "none"):
        with pytest.raises(DataMissingError, match="steersearch bench quality --world"):
            benchmark.load(place, None)
    labels = folder / "ADEChallengeData2016/annotations/training/ADE_train_00000001.png"
    for image in (Image.new("RGB", (32, 24)), Image.new("L", (32, 24), 151)):
        image.save(labels)
        with pytest.raises(BenchmarkError, match=r"not numbers of classes|class 151, and there are 150"):
            read_quality(folder)
    labels.unlink()
    with pytest.raises(BenchmarkError, match=r"ADE_train_00000001.png: is missing"):
        read_quality(folder)
    listed = folder / "waterbird_complete95_forest2water2/metadata.csv"
    listed.write_text("img_id,img_filename,y,split,place,place_filename\n1,none.jpg,0,7,0,x\n")
    with pytest.raises(BenchmarkError, match="line 2: split, y or place"):
        read_quality(folder)
    (folder / "stanford_cars/test/Ford").mkdir()
    with pytest.raises(BenchmarkError, match="Ford: a class without pictures to train on"):
        read_quality(folder / "stanford_cars")


def test_tables_from_elsewhere(folder: Path) -> None:
    birds = folder / "waterbird_complete95_forest2water2/metadata.csv"
    names = folder / "ADEChallengeData2016/objectInfo150.txt"
    before = read_quality(folder)
    for listed in (birds, names):
        text = listed.read_text().replace("Idx\tRatio\tTrain\tVal\tStuff\tName\n", "").replace(",y,", ", y ,")
        listed.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    found = read_quality(folder)
    assert before is not None
    assert found is not None
    assert found.data_hash == before.data_hash
    assert found.segmented is not None
    assert found.segmented.classes == {4: "floor", 20: "chair", 9: "windowpane"}
    birds.write_text("img_id;img_filename;y;split;place\n")
    with pytest.raises(
        BenchmarkError, match=r"metadata\.csv: lacks the columns .*; it has img_id;img_filename"
    ):
        read_quality(folder)
    birds.write_text("img_id,img_filename,y\n1,none.jpg,0\n")
    with pytest.raises(BenchmarkError, match=r"metadata\.csv: lacks the columns place, split"):
        read_quality(folder)
    birds.write_text("img_id,img_filename,y,split,place\n1,none.jpg\n")
    with pytest.raises(BenchmarkError, match="line 2: split, y or place"):
        read_quality(folder)
    for listed in (names, birds):
        listed.write_bytes("img_filename,\u00c5ngstr\u00f6m\n".encode("latin-1"))
        with pytest.raises(BenchmarkError, match=f"{listed.name}: not a text in UTF-8 .*; save it as UTF-8"):
            read_quality(listed.parent)


def test_a_sweep_has_a_record_of_its_own(folder: Path) -> None:
    assert QualityBenchmark([0, 1], 4).load(folder, 1).name == "quality/gates"
    assert QualityBenchmark([], 4).load(folder, 1).name == "quality"


def test_a_sweep_measures_each_gate_scale_and_core_beside_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, word_encoder: None
) -> None:
    from steersearch.benchmarks.harness.steervit_method import SteerViTMethod
    from steersearch.benchmarks.paper import quality
    from steersearch.core.predictor import Predictor

    asked: list[str] = []

    def core(data: QualityData) -> object:
        def steers(method: Method) -> dict[str, float]:
            asked.append(method.name)
            return {"core": 50.0 + len(asked)}

        return steers, "core-by-hand"

    monkeypatch.setattr(quality, "_core", core)
    benchmark = QualityBenchmark([0, 0.5], 2)
    method = SteerViTMethod(Predictor.from_pretrained(tiny_model))
    outcome = benchmark.evaluate(method, benchmark.load(folder, 4))
    assert [(row["gate_scale"], row["core"]) for row in outcome.rows] == [(0, 51), (0.5, 52)]
    assert outcome.metrics["core_gate0.5"] == 52
    assert outcome.metrics["quality_gate0"] == outcome.rows[0]["quality"]
    best = max(outcome.rows, key=lambda row: row["quality"])
    assert outcome.metrics["best_gate_scale"] == best["gate_scale"]
    assert outcome.settings["core"] == "core-by-hand"
    assert ["gate" in name for name in asked] == [True, True]


def test_settings_are_checked() -> None:
    settings = card("quality").settings({"gate_scales": "0, 0.5,1"})
    assert create(settings).gate_scales == (0, 0.5, 1)
    with pytest.raises(ArgumentError, match="numbers between commas"):
        create(settings | {"gate_scales": "0;1"})
    with pytest.raises(ArgumentError, match="at least one"):
        create(settings | {"memory": 0})
    data = QualityData(name="t", source="real", licence="", labelled=(), segmented=None)
    with pytest.raises(BenchmarkError, match="painted has no gate_scale"):
        QualityBenchmark([0, 1], 4).evaluate(PaintedMethod(), data)


def test_the_nearest_patches_are_those_of_a_direct_version() -> None:
    rng = np.random.default_rng(0)
    memory, queries = rng.normal(size=(50, 6)).astype(np.float32), rng.normal(size=(9, 6)).astype(np.float32)
    labels = rng.random(50).astype(np.float32)
    expected = []
    for query in queries:
        cosines = memory @ query / np.linalg.norm(memory, axis=1) / np.linalg.norm(query)
        nearest = np.argsort(-cosines)[:5]
        weights = np.exp(cosines[nearest] / 0.1)
        expected.append((weights * labels[nearest]).sum() / weights.sum())
    np.testing.assert_allclose(labels_of_nearest(memory, labels, queries, 5, 0.1), expected, rtol=1e-4)
    assert labels_of_nearest(memory[:2], labels[:2], queries).shape == (9,)  # fewer than asked for


def test_a_probe_learns_what_logistic_regression_learns() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 240)
    rows = (rng.normal(size=(3, 8))[labels] + 0.8 * rng.normal(size=(240, 8))).astype(np.float32)
    ours = predict(rows[:180], labels[:180], rows[180:], 3)
    theirs = linear.LogisticRegression(max_iter=1000).fit(rows[:180], labels[:180]).predict(rows[180:])
    assert (ours == theirs).mean() > 0.95
    assert (ours == predict(rows[:180], labels[:180], rows[180:], 3)).all()


def test_half_of_a_memory_has_the_class() -> None:
    pictures = tuple(
        Segmented(
            kept(Image.new("RGB", (1, 1))),
            lambda: np.zeros((1, 1), np.uint8),
            frozenset({1} if i < 3 else ()),
        )
        for i in range(10)
    )
    data = SegmentedSet(classes={1: "a", 2: "b"}, memory=pictures, test=(), digest="")
    assert [sum(1 in one.present for one in _remembered(data, 1, most)) for most in (4, 9, 10, 99)] == [
        2,
        3,
        3,
        3,
    ]
    assert [len(_remembered(data, 2, most)) for most in (4, 99)] == [4, 10]


def test_iou_of_counts() -> None:
    counts = np.array([[[5, 1], [2, 4]], [[9, 0], [0, 0]]])
    assert _ious(counts).tolist() == [[5 / 8, 4 / 7], [1, 1]]


def test_the_interval_of_the_segmentation_is_that_of_its_pictures() -> None:
    alike = np.tile([[5, 1], [2, 4]], (3, 6, 1, 1))
    assert _segmented_rounds(alike) == pytest.approx(100 * (5 / 8 + 4 / 7) / 2)
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 100, (2, 12, 2, 2))
    drawn = [counts[:, rng.integers(12, size=12)].sum(axis=1) for _ in range(2000)]
    means = [100 * np.mean([_ious(one) for one in each]) for each in drawn]
    expected = np.percentile(means, (2.5, 97.5))
    assert limits(_segmented_rounds(counts)) == pytest.approx(tuple(expected), abs=0.5)


def test_the_segmented_part_of_the_stand_in() -> None:
    data = quality_world._segmented(2)
    assert (len(data.memory), len(data.test)) == (2, 2)
    assert all(2 <= len(one.present) <= 3 for one in data.memory)
    labels = data.memory[0].labels()
    assert frozenset(np.unique(labels).tolist()) - {0} == data.memory[0].present


def test_the_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality_world, "PROBE_LOOKS", dict.fromkeys(quality_world.PROBE_LOOKS, 1))
    monkeypatch.setattr(quality_world, "SIDE", 32)
    data = quality_world.build(2)
    assert [(one.name, len(one.train), len(one.test)) for one in data.labelled] == [
        ("scenes", 2, 2),
        ("things", 2, 2),
    ]
    assert data.data_hash == quality_world.build(2).data_hash


# ------------------------------------------------------------------------------------- photos of the stand-in's probes


def test_labels_of_the_probes_are_balanced_and_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(quality_world.PROBE_LOOKS, "test", 1)
    monkeypatch.setattr(quality_world, "SIDE", 32)
    some = list(quality_world.probe_photos("test", 36, size=(64, 48)))
    assert {p.kind for p in some} == set(range(len(KINDS)))
    assert [sum(p.family == f for p in some) for f in range(6)] == [6] * 6
    assert all(p.image.size == (64, 48) and p.image.mode == "RGB" for p in some)
    assert len({p.image.tobytes() for p in some}) == 36


def test_a_probe_photo_shows_one_large_thing_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    names = list(KINDS)[:5]
    stock = draw_stock(np.random.default_rng(0), 1, 64, names)
    composed: list[composition.Photo] = []
    compose = composition.compose

    def noted(*given: Any) -> composition.Photo:
        composed.append(compose(*given))
        return composed[-1]

    monkeypatch.setattr(composition, "compose", noted)
    for number, kind in enumerate((0, 2, 4)):
        plate = scenes.draw_scene(scenes.FAMILIES[number], np.random.default_rng(number), (96, 72))
        image = quality_world._with_a_large_thing(plate, kind, stock, np.random.default_rng(number))
        shares = {p.thing.noun: p.mask.mean() for p in composed[-1].placed}
        assert image is composed[-1].image
        large = shares.pop(names[kind])
        assert large > 0.02
        assert large >= 2 * max(shares.values(), default=0)
