"""PODS: photos of personal objects, three references of each."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
from PIL import Image

from steersearch.benchmarks.harness.benchmark import Source
from steersearch.benchmarks.harness.viewing import Opener, digest
from steersearch.core.errors import BenchmarkError
from steersearch.core.files import parse_json, read_json
from steersearch.core.images.colour import to_rgb
from steersearch.core.images.pillow import opened

LICENCE = "MIT"
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
    """References and test photos of all objects, and what each is called under a variant of the prompts.

    prompts: label -> variant -> prompt; every label has the same variants.  test_split: the labels that count for
    "_test", empty where that is not known.
    """

    name: str
    source: Source
    licence: str
    data_hash: str
    references: tuple[Shot, ...]
    tests: tuple[Shot, ...]
    prompts: Mapping[str, Mapping[str, str | None]]
    test_split: frozenset[str] = frozenset()

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
    references, tests = (_read_split(folder, split) for split in ("train", "test"))
    labels = sorted({label for label, _ in references})
    strange = sorted({label for label, _ in tests} - set(labels))
    if strange:
        raise BenchmarkError(f"{folder}: {strange[0]} has test photos and no reference")
    kept = _first_of_each_kind(labels, limit)
    without = sorted(set(kept) - {label for label, _ in tests})
    if without:
        raise BenchmarkError(f"{folder}: {without[0]} has references and no test photo")
    chosen = [[(label, data) for label, data in shots if label in kept] for shots in (references, tests)]
    return Objects(
        name="pods",
        source="real",
        licence=LICENCE,
        data_hash=digest(
            part for shots in chosen for label, data in shots for part in (label.encode(), data)
        ),
        references=tuple(Shot(label, _opener(data)) for label, data in chosen[0]),
        tests=tuple(Shot(label, _opener(data)) for label, data in chosen[1]),
        prompts=_prompts(folder, kept),
        test_split=_test_split(folder, kept),
    )


def has_pods(folder: Path) -> bool:
    """Whether both splits are in this folder."""
    return folder.is_dir() and all(_files(folder, split) for split in ("train", "test"))


def _files(folder: Path, split: str) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.parquet")) if re.match(rf"{split}[-.]", path.name)]


def _read_split(folder: Path, split: str) -> list[tuple[str, bytes]]:
    """(label, picture as a file) of each row."""
    rows: list[tuple[str, bytes]] = []
    for path in _files(folder, split):
        schema = parquet.read_schema(path)
        lacking = [name for name in _COLUMNS if name not in schema.names]
        if lacking:
            raise BenchmarkError(
                f"{path}: lacks the columns {', '.join(lacking)}; it has {', '.join(schema.names)}"
            )
        names = _class_names(schema.metadata)
        table = parquet.read_table(path, columns=list(_COLUMNS)).to_pylist()
        for number, row in enumerate(table):
            label = row["label"]
            if isinstance(label, int) and 0 <= label < len(names):
                label = names[label]
            data = (row["image"] or {}).get("bytes")
            if not isinstance(label, str) or label.partition("_")[0] not in KINDS:
                raise BenchmarkError(f"{path}, row {number}: label {label!r}, of none of {', '.join(KINDS)}")
            if not data:
                raise BenchmarkError(f"{path}, row {number}: no picture")
            rows.append((label, data))
    return rows


def _class_names(metadata: Mapping[bytes, bytes] | None) -> list[str]:
    """The names of a column of numbers, from what `datasets` writes into the schema; [] if it says nothing."""
    try:
        said = parse_json((metadata or {})[b"huggingface"])
        return [str(name) for name in said["info"]["features"]["label"]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _opener(data: bytes) -> Opener:
    def read() -> Image.Image:
        with opened(io.BytesIO(data)) as image:
            image.load()
            return to_rgb(image)

    return read


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
    splits = _read_json(folder / "pods_info.json").get("class_to_split", {})
    return frozenset(label for label in labels if splits.get(label) == "test")


def _read_json(path: Path) -> dict[str, Any]:
    """{} where there is no such file. Raises BenchmarkError for one that is not a JSON object."""
    if not path.is_file():
        return {}
    try:
        said = read_json(path)
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path}: not JSON ({error})") from error
    if not isinstance(said, dict):
        raise BenchmarkError(f"{path}: not a JSON object")
    return said
