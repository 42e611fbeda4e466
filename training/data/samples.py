"""Data sets for training: samples of a picture, an expression and the mask of what it names.

An importer of a published format is a `Source`: a sequence that indexes all its rows and keeps little of them in
memory. It decodes a mask when its row is read. An unusable row never ends the reading: it is a `Skip`, which names
the file and the row, found during indexing or returned in place of the sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from steersearch.core.errors import SampleError, SplitMissingError
from steersearch.core.images.pillow import opened
from steersearch.core.preprocess import open_image
from steersearch.training.data.mask_codec import Mask, MaskError
from steersearch.training.data.orientation import BoxArray, Frame, fit, read_header, turn_boxes

_VALIDATION = ("validation", "valid", "val")  # names of one split


@dataclass(frozen=True, slots=True)
class Sample:
    """One row. mask: (H, W) bool, of the size of `Source.picture`, never all False unless absent
    source: name of the data set;  image_id, split: the source's own;  absent: the expression fits nothing there
    """

    image: Path
    expression: str
    mask: Mask
    source: str
    image_id: str
    split: str
    absent: bool = False


@dataclass(frozen=True, slots=True)
class Boxed:
    """A row with boxes and no mask yet; see `masks`."""

    image: Path
    expression: str
    boxes: BoxArray
    source: str
    image_id: str
    split: str


@dataclass(frozen=True, slots=True)
class Skip:
    """Something unusable, and the reason. path: the file;  row: where in it, "" for all of it;  rows: how many
    expressions are lost."""

    path: Path
    row: str
    reason: str
    rows: int = 1

    def __str__(self) -> str:
        return f"{self.path}{', ' if self.row else ''}{self.row}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Row:
    """A row without its mask, from the index alone. path, row: where it is written."""

    image: Path
    expression: str
    image_id: str
    split: str
    source: str
    path: Path
    row: str


@dataclass(frozen=True, slots=True)
class Boxes:
    """Boxes in place of a mask."""

    boxes: BoxArray


@dataclass(frozen=True, slots=True)
class Reading:
    """How a source reads its rows.

    frame: "shown": upright by EXIF and in sRGB, expressions with single spaces; or "stored": pixels and white space as
        in the files, which is how the released code reads them
    keep_empty: a row with an empty mask is a sample whose expression fits nothing in the picture; else a Skip
    """

    frame: Frame = "shown"
    keep_empty: bool = False


class Source(ABC):
    """A sequence of samples in a fixed order, the same in every process.

    Rows are numbered from 0 to len - 1. `read` never raises for the content of a row; `source[i]` raises SampleError,
    and iterating yields the usable samples only. A source holds no open file, so it can be pickled, and read by
    several processes and threads at once.

    name: short name of the data set;  has_boxes: whether some rows have boxes and no mask
    skips: what indexing found unusable; these rows have no number
    reading: how rows are read
    """

    name: str
    skips: list[Skip]
    has_boxes: bool = False
    reading: Reading = Reading()

    @property
    def data_sets(self) -> tuple[str, ...]:
        """The possible values of `Sample.source`: several for a mix."""
        return (self.name,)

    def read_as(self, reading: Reading) -> None:
        """Read rows this way from now on."""
        self.reading = reading

    def drawn_on(self, index: int) -> Frame:
        """What the annotation of row `index` was drawn on, where sizes are ambiguous. Published ones: "stored"."""
        return "stored"

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def row(self, index: int) -> Row:
        """Row `index`, 0 <= index < len, without reading its mask."""

    @abstractmethod
    def annotation(self, index: int) -> Mask | Boxes:
        """The mask of row `index`, (H, W) bool, before comparison with the picture; or its boxes, if it has no mask.

        Raises MaskError, or OSError or ValueError if the file cannot be read.
        """

    def read(self, index: int) -> Sample | Boxed | Skip:
        """Row `index` with its mask, decoded and compared with the picture."""
        row = self.row(index)
        try:
            found = self.annotation(index)
        except MaskError as error:
            return Skip(row.path, row.row, str(error))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or f"it is not what was indexed ({error})"
            return Skip(row.path, row.row, reason)
        try:
            return self._compared(row, found, self.drawn_on(index))
        except MaskError as error:
            return Skip(row.path, row.row, str(error))
        except SampleError as error:
            return Skip(error.path, error.row, error.reason)

    def _compared(self, row: Row, found: Mask | Boxes, drawn_on: Frame) -> Sample | Boxed:
        """Raises MaskError, SampleError."""
        names = (row.source, row.image_id, row.split)
        if isinstance(found, Boxes):
            header = read_header(row.image)
            boxes = _usable_boxes(found.boxes)
            turned = boxes if drawn_on == "shown" else turn_boxes(boxes, header)
            return Boxed(row.image, row.expression, turned, *names)
        absent = not found.any()
        if absent and not self.reading.keep_empty:
            raise MaskError("its mask is empty")
        mask = fit(found, read_header(row.image), drawn_on, self.reading.frame)
        return Sample(row.image, row.expression, mask, *names, absent)

    def picture(self, index: int) -> Image.Image:
        """The picture of row `index`, RGB, a new one each call. Raises ImageError if it is unusable."""
        path = self.row(index).image
        if self.reading.frame == "shown":
            return open_image(path)
        with opened(path) as image:
            return image.convert("RGB")

    def _said(self, expression: str) -> str:
        """An expression in the frame of the reading."""
        return single_spaced(expression) if self.reading.frame == "shown" else expression

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        found = self.read(index % len(self))
        if isinstance(found, Sample):
            return found
        if isinstance(found, Skip):
            raise SampleError(found.path, found.row, found.reason)
        row = self.row(index % len(self))
        raise SampleError(row.path, row.row, "it has boxes and no mask; make masks: steersearch train masks")

    def __iter__(self) -> Iterator[Sample]:
        for index in range(len(self)):
            found = self.read(index)
            if isinstance(found, Sample):
                yield found


class Joined(Source):
    """Several sources one after another; each sample keeps the name of its own."""

    def __init__(self, name: str, sources: Sequence[Source]) -> None:
        self.name, self.sources = name, list(sources)
        self.skips = [skip for source in sources for skip in source.skips]
        self.has_boxes = any(source.has_boxes for source in sources)
        self._ends = np.cumsum([len(source) for source in sources], dtype=np.int64)

    @property
    def data_sets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for source in self.sources for name in source.data_sets))

    def read_as(self, reading: Reading) -> None:
        self.reading = reading
        for source in self.sources:
            source.read_as(reading)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.sources else 0

    def row(self, index: int) -> Row:
        source, index = self._place(index)
        return source.row(index)

    def annotation(self, index: int) -> Mask | Boxes:
        source, index = self._place(index)
        return source.annotation(index)

    def read(self, index: int) -> Sample | Boxed | Skip:
        source, index = self._place(index)
        return source.read(index)

    def picture(self, index: int) -> Image.Image:
        source, index = self._place(index)
        return source.picture(index)

    def _place(self, index: int) -> tuple[Source, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self.sources[number], index - int(self._ends[number - 1] if number else 0)


# ------------------------------------------------------------------------------------------- what rows hold


def checked_expression(text: object) -> str:
    """`text`, validated. Raises ValueError with the reason if it is unusable."""
    if not isinstance(text, str):
        raise ValueError("its expression is missing" if text is None else "its expression is not a text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("its expression is not UTF-8") from None
    if not text.strip():
        raise ValueError("its expression is empty")
    return text


def single_spaced(text: str) -> str:
    """`text` with single spaces, stripped."""
    return " ".join(text.split())


def _usable_boxes(boxes: BoxArray) -> BoxArray:
    usable = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    if not usable.any():
        raise MaskError("its box is empty")
    return boxes[usable]


# --------------------------------------------------------------------------------------- columns of an index


class Texts(Sequence[str]):
    """Many strings in one block of UTF-8, lone surrogates included: 8 bytes each beside the letters; a list has 60."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._letters, self._ends = bytearray(), array("q", [0])
        for text in texts:
            self.append(text)

    def append(self, text: str) -> int:
        """Add `text`; returns its number."""
        self._letters += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._letters))
        return len(self._ends) - 2

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # no slices
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._letters[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogatepass")


def is_split(name: str, wanted: str | None) -> bool:
    """Whether split `name` is wanted: "val" also means "validation", None means all."""
    return wanted is None or name == wanted or (name in _VALIDATION and wanted in _VALIDATION)


def require_split(path: Path, splits: Sequence[str], wanted: str | None) -> None:
    """Raise SplitMissingError if none of `splits` is wanted."""
    if wanted is not None and not any(is_split(name, wanted) for name in splits):
        raise SplitMissingError(path, wanted, splits)
