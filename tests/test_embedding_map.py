"""embedding-map: VOC2012's lists as published, figures by hand, the stand-in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steersearch.benchmarks.harness.benchmark import DataMissingError
from steersearch.benchmarks.paper import embedding_map, embedding_map_world
from steersearch.benchmarks.paper.embedding_map import create
from steersearch.benchmarks.paper.embedding_map_data import CLASSES, read_voc
from steersearch.core.errors import BenchmarkError
from tests.painted_method import COLOURS, PaintedMethod


@pytest.fixture(autouse=True)
def no_umap(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes half a minute to import; one slow test has it."""
    monkeypatch.setattr(embedding_map, "_umap", lambda vectors: None)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Birds red, cats orange-red, cars and buses blue; one picture of two classes, one with a difficult second."""
    root = tmp_path / "VOCdevkit/VOC2012"
    (root / "JPEGImages").mkdir(parents=True)
    (root / "ImageSets/Main").mkdir(parents=True)
    shown = {
        "2008_000001": {"bird": "1"}, "2008_000002": {"bird": "1"}, "2008_000003": {"car": "1"},
        "2008_000004": {"car": "1"}, "2008_000005": {"bird": "1", "car": "1"},
        "2008_000006": {"car": "1", "person": "0"}, "2008_000007": {"cat": "0"}, "2008_000008": {},
    }  # fmt: skip
    for name, said in shown.items():
        colour = COLOURS["red" if "bird" in said else "blue"]
        Image.new("RGB", (20, 10), colour).save(root / f"JPEGImages/{name}.jpg")
    for one in CLASSES:
        lines = [f"{name} {said.get(one, '-1'):>2}" for name, said in shown.items()]
        (root / f"ImageSets/Main/{one}_val.txt").write_text("\n".join([*lines, ""]) + "\n")
    return root


def test_photos_of_exactly_one_class(voc: Path) -> None:
    data = create({}).load(voc.parent.parent, None)
    assert data.labels == ("bird", "bird", "car", "car")
    assert (data.name, data.source, data.prompts) == ("embedding-map", "real", ("animal", "bird", "eye"))
    assert read_voc(voc, 2).labels == ("bird", "car")


def test_figures_by_hand(voc: Path) -> None:
    outcome = create({}).evaluate(PaintedMethod(2), read_voc(voc))
    # all birds are one colour and all cars another: nothing is nearer to another class
    for prompt in ("none", "animal", "bird", "eye"):
        for figure in ("silhouette", "group", "class"):
            assert outcome.metrics[f"{figure}_{prompt}"] == pytest.approx(1, abs=0.01)
            assert outcome.intervals[f"{figure}_{prompt}"] == pytest.approx((1, 1), abs=0.01)
    assert [(row["class"], row["photos"]) for row in outcome.rows] == [("bird", 2), ("car", 2)]
    assert outcome.settings["umap"] == "not installed"
    assert outcome.settings["points"] == {}


def test_a_method_that_needs_a_prompt_has_no_map_without(voc: Path) -> None:
    class Asking(PaintedMethod):
        def see(self, pictures, prompt, **kinds):  # type: ignore[no-untyped-def]
            if prompt is None:
                raise BenchmarkError("painted sees nothing without a prompt")
            return super().see(pictures, prompt, **kinds)

    outcome = create({}).evaluate(Asking(2), read_voc(voc))
    assert outcome.settings["prompts"] == ["animal", "bird", "eye"]
    assert "silhouette_none" not in outcome.metrics


def test_lists_with_a_byte_order_mark_name_the_same_pictures(voc: Path) -> None:
    before = read_voc(voc)
    for listed in (voc / "ImageSets/Main").iterdir():
        listed.write_bytes(listed.read_text().replace("\n", "\r\n").encode("utf-8-sig"))
    after = read_voc(voc)
    assert before is not None
    assert after is not None
    assert (after.data_hash, after.labels) == (before.data_hash, before.labels)


def test_what_is_wrong_is_named(voc: Path, tmp_path: Path) -> None:
    for place in (None, tmp_path / "none"):
        with pytest.raises(DataMissingError, match="steersearch bench embedding-map --world"):
            create({}).load(place, None)
    (voc / "JPEGImages/2008_000003.jpg").unlink()
    with pytest.raises(BenchmarkError, match=r"2008_000003.jpg: is missing"):
        read_voc(voc)
    (voc / "ImageSets/Main/cat_val.txt").write_text("2008_000001 yes\n")
    with pytest.raises(BenchmarkError, match=r"cat_val.txt, line 1: not a picture and 1, 0 or -1"):
        read_voc(voc)
    (voc / "ImageSets/Main/cat_val.txt").unlink()
    with pytest.raises(BenchmarkError, match=r"cat_val.txt: is missing"):
        read_voc(voc)


def test_the_stand_in() -> None:
    data = embedding_map_world.build(1)
    assert data.n == 16
    assert set(data.labels) == set(embedding_map_world.CLASSES)
    assert data.read(0).size == (160, 160)


@pytest.mark.slow
def test_the_map_keeps_clusters_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("umap")
    monkeypatch.undo()
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(3, 8), 20, axis=0)
    points = embedding_map._umap((centres + 0.05 * rng.normal(size=centres.shape)).astype(np.float32))
    assert points is not None
    means = points.reshape(3, 20, 2).mean(axis=1)
    spread = points.reshape(3, 20, 2).std(axis=1).max()
    assert np.linalg.norm(means[0] - means[1]) > 2 * spread
