"""GeneCIS's questions: a reference, a condition and a gallery."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from steersearch.benchmarks.harness.benchmark import Source
from steersearch.benchmarks.harness.cache import digest_of


@dataclass(frozen=True)
class Question:
    """One row: numbers of pictures, the target first in the gallery."""

    reference: int
    gallery: tuple[int, ...]
    condition: str


@dataclass(frozen=True)
class Shown:
    """A picture of a split, opened when it is asked for. told: what it is, for the data's hash."""

    open: Callable[[], Image.Image]
    told: str


@dataclass(frozen=True)
class Split:
    """All rows of one split; it is the `embeddings.Pictures` of its pictures."""

    name: str
    questions: tuple[Question, ...]
    pictures: tuple[Shown, ...]

    @property
    def digest(self) -> str:
        return digest_of([picture.told for picture in self.pictures])

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, number: int) -> Image.Image:
        return self.pictures[number].open()


@dataclass(frozen=True, kw_only=True)
class GenecisData:
    """remarks: JSON-able, for the record: what was left out, how it was made."""

    name: str
    source: Source
    licence: str
    splits: tuple[Split, ...]
    remarks: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n(self) -> int:
        return sum(len(split) for split in self.splits)

    @property
    def data_hash(self) -> str:
        return digest_of([[s.name, s.digest, [vars(q) for q in s.questions]] for s in self.splits])
