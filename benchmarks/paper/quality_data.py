"""Readers of the data of `quality`: ImageWoof, Waterbirds and Stanford Cars for probes, ADE20k for segmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from steersearch.benchmarks.harness.benchmark import Source, short_of
from steersearch.benchmarks.harness.label_file import Labels, read_labels
from steersearch.benchmarks.harness.table_file import read_table, read_text
from steersearch.benchmarks.harness.viewing import Opener, digest, evenly
from steersearch.core.errors import BenchmarkError
from steersearch.core.preprocess import open_image

ADE_CLASSES = 150
PUBLISHED = {
    "imagewoof": 12_954,
    "waterbirds": 10_589,
    "cars": 16_185,
    "ade20k": 22_210,
}  # train and test pictures

_PICTURES = (".jpg", ".jpeg", ".png")
_WATERBIRDS_SPLITS = {"0": "train", "1": "val", "2": "test"}


@dataclass(frozen=True)
class Labelled:
    """A picture and its class number; group: for the accuracy per group, -1 if the data has none."""

    picture: Opener
    label: int
    group: int = -1


@dataclass(frozen=True, kw_only=True)
class LabelledSet:
    """Pictures for a linear probe under one prompt. digest: a hash of all of them, the training ones first."""

    name: str
    prompt: str
    classes: int
    train: tuple[Labelled, ...]
    test: tuple[Labelled, ...]
    digest: str

    def __len__(self) -> int:
        return len(self.train) + len(self.test)

    def read(self, number: int) -> Image.Image:
        """The training pictures first, then the test pictures."""
        return (*self.train, *self.test)[number].picture()


@dataclass(frozen=True)
class Segmented:
    """A picture and the class of each pixel, (H, W), both opened on demand.

    present: the classes that occur in it.
    """

    picture: Opener
    labels: Callable[[], Labels]
    present: frozenset[int]


@dataclass(frozen=True, kw_only=True)
class SegmentedSet:
    """Pictures for the memory of patches, and test pictures to label with it. classes: number -> name."""

    classes: dict[int, str]
    memory: tuple[Segmented, ...]
    test: tuple[Segmented, ...]
    digest: str


@dataclass(frozen=True, kw_only=True)
class QualityData:
    """The data sets that were found. partial: see Dataset."""

    name: str
    source: Source
    licence: str
    labelled: tuple[LabelledSet, ...]
    segmented: SegmentedSet | None

    @property
    def n(self) -> int:
        segmented = self.segmented
        pictures = 0 if segmented is None else len(segmented.memory) + len(segmented.test)
        return sum(map(len, self.labelled)) + pictures

    @property
    def data_hash(self) -> str:
        hashes = [part.digest for part in (*self.labelled, self.segmented) if part is not None]
        return digest(value.encode() for value in hashes)

    @property
    def partial(self) -> tuple[str, ...]:
        """See Dataset; () for generated data."""
        if self.source != "real":
            return ()
        sizes = {one.name: len(one) for one in self.labelled}
        if self.segmented is not None:
            sizes["ade20k"] = len(self.segmented.memory) + len(self.segmented.test)
        return tuple(
            f"{name}: {reason}" if name in sizes else f"no {name}"
            for name, published in PUBLISHED.items()
            for reason in short_of(sizes.get(name, 0), published, "pictures")
        )


def read_quality(folder: Path, limit: int | None = None) -> QualityData | None:
    """All data sets in `folder`, under any name; None if there is none.

    limit: pictures of each split.  Raises BenchmarkError for one that is damaged.
    """
    labelled = [read(folder, limit) for read in (read_imagewoof, read_waterbirds, read_cars)]
    found = tuple(one for one in labelled if one is not None)
    segmented = read_ade20k(folder, limit)
    if not found and segmented is None:
        return None
    return QualityData(
        name="quality",
        source="real",
        licence="ImageWoof Apache-2.0, ADE20k BSD-3; Waterbirds, Stanford Cars and all photos for research",
        labelled=found,
        segmented=segmented,
    )


# ------------------------------------------------------------------------------------------------ linear probes


def read_imagewoof(folder: Path, limit: int | None = None) -> LabelledSet | None:
    """imagewoof2: train/SYNSET/*.JPEG and val/SYNSET/*.JPEG, ten synsets of dogs."""
    root = next((path for path in _below(folder) if (path / "val/n02086240").is_dir()), None)
    return (
        None if root is None else _from_folders("imagewoof", "the dog", root / "train", root / "val", limit)
    )


def read_cars(folder: Path, limit: int | None = None) -> LabelledSet | None:
    """Stanford Cars with a folder for each class: train/CLASS/*.jpg and test/CLASS/*.jpg, 196 of them."""
    root = next(
        (path for path in _below(folder) if "car" in path.name.lower() and (path / "test").is_dir()), None
    )
    return None if root is None else _from_folders("cars", "the car", root / "train", root / "test", limit)


def read_waterbirds(folder: Path, limit: int | None = None) -> LabelledSet | None:
    """Waterbirds: metadata.csv with img_filename, y, split (0 train, 1 val, 2 test) and place; val is not used."""
    root = next((path for path in _below(folder) if _is_waterbirds(path / "metadata.csv")), None)
    if root is None:
        return None
    listed = root / "metadata.csv"
    parts: dict[str, list[tuple[Path, int, int]]] = {"train": [], "test": [], "val": []}
    for number, row in read_table(listed, ("img_filename", "y", "split", "place")):
        split = _WATERBIRDS_SPLITS.get(row["split"])
        if split is None or row["y"] not in ("0", "1") or row["place"] not in ("0", "1"):
            raise BenchmarkError(f"{listed}, line {number}: split, y or place is none of its numbers")
        path = root / row["img_filename"]
        if not path.is_file():
            raise BenchmarkError(f"{listed}, line {number}: {path.name} is missing")
        parts[split].append((path, int(row["y"]), 2 * int(row["y"]) + int(row["place"])))
    return _labelled("waterbirds", "the bird", 2, parts["train"], parts["test"], limit)


def _is_waterbirds(listed: Path) -> bool:
    return listed.is_file() and b"img_filename" in listed.read_bytes().partition(b"\n")[0]


def _below(folder: Path) -> list[Path]:
    """`folder` and the folders in it, two levels down."""
    if not folder.is_dir():
        return []
    return [folder, *sorted(p for pattern in ("*", "*/*") for p in folder.glob(pattern) if p.is_dir())]


def _from_folders(name: str, prompt: str, train: Path, test: Path, limit: int | None) -> LabelledSet:
    classes = sorted(path.name for path in train.iterdir() if path.is_dir() and not path.name.startswith("."))
    strange = sorted(path.name for path in test.iterdir() if path.is_dir() and path.name not in classes)
    if strange:
        raise BenchmarkError(f"{test / strange[0]}: a class without pictures to train on")
    parts = [
        [(path, number, -1) for number, one in enumerate(classes) for path in _pictures(split / one)]
        for split in (train, test)
    ]
    return _labelled(name, prompt, len(classes), parts[0], parts[1], limit)


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = (path for path in sorted(folder.iterdir()) if path.suffix.lower() in _PICTURES)
    return [path for path in found if not path.name.startswith(".")]


def _labelled(
    name: str,
    prompt: str,
    classes: int,
    train: Sequence[tuple[Path, int, int]],
    test: Sequence[tuple[Path, int, int]],
    limit: int | None,
) -> LabelledSet:
    kept = [evenly(rows, limit) for rows in (train, test)]
    if not all(kept):
        raise BenchmarkError(f"{name}: a split without pictures")
    made = [
        tuple(Labelled(partial(open_image, path), label, group) for path, label, group in rows)
        for rows in kept
    ]
    files = (path.read_bytes() for rows in kept for path, _, _ in rows)
    return LabelledSet(
        name=name, prompt=prompt, classes=classes, train=made[0], test=made[1], digest=digest(files)
    )


# ------------------------------------------------------------------------------------------------- segmentation


def read_ade20k(folder: Path, limit: int | None = None) -> SegmentedSet | None:
    """ADEChallengeData2016: images and annotations of training and validation, objectInfo150.txt; 0 stands for none.

    limit: pictures of each split.
    """
    root = next((path for path in _below(folder) if (path / "objectInfo150.txt").is_file()), None)
    if root is None:
        return None
    parts = [evenly(_pairs(root, split), limit) for split in ("training", "validation")]
    made = [tuple(_segmented(*pair) for pair in pairs) for pairs in parts]
    files = (path.read_bytes() for pairs in parts for pair in pairs for path in pair)
    return SegmentedSet(
        classes=_class_names(root / "objectInfo150.txt"), memory=made[0], test=made[1], digest=digest(files)
    )


def _pairs(root: Path, split: str) -> list[tuple[Path, Path]]:
    pairs = []
    for picture in _pictures(root / "images" / split):
        labels = root / "annotations" / split / f"{picture.stem}.png"
        if not labels.is_file():
            raise BenchmarkError(f"{labels}: is missing")
        pairs.append((picture, labels))
    if not pairs:
        raise BenchmarkError(f"{root / 'images' / split}: holds no picture")
    return pairs


def _segmented(picture: Path, labels: Path) -> Segmented:
    values = read_labels(labels, ADE_CLASSES, picture)
    present = frozenset(int(value) for value in np.unique(values) if value)
    return Segmented(
        partial(open_image, picture), partial(read_labels, labels, ADE_CLASSES, picture), present
    )


def _class_names(listed: Path) -> dict[int, str]:
    """Number -> the first of its names. Lines are: number, ratio, counts, whether it is stuff, names, by tabs."""
    names: dict[int, str] = {}
    for line in read_text(listed).splitlines():
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) > 1 and columns[0].isdecimal():
            names[int(columns[0])] = columns[-1].split(",")[0].strip()
    if not names:
        raise BenchmarkError(f"{listed}: names no class")
    return names
