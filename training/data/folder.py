"""Our own plain format, for everybody's data: pictures, and a line of JSON for each expression.

    data/
      expressions.jsonl          or several: expressions-00000.jsonl, expressions-00001.jsonl, …
      source.json                optional: {"name": "tools", "images": "../photos"}
      photos/one.jpg
      masks/one-wrench.png

    {"image": "photos/one.jpg", "expression": "the wrench", "mask": "masks/one-wrench.png", "split": "train"}
    {"image": "photos/one.jpg", "expression": "the left nut", "mask": {"size": [480, 640], "counts": "…"}}
    {"image": "photos/one.jpg", "expression": "the bolt", "mask": [[12, 30, 40, 30, 40, 60, 12, 60]], "id": "7"}
    {"image": "photos/one.jpg", "expression": "the hammer", "box": [10, 20, 300, 80]}

Paths are relative to the folder, or for pictures to what `images` names, with "/" between their parts, and never
lead out of it. A mask is a PNG (white on black, or as `mask_file` says), a run-length code of COCO (plain or
compressed) or polygons [x0, y0, x1, y1, …] in pixels, of the picture's size as a viewer shows it. A row with a box
(left, top, width, height; or several) and no mask is for `boxes_to_masks`. `split` is "train" if it is not given.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, TextIO

import numpy as np

from steersearch.core.errors import DataError
from steersearch.core.files import drafted, open_regular, parse_json, read_json
from steersearch.training.data.importers.importer import Importer
from steersearch.training.data.importers.json_stream import read_element
from steersearch.training.data.mask_codec import Mask, MaskError, decode_rle, decode_segmentation, encode_rle
from steersearch.training.data.mask_file import read_mask_file
from steersearch.training.data.orientation import BoxArray, Frame, read_header
from steersearch.training.data.samples import (
    Boxes,
    Row,
    Skip,
    Source,
    Texts,
    checked_expression,
    is_split,
    require_split,
)

SETTINGS = "source.json"


def expression_files(folder: Path) -> list[Path]:
    """The files with the rows, in order."""
    return [*folder.glob("expressions.jsonl"), *sorted(folder.glob("expressions-*.jsonl"))]


class Folder(Source):
    """One row per line, files in the order of their names.

    images: the folder that the pictures' paths start from; None: what source.json says, else the folder itself
    """

    def __init__(self, folder: Path, images: Path | None = None, split: str | None = None) -> None:
        self._files = expression_files(folder)
        if not self._files:
            raise DataError(folder, "no expressions.jsonl in it, with a line of JSON for each expression")
        settings = _settings(folder)
        self.name = str(settings.get("name") or folder.resolve().name)
        self.skips = []
        self._folder = folder
        self._root = images if images is not None else folder / str(settings.get("images") or ".")
        if not os.path.isdir(self._root):  # also for a name that cannot be one
            way_out = f"name it with --images, or in {folder / SETTINGS}"
            raise DataError(self._root, f"no such folder of pictures; {way_out}")
        self._images, self._texts, self._ids, self._splits = Texts(), Texts(), Texts(), list[str]()
        self._columns = {name: array("q") for name in ("file", "line", "offset", "length", "image", "split")}
        self._index(split)
        require_split(folder, self._splits, split)

    def __len__(self) -> int:
        return len(self._texts)

    def row(self, index: int) -> Row:
        column = {name: values[index] for name, values in self._columns.items()}
        image = self._images[column["image"]]
        place = f"line {column['line']:,}"
        path, split = self._files[column["file"]], self._splits[column["split"]]
        return Row(self._root / image, self._said(self._texts[index]), image, split, self.name, path, place)

    def drawn_on(self, index: int) -> Frame:
        return "shown"

    def row_id(self, index: int) -> str:
        """What the row has as "id", "" if nothing."""
        return self._ids[index]

    def annotation(self, index: int) -> Mask | Boxes:
        column = {name: values[index] for name, values in self._columns.items()}
        found = read_element(self._files[column["file"]], column["offset"], column["length"])
        if not isinstance(found, dict):
            raise ValueError("the line has changed")
        if found.get("mask") is None:
            return Boxes(_boxes(found.get("box")))
        mask = found["mask"]
        if isinstance(mask, str):
            return read_mask_file(_inside(self._folder, mask))
        if isinstance(mask, Mapping):
            return decode_rle(mask)
        header = read_header(self._root / self._images[column["image"]])
        return decode_segmentation(mask, header.size(self.drawn_on(index)))

    def _index(self, split: str | None) -> None:
        numbers: dict[str, int] = {}  # of each picture's path; -1: there is no such picture
        for number, path in enumerate(self._files):
            for line, offset, text in _lines(path):
                try:
                    row = _parsed(text)
                    image, of_split = self._image(row, numbers), row.get("split", "train")
                    if not isinstance(of_split, str):
                        raise ValueError("its split is not a text")
                    expression = checked_expression(row.get("expression"))
                    if row.get("mask") is None and row.get("box") is None:
                        raise ValueError("it has neither mask nor box")
                except ValueError as error:
                    self.skips.append(Skip(path, f"line {line:,}", str(error)))
                    continue
                if of_split not in self._splits:
                    self._splits.append(of_split)
                if is_split(of_split, split):
                    self.has_boxes |= row.get("mask") is None
                    self._texts.append(expression)
                    self._ids.append(str(row.get("id", "")))
                    values = (number, line, offset, len(text), image, self._splits.index(of_split))
                    for column, value in zip(self._columns.values(), values, strict=True):
                        column.append(value)

    def _image(self, row: Mapping[str, Any], numbers: dict[str, int]) -> int:
        """The number of a row's picture. Raises ValueError with the reason if it cannot be used."""
        name = row.get("image")
        if not isinstance(name, str) or not name:
            raise ValueError("it names no image")
        if name not in numbers:
            there = os.path.isfile(_inside(self._root, name))
            numbers[name] = self._images.append(name) if there else -1
        if numbers[name] < 0:
            raise ValueError(f"its picture {name} was not found")
        return numbers[name]


class FolderWriter:
    """Writes one file of rows; it appears whole, under its name, when the `with` block ends without an error.

    with FolderWriter(Path("data/expressions.jsonl")) as rows:
        rows.add("photos/one.jpg", "the wrench", mask)
    """

    def __init__(self, path: Path) -> None:
        self._path, self._open = path, ExitStack()
        self._file: TextIO | None = None

    def __enter__(self) -> FolderWriter:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._open.enter_context(drafted(self._path))
        self._file = self._open.enter_context(draft.open("w", encoding="utf-8", newline="\n"))
        return self

    def add(
        self,
        image: str,
        expression: str,
        found: Mask | Mapping[str, Any] | Boxes,
        *,
        split: str = "train",
        row_id: str = "",
    ) -> None:
        """A row. image: path relative to the folder of pictures; found: a mask or its code, or boxes."""
        row: dict[str, Any] = {"image": image, "expression": expression}
        if isinstance(found, Boxes):
            boxes = found.boxes.tolist()
            row["box"] = boxes[0] if len(boxes) == 1 else boxes
        else:
            row["mask"] = dict(found) if isinstance(found, Mapping) else encode_rle(found)
        row |= {"split": split} | ({"id": row_id} if row_id else {})
        assert self._file is not None  # used in a `with` block
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS
    try:
        found = read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise DataError(path, "no JSON object")
    return found


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Number from 1, place in bytes, and text of each line that is not blank."""
    offset = 0
    try:
        with open_regular(path) as file:
            for number, line in enumerate(file, 1):
                mark = 3 if number == 1 and line.startswith(b"\xef\xbb\xbf") else 0
                if line[mark:].strip():
                    yield number, offset + mark, line[mark:]
                offset += len(line)
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        row = parse_json(line.decode("utf-8", "surrogateescape"))
    except ValueError:
        raise ValueError("it is not JSON") from None
    if not isinstance(row, dict):
        raise ValueError("it is not a JSON object")
    return row


def _inside(root: Path, name: str) -> Path:
    """The path below `root`. Raises MaskError, a ValueError, for one that leads out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise MaskError(f"the path {name!r} leads out of the folder")
    return root / path


def _boxes(found: object) -> BoxArray:
    try:
        with np.errstate(over="ignore"):
            boxes = np.array(found, np.float32)
    except (TypeError, ValueError, OverflowError):
        raise MaskError("its box is not [left, top, width, height]") from None
    boxes = boxes[None] if boxes.ndim == 1 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
        raise MaskError("its box is not [left, top, width, height]")
    return boxes


def _open(path: Path, images: Path | None, split: str | None) -> Folder:
    return Folder(path.parent if path.is_file() else path, images, split)


IMPORTER = Importer(
    expects="a folder with expressions.jsonl",
    open=_open,
    holds=lambda path: path.name == "expressions.jsonl" or expression_files(path),
)
