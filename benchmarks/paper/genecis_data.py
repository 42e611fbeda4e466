"""GeneCIS's data: questions (a reference, a condition and a gallery), and the reader of the published set.

That has four JSON files of rows, COCO's val2017 for the object splits, and Visual Genome 1.2 for the attribute splits,
whose pictures are boxes cut out with their surroundings.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from steersearch.benchmarks.harness.benchmark import DataMissingError, Source, short_of
from steersearch.benchmarks.harness.cache import digest_of
from steersearch.benchmarks.harness.catalogue import card
from steersearch.core.errors import BenchmarkError, ImageError
from steersearch.core.files import file_sha256, read_json
from steersearch.core.images.reader import read_header
from steersearch.core.preprocess import open_image

DILATION = 0.7  # of a box's width and height
COCO = ("val2017", "coco/val2017", "images/val2017", "coco")
VISUAL_GENOME = ("VG_100K", "VG_100K_2", "visual_genome/VG_100K", "visual_genome/VG_100K_2", "vg", "VG_All")
ROWS = ("", "genecis")  # where the JSON files are
ROWS_OF = {"focus_attribute": 2000, "change_attribute": 2112, "focus_object": 1960, "change_object": 1960}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """One row: indices of pictures, the target first in the gallery."""

    reference: int
    gallery: tuple[int, ...]
    condition: str


@dataclass(frozen=True)
class Shown:
    """A picture of a split, opened on demand. identity: for the data's hash."""

    open: Callable[[], Image.Image]
    identity: str


@dataclass(frozen=True)
class Split:
    """All rows of one split; implements `embeddings.Pictures`."""

    name: str
    questions: tuple[Question, ...]
    pictures: tuple[Shown, ...]

    @property
    def digest(self) -> str:
        return digest_of([picture.identity for picture in self.pictures])

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, number: int) -> Image.Image:
        return self.pictures[number].open()


@dataclass(frozen=True, kw_only=True)
class GenecisData:
    """All splits. remarks: JSON-able, for the record: what was left out, how it was made; partial: see Dataset."""

    name: str
    source: Source
    licence: str
    splits: tuple[Split, ...]
    remarks: Mapping[str, Any] = field(default_factory=dict)
    partial: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        return sum(len(split) for split in self.splits)

    @property
    def data_hash(self) -> str:
        return digest_of([[s.name, s.digest, [vars(q) for q in s.questions]] for s in self.splits])


def load(place: Path | None, limit: int | None, splits: Sequence[str]) -> GenecisData:
    """The splits of `splits` whose JSON file is in `place`; see the card for the layout.

    limit: rows of each split. Unusable rows are skipped, logged and counted in the record: missing fields or pictures,
    or a gallery not as long as the split's most common one, which the published code skips too.
    Raises DataMissingError, BenchmarkError.
    """
    if place is None:
        raise DataMissingError(card("genecis"), "name its folder with --data")
    files = {split: _rows_file(place, split) for split in splits}
    if not any(files.values()):
        raise DataMissingError(
            card("genecis"), f"none of {', '.join(f'{s}.json' for s in splits)} in {place}"
        )
    read, left_out, partial = [], {}, []
    for split, file in files.items():
        if file is None:
            partial.append(f"no {split}.json")
            continue
        made, left_out[split] = read_split(split, file, place, limit)
        read.append(made)
        partial += [f"{split}: {reason}" for reason in short_of(len(made.questions), ROWS_OF[split], "rows")]
    data = card("genecis").data
    assert data is not None
    return GenecisData(
        name="genecis",
        source="real",
        licence=data.licence,
        splits=tuple(read),
        remarks={"left_out": left_out},
        partial=tuple(partial),
    )


@dataclass(frozen=True)
class _Picture:
    """A picture of a row: a file, and the box (x, y, width, height) to cut out, if any."""

    file: Path
    box: tuple[float, float, float, float] | None


def read_split(name: str, file: Path, place: Path, limit: int | None = None) -> tuple[Split, int]:
    """One split, and the number of skipped rows. Raises BenchmarkError for a file without usable rows."""
    try:
        rows = read_json(file)
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{file}: cannot be read ({error})") from error
    if not isinstance(rows, list):
        raise BenchmarkError(f"{file}: must be a list of rows, it is a {type(rows).__name__}")
    usual = _usual_gallery(rows)
    index: dict[_Picture, int] = {}
    questions: list[Question] = []
    skipped = 0
    for number, row in enumerate(rows):
        if limit is not None and len(questions) == limit:
            break
        try:
            pictures = _pictures_of(row, place, usual)
        except (KeyError, TypeError, ValueError, FileNotFoundError) as error:
            skipped += 1
            logger.warning("left out: %s, row %d: %s", file.name, number, _reason(error))
            continue
        reference, *gallery = (index.setdefault(picture, len(index)) for picture in pictures)
        questions.append(Question(reference, tuple(gallery), row["condition"].strip()))
    if not questions:
        raise BenchmarkError(f"{file}: none of its {len(rows)} rows can be used; the log says why")
    hashes = {path: file_sha256(path) for path in dict.fromkeys(picture.file for picture in index)}
    shown = tuple(
        Shown(partial(opened, p.file, p.box), digest_of(hashes[p.file], p.box, DILATION)) for p in index
    )
    return Split(name, tuple(questions), shown), skipped


def opened(file: Path, box: tuple[float, float, float, float] | None) -> Image.Image:
    """The picture, RGB; with a box, its content with surroundings on a black square."""
    picture = open_image(file)
    return picture if box is None else to_square(cut_out(picture, box))


def cut_out(picture: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
    """The box (x, y, width, height) with DILATION of its size to the left and above, and as the published code has it,
    to 1.7 times its size from there on; what lies outside the picture is cut off."""
    x, y, width, height = box
    left, top = max(0.0, x - DILATION * width), max(0.0, y - DILATION * height)
    right = min(picture.width, left + (1 + DILATION) * width)
    bottom = min(picture.height, top + (1 + DILATION) * height)
    return picture.crop((left, top, right, bottom))


def to_square(picture: Image.Image) -> Image.Image:
    """The picture in the middle of a black square as wide as its longer side."""
    side = max(picture.size)
    square = Image.new("RGB", (side, side))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


# -------------------------------------------------------------------------------------------------------- rows


def _usual_gallery(rows: Sequence[Any]) -> int:
    """The most common gallery length without the target; of several the smallest."""
    lengths = Counter(
        len(row["gallery"]) for row in rows if isinstance(row, dict) and isinstance(row.get("gallery"), list)
    )
    return min(lengths, key=lambda length: (-lengths[length], length), default=0)


def _pictures_of(row: Any, place: Path, usual: int) -> list[_Picture]:
    """Reference, target, and the others of the gallery."""
    if not isinstance(row["condition"], str) or not row["condition"].strip():
        raise ValueError("its condition is empty, or not a text")
    if len(row["gallery"]) != usual:
        raise ValueError(f"{len(row['gallery'])} pictures in its gallery, elsewhere {usual}")
    return [_picture(entry, place) for entry in (row["reference"], row["target"], *row["gallery"])]


def _picture(entry: Mapping[str, Any], place: Path) -> _Picture:
    if "val_image_id" in entry:
        return _Picture(_found(place, COCO, f"{int(entry['val_image_id']):012d}.jpg"), None)
    x, y, width, height = (float(value) for value in entry["instance_bbox"])
    if not (0 < width < math.inf and 0 < height < math.inf):
        raise ValueError(f"a box of {width:g} x {height:g} pixels")
    file = _found(place, VISUAL_GENOME, f"{entry['image_id']}.jpg")
    try:
        (wide, high), _ = read_header(file)
    except ImageError as error:
        raise ValueError(str(error)) from error
    if not (-width < x < wide and -height < y < high):
        raise ValueError(f"a box at {x:g}, {y:g} outside of the {wide} x {high} pixels of {file.name}")
    return _Picture(file, (x, y, width, height))


def _found(place: Path, folders: Sequence[str], name: str) -> Path:
    for folder in folders:
        path = place / folder / name
        if path.is_file():
            return path
    raise FileNotFoundError(f"no picture {name} in {', '.join(folders)}")


def _rows_file(place: Path, split: str) -> Path | None:
    paths = (place / folder / f"{split}.json" for folder in ROWS)
    return next((path for path in paths if path.is_file()), None)


def _reason(error: Exception) -> str:
    return f"no field {error}" if isinstance(error, KeyError) else str(error)
