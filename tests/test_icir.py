"""i-CIR on a data set small enough to work out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steersearch.benchmarks.harness.benchmark import DataMissingError
from steersearch.benchmarks.ours import icir_data
from steersearch.benchmarks.ours.icir import Icir, precision_under_curve
from steersearch.core.errors import BenchmarkError
from tests.painted_method import COLOURS, PaintedMethod


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two instances; a picture has a square of a colour on grey."""
    monkeypatch.setenv("STEERSEARCH_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "icir"
    for folder in ("query", "database"):
        (place / folder).mkdir(parents=True)
    rows = {
        "query": [("a", "red", "mug"), ("b", "blue", "mug"), ("c", "green", "hat"), ("d", "yellow", "hat")],
        "database": [("e", "red", "mug"), ("f", "blue", "mug"), ("g", "red", "mug"), ("h", "green", "hat")],
    }
    for folder, entries in rows.items():
        for name, colour, _ in entries:
            picture = Image.new("RGB", (32, 32), COLOURS["grey"])
            picture.paste(COLOURS[colour], (0, 0, 16, 16))
            picture.save(place / folder / f"{name}.png")
        lines = [f"{folder}/{name}.png,{colour},{instance}" for name, colour, instance in entries]
        (place / f"{folder}_files.csv").write_text("\n".join(lines) + "\n")
    with open(place / "database_files.csv", "a") as file:
        file.write("database/missing.png,red,mug\n")
    return place


def test_average_precision_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    assert precision_under_curve(scores, [0, 1]) == 1.0
    # right are ranks 1 and 3 (from 0): before 0/1, 1/3, after 1/2, 2/4
    assert precision_under_curve(scores, [1, 3]) == pytest.approx(((0 + 1 / 2) / 2 + (1 / 3 + 1 / 2) / 2) / 2)
    assert precision_under_curve(np.zeros(4), [0]) == pytest.approx((0 + 1 / 4) / 2)  # last of those alike


def test_each_query_searches_the_database_of_its_instance(published: Path) -> None:
    data = icir_data.load(published, None)
    assert [(each.name, len(each.queries), len(each.database)) for each in data.instances] == [
        ("mug", 2, 3),
        ("hat", 1, 1),
    ]
    assert data.remarks == {"queries_left_out": 1}  # nothing is yellow
    assert data.instances[0].queries[0].right == {0, 2}
    outcome = Icir().evaluate(PaintedMethod(), data)
    assert (outcome.metrics["map"], outcome.metrics["mmap"]) == (100.0, 100.0)
    assert outcome.metrics["map_no_prompt"] is not None
    assert [row["instance"] for row in outcome.rows] == ["mug", "hat"]
    assert icir_data.load(published, 1).n == 5


def test_without_heeding_the_text_the_hard_negatives_come_between(published: Path) -> None:
    deaf = PaintedMethod(words=dict.fromkeys(("red", "blue", "green"), "grey"))
    data = icir_data.load(published, None)
    assert Icir().evaluate(deaf, data).metrics["map"] == Icir().evaluate(deaf, data).metrics["map_no_prompt"]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match=r"no query_files\.csv in"):
        icir_data.load(tmp_path, None)
    with pytest.raises(BenchmarkError, match="icir has no stand-in"):
        Icir().world(None)
