"""Annotations in COCO's JSON layout: {"images": […], "annotations": […], "categories": […]}.

https://cocodataset.org/#format-data. An image has id, file_name (LVIS v1: coco_url), height, width; an annotation
id, image_id, category_id, segmentation, bbox. Some 32 bytes are kept of an annotation and 70 of an image; the
segmentation is read from the file when it is asked for.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from steersearch.core.errors import DataError
from steersearch.training.data import Skip, Texts
from steersearch.training.json_stream import Element, elements, read_element
from steersearch.training.mask_codec import Mask, MaskError, decode_rle, decode_segmentation

Numbers = npt.NDArray[np.int64]


class CocoJson:
    """Images and annotations of one file, by number; ids are looked up.

    path: the file;  categories: id -> category;  skips: elements without what they need
    image_names: file name, or what follows the host in coco_url, of each image
    image_sizes: (I, 2) int32, (H, W), 0 where the file does not say
    annotation_ids: (A,) int64; annotation_images (-1: an unknown image), annotation_categories: (A,) int32
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.skips: list[Skip] = []
        self.categories: dict[int, dict[str, Any]] = {}
        self.image_names = Texts()
        images, sizes = array("q"), array("i")
        annotations = {name: array("q") for name in ("id", "image_id", "category_id", "offset", "length")}
        for element in elements(path):
            if element.section == "images" and self._has(element, "id"):
                self.image_names.append(_image_name(element.value))
                images.append(element.value["id"])
                sizes.extend(_side(element.value.get(side)) for side in ("height", "width"))
            elif element.section == "annotations" and self._has(element, "id", "image_id"):
                found = {
                    "category_id": -1,
                    **element.value,
                    "offset": element.offset,
                    "length": element.length,
                }
                for name, column in annotations.items():
                    column.append(found[name] if _is_id(found[name]) else -1)
            elif element.section == "categories" and self._has(element, "id"):
                self.categories[element.value["id"]] = element.value
        if not images:
            raise DataError(path, 'no annotations as COCO writes them (there is nothing under "images")')
        self.image_ids = np.array(images, np.int64)
        self.image_sizes = np.array(sizes, np.int32).reshape(-1, 2)
        self.annotation_ids = np.array(annotations["id"], np.int64)
        categories = np.array(annotations["category_id"], np.int64)
        self.annotation_categories = np.where(categories < 2**31, categories, -1).astype(np.int32)
        self._offsets = np.array(annotations["offset"], np.int64)
        self._lengths = np.array(annotations["length"], np.int64).astype(np.int32)
        self._order = np.argsort(self.annotation_ids, kind="stable").astype(np.int32)
        of_image = np.array(annotations["image_id"], np.int64)
        by_id = np.argsort(self.image_ids, kind="stable")
        self.annotation_images = _numbers(self.image_ids, by_id, of_image).astype(np.int32)

    def annotation_numbers(self, ids: Numbers) -> Numbers:
        """The number of the annotation with each id, -1 where there is none."""
        return _numbers(self.annotation_ids, self._order, ids)

    def mask(self, annotation: int) -> Mask:
        """(H, W) bool. Raises MaskError for one that is damaged, OSError, ValueError for a file that changed."""
        found = read_element(self.path, int(self._offsets[annotation]), int(self._lengths[annotation]))
        if not isinstance(found, dict) or found.get("id") != self.annotation_ids[annotation]:
            raise ValueError("the annotation lies elsewhere now")
        height, width = self.image_sizes[self.annotation_images[annotation]].tolist()
        segmentation = found.get("segmentation")
        if height and width:
            return decode_segmentation(segmentation, (height, width))
        if isinstance(segmentation, dict):  # a run-length code says its size itself
            return decode_rle(segmentation)
        raise MaskError("its picture's size is not given")

    def _has(self, element: Element, *names: str) -> bool:
        """Whether the element is an object with these ids; else it is noted."""
        if isinstance(element.value, dict) and all(_is_id(element.value.get(name)) for name in names):
            return True
        reason = f"{element.section}: no object with {' and '.join(names)}, whole numbers"
        self.skips.append(Skip(self.path, f"byte {element.offset:,}", reason))
        return False


def first_elements(path: Path, most: int = 100) -> Iterator[tuple[str, Any]]:
    """Section and value of the first elements of a file, to see what it is."""
    yield from ((element.section, element.value) for element in islice(elements(path), most))


def _numbers(ids: Numbers, order: npt.NDArray[np.integer[Any]], wanted: Numbers) -> Numbers:
    if not len(ids):
        return np.full(len(wanted), -1, np.int64)
    places = np.searchsorted(ids, wanted, sorter=order).clip(max=len(ids) - 1)
    found: Numbers = np.where(ids[order[places]] == wanted, order[places], -1)
    return found


def _image_name(image: dict[str, Any]) -> str:
    name = image.get("file_name")
    if not isinstance(name, str):
        name = image.get("coco_url")
        name = "/".join(name.split("/")[-2:]) if isinstance(name, str) else ""
    return name


def _side(value: object) -> int:
    return value if type(value) is int and 0 < value < 2**31 else 0


def _is_id(value: object) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63
