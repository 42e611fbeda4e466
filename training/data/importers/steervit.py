"""The authors' own training set (https://huggingface.co/datasets/JonaRuthardt/SteerViT): Parquet with masks.

Files `data/<split>-<number>-of-<count>.parquet`, splits train and validation. Columns: image_id (text), mask (an
image: {bytes, path}, one bit), referential_expression (text), dataset (text). Pictures are not included and located by
the authors' rules: an image_id that starts with COCO is `<second part>/<image_id>.jpg`, such as
train2014/COCO_train2014_000000000009.jpg; a dataset with "visual genome" in its name has VG_100K, else VG_100K_2; one
with "mapillary" in its name has one flat folder. A missing `.jpg` is added.

A mask is in a row group, which can only be read whole, so the last few groups are cached. In random order a row costs
a whole group of masks: 100 rows in files that `datasets` writes for images.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from steersearch.core.errors import DataError
from steersearch.core.files import missing_shards, require_regular
from steersearch.training.data.importers.image_files import COCO_FOLDERS, VISUAL_GENOME_FOLDERS, ImageFiles
from steersearch.training.data.importers.importer import Importer
from steersearch.training.data.mask_codec import Mask, MaskError
from steersearch.training.data.mask_file import read_mask_file
from steersearch.training.data.samples import (
    Row,
    Skip,
    Source,
    Texts,
    checked_expression,
    is_split,
    require_split,
)

COLUMNS = ("image_id", "mask", "referential_expression", "dataset")
GROUPS_KEPT = 4  # row groups of masks, in each process
MOST_ROWS, MOST_BYTES = 1_000_000, 4 * 2**30  # of a row group, which is read whole

_PLACES = {  # below the folder of pictures, or that folder itself
    "COCO": [f"{root}/{folder}" for root in ("coco", "mscoco", ".") for folder in COCO_FOLDERS],
    "Visual Genome": [
        f"{root}/{folder}" for root in ("visual_genome", ".") for folder in VISUAL_GENOME_FOLDERS
    ],
    "Mapillary": ["mapillary", "mapillary/images", "."],
}


def parquet_files(path: Path) -> list[Path]:
    """The files of `path`, a file or the data set's folder."""
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    return sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")])


class HubMasks(Source):
    """The rows of all files in the order of their names; a sample's source is its `dataset`.

    images: the folder with coco/train2014, visual_genome/VG_100K, mapillary and so on; None: the data set's
    """

    def __init__(self, path: Path, images: Path | None = None, split: str | None = None) -> None:
        self.name, self.skips = "steervit", []
        self._files = parquet_files(path)
        if not self._files:
            raise DataError(path, "no .parquet file in it, or in its folder data")
        root = images or (path if path.is_dir() else path.parent)
        if not os.path.isdir(root):
            raise DataError(root, "no such folder of pictures")
        self._splits = list(dict.fromkeys(_split(file) for file in self._files))
        require_split(path, self._splits, split)
        self._images, self._texts, self._datasets = Texts(), Texts(), list[str]()
        self._columns = {name: array("i") for name in ("file", "group", "row", "image", "dataset")}
        pictures = _Pictures(root)
        for number, file in enumerate(self._files):
            if is_split(_split(file), split):
                self._add_file(number, file, pictures)
        for name in missing_shards(self._files) if path.is_dir() else ():
            if is_split(_split(Path(name)), split):
                self.skips.append(Skip(path, "", f"its file {name} is missing"))
        for image_id, count in pictures.missing.items():
            self.skips.append(Skip(root, "", f"the picture {image_id} was not found", count))
        if pictures.missing and not self._texts:
            raise DataError(path, f"none of its pictures are in {root}; name their folder: --images")

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def data_sets(self) -> tuple[str, ...]:
        return tuple(self._datasets)

    def row(self, index: int) -> Row:
        column = {name: values[index] for name, values in self._columns.items()}
        image, path = Path(self._images[column["image"]]), self._files[column["file"]]
        dataset, place = self._datasets[column["dataset"]], f"row {column['row']:,}"
        return Row(image, self._said(self._texts[index]), image.stem, _split(path), dataset, path, place)

    def annotation(self, index: int) -> Mask:
        column = {name: values[index] for name, values in self._columns.items()}
        file = self._files[column["file"]]
        masks, first = _masks_of_group(file, file.stat().st_mtime_ns, column["group"])
        found = masks[column["row"] - first]
        if not isinstance(found, bytes):
            raise MaskError("it has no mask")
        return read_mask_file(found)

    def _add_file(self, number: int, file: Path, pictures: _Pictures) -> None:
        try:
            parquet = pq.ParquetFile(require_regular(file))
        except (OSError, ValueError) as error:
            self.skips.append(Skip(file, "", f"not a Parquet file, or truncated ({error})"))
            return
        with parquet:
            lacking = [name for name in COLUMNS if name not in parquet.schema_arrow.names]
            if lacking:
                have = ", ".join(parquet.schema_arrow.names)
                raise DataError(file, f"it has no column {', '.join(lacking)}; it has: {have}")
            first = 0
            for group in range(parquet.num_row_groups):
                about = parquet.metadata.row_group(group)
                count = about.num_rows
                try:
                    if count > MOST_ROWS or about.total_byte_size > MOST_BYTES:
                        raise ValueError(f"too large: {count:,} rows in {about.total_byte_size:,} bytes")
                    columns = _texts(parquet, group, [name for name in COLUMNS if name != "mask"])
                except (OSError, ValueError) as error:
                    rows = f"rows {first:,} to {first + count - 1:,}"
                    self.skips.append(Skip(file, rows, f"damaged ({error})", count))
                else:
                    for row, values in enumerate(zip(*columns, strict=True), first):
                        self._add_row((number, group, row), values, pictures)
                first += count

    def _add_row(
        self, place: tuple[int, int, int], values: tuple[str | None, ...], pictures: _Pictures
    ) -> None:
        image_id, text, dataset = values[0], values[1], values[2] or ""
        try:
            expression = checked_expression(text)
            if not image_id:
                raise ValueError("it names no picture")
            image = pictures.number(image_id, dataset, self._images)
        except ValueError as error:
            self.skips.append(Skip(self._files[place[0]], f"row {place[2]:,}", str(error)))
            return
        if image is None:
            return
        if dataset not in self._datasets:
            self._datasets.append(dataset)
        self._texts.append(expression)
        values_kept = (*place, image, self._datasets.index(dataset))
        for column, value in zip(self._columns.values(), values_kept, strict=True):
            column.append(value)


class _Pictures:
    """Looks up pictures. missing: the number of rows that need each missing one."""

    def __init__(self, root: Path) -> None:
        self._files = {kind: ImageFiles(root / place for place in places) for kind, places in _PLACES.items()}
        self._numbers: dict[tuple[str, str], int | None] = {}
        self.missing = Counter[str]()

    def number(self, image_id: str, dataset: str, found: Texts) -> int | None:
        """The picture's number among those `found`; None if it is missing. Raises ValueError for an unknown data
        set."""
        key = _kind(image_id, dataset), image_id
        if key not in self._numbers:
            name = image_id if image_id.endswith(".jpg") else f"{image_id}.jpg"
            path = self._files[key[0]].find(name)
            self._numbers[key] = None if path is None else found.append(str(path))
        number = self._numbers[key]
        if number is None:
            self.missing[image_id] += 1
        return number


def _kind(image_id: str, dataset: str) -> str:
    """The data set of a picture, by the authors' rules."""
    if image_id.startswith("COCO"):
        return "COCO"
    if "visual genome" in dataset:
        return "Visual Genome"
    if "mapillary" in dataset:
        return "Mapillary"
    raise ValueError(f'its dataset "{dataset}" is unknown')


def _split(file: Path) -> str:
    return file.name.partition("-")[0].removesuffix(".parquet")


def _texts(parquet: Any, group: int, names: list[str]) -> list[list[str | None]]:
    """Columns of texts; invalid UTF-8 becomes lone surrogates."""
    table = parquet.read_row_group(group, columns=names)
    columns = [table[name].cast(pa.binary()).to_pylist() for name in names]
    return [
        [None if text is None else text.decode("utf-8", "surrogateescape") for text in column]
        for column in columns
    ]


@lru_cache(maxsize=256)
def _footer(file: Path, changed: int) -> tuple[Any, list[int]]:
    """The file's metadata, and the number of the first row of each row group."""
    metadata = pq.read_metadata(file)
    counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return metadata, list(accumulate(counts, initial=0))


@lru_cache(maxsize=GROUPS_KEPT)
def _masks_of_group(file: Path, changed: int, group: int) -> tuple[list[bytes | None], int]:
    """The PNG files of a row group, and the number of its first row. Raises MaskError.

    changed: the file's modification time, as part of the cache key.
    """
    try:
        metadata, firsts = _footer(require_regular(file), changed)
        with pq.ParquetFile(file, metadata=metadata) as parquet:
            column = parquet.read_row_group(group, columns=["mask"])["mask"].to_pylist()
    except (OSError, ValueError) as error:
        raise MaskError(f"its row group cannot be read ({error})") from error
    return [mask.get("bytes") if isinstance(mask, dict) else mask for mask in column], firsts[group]


IMPORTER = Importer(expects="a folder with .parquet files", open=HubMasks, holds=parquet_files)
