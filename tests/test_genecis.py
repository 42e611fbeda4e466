"""GeneCIS: recall by hand and with ties, crops, rows as they are published with odd ones among them, the stand-in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from steersearch.benchmarks.harness.benchmark import DataMissingError, run
from steersearch.benchmarks.harness.catalogue import card
from steersearch.benchmarks.harness.method import Seen
from steersearch.benchmarks.paper import genecis_data, genecis_world
from steersearch.benchmarks.paper.genecis import Genecis, create, recall
from steersearch.benchmarks.paper.genecis_data import cut_out, load, opened, to_square
from steersearch.core.errors import ArgumentError, BenchmarkError
from steersearch.training.world.kinds import KINDS

# ----------------------------------------------------------------------------------------------------- recall


def test_recall_worked_out_by_hand() -> None:
    scores = np.array([0.5, 0.9, 0.4, 0.7])
    assert [recall(scores, k) for k in (1, 2, 3)] == [0.0, 0.0, 1.0]
    assert [recall(np.array([0.9, 0.9, 0.1]), k) for k in (1, 2, 3)] == [0.5, 1.0, 1.0]
    assert [recall(np.array([0.5, 0.9, 0.5, 0.5]), k) for k in (1, 2, 3)] == [
        0.0,
        pytest.approx(1 / 3),
        pytest.approx(2 / 3),
    ]
    assert recall(np.ones(15), 1) == pytest.approx(1 / 15)  # an embedding that says nothing is a guess


@given(st.lists(st.integers(0, 4), min_size=1, max_size=7), st.integers(1, 3))
def test_recall_is_the_mean_over_all_orders_of_ties(scores: list[int], k: int) -> None:
    """Ranks of the target where those that tie with it are put before it, one after the other."""
    greater = sum(score > scores[0] for score in scores)
    ties = sum(score == scores[0] for score in scores)
    expected = np.mean([greater + before < k for before in range(ties)])
    assert recall(np.array(scores, dtype=np.float32), k) == pytest.approx(expected)


# ------------------------------------------------------------------------------------------------------ crops


def test_a_box_is_cut_out_with_its_surroundings() -> None:
    """Box at (40, 20), 20 x 10 in 100 x 60: from 40 - 14 and 20 - 7, as wide as 1.7 times the box from there."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8))
    assert cut_out(picture, (40, 20, 20, 10)).tobytes() == picture.crop((26, 13, 60, 30)).tobytes()
    assert cut_out(picture, (2, 1, 20, 10)).size == (34, 17)  # begins at the border
    assert cut_out(picture, (90, 55, 20, 10)).size == (100 - 76, 60 - 48)  # ends there


def test_a_crop_lies_in_the_middle_of_a_black_square() -> None:
    square = np.asarray(to_square(Image.new("RGB", (5, 2), "white")))
    assert square.shape == (5, 5, 3)
    assert square.any(axis=2).tolist() == [[False] * 5, [True] * 5, [True] * 5, [False] * 5, [False] * 5]
    tall = np.asarray(to_square(Image.new("RGB", (1, 4), "white")))
    assert tall.any(axis=2).tolist() == [[False, True, False, False]] * 4
    assert to_square(Image.new("RGB", (3, 3), "red")).size == (3, 3)


# --------------------------------------------------------------------------------------------- published layout

# Picture -> its direction in degrees under each prompt. Pictures 1, 2: references; 3 to 8: galleries.
DEGREES: dict[str | None, dict[int, float]] = {
    "the car": {1: 0, 3: 10, 4: 20, 5: 5, 6: 30},  # target 3 comes second
    "the wood wall": {2: 0, 6: 1, 4: 40, 7: 2, 8: 3},  # target 6 comes first
    "car": {1: 0, 3: 10, 4: 20, 5: 15, 6: 30},  # first
    "wood wall": {2: 0, 6: 9, 4: 1, 7: 2, 8: 3},  # fourth
    None: {1: 0, 3: 7, 4: 7, 5: 9, 6: 9, 2: 0, 7: 5, 8: 5},  # 3 ties with 4; 6 is last
}


class Directions:
    """Looks up each picture's direction by the number that its middle pixel shows."""

    weights_hash = None
    name, identity, licence = "directions", "directions-2", "none"
    takes_prompt, gallery_takes_prompt, batch_size = True, True, 3

    def see(self, pictures: Sequence[Image.Image], prompt: str | None, **wanted: bool) -> Seen:
        numbers = [round(float(np.asarray(p)[p.height // 2, p.width // 2, 0]) / 20) for p in pictures]
        turned = np.radians([DEGREES[prompt].get(number, 0) for number in numbers])
        return Seen(vectors=np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32) * 2)


def coco(number: int) -> dict[str, Any]:
    return {"val_image_id": number}


def row(reference: int, condition: Any, target: int, *gallery: int) -> dict[str, Any]:
    return {
        "reference": coco(reference),
        "target": coco(target),
        "gallery": [coco(number) for number in gallery],
        "condition": condition,
    }


def odd_rows() -> list[Any]:
    """Rows that cannot count: another length, no picture, no condition, no target, no row at all."""
    without = row(1, "car", 3, 4, 5, 6)
    del without["target"]
    return [
        row(1, "car", 3, 4, 5),
        row(1, "car", 99, 4, 5, 6),
        row(1, None, 3, 4, 5, 6),
        row(1, " ", 3, 4, 5, 6),
        row(1, 7, 3, 4, 5, 6),
        without,
        7,
    ]


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Two rows and odd ones in focus_object.json; one in change_attribute.json; pictures as JPEG."""
    for folder in ("genecis", "val2017", "VG_100K", "VG_100K_2"):
        (tmp_path / folder).mkdir()
    for number in range(1, 9):
        Image.new("RGB", (24, 16), (20 * number, 0, 0)).save(
            tmp_path / "val2017" / f"{number:012d}.jpg", quality=95
        )
        below = "VG_100K" if number % 2 else "VG_100K_2"
        Image.new("RGB", (24, 16), (20 * number, 0, 0)).save(
            tmp_path / below / f"{2400 + number}.jpg", quality=95
        )
    good = [row(1, "car", 3, 4, 5, 6), row(2, " wood wall", 6, 4, 7, 8)]
    odd = odd_rows()
    (tmp_path / "genecis" / "focus_object.json").write_text(
        json.dumps([*odd[:2], good[0], *odd[2:], good[1]])
    )
    return tmp_path


def test_figures_worked_out_by_hand(published: Path) -> None:
    record = run(Genecis(), Directions(), lambda: load(published, None, ("focus_object", "change_object")))
    assert record.metrics["r1"] == record.metrics["focus_object_r1"] == 50.0
    assert (record.metrics["r2"], record.metrics["r3"]) == (100.0, 100.0)
    assert record.metrics["r1_no_prompt"] == 25.0  # one tie of two
    with_article, bare = record.rows
    assert (with_article["prompt"], with_article["r1"], with_article["rows"]) == ("the {}", 50.0, 2)
    assert (bare["prompt"], bare["r1"], bare["r2"], bare["r3"]) == ("{}", 50.0, 50.0, 50.0)
    assert (bare["gallery"], bare["chance"]) == (4.0, 25.0)
    assert record.settings["left_out"] == {"focus_object": 7}
    assert record.data["n"] == 8
    assert set(record.intervals) >= {"r1", "focus_object_r3", "r1_no_prompt"}


def test_one_template_and_a_gallery_without_prompt(published: Path) -> None:
    method = Directions()
    method.gallery_takes_prompt = False
    record = run(
        create({"split": "focus_object", "template": "the {}"}),
        method,
        lambda: Genecis().load(published, None),
    )
    # references at 0 degrees in either case, galleries without prompt: a tie for the first, the last in the second
    assert (record.metrics["r1"], record.metrics["r2"], record.metrics["r3"]) == (25.0, 50.0, 50.0)
    assert len(record.rows) == 1


def test_boxes_of_visual_genome(published: Path) -> None:
    def boxed(number: int, x: float = 10, y: float = 6) -> dict[str, Any]:
        return {"image_id": 2400 + number, "instance_bbox": [x, y, 6, 4], "object_name": "car"}

    rows = [
        {"reference": boxed(1), "target": boxed(2), "gallery": [boxed(2, 4, 4), boxed(3)], "condition": "blue"},
        {"reference": boxed(1), "target": {"image_id": 2401}, "gallery": [boxed(2), boxed(3)], "condition": "blue"},
        {"reference": {**boxed(1), "instance_bbox": [3, 3, 0, 9]}, "target": boxed(2), "gallery": [boxed(2), boxed(3)],
         "condition": "blue"},
        {"reference": boxed(1), "target": boxed(2, 24, 4), "gallery": [boxed(2), boxed(3)], "condition": "blue"},
        {"reference": {**boxed(1), "instance_bbox": [3, 3, 1e999, 9]}, "target": boxed(2),
         "gallery": [boxed(2), boxed(3)], "condition": "blue"},
    ]  # fmt: skip
    (published / "genecis" / "change_attribute.json").write_text(json.dumps(rows))
    data = load(published, None, ("change_attribute",))
    (split,) = data.splits
    assert [len(question.gallery) for question in split.questions] == [3]
    assert len(split) == 4  # two boxes of one photo are two pictures
    assert data.remarks["left_out"] == {"change_attribute": 4}
    file = published / "VG_100K" / "2401.jpg"
    assert split.read(0).tobytes() == opened(file, (10, 6, 6, 4)).tobytes()
    assert split.read(0).size[0] == split.read(0).size[1]
    assert create({"split": "change_attribute", "template": "both"}).load(published, 1).n == 4


def test_a_limit_counts_rows(published: Path) -> None:
    data = Genecis().load(published, 1)
    assert [len(split.questions) for split in data.splits] == [1]
    assert data.data_hash != Genecis().load(published, None).data_hash


def test_what_is_missing_is_said(published: Path, tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match="steersearch bench genecis --world"):
        Genecis().load(None, None)
    with pytest.raises(DataMissingError, match=r"none of focus_attribute\.json"):
        Genecis(split="focus_attribute").load(published, None)
    file = published / "genecis" / "focus_object.json"
    for content, words in (
        ("[", "cannot be read"),
        ("{}", "must be a list of rows"),
        ("[7]", "none of its 1 rows"),
    ):
        file.write_text(content)
        with pytest.raises(BenchmarkError, match=words):
            Genecis().load(published, None)
    with pytest.raises(ArgumentError, match="template"):
        create({"split": "all", "template": "the thing"})


# ------------------------------------------------------------------------------------------------- the stand-in


@pytest.fixture(scope="module")
def few() -> Iterator[None]:
    """Eight kinds of things on small photos, so that a small pool has enough of each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(genecis_world, "KINDS", dict(islice(KINDS.items(), 8)))
        patch.setattr(genecis_world, "SIZE", (96, 72))
        yield


@dataclass(frozen=True)
class Pool:
    folder: Path
    things: list[genecis_world.Seen]  # what its photos show


@pytest.fixture(scope="module")
def pool(few: None, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """A small pool, written as the stand-in writes it."""
    made = Pool(tmp_path_factory.mktemp("genecis-world"), [])
    draw = genecis_world._draw

    def noting(folder: Path, photos: int) -> Iterator[genecis_world.Seen]:
        for thing in draw(folder, photos):
            made.things.append(thing)
            yield thing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(genecis_world, "_draw", noting)
        genecis_world._write(made.folder, rows=4, photos=60)
    return made


def test_the_stand_in_is_in_the_published_layout(pool: Pool) -> None:
    data = genecis_data.load(pool.folder, None, list(genecis_world.GALLERY))
    assert {split.name: {len(q.gallery) for q in split.questions} for split in data.splits} == {
        "focus_object": {15}, "change_object": {15}, "focus_attribute": {10}, "change_attribute": {15}
    }  # fmt: skip
    assert [len(split.questions) for split in data.splits] == [4, 4, 4, 4]
    assert data.remarks["left_out"] == dict.fromkeys(genecis_world.GALLERY, 0)
    assert data.splits[0].read(0).size == genecis_world.SIZE


def test_targets_are_what_the_conditions_ask_for(pool: Pool) -> None:
    things = pool.things
    kinds: dict[int, set[str]] = {}
    families = {thing.photo: thing.family for thing in things}
    for thing in things:
        kinds.setdefault(thing.photo, set()).add(thing.look.kind)
    looks = {(thing.photo, thing.box): thing.look for thing in things}

    def look(entry: dict[str, Any]) -> Any:
        return looks[entry["image_id"], tuple(entry["instance_bbox"])]

    def rows(split: str) -> list[dict[str, Any]]:
        read: list[dict[str, Any]] = json.loads((pool.folder / f"{split}.json").read_text())
        return read

    for each in rows("focus_object"):
        reference, target = each["reference"]["val_image_id"], each["target"]["val_image_id"]
        others = [entry["val_image_id"] for entry in each["gallery"]]
        assert each["condition"] in kinds[reference] & kinds[target]
        assert families[reference] != families[target]
        assert not any(each["condition"] in kinds[other] for other in others)
        assert sum(families[other] == families[reference] for other in others) == 7
    for each in rows("change_object"):
        reference, target = each["reference"]["val_image_id"], each["target"]["val_image_id"]
        assert each["condition"] in kinds[target] - kinds[reference]
        assert families[reference] == families[target]
        for entry in each["gallery"]:
            other = entry["val_image_id"]
            assert (each["condition"] in kinds[other]) != (families[other] == families[reference])
    for each in rows("focus_attribute"):
        name = {"color": "colour", "pattern": "pattern"}[each["condition"]]
        wanted = getattr(look(each["reference"]), name)
        assert getattr(look(each["target"]), name) == wanted
        assert all(getattr(look(entry), name) != wanted for entry in each["gallery"])
        assert {look(entry).kind for entry in each["gallery"]} == {look(each["reference"]).kind}
    for each in rows("change_attribute"):
        kind, colour = look(each["reference"]).kind, each["condition"]
        assert (look(each["target"]).kind, look(each["target"]).colour) == (kind, colour)
        assert all((look(e).kind == kind) != (look(e).colour == colour) for e in each["gallery"])
        assert look(each["reference"]).colour != colour


@pytest.mark.usefixtures("few")
def test_the_stand_in_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(genecis_world, "GALLERY", dict.fromkeys(genecis_world.GALLERY, 1))
    data = genecis_world.dataset(1, ("focus_object",), photos=18)
    monkeypatch.setattr(genecis_world, "_write", None)
    again = genecis_world.dataset(1, ("focus_object", "change_object"), photos=18)
    assert again.splits[0].questions == data.splits[0].questions
    assert (again.source, again.name) == ("generated stand-in", "genecis-world")
    assert card("genecis").stand_in is not None
