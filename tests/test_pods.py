"""pods: the hub's parquet files as published, figures by hand, the stand-in."""

from __future__ import annotations

import io
import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from steersearch.benchmarks.harness.benchmark import DataMissingError
from steersearch.benchmarks.harness.catalogue import card
from steersearch.benchmarks.harness.viewing import kept
from steersearch.benchmarks.paper import pods_world
from steersearch.benchmarks.paper.pods import create
from steersearch.benchmarks.paper.pods_data import Objects, Shot, read_pods
from steersearch.core.errors import BenchmarkError, ImageError
from tests.painted_method import COLOURS, PaintedMethod

Row = dict[str, Any]


def picture(colour: tuple[int, int, int], mode: str = "RGB") -> dict[str, Any]:
    data = io.BytesIO()
    Image.new("RGB", (12, 9), colour).convert(mode).save(data, "PNG")
    return {"bytes": data.getvalue(), "path": None}


def write(path: Path, rows: list[Row], names: list[str] | None = None) -> None:
    """As `datasets` writes it: labels as texts, or as numbers whose names are in the schema."""
    table = pa.Table.from_pylist([row | {"mask": None, "scene_type": "plain"} for row in rows])
    if names is not None:
        said = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({b"huggingface": json.dumps(said).encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)


LABELS = ["mugs_cornell_dots", "mugs_white_shobhita", "totes_black"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three objects, two files of tests, labels as texts and as numbers, grey pictures, and test_dense beside."""
    data = tmp_path / "pods/data"
    references = [(label, (40 * i, 20 * shot, 9)) for i, label in enumerate(LABELS) for shot in range(3)]
    write(data / "train-00000-of-00001.parquet", [{"label": n, "image": picture(c)} for n, c in references])
    write(data / "test-00000-of-00002.parquet", [{"label": LABELS[0], "image": picture((5, 5, 5), "L")}] * 2)
    numbers = [{"label": 2, "image": picture((90, 0, 0))}, {"label": 1, "image": picture((0, 90, 0), "RGBA")}]
    write(data / "test-00001-of-00002.parquet", numbers, LABELS)
    write(data / "test_dense-00000-of-00001.parquet", [{"label": "mugs_none", "image": picture((1, 1, 1))}])
    return tmp_path / "pods"


def test_pods_as_published(folder: Path) -> None:
    data = create(card("pods").settings({})).load(folder, None)
    assert (data.name, data.source, data.n, len(data.references)) == ("pods", "real", 13, 9)
    assert [shot.label for shot in data.tests] == [LABELS[0], LABELS[0], LABELS[2], LABELS[1]]
    assert data.prompts["mugs_white_shobhita"] == {
        "none": None,
        "supercategory": "the mug",
        "name": "the white shobhita mug",
    }
    assert data.prompts["totes_black"]["name"] == "the black tote bag"
    assert [data.read(number).mode for number in range(len(data))] == ["RGB"] * 13
    assert not data.test_split
    assert set(read_pods(folder, 1).prompts) == {"mugs_cornell_dots", "totes_black"}


def test_descriptions_and_the_split_of_classes(folder: Path) -> None:
    described = {label: f"a thing called {label}" for label in LABELS}
    (folder / "descriptions.json").write_text(json.dumps(described))
    splits = {"class_to_split": {LABELS[0]: "test", LABELS[1]: "val", LABELS[2]: "test"}}
    (folder / "pods_info.json").write_text(json.dumps(splits))
    data = read_pods(folder)
    assert data.prompts[LABELS[2]]["description"] == described[LABELS[2]]
    assert data.test_split == {LABELS[0], LABELS[2]}
    outcome = create({"prompts": "supercategory"}).evaluate(PaintedMethod(2), data)
    assert set(outcome.metrics) == {
        f"{metric}_supercategory{part}" for metric in ("pr_auc", "ndcg") for part in ("", "_test")
    }
    (folder / "descriptions.json").write_text(json.dumps({LABELS[0]: "one"}))
    with pytest.raises(BenchmarkError, match="no text for mugs_white_shobhita"):
        read_pods(folder)


def test_figures_by_hand() -> None:
    """Each object is a colour of its own; one test photo of the second shows the first."""
    shots = {
        "mugs_a": (["red"] * 3, ["red", "red"]),
        "mugs_b": (["blue"] * 3, ["blue", "red"]),
    }
    made = [
        [
            Shot(label, kept(Image.new("RGB", (4, 4), COLOURS[colour])))
            for label, sets in shots.items()
            for colour in sets[k]
        ]
        for k in (0, 1)
    ]
    prompts: dict[str, dict[str, str | None]] = {label: {"none": None} for label in shots}
    data = Objects(
        name="t",
        source="real",
        licence="",
        data_hash="by hand",
        references=tuple(made[0]),
        tests=tuple(made[1]),
        prompts=prompts,
    )
    metrics = create({"prompts": "all"}).evaluate(PaintedMethod(2), data).metrics
    # a: three red photos tie, two of them its own: 2/3
    # b: one of its two leads, the other comes with all the rest: (1 + 2/4) / 2
    assert metrics["pr_auc_none"] == pytest.approx(100 * (2 / 3 + 3 / 4) / 2)
    gains = [1 / math.log2(rank + 1) for rank in range(1, 7)]
    last = sum(gains[3:]) / sum(gains[:3])  # its own references come last
    assert metrics["ndcg_none"] == pytest.approx(100 * (1 + (1 + last) / 2) / 2)


class Named(PaintedMethod):
    """Says the colour of a picture without a prompt, and under one the colour that the prompt names."""

    gallery_takes_prompt = False

    def see(self, pictures: Any, prompt: str | None, **wanted: bool) -> Any:
        if prompt is not None:
            pictures = [Image.new("RGB", (4, 4), COLOURS[prompt])] * len(pictures)
        return super().see(pictures, None, **wanted)


def test_only_the_query_is_seen_under_a_prompt_that_belongs_to_it() -> None:
    """Were the gallery seen under it too, all of it would look alike."""
    shots = [
        Shot(f"mugs_{colour}", kept(Image.new("RGB", (4, 4), COLOURS[colour]))) for colour in ("red", "blue")
    ]
    data = Objects(
        name="t",
        source="real",
        licence="",
        data_hash="named",
        references=tuple(shots),
        tests=tuple(shots),
        prompts={shot.label: {"name": shot.label.removeprefix("mugs_")} for shot in shots},
    )
    metrics = create({"prompts": "name"}).evaluate(Named(2), data).metrics
    assert metrics == {"pr_auc_name": 100, "ndcg_name": pytest.approx(100)}


def test_photos_are_read_when_their_turn_comes(tmp_path: Path) -> None:
    """Of 24 photos in groups of three at most two groups are in memory."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 200, 200, 3), np.uint8)
    rows = []
    for pixels in noise:
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "PNG")
        rows.append({"label": "mugs_a", "image": {"bytes": data.getvalue(), "path": None}})
    for name in ("train-0.parquet", "test-0.parquet"):
        parquet.write_table(pa.Table.from_pylist(rows), tmp_path / name, row_group_size=3)
    size = len(rows[0]["image"]["bytes"])
    tracemalloc.start()
    try:
        data = read_pods(tmp_path)
        assert all((np.asarray(data.read(i)) == noise[i % 24]).all() for i in range(data.n))
        assert (
            tracemalloc.get_traced_memory()[1] < 14 * size
        )  # two groups of three, and what one takes to be read
    finally:
        tracemalloc.stop()


def test_what_is_wrong_is_named(folder: Path, tmp_path: Path) -> None:
    benchmark = create({"prompts": "all"})
    for place in (None, tmp_path / "none"):
        with pytest.raises(DataMissingError, match="steersearch bench pods --world"):
            benchmark.load(place, None)
    train = folder / "data/train-00000-of-00001.parquet"
    good = train.read_bytes()
    for row, reason in (
        ({"label": "spoons_a", "image": picture((1, 1, 1))}, "row 0: label 'spoons_a', of none of bottles"),
        ({"label": 7, "image": picture((1, 1, 1))}, "row 0: label 7"),
        (
            {"label": "mugs_a", "image": picture((1, 1, 1))},
            "mugs_cornell_dots has test photos and no reference",
        ),
    ):
        write(train, [row])
        with pytest.raises(BenchmarkError, match=reason):
            read_pods(folder)
    empty = {"bytes": b"", "path": "a"}
    write(
        train,
        [{"label": label, "image": picture((1, 1, 1)) if label != LABELS[1] else empty} for label in LABELS],
    )
    with pytest.raises(BenchmarkError, match="row 1: no picture"):
        read_pods(folder)
    parquet.write_table(pa.table({"picture": [1], "label": ["mugs_a"]}), train)
    with pytest.raises(BenchmarkError, match="lacks the columns image; it has picture, label"):
        read_pods(folder)
    train.write_bytes(good[: len(good) // 2])
    with pytest.raises(
        BenchmarkError, match=r"train-00000-of-00001\.parquet: damaged, or not a Parquet file"
    ):
        read_pods(folder)
    train.write_bytes(good)
    (folder / "pods_info.json").write_text('{"class_to_split": []}')
    assert read_pods(folder).test_split == frozenset()
    write(folder / "data/test-00001-of-00002.parquet", [{"label": LABELS[1], "image": picture((1, 1, 1))}])
    with pytest.raises(BenchmarkError, match="totes_black has references and no test photo"):
        read_pods(folder)
    broken = [{"label": name, "image": {"bytes": b"no picture", "path": None}} for name in LABELS[1:]]
    write(folder / "data/test-00001-of-00002.parquet", broken)
    with pytest.raises(ImageError, match="not an image"):
        read_pods(folder).read(12)


def test_the_stand_in() -> None:
    data = pods_world.build(1)
    assert data.n == 4 * (pods_world.REFERENCES + pods_world.TESTS)
    assert data.prompts["mug_red_dot"] == {
        "none": None,
        "supercategory": "the mug",
        "name": "the red dot mug",
        "description": "the white mug with a red dot on it",
    }
    reference = np.asarray(data.read(0), int)
    assert ((reference[..., 0] > 190) & (reference[..., 1:].max(axis=-1) < 90)).mean() > 0.005  # its mark
