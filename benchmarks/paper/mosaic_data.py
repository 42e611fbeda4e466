"""Composites of four photos with the class of each pixel: made, written and read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from steersearch.benchmarks.harness.benchmark import Report, Source, short_of
from steersearch.benchmarks.harness.label_file import VOID, Labels, read_labels, voc_colours
from steersearch.benchmarks.harness.table_file import read_text
from steersearch.benchmarks.harness.viewing import Opener, Progress, digest
from steersearch.core.errors import BenchmarkError
from steersearch.core.files import read_json, write_atomically
from steersearch.core.preprocess import open_image

TILE = 336  # pixels of a side
PHOTOS = 1449  # in VOC2012's segmentation val
LISTED = "ImageSets/Segmentation/val.txt"  # of VOC2012
VOC_LICENCE = "PASCAL VOC: photos from Flickr under their own terms, for research"
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog",
    "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor",
)  # fmt: skip


@dataclass(frozen=True)
class Tile:
    """A picture and the labels of its pixels, both opened on demand."""

    picture: Opener
    labels: Callable[[], Labels]


@dataclass(frozen=True)
class Mosaic:
    """A composite. labels: of its pixels, of the picture's size; classes: the numbers in them."""

    name: str
    picture: Opener
    labels: Callable[[], Labels]
    classes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Mosaics:
    """All composites and the names of their classes. partial: see Dataset."""

    name: str
    source: Source
    licence: str
    data_hash: str
    classes: tuple[str, ...]
    mosaics: tuple[Mosaic, ...]
    partial: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        return len(self.mosaics)


def stitch(pictures: Sequence[Image.Image], tile: int = TILE) -> Image.Image:
    """Up to four pictures, RGB, in reading order on 2 x 2 tiles of `tile` pixels; black where there is none."""
    sheet = Image.new("RGB", (2 * tile, 2 * tile))
    for number, picture in enumerate(pictures):
        box = _place(number, picture.size, tile)
        sheet.paste(picture.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.BICUBIC), box[:2])
    return sheet


def stitch_labels(labels: Sequence[Labels], tile: int = TILE) -> Labels:
    """The labels of `stitch` in the same places; 0 where there is no picture."""
    sheet = np.zeros((2 * tile, 2 * tile), np.uint8)
    for number, values in enumerate(labels):
        left, top, right, bottom = _place(number, (values.shape[1], values.shape[0]), tile)
        scaled = Image.fromarray(values).resize((right - left, bottom - top), Image.Resampling.NEAREST)
        sheet[top:bottom, left:right] = np.asarray(scaled)
    return sheet


def _place(number: int, size: tuple[int, int], tile: int) -> tuple[int, int, int, int]:
    """Where picture `number` of `size` (width, height) lies: left, top, right, bottom in pixels."""
    width, height = (max(1, round(side * tile / max(size))) for side in size)
    left = number % 2 * tile + (tile - width) // 2
    top = number // 2 * tile + (tile - height) // 2
    return left, top, left + width, top + height


def compose(
    tiles: Sequence[tuple[str, Tile]], most: int | None = None, tile: int = TILE
) -> tuple[Mosaic, ...]:
    """Named tiles by fours, in order; the last composite may have fewer. most: number of composites."""
    groups = [tiles[start : start + 4] for start in range(0, len(tiles), 4)][:most]
    return tuple(_composed(f"{number:03d}", group, tile) for number, group in enumerate(groups))


def _composed(name: str, group: Sequence[tuple[str, Tile]], tile: int) -> Mosaic:
    parts = [part for _, part in group]

    def labels() -> Labels:
        return stitch_labels([part.labels() for part in parts], tile)

    present = tuple(int(value) for value in np.unique(labels()) if value not in (0, VOID))
    return Mosaic(name, lambda: stitch([part.picture() for part in parts], tile), labels, present)


def read_voc(folder: Path, limit: int | None = None) -> Mosaics:
    """Composites of VOC2012 as it is published: JPEGImages, SegmentationClass and ImageSets/Segmentation/val.txt.

    folder: VOC2012, VOCdevkit above it, or the folder of that.  limit: number of composites.
    Raises BenchmarkError for missing or damaged files: skipping a picture would shift all that follow.
    """
    root = voc_root(folder)
    if root is None:
        raise BenchmarkError(f"{folder}: no {LISTED} in it, nor in VOCdevkit/VOC2012 below")
    names = read_text(root / LISTED).split()
    if not names:
        raise BenchmarkError(f"{root / LISTED}: it names no picture")
    names = names[: None if limit is None else 4 * limit]
    files = [(root / f"JPEGImages/{name}.jpg", root / f"SegmentationClass/{name}.png") for name in names]
    for path in (path for pair in files for path in pair):
        if not path.is_file():
            raise BenchmarkError(f"{path}: is missing, though val.txt names it")
    tiles = [(name, _voc_tile(*pair)) for name, pair in zip(names, files, strict=True)]
    return Mosaics(
        name="mosaic",
        source="real",
        licence=VOC_LICENCE,
        data_hash=digest(path.read_bytes() for pair in files for path in pair),
        classes=CLASSES,
        mosaics=compose(tiles),
        partial=short_of(len(tiles), PHOTOS, "photos"),
    )


def voc_root(folder: Path, listed: str = LISTED) -> Path | None:
    """The folder VOC2012 itself, in `folder` or below: where the file `listed` is; None if there is none."""
    places = (folder, folder / "VOC2012", folder / "VOCdevkit/VOC2012")
    return next((place for place in places if (place / listed).is_file()), None)


def _voc_tile(picture: Path, labels: Path) -> Tile:
    read = partial(read_labels, labels, len(CLASSES), picture, voc_colours(), void=True)
    return Tile(lambda: open_image(picture), read)


def write_mosaics(data: Mosaics, folder: Path, report: Report | None = None) -> Path:
    """Write composites as PNG with their labels, and the list mosaic.json last. Returns the list's path.

    Existing composites are kept, so a stopped build resumes. Raises BenchmarkError for a folder of other data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    noted = folder / "build.json"
    said = {"made_from": data.name, "data_hash": data.data_hash}
    if noted.is_file() and read_json(noted) != said:
        raise BenchmarkError(f"{folder}: it holds composites of other data; name another folder")
    noted.write_text(json.dumps(said) + "\n", encoding="utf-8")
    progress = Progress(data.n, report)
    for mosaic in data.mosaics:
        for suffix, made in (("", mosaic.picture), ("-labels", lambda m=mosaic: Image.fromarray(m.labels()))):
            path = folder / f"{mosaic.name}{suffix}.png"
            if not path.is_file():
                write_atomically(path, partial(made().save, format="PNG"))
        progress.add(1)
    listed = folder / "mosaic.json"
    listing = said | {
        "licence": data.licence,
        "classes": data.classes,
        "mosaics": [{"name": m.name, "classes": m.classes} for m in data.mosaics],
    }
    listed.write_text(json.dumps(listing, indent=1) + "\n", encoding="utf-8")
    return listed


def read_mosaics(folder: Path, limit: int | None = None) -> Mosaics:
    """Read what `write_mosaics` wrote. Raises BenchmarkError for other files."""
    listed = folder / "mosaic.json"
    try:
        said = read_json(listed)
        classes, entries = tuple(map(str, said["classes"])), said["mosaics"][:limit]
        mosaics = tuple(_written(folder, str(e["name"]), tuple(e["classes"]), len(classes)) for e in entries)
        is_real = "-world" not in said["made_from"]
        return Mosaics(
            name=str(said["made_from"]),
            source="real" if is_real else "generated stand-in",
            licence=str(said["licence"]),
            data_hash=digest([said["data_hash"].encode(), str(len(mosaics)).encode()]),
            classes=classes,
            mosaics=mosaics,
            partial=short_of(len(mosaics), -(-PHOTOS // 4), "composites") if is_real else (),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(f"{listed}: not a list of composites ({error!r})") from error


def _written(folder: Path, name: str, present: tuple[int, ...], classes: int) -> Mosaic:
    picture, labels = folder / f"{name}.png", folder / f"{name}-labels.png"
    for path in (picture, labels):
        if not path.is_file():
            raise BenchmarkError(f"{path}: is missing, though mosaic.json names it")
    return Mosaic(
        name, lambda: open_image(picture), partial(read_labels, labels, classes, void=True), present
    )
