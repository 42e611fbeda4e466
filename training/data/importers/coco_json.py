"""Annotations in COCO's JSON layout: {"images": […], "annotations": […], "categories": […]}.

https://cocodataset.org/#format-data. An image has id, file_name (LVIS v1: coco_url), height, width; an annotation
id, image_id, category_id, segmentation, bbox. Memory holds some 32 bytes per annotation and 70 per image; segmentations
are read from the file on demand.

Variants of annotation tools are accepted: ids as texts, integers as 1.0, missing sizes. Ambiguous ids, of several
pictures or categories, are reported, and rows with them skipped.
"""

from __future__ import annotations

import hashlib
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from steersearch.core.errors import DataError
from steersearch.training.data.importers.json_stream import Element, elements, read_element
from steersearch.training.data.mask_codec import Mask, decode_rle, decode_segmentation
from steersearch.training.data.orientation import read_header
from steersearch.training.data.samples import Skip, Texts

Numbers = npt.NDArray[np.int64]

UNKNOWN, AMBIGUOUS = -1, -2  # instead of a number


class CocoJson:
    """Images and annotations of one file, by number; ids are looked up.

    path: the file;  skips: incomplete elements and ambiguous ids
    categories: id -> category;  ambiguous: ids of several categories with different names
    image_names: file name, or the path of coco_url, of each image
    image_sizes: (I, 2) int32, (H, W), 0 if missing
    annotation_ids: (A,) int64; annotation_images (UNKNOWN, AMBIGUOUS), annotation_categories: (A,) int32
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.skips: list[Skip] = []
        self.categories: dict[int, dict[str, Any]] = {}
        self.ambiguous: set[int] = set()
        self.image_names = Texts()
        images, sizes = array("q"), array("i")
        annotations = {name: array("q") for name in ("id", "image_id", "category_id", "offset", "length")}
        self._named: dict[int, int] = {}
        for element in elements(path):
            if element.section == "images" and self._has(element, "id"):
                self.image_names.append(_image_name(element.value))
                images.append(_id(element.value["id"]))
                sizes.extend(_side(element.value.get(side)) for side in ("height", "width"))
            elif element.section == "annotations" and self._has(element, "id", "image_id"):
                values = [_id(element.value["id"]), _id(element.value["image_id"])]
                values += [self._category(element.value.get("category_id")), element.offset, element.length]
                for column, value in zip(annotations.values(), values, strict=True):
                    column.append(value)
            elif element.section == "categories" and self._has(element, "id"):
                self._add_category(element.value)
        if not images:
            raise DataError(path, 'not annotations in COCO\'s layout (nothing under "images")')
        self.image_ids = np.array(images, np.int64)
        self.image_sizes = np.array(sizes, np.int32).reshape(-1, 2)
        self.annotation_ids = np.array(annotations["id"], np.int64)
        self.annotation_categories = np.array(annotations["category_id"], np.int64).astype(np.int32)
        self._offsets = np.array(annotations["offset"], np.int64)
        self._lengths = np.array(annotations["length"], np.int64).astype(np.int32)
        self._order = np.argsort(self.annotation_ids, kind="stable").astype(np.int32)
        self.annotation_images = self._images_of(np.array(annotations["image_id"], np.int64))

    def annotation_numbers(self, ids: Numbers) -> Numbers:
        """The number of the annotation with each id, UNKNOWN for none, AMBIGUOUS for several."""
        numbers = _numbers(self.annotation_ids, self._order, ids)
        following = np.append(self.annotation_ids[self._order][1:], 0)
        places = np.argsort(self._order)[numbers.clip(min=0)]
        repeated = (numbers >= 0) & (places + 1 < len(following)) & (following[places] == ids)
        return np.where(repeated, AMBIGUOUS, numbers)

    def mask(self, annotation: int, picture: Path) -> Mask:
        """(H, W) bool. picture: gives the size if the file does not.

        Raises MaskError for a damaged mask, SampleError, OSError, ValueError if the file has changed.
        """
        found = read_element(self.path, int(self._offsets[annotation]), int(self._lengths[annotation]))
        if not isinstance(found, dict) or _id(found.get("id")) != self.annotation_ids[annotation]:
            raise ValueError("the annotation has moved")
        height, width = self.image_sizes[self.annotation_images[annotation]].tolist()
        segmentation = found.get("segmentation")
        if not (height and width):
            if isinstance(segmentation, dict):  # a run-length code has its own size
                return decode_rle(segmentation)
            height, width = read_header(picture).stored
        return decode_segmentation(segmentation, (height, width))

    def _images_of(self, ids: Numbers) -> npt.NDArray[np.int32]:
        """The number of the image of each annotation."""
        order = np.argsort(self.image_ids, kind="stable")
        numbers = _numbers(self.image_ids, order, ids)
        ordered = self.image_ids[order]
        for place in np.flatnonzero(ordered[1:] == ordered[:-1]).tolist():
            one, other = (self.image_names[int(order[place + i])] for i in (0, 1))
            its = ids == ordered[place]
            if one != other and (numbers[its] >= 0).any():
                reason = f"several pictures have this id ({one}, {other})"
                self.skips.append(Skip(self.path, f"image {ordered[place]}", reason, int(its.sum())))
            if one != other:
                numbers[its] = AMBIGUOUS
        return numbers.astype(np.int32)

    def _category(self, value: object) -> int:
        """The id of a category, in 32 bits."""
        number = _id(value)
        return number if abs(number) < 2**31 else self._named.setdefault(number, -3 - len(self._named))

    def _add_category(self, category: dict[str, Any]) -> None:
        number = self._category(category["id"])
        known = self.categories.setdefault(number, category)
        if known.get("name") != category.get("name"):
            self.ambiguous.add(number)

    def _has(self, element: Element, *names: str) -> bool:
        """Whether the element is an object with these ids; else it is reported."""
        if isinstance(element.value, dict) and all(_is_id(element.value.get(name)) for name in names):
            return True
        reason = f"{element.section}: no object with {' and '.join(names)}"
        self.skips.append(Skip(self.path, f"byte {element.offset:,}", reason))
        return False


def _numbers(ids: Numbers, order: npt.NDArray[np.integer[Any]], wanted: Numbers) -> Numbers:
    if not len(ids):
        return np.full(len(wanted), UNKNOWN, np.int64)
    places = np.searchsorted(ids, wanted, sorter=order).clip(max=len(ids) - 1)
    found: Numbers = np.where(ids[order[places]] == wanted, order[places], UNKNOWN)
    return found


def _image_name(image: dict[str, Any]) -> str:
    name = image.get("file_name")
    if not isinstance(name, str):
        name = image.get("coco_url")
        name = "/".join(name.split("/")[-2:]) if isinstance(name, str) else ""
    return name


def _side(value: object) -> int:
    return int(value) if _is_whole(value) and 0 < value < 2**31 else 0  # type: ignore[call-overload, operator]


def _id(value: object) -> int:
    """The number of an id, also of one written as text or 1.0; any other text gets a hash."""
    if _is_whole(value):
        return int(value)  # type: ignore[call-overload, no-any-return]
    if not isinstance(value, str):
        return UNKNOWN
    text = value.strip()
    if text.removeprefix("-").isdecimal() and len(text) < 19:
        return int(text)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return -(int.from_bytes(digest, "little") >> 2) - 2**62


def _is_id(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, str) and bool(value.strip()))


def _is_whole(value: object) -> bool:
    if isinstance(value, float):
        return value.is_integer() and abs(value) < 2**53
    return type(value) is int and -(2**63) <= value < 2**63
