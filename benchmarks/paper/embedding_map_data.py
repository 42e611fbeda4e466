"""Photos that show one of eight classes: PASCAL VOC2012."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from steersearch.benchmarks.harness.benchmark import Source, short_of
from steersearch.benchmarks.harness.table_file import read_text
from steersearch.benchmarks.harness.viewing import Opener, digest, evenly
from steersearch.benchmarks.paper.mosaic_data import VOC_LICENCE, voc_root
from steersearch.core.errors import BenchmarkError
from steersearch.core.preprocess import open_image

CLASSES = ("bird", "bus", "car", "cat", "dog", "horse", "person", "train")
ANIMALS = frozenset({"bird", "cat", "dog", "horse"})
PROMPTS = ("animal", "bird", "eye")
PHOTOS = 500


@dataclass(frozen=True, kw_only=True)
class Photos:
    """Photos of one class each. group: the classes of the group prompt; one: the class of the class prompt;
    partial: see Dataset."""

    name: str
    source: Source
    licence: str
    data_hash: str
    pictures: tuple[Opener, ...]
    labels: tuple[str, ...]
    prompts: tuple[str, ...]
    group: frozenset[str]
    one: str
    partial: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        return len(self.pictures)

    @property
    def digest(self) -> str:
        return self.data_hash

    def __len__(self) -> int:
        return self.n

    def read(self, number: int) -> Image.Image:
        """RGB."""
        return self.pictures[number]()


def read_voc(folder: Path, limit: int | None = None) -> Photos | None:
    """VOC2012 in `folder` or below, see embedding_map; None if it is not there.

    Raises BenchmarkError for missing or damaged lists and pictures.
    """
    root = voc_root(folder, "ImageSets/Main/bird_val.txt")
    if root is None:
        return None
    marks: dict[str, dict[str, str]] = {}  # picture -> class -> 1, 0 or -1
    for name in CLASSES:
        listed = root / f"ImageSets/Main/{name}_val.txt"
        if not listed.is_file():
            raise BenchmarkError(f"{listed}: is missing")
        for number, line in enumerate(read_text(listed).splitlines(), 1):
            columns = line.split()
            if len(columns) == 2 and columns[1] in ("1", "0", "-1"):
                marks.setdefault(columns[0], {})[name] = columns[1]
            elif columns:
                raise BenchmarkError(f"{listed}, line {number}: not a picture and 1, 0 or -1")
    shown = {picture: [c for c, mark in said.items() if mark != "-1"] for picture, said in marks.items()}
    alone = [(p, c[0]) for p, c in sorted(shown.items()) if len(c) == 1 and marks[p][c[0]] == "1"]
    if not alone:
        raise BenchmarkError(f"{root}: no picture shows exactly one of the classes")
    chosen = evenly(alone, PHOTOS if limit is None else limit)
    files = [root / f"JPEGImages/{picture}.jpg" for picture, _ in chosen]
    for path in files:
        if not path.is_file():
            raise BenchmarkError(f"{path}: is missing, though ImageSets/Main names it")
    return Photos(
        name="embedding-map",
        source="real",
        licence=VOC_LICENCE,
        data_hash=digest(path.read_bytes() for path in files),
        pictures=tuple(partial(open_image, path) for path in files),
        labels=tuple(label for _, label in chosen),
        prompts=PROMPTS,
        group=ANIMALS,
        one="bird",
        partial=short_of(len(files), PHOTOS, "photos"),
    )
