"""LVIS: a row per category and picture, under both names that COCO gave its pictures."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steersearch.core.errors import DataError
from steersearch.training.data.importers.lvis import Lvis
from steersearch.training.data.mask_codec import draw_polygon, encode_rle
from steersearch.training.data.samples import Joined, Skip
from steersearch.training.data.sources import open_source
from tests.published import box_mask, lvis_category, lvis_image, outline, put_json, put_picture


def instance(number: int, image: int, category: int, segmentation: object) -> dict[str, Any]:
    return {
        "area": 12.5, "id": number, "segmentation": segmentation, "image_id": image,
        "bbox": [1, 2, 3, 4], "category_id": category,
    }  # fmt: skip


CATEGORIES = [
    lvis_category(3, "batter_(food)"),
    lvis_category(7, "alarm_clock", "clock radio", "alarm_clock"),
    lvis_category(9, " "),
]


def put_lvis(
    path: Path, images: list[Any], annotations: list[Any], categories: list[Any] = CATEGORIES
) -> Path:
    """Keys in the order of the published file: annotations before images."""
    content = {"info": {"version": "1"}, "annotations": annotations, "images": images, "licenses": []}
    return put_json(path, content | {"categories": categories})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    put_picture(tmp_path / "train2017/000000000030.jpg")
    put_picture(tmp_path / "val2014/COCO_val2014_000000000010.jpg")
    put_picture(tmp_path / "train2014/COCO_train2014_000000000020.jpg")
    annotations = [
        instance(1, 30, 7, [outline(1, 1, 5, 5)]),
        instance(2, 10, 3, [outline(0, 0, 60, 40)]),
        instance(3, 30, 3, [outline(10, 10, 20, 20)]),
        instance(4, 30, 7, encode_rle(box_mask(40, 20, 50, 30))),
        instance(5, 10, 9, [outline(1, 1, 5, 5)]),
        instance(6, 10, 8, [outline(1, 1, 5, 5)]),
        instance(7, 50, 3, [outline(1, 1, 5, 5)]),
        instance(8, 40, 3, [outline(1, 1, 5, 5)]),
        instance(9, 40, 7, [outline(1, 1, 5, 5)]),
        instance(10, 20, 3, [outline(1, 1, 5, 5)]),
        instance(11, 20, 3, {"size": [40, 60], "counts": [5]}),
    ]
    images = [lvis_image(30), lvis_image(10, year="val2017"), lvis_image(20), lvis_image(40)]
    return put_lvis(tmp_path / "annotations/lvis_v1_train.json", images, annotations)


def test_a_row_per_category_with_the_union_of_its_instances(file: Path) -> None:
    samples = list(Lvis(file))
    assert [(s.image.name, s.expression, s.image_id, s.split, s.source) for s in samples] == [
        ("000000000030.jpg", "batter (food)", "30", "train", "lvis"),
        ("000000000030.jpg", "alarm clock", "30", "train", "lvis"),
        ("COCO_val2014_000000000010.jpg", "batter (food)", "10", "train", "lvis"),
    ]
    both = draw_polygon(outline(1, 1, 5, 5), (40, 60)) | box_mask(40, 20, 50, 30)
    assert (samples[1].mask == both).all()
    assert samples[2].mask.all()


def test_what_cannot_be_used(file: Path) -> None:
    source = Lvis(file)
    assert {(s.row, s.reason, s.rows) for s in source.skips} == {
        ("category 9", "it has no usable name", 1),
        ("category 8", "no such category", 1),
        ("image 40", "its picture train2017/000000000040.jpg was not found", 2),
        ("annotation 7", "1 annotations belong to pictures that are not in the file", 1),
    }
    damaged = source.read(3)
    assert isinstance(damaged, Skip)
    assert damaged.row == "image 20, category 3"
    assert damaged.reason == "its run-length code is damaged (5 of 2400 pixels)"


def test_a_folder_with_both_files(file: Path) -> None:
    put_lvis(
        file.with_name("lvis_v1_val.json"), [lvis_image(10)], [instance(1, 10, 7, [outline(1, 1, 5, 5)])]
    )
    source = open_source(file.parent, images=file.parent.parent)
    assert isinstance(source, Joined)
    assert [s.split for s in source] == ["train", "train", "train", "val"]
    assert [s.split for s in pickle.loads(pickle.dumps(source))] == ["train", "train", "train", "val"]
    assert [s.split for s in open_source(file.parent, split="val")] == ["val"]
    with pytest.raises(DataError, match='no split "test"'):
        open_source(file.parent, split="test")


def test_any_coco_file_with_named_categories(tmp_path: Path) -> None:
    """COCO's own instances: file names, and crowds as plain counts."""
    put_picture(tmp_path / "val2017/000000000001.jpg")
    image = {"id": 1, "file_name": "000000000001.jpg", "height": 40, "width": 60}
    crowd = instance(1, 1, 3, {"size": [40, 60], "counts": [40, 80, 2280]}) | {"iscrowd": 1}
    file = put_lvis(tmp_path / "instances_val2017.json", [image], [crowd], [{"id": 3, "name": "sheep"}])
    (sample,) = list(open_source(file))
    assert (sample.source, sample.expression, sample.split) == ("coco", "sheep", "val")
    assert (sample.mask == box_mask(1, 0, 3, 40)).all()


def test_no_pictures_anywhere(file: Path, tmp_path: Path) -> None:
    source = Lvis(file, file.parent)
    assert len(source) == 0
    assert sum(skip.rows for skip in source.skips if "was not found" in skip.reason) == 6


def test_the_index_is_small(tmp_path: Path) -> None:
    """Bytes per annotation that travel to a worker: the segmentations stay in the file."""
    put_picture(tmp_path / "000000000001.jpg")
    polygon = [outline(1, 1, 5, 5) * 50]
    annotations = [instance(i, 1, i % 20, polygon) for i in range(5000)]
    categories = [lvis_category(i, f"thing_{i}") for i in range(20)]
    file = put_lvis(tmp_path / "lvis_v1_train.json", [lvis_image(1)], annotations, categories)
    assert len(pickle.dumps(Lvis(file))) < 45 * len(annotations) < file.stat().st_size / 20
    assert len(Lvis(file)) == 20


# ------------------------------------------------------------------------------------- as annotation tools write it

BOX = box_mask(10, 5, 30, 25)
Change = Callable[[dict[str, Any]], None]


def exported(root: Path, change: Change = lambda content: None) -> Lvis:
    """Four pictures with a mug each, with `change` made to the content of the file."""
    for i in range(4):
        put_picture(root / f"{i}.jpg")
    content: dict[str, Any] = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 60} for i in range(4)],
        "annotations": [instance(i, i, 1, [outline(10, 5, 30, 25)]) for i in range(4)],
        "categories": [{"id": 1, "name": "mug"}],
    }
    change(content)
    return Lvis(put_json(root / "export.json", content))


def every(section: str, **fields: Callable[[Any], Any]) -> Change:
    """The fields of all elements of a section, each by its function of the value."""

    def change(content: dict[str, Any]) -> None:
        for element in content[section]:
            element.update({name: make(element.get(name)) for name, make in fields.items()})

    return change


def in_pairs(polygon: list[float]) -> list[list[float]]:
    return [polygon[i : i + 2] for i in range(0, len(polygon), 2)]


def both(*changes: Change) -> Change:
    return lambda content: [change(content) for change in changes] and None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    "change",
    [
        both(every("images", id=str), every("annotations", id=str, image_id=str)),
        both(every("images", id=float), every("annotations", image_id=float, category_id=float)),
        both(every("images", id="img-{}".format), every("annotations", image_id="img-{}".format)),
        every("annotations", category_id=str),
        both(every("categories", id="c{}".format), every("annotations", category_id="c{}".format)),
        every("annotations", id=lambda _: 1),
        every("images", file_name="images\\{}".format),
        every("images", file_name="export/images/{}".format),
        every("images", file_name=str.upper),
        every("images", width=float, height=float),
        every("images", width=lambda _: None, height=lambda _: 0),
        every("annotations", segmentation=lambda parts: [*parts, [50, 30, 51, 31]]),
        every("annotations", segmentation=lambda parts: parts[0]),
        every("annotations", segmentation=lambda parts: [in_pairs(parts[0])]),
        every("annotations", segmentation=lambda parts: in_pairs(parts[0])),
        every("annotations", area=lambda _: float("nan")),
        every(
            "annotations", segmentation=lambda _: {"size": [40, 60], "counts": [405.0, *[20.0] * 39, 1215.0]}
        ),
        lambda content: content.update(categories=content["categories"] * 2),
        lambda content: content.update(images=content["images"] * 2),
    ],
)
def test_a_file_as_tools_export_it_is_read(tmp_path: Path, change: Change) -> None:
    source = exported(tmp_path, change)
    assert source.skips == []
    found = [source.read(i) for i in range(len(source))]
    assert [getattr(one, "reason", "") for one in found] == [""] * 4
    for number, sample in enumerate(source):
        assert (sample.image.name, sample.expression) == (f"{number}.jpg", "mug")
        assert (sample.mask == BOX).all()


def test_an_expression_means_all_that_it_fits_in_a_picture(tmp_path: Path) -> None:
    """Also where a tool writes an image or a category for each annotation."""

    def change(content: dict[str, Any]) -> None:
        content["images"].append({"id": 9, "file_name": "0.jpg", "height": 40, "width": 60})
        content["categories"].append({"id": 2, "name": "mug"})
        content["annotations"].append(instance(9, 9, 1, [outline(40, 5, 50, 25)]))
        content["annotations"].append(instance(10, 1, 2, [outline(40, 5, 50, 25)]))

    both = BOX | box_mask(40, 5, 50, 25)
    samples = list(exported(tmp_path, change))
    assert [sample.image.name for sample in samples] == [f"{i}.jpg" for i in range(4)]
    assert [bool((sample.mask == both).all()) for sample in samples] == [True, True, False, False]


def test_what_could_mean_two_things_is_left_out(tmp_path: Path) -> None:
    cup, double = {"id": 1, "name": "cup"}, {"id": 0, "file_name": "1.jpg", "height": 40, "width": 60}
    source = exported(tmp_path, lambda content: content["categories"].append(cup))
    assert len(source) == 0
    assert [(s.row, s.reason, s.rows) for s in source.skips] == [
        ("category 1", "several categories have this id, with different names", 4)
    ]
    source = exported(tmp_path, lambda content: content["images"].append(double))
    assert [sample.image.name for sample in source] == ["1.jpg", "2.jpg", "3.jpg"]
    assert [(s.row, s.reason, s.rows) for s in source.skips] == [
        ("image 0", "several pictures have this id (0.jpg, 1.jpg)", 1)
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (every("annotations", segmentation=lambda _: [[10, 5, 30, 5]]), "its mask is empty"),
        (every("annotations", segmentation=lambda _: []), "its mask is empty"),
        (every("annotations", segmentation=lambda _: None), "it has no mask"),
        (
            every("images", width=lambda _: 40, height=lambda _: 60),
            "its mask is 40 × 60 pixels, its picture 60 × 40",
        ),
    ],
)
def test_what_an_export_lacks_is_reported(tmp_path: Path, change: Change, reason: str) -> None:
    source = exported(tmp_path, change)
    assert [getattr(source.read(i), "reason", "") for i in range(len(source))] == [reason] * 4


def test_pictures_of_one_name_in_several_folders(tmp_path: Path) -> None:
    put_picture(tmp_path / "a/0.jpg")
    put_picture(tmp_path / "b/0.jpg")

    def change(content: dict[str, Any]) -> None:
        content["images"][0]["file_name"], content["images"][1]["file_name"] = "a/0.jpg", "b/0.jpg"

    found = [sample.image.relative_to(tmp_path).as_posix() for sample in exported(tmp_path, change)]
    assert found == ["a/0.jpg", "b/0.jpg", "2.jpg", "3.jpg"]


@pytest.mark.parametrize("folders", [("a", "b"), ("b", "a")])
def test_another_folder_s_picture_is_not_taken_for_a_missing_one(
    tmp_path: Path, folders: tuple[str, str]
) -> None:
    put_picture(tmp_path / "a/0.jpg")
    put_picture(tmp_path / "b/9.jpg")

    def change(content: dict[str, Any]) -> None:
        for image, folder in zip(content["images"], folders, strict=False):
            image["file_name"] = f"{folder}/0.jpg"

    source = exported(tmp_path, change)  # which puts another 0.jpg above both
    assert [sample.image.relative_to(tmp_path).as_posix() for sample in source] == [
        "a/0.jpg",
        "2.jpg",
        "3.jpg",
    ]
    assert [skip.reason for skip in source.skips] == ["its picture b/0.jpg was not found"]


def test_a_picture_that_several_names_lead_to_is_none_of_them(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["images"][0]["file_name"], content["images"][1]["file_name"] = "a/0.jpg", "b/0.jpg"

    source = exported(tmp_path, change)  # neither folder is there, and 0.jpg is from one of them, or none
    assert [sample.image.name for sample in source] == ["2.jpg", "3.jpg"]
    assert {skip.reason for skip in source.skips} == {
        f"a/0.jpg and b/0.jpg lead to one file, {tmp_path / '0.jpg'}"
    }


def test_a_name_from_a_mac_is_the_same_in_composed_letters(tmp_path: Path) -> None:
    put_picture(tmp_path / "cafe\u0301.jpg")

    def change(content: dict[str, Any]) -> None:
        content["images"][0]["file_name"] = "caf\u00e9.jpg"

    assert next(sample.image.name for sample in exported(tmp_path, change)) == "cafe\u0301.jpg"


def test_names_that_differ_in_case_alone_are_distinguished(tmp_path: Path) -> None:
    put_picture(tmp_path / "A.jpg")
    put_picture(tmp_path / "a.jpg")

    def change(content: dict[str, Any]) -> None:
        content["images"][0]["file_name"], content["images"][1]["file_name"] = "a.jpg", "a.JPG"

    source = exported(tmp_path, change)
    assert [sample.image.name for sample in source] == ["a.jpg", "2.jpg", "3.jpg"]
    assert [skip.reason for skip in source.skips] == ["its picture a.JPG was not found"]
