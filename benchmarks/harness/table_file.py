"""Texts, CSV and Parquet files of published data sets: what cannot be read is named."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet

from steersearch.core.errors import BenchmarkError


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark. Raises BenchmarkError."""
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BenchmarkError(f"{path}: not a text in UTF-8 ({error}); save it as UTF-8") from error
    except OSError as error:
        raise BenchmarkError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and values of each row of a CSV file with a header, without blanks around them; "" where a row ends
    early. Raises BenchmarkError, also if one of `columns` is missing."""
    table = csv.DictReader(io.StringIO(read_text(path)))
    try:
        names = [name.strip() for name in table.fieldnames or ()]
        table.fieldnames = names
        if lacking := sorted(set(columns) - set(names)):
            raise BenchmarkError(
                f"{path}: lacks the columns {', '.join(lacking)}; it has {', '.join(names) or 'none'}"
            )
        for row in table:
            yield table.line_num, {name: (row[name] or "").strip() for name in names}
    except csv.Error as error:
        raise BenchmarkError(f"{path}, line {table.line_num}: not a CSV table ({error})") from error


@contextmanager
def opened_parquet(path: Path) -> Iterator[parquet.ParquetFile]:
    """A Parquet file; also of what the caller reads from it, damage is a BenchmarkError."""
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise BenchmarkError(f"{path}: damaged, or not a Parquet file ({error})") from error


def picture_in(value: object) -> bytes | None:
    """The picture in a column `image`, as a file: the bytes themselves, or as `datasets` writes them; None without."""
    value = value.get("bytes") if isinstance(value, dict) else value
    return value if isinstance(value, bytes) else None
