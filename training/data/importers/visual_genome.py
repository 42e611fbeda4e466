"""Visual Genome as MDETR preprocessed it (https://github.com/ashkamath/mdetr, .github/pretrain.md).

`final_mixed_train.json`, in COCO's layout. An image is a picture with a caption joined from region descriptions and
GQA questions, each ending in "." or "?": {id, file_name, height, width, caption, original_id, data_source, …}. An
annotation is a box with its spans of the caption: {id, image_id, bbox, tokens_positive: [[start, end], …]}. Only images
with data_source "vg" are used; the others are COCO's.

A row is a phrase with all its boxes. How the paper cut its 1.4 million expressions from them is not published.
Here the first phrase of a description stands for all of it ("man wearing a red hat", for the man), since alone it would
fit other things; other phrases, and those of questions, stand for themselves ("a red hat"). Question words ("what", for
the answer) are left out.

Rows have boxes until `train masks` has made a folder of masks, which is joined by row id.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from steersearch.core.errors import DataError
from steersearch.training.data.folder import Folder
from steersearch.training.data.importers.image_files import VISUAL_GENOME_FOLDERS, listed
from steersearch.training.data.importers.importer import Importer
from steersearch.training.data.importers.json_stream import elements
from steersearch.training.data.mask_codec import Mask
from steersearch.training.data.orientation import Frame
from steersearch.training.data.samples import (
    Boxes,
    Row,
    Skip,
    Source,
    Texts,
    require_split,
    single_spaced,
)

Spans = tuple[tuple[int, int], ...]  # parts of a caption: start, end

_ROW = "annotation "
_END = re.compile(r"[.?](?=\s|$)")
_NO_EXPRESSION = frozenset(
    "what who whom whose where when which why how it this that these those there".split()
)


class VisualGenome(Source):
    """One row per phrase: captions in the order of the file, phrases in the order of their start.

    path: the JSON file; "val" in its name makes it that split, else it is train.  images: the folder with VG_100K
    and VG_100K_2, or one with all pictures; None: beside the file or above it
    masks: the folder that `steersearch train masks` made from this file
    """

    def __init__(
        self,
        path: Path,
        images: Path | None = None,
        split: str | None = None,
        *,
        masks: Path | None = None,
    ) -> None:
        self.name = "visual genome"
        self._path, self._split = path, "val" if "val" in path.stem else "train"
        require_split(path, [self._split], split)
        read = _Captions(path)
        self.skips = read.skips
        files = listed(path, images, [path.parent, path.parent.parent], VISUAL_GENOME_FOLDERS)
        names = [read.names[i] for i in range(len(read.names))]
        self._images = Texts(str(files.find(name) or "") for name in names)
        self._texts = Texts()
        self._index(read, names)
        self._masks = None if masks is None else Folder(masks)
        self._mask_rows = self._joined(self._masks) if self._masks else np.full(len(self), -1)
        self.has_boxes = bool((self._mask_rows < 0).any())

    def _index(self, read: _Captions, names: list[str]) -> None:
        """Collect text, picture, first annotation and boxes of each phrase."""
        captions, order = read.columns["caption"], read.by_caption()
        columns = {name: array("q") for name in ("image", "first", "start")}
        kept: list[int] = []  # annotations, those of a phrase together
        missing, empty = Counter[int](), 0
        end = 0
        while end < len(order):
            start, caption = end, captions[order[end]]
            while end < len(order) and captions[order[end]] == caption:
                end += 1
            phrases: dict[Spans, list[int]] = {}
            for number in order[start:end].tolist():
                phrases.setdefault(read.spans(number), []).append(number)
            image = read.caption_images[caption]
            for spans, text in expressions(read.captions[caption], phrases).items():
                if text is None:
                    empty += 1
                elif not self._images[image]:
                    missing[image] += 1
                else:
                    self._texts.append(text)
                    columns["image"].append(image)
                    columns["first"].append(read.columns["id"][phrases[spans][0]])
                    columns["start"].append(len(kept))
                    kept += phrases[spans]
        self._image, self._first = columns["image"], np.array(columns["first"], np.int64)
        self._starts = np.append(columns["start"], len(kept)).astype(np.int64)
        self._boxes = read.boxes()[kept]
        for image, count in missing.items():
            self.skips.append(Skip(self._path, "", f"its picture {names[image]} was not found", count))
        if empty:
            self.skips.append(Skip(self._path, "", "the phrase is empty or a question word", empty))

    def _joined(self, masks: Folder) -> npt.NDArray[np.int64]:
        """For each row the number of its row in `masks`, -1 for none. Raises DataError for masks of another file."""
        ids = [masks.row_id(i).removeprefix(_ROW) for i in range(len(masks))]
        numbers = np.array([int(text) if text.isdecimal() else -1 for text in ids], np.int64)
        _, here, there = np.intersect1d(self._first, numbers, return_indices=True)
        for one, other in zip(map(self.row, here.tolist()), map(masks.row, there.tolist()), strict=True):
            if (one.image.name, one.expression) != (other.image.name, other.expression):
                differing = (
                    f'"{other.expression}" of {other.image.name}, here "{one.expression}" of {one.image.name}'
                )
                raise DataError(
                    other.path, f"not made of {self._path.name}: {one.row} is {differing}; make them again"
                )
        rows = np.full(len(self), -1, np.int64)
        rows[here] = there
        return rows

    def __len__(self) -> int:
        return len(self._texts)

    def row(self, index: int) -> Row:
        image = Path(self._images[self._image[index]])
        place = f"{_ROW}{self._first[index]}"
        return Row(image, self._texts[index], image.stem, self._split, self.name, self._path, place)

    def drawn_on(self, index: int) -> Frame:
        """Boxes are in the stored picture's frame, masks made of them in the upright one's."""
        return "shown" if self._masks and self._mask_rows[index] >= 0 else "stored"

    def annotation(self, index: int) -> Mask | Boxes:
        if self._masks and self._mask_rows[index] >= 0:
            return self._masks.annotation(int(self._mask_rows[index]))
        return Boxes(self._boxes[self._starts[index] : self._starts[index + 1]])


def mdetr_file(path: Path) -> Path | None:
    """The annotations in a folder; None if there are none."""
    names = ("final_mixed_train.json", "final_mixed_train_no_coco.json", "final_vg_train.json")
    return next((path / name for name in names if (path / name).is_file()), None)


def expressions(caption: str, phrases: Iterable[Spans]) -> dict[Spans, str | None]:
    """The expression of each phrase of a caption, in the order of their start; None for a useless one.

    The first phrase of a description stands for all of it; others, and those of questions, for themselves.
    """
    ends = [*(end.start() for end in _END.finditer(caption)), len(caption)]
    found: dict[Spans, str | None] = {}
    begun: set[int] = set()  # sentences of which a phrase was seen
    for spans in sorted(phrases):
        text = " ".join(caption[start:end] for start, end in spans)
        if spans:
            sentence, last = bisect_left(ends, spans[0][0]), bisect_left(ends, spans[-1][1])
            if sentence not in begun and not caption.startswith("?", ends[last]):
                text = caption[ends[sentence - 1] + 1 if sentence else 0 : ends[last]]
            begun.add(sentence)
        words = single_spaced(text)
        useful = any(letter.isalnum() for letter in words) and words.lower() not in _NO_EXPRESSION
        found[spans] = words if useful else None
    return found


class _Wrong(ValueError):
    """An unusable element; the message says why."""


class _Captions:
    """The index of a file: some 60 bytes for each box, and the captions.

    names: files of the pictures;  captions: the texts;  caption_images: the number of each caption's picture
    columns: id and number of the caption of each annotation
    """

    def __init__(self, path: Path) -> None:
        self.path, self.skips = path, list[Skip]()
        self.names, self.captions, self.caption_images = Texts(), Texts(), array("q")
        self.columns = {"id": array("q"), "caption": array("q")}
        self._boxes, self._letters, self._ends = array("f"), array("i"), array("q", [0])
        self._caption_of: dict[int, int] = {}  # image_id -> caption; -1: the picture is COCO's
        self._name_numbers: dict[str, int] = {}
        for element in elements(path):
            try:
                if element.section == "images":
                    self._add_caption(element.value)
                elif element.section == "annotations":
                    self._add_box(element.value)
            except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
                wrong = str(error) if isinstance(error, _Wrong) else "a field is missing or wrong"
                self.skips.append(Skip(path, f"byte {element.offset:,}", f"{element.section}: {wrong}"))
        if not self._caption_of:
            raise DataError(path, 'not captions in MDETR\'s layout (nothing under "images")')
        del self._caption_of, self._name_numbers

    def _add_caption(self, image: dict[str, Any]) -> None:
        if image["id"] in self._caption_of:
            raise _Wrong(f"an image before it has its id, {image['id']}")
        if image.get("data_source", "vg") != "vg":
            self._caption_of[image["id"]] = -1
            return
        name, caption = image["file_name"], image["caption"]
        if not isinstance(name, str) or not isinstance(caption, str):
            raise _Wrong("no file_name and caption")
        if name not in self._name_numbers:
            self._name_numbers[name] = self.names.append(name)
        self._caption_of[image["id"]] = self.captions.append(caption)
        self.caption_images.append(self._name_numbers[name])

    def _add_box(self, annotation: dict[str, Any]) -> None:
        caption = self._caption_of.get(annotation["image_id"])
        if caption is None:
            raise _Wrong(f"its image {annotation['image_id']} is not in the file before it")
        if caption < 0:
            return
        x, y, width, height = (float(side) for side in annotation["bbox"])
        letters = [int(end) for span in annotation["tokens_positive"] for end in span]
        length = len(self.captions[caption])
        if len(letters) % 2 or not all(0 <= letter <= length for letter in letters):
            raise _Wrong("its tokens_positive are not spans of the caption")
        self.columns["id"].append(annotation["id"])
        self.columns["caption"].append(caption)
        self._boxes.extend((x, y, width, height))
        self._letters.extend(letters)
        self._ends.append(len(self._letters))

    def spans(self, number: int) -> Spans:
        """The spans of annotation `number`, in order."""
        letters = self._letters[self._ends[number] : self._ends[number + 1]]
        return tuple(sorted(zip(letters[::2], letters[1::2], strict=True)))

    def boxes(self) -> Any:
        """(A, 4) float32."""
        return np.array(self._boxes, np.float32).reshape(-1, 4)

    def by_caption(self) -> Any:
        """Numbers of the annotations, grouped by caption, in the order of the file."""
        return np.argsort(np.array(self.columns["caption"], np.int64), kind="stable")


def _open(path: Path, images: Path | None, split: str | None, masks: Path | None = None) -> VisualGenome:
    return VisualGenome(mdetr_file(path) or path, images, split, masks=masks)


def _shows(section: str, value: Mapping[str, Any]) -> bool:
    return "tokens_positive" in value or (section == "images" and "caption" in value)


IMPORTER = Importer(
    expects="MDETR's final_mixed_train.json", open=_open, holds=mdetr_file, shows=_shows, takes_masks=True
)
