"""Labelled photographs kept from training and tuning: half of GCompris', and those of darknet.

`photographs.tsv` lists what each shows. They come with their Debian packages; this repository contains none.
"""

from __future__ import annotations

import csv
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from steersearch.core.errors import DataError
from steersearch.core.preprocess import open_image
from steersearch.training.data.mask_codec import Mask
from steersearch.training.photographs.listed import PACKAGES, Listed, is_test_only, read_listed
from steersearch.training.photographs.packages import Package, fetch

logger = logging.getLogger(__name__)

TEST_PACKAGES = (
    PACKAGES["gcompris-qt-data"],
    Package("darknet", "debian", "", "public domain; no licence is stated for its photographs"),
)
LICENCE = "each photograph its own (GCompris: public domain, CC0, CC BY, CC BY-SA; darknet: not stated)"
Box = tuple[float, float, float, float]  # left, top, right, bottom in percent of the picture


@dataclass(frozen=True)
class Label:
    """An object in a photograph. noun: "" if it has none.  wider: more general words for it.

    boxes: where it is, in a cluttered photograph; empty if the photograph shows nothing else.
    """

    photograph: Listed
    noun: str
    wider: frozenset[str]
    boxes: tuple[Box, ...]

    @property
    def words(self) -> frozenset[str]:
        return self.wider | {self.noun} - {""}


@dataclass(frozen=True)
class Photograph:
    """A picture (RGB) and all of its labels."""

    name: str
    picture: Image.Image
    labels: tuple[Label, ...]

    @property
    def words(self) -> frozenset[str]:
        return frozenset().union(*(label.words for label in self.labels))

    @property
    def alone(self) -> str:
        """The noun of a photograph that shows one thing, "" for the others."""
        return self.labels[0].noun if len(self.labels) == 1 and not self.labels[0].boxes else ""

    def mask(self, label: Label) -> Mask:
        """(H, W) bool: the label's boxes."""
        width, height = self.picture.size
        mask = np.zeros((height, width), bool)
        for left, top, right, bottom in label.boxes:
            rows = slice(round(top * height / 100), round(bottom * height / 100))
            mask[rows, round(left * width / 100) : round(right * width / 100)] = True
        return mask


@cache
def labels() -> Sequence[Label]:
    """All labels, grouped by photograph. Raises DataError for a photograph that is not held out for tests."""
    text = (
        resources.files("steersearch.benchmarks.ours").joinpath("photographs.tsv").read_text(encoding="utf-8")
    )
    found = []
    for row in csv.DictReader(text.splitlines(), delimiter="\t"):
        if not is_test_only(row["package"], row["file"]):
            raise DataError("photographs.tsv", f"{row['package']} {row['file']} is not held out for tests")
        boxes = tuple(_box(box) for box in row["boxes"].split(";") if box)
        photograph = Listed(row["package"], row["file"], "", "")
        found.append(Label(photograph, row["noun"], frozenset(row["wider"].split()), boxes))
    return found


def _box(text: str) -> Box:
    left, top, right, bottom = map(float, text.split())
    return left, top, right, bottom


def read_photographs(place: Path | None, cache_folder: Path) -> list[Photograph]:
    """All photographs. place: a folder with the unpacked packages; None: download them to `cache_folder`.

    Raises DataError for a missing package or photograph.
    """
    packages = unpacked(place, cache_folder)
    by_file: dict[Listed, list[Label]] = {}
    for label in labels():
        by_file.setdefault(label.photograph, []).append(label)
    return [
        Photograph(listed.file, decoded(content, listed.file), tuple(by_file[listed]))
        for listed, content in read_listed(list(by_file), packages)
    ]


def decoded(content: bytes, name: str) -> Image.Image:
    """The picture in an archive's file, read like any photo. Raises ImageError."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"photograph{Path(name).suffix}"
        file.write_bytes(content)
        return open_image(file)


def unpacked(place: Path | None, cache_folder: Path) -> Mapping[str, Path]:
    """The folders of TEST_PACKAGES by name, see `read_photographs`."""
    if place is None:
        return {package.name: fetch(package, cache_folder, logger.warning) for package in TEST_PACKAGES}
    missing = [package.name for package in TEST_PACKAGES if not (place / package.name).is_dir()]
    if missing:
        raise DataError(place, f"holds no unpacked package {missing[0]}")
    return {package.name: place / package.name for package in TEST_PACKAGES}
