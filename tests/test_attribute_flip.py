"""attribute-flip: who heeds the colour is right, who does not is right once of two times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from steersearch.benchmarks.harness.benchmark import DataMissingError
from steersearch.benchmarks.ours import attribute_flip_data, attribute_flip_world
from steersearch.benchmarks.ours.attribute_flip import AttributeFlip
from steersearch.benchmarks.ours.attribute_flip_data import Pairs, pair_of
from steersearch.core.errors import BenchmarkError
from tests.painted_method import PaintedMethod

FLIP = AttributeFlip("test", "the {}")


def mugs(size: int = 64) -> Pairs:
    """A small red mug beside a large blue one."""
    picture = Image.new("RGB", (size, size), "white")
    picture.paste((255, 0, 0), (0, 0, 16, 16))
    picture.paste((0, 0, 255), (24, 24, 64, 64))
    red, blue = np.zeros((size, size), bool), np.zeros((size, size), bool)
    red[:16, :16], blue[24:, 24:] = True, True
    pair = pair_of("mug", ("red mug", "blue mug"), picture, (red, blue))
    return Pairs(name="attribute-flip", source="real", licence="", pairs=(pair,))


def test_who_heeds_the_colour_is_right_both_times() -> None:
    metrics = FLIP.evaluate(PaintedMethod(), mugs()).metrics
    assert (metrics["accuracy"], metrics["both"], metrics["pairs"]) == (100.0, 100.0, 1)


@pytest.mark.parametrize("always", ["red", "blue", "green"])
def test_who_looks_at_one_of_them_whatever_is_asked_is_right_once_of_two_times(always: str) -> None:
    deaf = PaintedMethod(words={"red": always, "blue": always})
    metrics = FLIP.evaluate(deaf, mugs()).metrics
    assert (metrics["accuracy"], metrics["both"]) == (50.0, 0.0)


def task(
    image_id: int, name: str, attributes: list[str], objects: list[int], left: int, **more: Any
) -> dict[str, Any]:
    polygon = [[left, 10], [left + 20, 10], [left + 20, 40], [left, 40]]
    structure = {"name": name, "attributes": attributes, "relation_ids": [], "relation_descriptions": []}
    return {
        "task_id": f"{image_id}__{objects[0]}", "image_id": image_id, "ann_ids": objects,
        "instance_boxes": [[left, 10, 20, 30]], "Polygons": [[polygon]], "phrase": " ".join([*attributes, name]),
        "phrase_structure": structure | more,
    }  # fmt: skip


def test_phrasecut_as_it_is_published(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (100, 50), "grey").save(tmp_path / "images" / "7.jpg")
    tasks = [
        task(7, "mug", ["red"], [1], 0),
        task(7, "mug", ["tall"], [2], 30),  # no colour
        task(7, "mug", ["blue"], [3], 60),
        task(7, "mug", ["green"], [4], 30, relation_descriptions=[["on", "table"]]),
        task(7, "cup", ["red", "tall"], [5], 30),
        task(8, "hat", ["red"], [6], 0),
        task(8, "hat", ["black"], [7], 50),  # their picture is not here
        task(9, "hat", ["red"], [8], 0),
        task(9, "hat", ["white"], [8], 0),  # the same hat
    ]
    (tmp_path / "refer_test.json").write_text(json.dumps(tasks))
    data = attribute_flip_data.load(tmp_path, "test", None)
    (pair,) = data.pairs
    assert (pair.noun, pair.phrases) == ("mug", ("red mug", "blue mug"))
    red, blue = pair.masks()
    assert red.shape == blue.shape == (50, 100)
    assert red[20, 10]
    assert blue[20, 70]
    assert (red.sum(), blue.sum()) == (red[:, :30].sum(), blue[:, 50:].sum())
    assert data.remarks == {"split": "test", "left_out": 1}
    with pytest.raises(DataMissingError, match=r"no refer_val\.json in"):
        attribute_flip_data.load(tmp_path, "val", None)
    (tmp_path / "refer_val.json").write_text("[]")
    with pytest.raises(BenchmarkError, match="no picture with two things that differ in colour"):
        attribute_flip_data.load(tmp_path, "val", None)


def test_phrases_with_other_values_than_published_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (100, 50), "grey").save(tmp_path / "images" / "7.jpg")
    good = [task(7, "mug", ["red"], [1], 0), task(7, "mug", ["blue"], [3], 60)]
    odd: list[dict[str, Any]] = [
        good[0] | {"ann_ids": None},
        good[0] | {"ann_ids": [[1]]},
        good[0] | {"image_id": [7]},
        good[0] | {"phrase": None},
        good[0] | {"phrase_structure": {"name": "mug", "attributes": [["red"]]}},
        {key: value for key, value in good[0].items() if key != "ann_ids"},
    ]
    (tmp_path / "refer_test.json").write_text(json.dumps([*odd, *good]))
    assert [pair.phrases for pair in attribute_flip_data.load(tmp_path, "test", None).pairs] == [
        ("red mug", "blue mug")
    ]


def test_the_stand_in_shows_two_of_a_kind_in_two_colours() -> None:
    data = attribute_flip_world.build(4)
    assert data.data_hash == attribute_flip_world.build(4).data_hash
    for pair in data.pairs:
        first, second = pair.phrases
        assert first != second
        assert first.endswith(pair.noun)
        assert second.endswith(pair.noun)
        one, other = pair.masks()
        assert one.any()
        assert other.any()
        assert not (one & other).any()
