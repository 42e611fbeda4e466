"""LVIS v1, and any other data set in COCO's layout whose categories have names (https://www.lvisdataset.org).

`lvis_v1_train.json`, `lvis_v1_val.json`: images have `coco_url` in place of a file name; the pictures are those of
COCO 2017, or the same ones under their names of 2014. Categories have `name` ("batter_(food)"), `synset`,
`synonyms`, `def`, `frequency`.

A row is a category in a picture; its mask is the union of the instances, as an expression means everything that it
fits. How the paper made its 368,000 LVIS expressions is not published; with 1.27 million instances and about 3.4
categories a picture it cannot be one per instance. Rows with incomplete annotation (`not_exhaustive_category_ids`)
are kept.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from steersearch.core.errors import DataError
from steersearch.training.data.importers.coco_json import UNKNOWN, CocoJson
from steersearch.training.data.importers.image_files import COCO_FOLDERS, listed
from steersearch.training.data.importers.importer import Importer
from steersearch.training.data.mask_codec import Mask
from steersearch.training.data.samples import (
    Joined,
    Row,
    Skip,
    Source,
    Texts,
    checked_expression,
    is_split,
    require_split,
    single_spaced,
)


class Lvis(Source):
    """One row for each category in each picture, pictures in the order of the file, categories by id.

    path: the JSON file; "train", "val" or "test" in its name is the split.  images: the folder of train2017, … or
    of train2014, …, or one of these; None: beside the file or above it
    """

    def __init__(self, path: Path, images: Path | None = None, split: str | None = None) -> None:
        self._split = lvis_split(path)
        require_split(path, [self._split], split)
        self._coco = CocoJson(path)
        self.name = "lvis" if any("synset" in c for c in self._coco.categories.values()) else "coco"
        self.skips = list(self._coco.skips)
        files = listed(path, images, [path.parent, path.parent.parent], COCO_FOLDERS)
        names = self._coco.image_names
        found = (files.find(*_names_of_both_years(names[i])) for i in range(len(names)))
        self._images = Texts(str(image or "") for image in found)
        self._first = _first_alike(self._images)
        self._shared = _shared(self._images, names, self._first)
        self._expressions = {
            number: _expression(category)
            for number, category in self._coco.categories.items()
            if number not in self._coco.ambiguous
        }
        self._index()

    def _index(self) -> None:
        """Rows: (R, 2) image, category; `spans` delimits their annotations in `order`."""
        images, categories = self._coco.annotation_images, self._coco.annotation_categories
        images = np.where(images < 0, images, self._first[images.clip(min=0)])
        alike: dict[str, int] = {}  # the first category with each expression
        for category, expression in self._expressions.items():
            if expression and alike.setdefault(expression, category) != category:
                categories = np.where(categories == category, alike[expression], categories)
        order = np.lexsort((categories, images))
        order = order[images[order] >= 0]
        self._note_unknown(images == UNKNOWN)
        new = np.ones(len(order), np.bool_)
        new[1:] = (np.diff(images[order]) != 0) | (np.diff(categories[order]) != 0)
        starts = np.append(np.flatnonzero(new), len(order))
        rows, spans, without_name, without_picture = [], [], Counter[int](), Counter[int]()
        for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            image, category = int(images[order[start]]), int(categories[order[start]])
            if not self._expressions.get(category):
                without_name[category] += 1
            elif not self._images[image] or image in self._shared:
                without_picture[image] += 1
            else:
                rows.append((image, category))
                spans.append((start, end))
        self._order = order.astype(np.int32)
        self._rows = np.array(rows, np.int32).reshape(-1, 2)
        self._spans = np.array(spans, np.int32).reshape(-1, 2)
        for category, count in without_name.items():
            reason = (
                "several categories have this id, with different names" if category in self._coco.ambiguous
                else "it has no usable name" if category in self._coco.categories
                else "no such category"
            )  # fmt: skip
            self.skips.append(Skip(self._coco.path, f"category {category}", reason, count))
        for image, count in without_picture.items():
            reason = self._shared.get(image) or f"its picture {self._coco.image_names[image]} was not found"
            self.skips.append(Skip(self._coco.path, f"image {self._coco.image_ids[image]}", reason, count))

    def _note_unknown(self, unknown: npt.NDArray[np.bool_]) -> None:
        count = int(np.count_nonzero(unknown))
        if count:
            first = self._coco.annotation_ids[np.argmax(unknown)]
            reason = f"{count} annotations belong to pictures that are not in the file"
            self.skips.append(Skip(self._coco.path, f"annotation {first}", reason, count))

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> Row:
        image, category = self._rows[index].tolist()
        image_id = str(self._coco.image_ids[image])
        place = f"image {image_id}, category {category}"
        picture, expression = Path(self._images[image]), self._expressions[category]
        return Row(picture, expression, image_id, self._split, self.name, self._coco.path, place)

    def annotation(self, index: int) -> Mask:
        """The union of the instances. A damaged one invalidates the row, as its area would count as background."""
        start, end = self._spans[index].tolist()
        picture = Path(self._images[int(self._rows[index, 0])])
        union = self._coco.mask(int(self._order[start]), picture)
        for number in self._order[start + 1 : end].tolist():
            union |= self._coco.mask(number, picture)
        return union


def _first_alike(found: Texts) -> npt.NDArray[np.int32]:
    """For each image the first that has its file; some tools write an image for each annotation."""
    first: dict[str, int] = {}
    return np.array(
        [first.setdefault(path, image) if path else image for image, path in enumerate(found)], np.int32
    )


def _shared(found: Texts, names: Texts, first: npt.NDArray[np.int32]) -> dict[int, str]:
    """The images that have a file in common, as pictures of several folders do in a single one, and why each of them is
    of no use. Images of one name are one picture."""
    shared: dict[int, str] = {}
    for image, other in enumerate(first.tolist()):
        if names[other] != names[image]:
            reason = f"{names[other]} and {names[image]} lead to one file, {found[image]}"
            shared |= {other: reason, image: reason}
    return shared


def lvis_split(path: Path) -> str:
    """The split of an annotation file, by its name, else "all"."""
    return next((split for split in ("train", "val", "test") if split in path.stem), "all")


def lvis_files(path: Path) -> list[Path]:
    """The annotation files of `path`, a file or a folder with the published files."""
    if path.is_file():
        return [path]
    return sorted([*path.glob("lvis_v1_*.json"), *path.glob("annotations/lvis_v1_*.json")])


def _names_of_both_years(name: str) -> tuple[str, ...]:
    """The names of a picture in COCO 2017, and in 2014, where they are longer."""
    base = name.rpartition("/")[2]
    return name, f"COCO_train2014_{base}", f"COCO_val2014_{base}"


def _expression(category: dict[str, object]) -> str:
    """ "batter_(food)" -> "batter (food)"; "" if there is no usable name."""
    try:
        return single_spaced(checked_expression(category.get("name")).replace("_", " "))
    except ValueError:
        return ""


def _open(path: Path, images: Path | None, split: str | None) -> Source:
    """One file, or all in a folder; a split may select one of them."""
    files = lvis_files(path)
    if not files:
        raise DataError(path, "no lvis_v1_train.json or lvis_v1_val.json in it")
    wanted = [file for file in files if is_split(lvis_split(file), split)] or files
    if len(wanted) == 1:
        return Lvis(wanted[0], images, split)
    return Joined("lvis", [Lvis(file, images, split) for file in wanted])


IMPORTER = Importer(
    expects="lvis_v1_train.json",
    open=_open,
    holds=lambda path: path.is_dir() and lvis_files(path),
    shows=lambda section, value: section in ("annotations", "images", "categories"),
)
