"""PODS: photos of personal objects, three references of each."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from steersearch.benchmarks.harness.benchmark import Source, short_of
from steersearch.benchmarks.harness.table_file import opened_parquet, picture_in
from steersearch.benchmarks.harness.viewing import Opener, digest
from steersearch.core.errors import BenchmarkError
from steersearch.core.files import missing_shards, parse_json, read_json
from steersearch.core.images.colour import to_rgb
from steersearch.core.images.pillow import opened

LICENCE = "MIT"
REFERENCES, TESTS = 300, 10_888  # photos that are published
KINDS = {
    "bottles": "bottle",
    "mugs": "mug",
    "screwdrivers": "screwdriver",
    "shoes": "shoe",
    "totes": "tote bag",
}


_COLUMNS = ("image", "label")


@dataclass(frozen=True)
class Shot:
    """A photo of the object `label`."""

    label: str
    picture: Opener


@dataclass(frozen=True, kw_only=True)
class Objects:
    """References and test photos of all objects, and their prompts under each variant.

    prompts: label -> variant -> prompt; every label has the same variants.  test_split: the labels that count for
    "_test", empty if unknown.  partial: see Dataset.
    """

    name: str
    source: Source
    licence: str
    data_hash: str
    references: tuple[Shot, ...]
    tests: tuple[Shot, ...]
    prompts: Mapping[str, Mapping[str, str | None]]
    test_split: frozenset[str] = frozenset()
    partial: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        return len(self.references) + len(self.tests)

    @property
    def digest(self) -> str:
        return self.data_hash

    def __len__(self) -> int:
        return self.n

    def read(self, number: int) -> Image.Image:
        """The references first, then the test photos."""
        return (*self.references, *self.tests)[number].picture()


def read_pods(folder: Path, limit: int | None = None) -> Objects:
    """The parquet files of chaenayo/PODS, splits train (references) and test.

    limit: only the first objects of each kind.  Raises BenchmarkError for other columns, labels of no known kind,
    an object without references or without test photos, and rows without a picture.
    """
    references, tests = (list(_rows(folder, split)) for split in ("train", "test"))
    labels = sorted({row.label for row in references})
    strange = sorted({row.label for row in tests} - set(labels))
    if strange:
        raise BenchmarkError(f"{folder}: {strange[0]} has test photos and no reference")
    kept = _first_of_each_kind(labels, limit)
    without = sorted(set(kept) - {row.label for row in tests})
    if without:
        raise BenchmarkError(f"{folder}: {without[0]} has references and no test photo")
    chosen = [[row for row in rows if row.label in kept] for rows in (references, tests)]
    return Objects(
        name="pods",
        source="real",
        licence=LICENCE,
        data_hash=digest(part for row in chain(*chosen) for part in (row.label.encode(), row.content)),
        references=tuple(Shot(row.label, row.open) for row in chosen[0]),
        tests=tuple(Shot(row.label, row.open) for row in chosen[1]),
        prompts=_prompts(folder, kept),
        test_split=_test_split(folder, kept),
        partial=(
            *(
                f"{name} is missing"
                for name in missing_shards([*_files(folder, "train"), *_files(folder, "test")])
            ),
            *short_of(len(chosen[0]), REFERENCES, "references"),
            *short_of(len(chosen[1]), TESTS, "test photos"),
        ),
    )


def has_pods(folder: Path) -> bool:
    """Whether both splits are in this folder."""
    return folder.is_dir() and all(_files(folder, split) for split in ("train", "test"))


def _files(folder: Path, split: str) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.parquet")) if re.match(rf"{split}[-.]", path.name)]


@dataclass(frozen=True)
class _Row:
    """A photo in a parquet file, which is read when its turn comes. group, place: where it is; number: in the file."""

    label: str
    path: Path
    group: int
    place: int
    number: int

    @property
    def content(self) -> bytes:
        """The picture as a file. Raises BenchmarkError if there is none."""
        data = _contents(self.path, self.path.stat().st_mtime_ns, self.group)[self.place]
        if not data:
            raise BenchmarkError(f"{self.path}, row {self.number}: no picture")
        return data

    def open(self) -> Image.Image:
        with opened(io.BytesIO(self.content)) as image:
            image.load()
            return to_rgb(image)


@lru_cache(maxsize=2)  # the current group, and the one before it, which other threads may still read
def _contents(path: Path, _mtime: int, group: int) -> list[bytes | None]:
    """The pictures of a row group, as files."""
    with opened_parquet(path) as found:
        images = found.read_row_group(group, columns=["image"]).column("image").to_pylist()
    return [picture_in(image) for image in images]


def _rows(folder: Path, split: str) -> Iterator[_Row]:
    """All rows, in order. Raises BenchmarkError for other columns and labels of no known kind."""
    for path in _files(folder, split):
        with opened_parquet(path) as found:
            schema = found.schema_arrow
            lacking = [name for name in _COLUMNS if name not in schema.names]
            if lacking:
                raise BenchmarkError(
                    f"{path}: lacks the columns {', '.join(lacking)}; it has {', '.join(schema.names)}"
                )
            names, number = _class_names(schema.metadata), 0
            for group in range(found.num_row_groups):
                labels = found.read_row_group(group, columns=["label"]).column("label").to_pylist()
                for place, label in enumerate(labels):
                    if isinstance(label, int) and 0 <= label < len(names):
                        label = names[label]
                    if not isinstance(label, str) or label.partition("_")[0] not in KINDS:
                        raise BenchmarkError(
                            f"{path}, row {number}: label {label!r}, of none of {', '.join(KINDS)}"
                        )
                    yield _Row(label, path, group, place, number)
                    number += 1


def _class_names(metadata: Mapping[bytes, bytes] | None) -> list[str]:
    """The class names of a numeric column, from the schema metadata of `datasets`; [] if there are none."""
    try:
        said = parse_json((metadata or {})[b"huggingface"])
        return [str(name) for name in said["info"]["features"]["label"]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _first_of_each_kind(labels: Sequence[str], limit: int | None) -> list[str]:
    by_kind: dict[str, list[str]] = {}
    for label in labels:
        by_kind.setdefault(label.partition("_")[0], []).append(label)
    return [label for mine in by_kind.values() for label in mine[:limit]]


def _prompts(folder: Path, labels: Sequence[str]) -> dict[str, dict[str, str | None]]:
    prompts: dict[str, dict[str, str | None]] = {}
    described = _read_json(folder / "descriptions.json")
    for label in labels:
        kind, _, rest = label.partition("_")
        noun = KINDS[kind]
        prompts[label] = {
            "none": None,
            "supercategory": f"the {noun}",
            "name": f"the {rest.replace('_', ' ')} {noun}".replace("  ", " "),
        }
        if described:
            if not isinstance(described.get(label), str):
                raise BenchmarkError(f"{folder / 'descriptions.json'}: no text for {label}")
            prompts[label]["description"] = described[label]
    return prompts


def _test_split(folder: Path, labels: Sequence[str]) -> frozenset[str]:
    splits = _read_json(folder / "pods_info.json").get("class_to_split")
    if not isinstance(splits, dict):
        return frozenset()
    return frozenset(label for label in labels if splits.get(label) == "test")


def _read_json(path: Path) -> dict[str, Any]:
    """{} for a missing file. Raises BenchmarkError for one that is not a JSON object."""
    if not path.is_file():
        return {}
    try:
        said = read_json(path)
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path}: not JSON ({error})") from error
    if not isinstance(said, dict):
        raise BenchmarkError(f"{path}: not a JSON object")
    return said
