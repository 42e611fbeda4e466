"""A prompt index as a table, and as a file for other programs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet

from steersearch.core.errors import ArgumentError, OutputError
from steersearch.core.files import why_no_folder, write_output
from steersearch.core.prompts import Reading
from steersearch.indexer.faiss_index import flat_file
from steersearch.indexer.folders import Folders
from steersearch.indexer.galleries import Galleries
from steersearch.indexer.manifest import PromptIndex
from steersearch.indexer.prompt_features import read_reading
from steersearch.indexer.query_terms import Focus
from steersearch.indexer.schema import DATE_COLUMNS
from steersearch.indexer.store import Floats, Store

Format = Literal["parquet", "arrow", "faiss"]
FORMATS: dict[Format, str] = {
    "parquet": "Apache Parquet",
    "arrow": "Arrow's file format, also known as Feather",
    "faiss": "a FAISS index, flat, inner product; a line of JSON a row beside it",
}
COLUMNS = ("path", "image_id", "embedding", "presence", "width", "height", *DATE_COLUMNS, "path_bytes")
_BY_SUFFIX = {**{f".{name}": name for name in FORMATS}, ".feather": "arrow"}
_BESIDE = ("faiss",)  # formats that hold vectors only
_ABOUT = "steersearch"  # key of the prompt index's settings in a file's metadata


def table_of(place: Path, folders: Folders, index: PromptIndex) -> Any:
    """A prompt index as a pyarrow.Table, a row per photo that has a vector, sorted by path.

    path: relative to its photo folder, in one that was added after a dot and the folder's name; image_id; embedding:
    fixed_size_list<float32>, unit length; presence, width, height, taken_at, taken_at_precision (year, month, day,
    minute, second), taken_at_source: null where they are not known (the source of a photo without a date is "none");
    path_bytes: of a path that is not UTF-8, which `path` only resembles, else null. What the vectors are is in the
    schema's metadata, under "steersearch", as JSON, with "folders": paths by name, "of": how many photos the library
    has, with a vector or without, and what the model cannot read of the prompt.
    """
    gallery = Store(place).gallery(index.key)
    photos = gallery.photos
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(gallery.embeddings.ravel()), index.dim)
    paths = [os.fsencode(path) for path in gallery.paths]
    texts = [path.decode("utf-8", "replace") for path in paths]
    raw = [None if text.encode() == path else path for text, path in zip(texts, paths, strict=True)]
    made = {
        "path": pa.array(texts, pa.string()),
        "embedding": vectors,
        "path_bytes": pa.array(raw, pa.binary()),
    }
    columns = {name: made[name] if name in made else photos.column(name) for name in COLUMNS}
    reading = read_reading(place, index.key) or Reading()
    named = {folder.name: folder.path for folder in folders.all}
    about = {**asdict(index), **reading.to_dict(), "folders": named, "of": len(paths) + gallery.missing}
    return pa.table(columns, metadata={_ABOUT: json.dumps(about)})


@dataclass(frozen=True)
class Exported:
    """What was written.

    files: one, or two for a format that holds vectors only.  rows: photos in it, of `of` in the library.
    focus: with the prompt index, and the others that it was chosen from.
    """

    files: tuple[Path, ...]
    rows: int
    of: int
    focus: Focus


def format_of(path: Path, named: str | None) -> str:
    """The named format, or else that of the suffix. Raises ArgumentError."""
    known = ", ".join(FORMATS)
    if named is not None:
        if named not in FORMATS:
            raise ArgumentError("format", named, f"must be one of {known}")
        return named
    if path.suffix.lower() not in _BY_SUFFIX:
        raise ArgumentError("file", str(path), f"its suffix names no format; name one with --format: {known}")
    return _BY_SUFFIX[path.suffix.lower()]


def export_table(table: Any, path: Path, named: str | None = None, *, force: bool = False) -> list[Path]:
    """Write a table of `table_of` to `path`; returns the files, each written atomically.

    named: one of FORMATS; None: by the suffix.  force: replace existing files.
    A format for vectors only gets a second file, <stem>.rows.jsonl, with the other columns of vector i in line i.
    Raises ArgumentError, OutputError.
    """
    form = format_of(path, named)
    if not path.name:
        raise OutputError(path, "it is a folder")
    rows = path.with_suffix(".rows.jsonl")
    files = [rows, path] if form in _BESIDE else [path]
    for file in files:
        reason = why_no_folder(file)
        if reason is not None:
            raise OutputError(file, reason)
        if file.is_dir():
            raise OutputError(file, "it is a folder")
        if file.exists() and not force:
            raise OutputError(file, "it exists; replace it with --force")
    if form in _BESIDE:
        write_output(rows, lambda file: _write_rows(table, file))
    write_output(path, lambda file: _WRITERS[form](table, file))
    return files


def export_index(
    galleries: Galleries,
    prompt: str,
    indexes: Sequence[PromptIndex],
    path: Path,
    named: str | None = None,
    *,
    force: bool = False,
) -> Exported:
    """Write the first of the indexes of this prompt, see `export_table`."""
    index = indexes[0]
    table = table_of(galleries.place, galleries.folders, index)
    files = export_table(table, path, named, force=force)
    of = table.num_rows + galleries.of(index).missing
    focus = Focus(prompt, 1.0, tuple(indexes), galleries.reading(index))
    return Exported(tuple(files), table.num_rows, of, focus)


def _vectors(table: Any) -> Floats:
    """(n, dim) float32."""
    column = table.column("embedding").combine_chunks()
    vectors: Floats = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
    return vectors


def _paths(table: Any) -> list[str]:
    """Decoded paths; bytes that are not UTF-8 are lone surrogates, which JSON can represent."""
    each = zip(table.column("path").to_pylist(), table.column("path_bytes").to_pylist(), strict=True)
    return [path if raw is None else os.fsdecode(raw) for path, raw in each]


def _write_parquet(table: Any, file: IO[bytes]) -> None:
    pyarrow.parquet.write_table(table, file)


def _write_arrow(table: Any, file: IO[bytes]) -> None:
    with pyarrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _write_faiss(table: Any, file: IO[bytes]) -> None:
    file.write(flat_file(_vectors(table)))


def _write_rows(table: Any, file: IO[bytes]) -> None:
    rows = table.drop_columns(["embedding", "path_bytes"]).to_pylist()
    for row, path in zip(rows, _paths(table), strict=True):
        taken_at = row["taken_at"]
        line = json.dumps(
            {**row, "path": path, "taken_at": None if taken_at is None else taken_at.isoformat()}
        )
        file.write(line.encode() + b"\n")


_WRITERS: dict[str, Callable[[Any, IO[bytes]], None]] = {
    "parquet": _write_parquet,
    "arrow": _write_arrow,
    "faiss": _write_faiss,
}
