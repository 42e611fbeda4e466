"""i-CIR on a data set small enough to work out by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from steersearch.benchmarks.harness.benchmark import DataMissingError
from steersearch.benchmarks.ours import icir_data, icir_world
from steersearch.benchmarks.ours.icir import Icir, precision_under_curve
from steersearch.benchmarks.ours.icir_data import IcirData
from steersearch.benchmarks.paper import world_photos
from steersearch.core.errors import BenchmarkError
from steersearch.training.world.things import Thing
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
    assert data.remarks == {"queries_left_out": 1, "rows_left_out": 1}  # nothing is yellow
    assert data.partial == ("1 queries left out", "1 rows left out")
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


def test_lists_from_windows_lose_no_row(published: Path) -> None:
    before = icir_data.load(published, None)
    for name in (icir_data.QUERIES, icir_data.DATABASE):
        text = (published / name).read_text().replace("/", "\\").replace("\n", "\r\n")
        (published / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert icir_data.load(published, None).data_hash == before.data_hash
    (published / icir_data.QUERIES).write_bytes(b"query/a.png,caf\xe9,mug\n")
    with pytest.raises(BenchmarkError, match=r"query_files\.csv: not a text in UTF-8"):
        icir_data.load(published, None)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match=r"no query_files\.csv in"):
        icir_data.load(tmp_path, None)
    for name in (icir_data.QUERIES, icir_data.DATABASE):
        (tmp_path / name).write_text("")
    with pytest.raises(BenchmarkError, match="no query has an answer"):
        icir_data.load(tmp_path, None)


@dataclass(frozen=True)
class SmallWorld:
    """An instance of the stand-in. placed: family and things of each of its pictures; pictures: those, in order."""

    data: IcirData
    pictures: list[icir_world.Picture]
    placed: list[tuple[str, tuple[Thing, ...]]]


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallWorld]:
    placed: list[tuple[str, tuple[Thing, ...]]] = []
    pictures: list[icir_world.Picture] = []
    photo_of, pictures_of = world_photos.photo_of, icir_world.pictures_of

    def photo_noted(family: str, groups: Any, *rest: Any) -> Any:
        placed.append((family, tuple(thing for things, _ in groups for thing in things)))
        return photo_of(family, groups, *rest)

    def pictures_noted(number: int) -> Iterator[icir_world.Picture]:
        for picture in pictures_of(number):
            pictures.append(picture)
            yield picture

    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("STEERSEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        small = {"RIGHT": 2, "ALIKE": 1, "OTHERS": 1, "SIZE": (96, 72), "DRAWING": 32}
        for name, value in small.items():
            changed.setattr(icir_world, name, value)
        changed.setattr(world_photos, "photo_of", photo_noted)
        changed.setattr(icir_world, "pictures_of", pictures_noted)
        yield SmallWorld(Icir().world(1), pictures, placed)


def test_the_stand_in_has_the_hard_negatives_of_icir(small_world: SmallWorld) -> None:
    data = small_world.data
    assert (data.name, data.source, data.n) == ("icir-world", "generated stand-in", 15)
    (instance,) = data.instances
    assert len({query.text for query in instance.queries}) == 3
    rights = [query.right for query in instance.queries]
    assert [len(right) for right in rights] == [2, 2, 2]
    assert len(frozenset.union(*rights)) == 6  # none answers two texts: to the others it is a hard negative
    assert [each.sort for each in small_world.pictures] == ["query"] * 3 + [
        "right",
        "right",
        "alike",
        "place",
    ] * 3


def test_an_instance_is_in_its_pictures_and_something_else_in_the_others(small_world: SmallWorld) -> None:
    own = small_world.placed[0][1][0]
    for picture, (family, things) in zip(small_world.pictures, small_world.placed, strict=True):
        assert (icir_world.IN[family] == picture.text) == (picture.sort != "query")
        assert (things[0] is own) == (picture.sort in ("query", "right"))
        assert [thing.noun for thing in things].count(own.noun) == (picture.sort != "place")
        assert picture.sort != "alike" or things[0].colour != own.colour


def test_a_text_of_which_a_method_knows_nothing_changes_nothing_on_the_stand_in(
    small_world: SmallWorld,
) -> None:
    metrics = Icir().evaluate(PaintedMethod(), small_world.data).metrics
    assert 0 < metrics["map"] < 100
    assert metrics["map"] == metrics["map_no_prompt"]
