"""Annotations with anything in the place of anything: rows are left out or the data set is, always in words."""

from __future__ import annotations

import copy
import json
import pickle
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from steersearch.core.errors import DataError
from steersearch.training.data.check import check_source
from steersearch.training.data.mask_codec import encode_rle
from steersearch.training.data.sources import open_source
from tests.published import (
    box_mask,
    coco_annotation,
    coco_image,
    lvis_category,
    lvis_image,
    mdetr_annotation,
    mdetr_image,
    outline,
    png,
    put_json,
    put_picture,
    ref,
)  # fmt: skip

CASES = 80  # of each format
GONE = object()
ODD: list[Any] = [
    GONE, None, True, -1, 0, 1.5, 1e308, float("nan"), 2**70, -(2**63), "", " ", "\0", "a" * 300, "../..",
    "/etc/passwd", ".", "m.png", "\ud800", [], {}, [[]], [[[1]]], [1e9] * 8, [[1e5, 0, 0, 1e5] * 9], {"counts": [1]},
    {"size": [40, 60], "counts": "x"}, {"size": [2**40, 3], "counts": [1]}, {"size": ["a", 1], "counts": {}},
]  # fmt: skip
CODE = encode_rle(box_mask(1, 1, 9, 9))
COCO = {
    "images": [lvis_image(1), lvis_image(2)],
    "annotations": [coco_annotation(n, n, [outline(1, 1, 9, 9)]) for n in (1, 2)],
    "categories": [lvis_category(1, "mug", "cup")],
}
INSTANCES = COCO | {"images": [coco_image(1), coco_image(2)]}
MDETR = {
    "images": [mdetr_image(1, "1.jpg", "a man wearing a hat.")],
    "annotations": [mdetr_annotation(1, 1, (1, 1, 5, 5), [[0, 5]])],
}
LINES = [
    {"image": "1.jpg", "expression": "a", "mask": "m.png", "split": "train", "id": "1"},
    {"image": "1.jpg", "expression": "b", "mask": CODE},
    {"image": "2.jpg", "expression": "c", "box": [1, 2, 3, 4]},
]
REGIONS = {"1": [{"ann_id": 1, "img_id": 1, "image": "1.jpg", "mask_rle": CODE, "caption": "a"}]}


def put_lines(folder: Path, lines: Any) -> Path:
    texts = map(json.dumps, lines if isinstance(lines, list) else [lines])
    (folder / "expressions.jsonl").write_text("\n".join(texts))
    return folder


def put_refs(folder: Path, refs: Any) -> Path:
    put_json(folder / "instances.json", INSTANCES)
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, 2))
    return folder


def put_settings(folder: Path, settings: Any) -> Path:
    put_json(folder / "source.json", settings)
    return put_lines(folder, LINES)


FORMATS: dict[str, tuple[Any, Callable[[Path, Any], Path]]] = {
    "lvis": (COCO, lambda folder, made: put_json(folder / "lvis_v1_train.json", made)),
    "visual-genome": (MDETR, lambda folder, made: put_json(folder / "final_mixed_train.json", made)),
    "mapillary": (REGIONS, lambda folder, made: put_json(folder / "annotations.json", made)),
    "folder": (LINES, put_lines),
    "source.json": ({"name": "tools", "images": "."}, put_settings),
    "refcoco": ([ref(1, 1, 1, ["it"]), ref(2, 2, 2, ["x", "y"])], put_refs),
}


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of every value in it."""
    yield above
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield from places(one, (*above, key))


def changed(value: Any, place: tuple[Any, ...], odd: Any) -> Any:
    """A copy with something else there, or nothing."""
    if not place:
        return None if odd is GONE else odd
    value = copy.deepcopy(value)
    inside = value
    for key in place[:-1]:
        inside = inside[key]
    if odd is GONE:
        del inside[place[-1]]
    else:
        inside[place[-1]] = odd
    return value


@pytest.mark.parametrize("name", FORMATS)
def test_anything_anywhere_is_reported_in_words(name: str, tmp_path: Path) -> None:
    whole, put = FORMATS[name]
    for number in (1, 2):
        for picture in (f"{number}.jpg", f"COCO_train2014_{number:012d}.jpg", f"{number:012d}.jpg"):
            put_picture(tmp_path / picture)
    (tmp_path / "m.png").write_bytes(png(box_mask(1, 1, 9, 9)))
    draw, usable = random.Random(0), 0
    for _ in range(CASES):
        made = whole
        for _ in range(draw.choice([1, 1, 2])):
            made = changed(made, draw.choice(list(places(made))), draw.choice(ODD))
        try:
            source = open_source(put(tmp_path, made), images=None if name == "source.json" else tmp_path)
        except DataError:
            continue
        report = check_source(source, threads=1)
        assert report.samples + report.boxes + sum(skip.rows for skip in report.skips) >= len(source)
        usable += report.samples + report.boxes
    assert usable > 0
