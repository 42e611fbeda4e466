"""Hits as a file: a page for a browser, or a table for other programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from steersearch.indexer.hits import Hits
from steersearch.views import page, terminal
from steersearch.views.output import write_output

SUFFIXES = (".html", ".htm", ".json", ".csv", ".parquet")
_ABOUT = "steersearch"  # key, in a Parquet file's metadata, of what was searched


def write_hits(file: Path, hits: Hits) -> None:
    """Write the hits atomically, in the format of the suffix, one of SUFFIXES.

    A row has the fields of `--json`; in .csv and .parquet, lists and objects are JSON texts.
    Raises OutputError, ImageError if a query photo cannot be shown.
    """
    suffix = file.suffix.lower()
    if suffix in (".html", ".htm"):
        page.write_page(file, [hits])
        return
    rows = terminal.json_rows(hits)
    if suffix == ".json":
        write_output(file, json.dumps(rows, indent=1).encode())
    elif suffix == ".csv":
        write_output(file, _csv(rows))
    else:
        write_output(file, _parquet(rows, str(hits.searched)))


def _flat(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns, and rows whose values are numbers, texts or truth values."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return columns, [
        {name: json.dumps(v) if isinstance(v, list | dict) else v for name, v in row.items()} for row in rows
    ]


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    columns, flat = _flat(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue().encode("utf-8", "surrogateescape")  # a file name as the bytes it has


def _parquet(rows: Sequence[dict[str, Any]], searched: str) -> bytes:
    import pyarrow.parquet as parquet

    columns, flat = _flat(rows)
    table = pa.table({name: [_storable(row.get(name)) for row in flat] for name in columns})
    file = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata({_ABOUT: searched}), file)
    return file.getvalue()


def _storable(value: Any) -> Any:
    """A file name that is not UTF-8, with marks for the invalid bytes."""
    return (
        value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if isinstance(value, str)
        else value
    )
