"""i-CIR's data: queries, a picture of an instance and a text each, and a database for every instance.

Published (v1.0.0): query_files.csv and database_files.csv, rows "picture,text,instance" without a header, and the
pictures below the same folder. A picture of the database answers the queries of its instance with the same text; those
with another text, or none that a query has, are hard negatives.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from steersearch.benchmarks.harness.benchmark import DataMissingError, Source
from steersearch.benchmarks.harness.cache import digest_of
from steersearch.benchmarks.harness.catalogue import card
from steersearch.benchmarks.harness.table_file import read_text
from steersearch.core.errors import BenchmarkError
from steersearch.core.files import remembered_sha256
from steersearch.core.preprocess import open_image

QUERIES, DATABASE = "query_files.csv", "database_files.csv"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Query:
    """A picture's number, the text, and the numbers of the right pictures in the database."""

    picture: int
    text: str
    right: frozenset[int]


@dataclass(frozen=True)
class Instance:
    """One instance; implements `embeddings.Pictures`. database: numbers of its gallery."""

    name: str
    files: tuple[Path, ...]
    queries: tuple[Query, ...]
    database: tuple[int, ...]

    @property
    def digest(self) -> str:
        return digest_of([remembered_sha256(file) for file in self.files])

    def __len__(self) -> int:
        return len(self.files)

    def read(self, number: int) -> Image.Image:
        return open_image(self.files[number])


@dataclass(frozen=True, kw_only=True)
class IcirData:
    """All instances. remarks: JSON-able, for the record; partial: see Dataset."""

    name: str
    source: Source
    licence: str
    instances: tuple[Instance, ...]
    remarks: Mapping[str, Any] = field(default_factory=dict)
    partial: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        return sum(map(len, self.instances))

    @property
    def data_hash(self) -> str:
        return digest_of(
            [[i.name, i.digest, [[q.picture, q.text] for q in i.queries]] for i in self.instances]
        )


def load(place: Path | None, limit: int | None) -> IcirData:
    """The data set at `place`; limit: instances, the first ones.

    Rows without a file, and queries that nothing answers, are left out and counted. Raises DataMissingError,
    BenchmarkError.
    """
    known = card("icir")
    assert known.data is not None
    if place is None:
        raise DataMissingError(known, "name its folder with --data")
    if missing := [name for name in (QUERIES, DATABASE) if not (place / name).is_file()]:
        raise DataMissingError(known, f"no {missing[0]} in {place}")
    instances, left_out = read_instances(place, limit)
    return IcirData(
        name="icir",
        source="real",
        licence=known.data.licence,
        instances=instances,
        remarks=left_out,
        partial=tuple(f"{count} {what.replace('_', ' ')}" for what, count in left_out.items() if count),
    )


def read_instances(place: Path, limit: int | None) -> tuple[tuple[Instance, ...], dict[str, int]]:
    """The first `limit` instances, and how much is left out: rows without a picture, and queries of these instances
    that nothing answers. Raises BenchmarkError."""
    (asked, lost), (kept, gone) = (_rows(place, name) for name in (QUERIES, DATABASE))
    names = list(dict.fromkeys(instance for _, _, instance in asked))[:limit]
    instances = [made for name in names if (made := _instance(name, asked, kept)).queries]
    if not instances:
        raise BenchmarkError(f"{place}: no query has an answer in its database")
    wanted = sum(instance in set(names) for _, _, instance in asked)
    unanswered = wanted - sum(len(instance.queries) for instance in instances)
    return tuple(instances), {"queries_left_out": unanswered, "rows_left_out": lost + gone}


Row = tuple[Path, str, str]  # picture, text, instance


def _rows(place: Path, name: str) -> tuple[list[Row], int]:
    """The rows whose pictures exist, and the number of the others."""
    found, lost = [], 0
    try:
        for number, row in enumerate(csv.reader(io.StringIO(read_text(place / name))), 1):
            picture = place / row[0].strip().replace("\\", "/") if len(row) == 3 else None
            if picture is None or not picture.is_file():
                logger.warning("left out: %s, row %d: no picture with a text and an instance", name, number)
                lost += 1
                continue
            found.append((picture, row[1].strip(), row[2].strip()))
    except (OSError, csv.Error) as error:
        raise BenchmarkError(f"{place / name}: cannot be read ({error})") from error
    return found, lost


def _instance(name: str, asked: Sequence[Row], kept: Sequence[Row]) -> Instance:
    database = [(file, text) for file, text, instance in kept if instance == name]
    queries = [(file, text) for file, text, instance in asked if instance == name]
    found = []
    for number, (_, text) in enumerate(queries):
        right = frozenset(i for i, (_, said) in enumerate(database) if said == text)
        if right:
            found.append(Query(len(database) + number, text, right))
    files = tuple(file for file, _ in (*database, *queries))
    return Instance(name, files, tuple(found), tuple(range(len(database))))
