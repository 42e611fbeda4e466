"""A prompt index as a table, and as a file for other programs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa

from steersearch.core.errors import ArgumentError, OutputError
from steersearch.core.files import why_no_folder, write_output
from steersearch.core.prompts import Reading
from steersearch.indexer.faiss_index import write_flat
from steersearch.indexer.folders import Folders
from steersearch.indexer.galleries import Galleries
from steersearch.indexer.manifest import PromptIndex
from steersearch.indexer.prompt_features import read_reading
from steersearch.indexer.query_terms import Focus
from steersearch.indexer.schema import DATE_COLUMNS, paths_in
from steersearch.indexer.store import GalleryParts, Store, matrix_of

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
    return Store(place).with_gallery(
        index.key, lambda gallery: pa.concat_tables(_parts(place, folders, index, gallery))
    )


def _parts(place: Path, folders: Folders, index: PromptIndex, gallery: GalleryParts) -> Iterator[Any]:
    """The table of `table_of`, some rows at a time, at least an empty one."""
    reading = read_reading(place, index.key) or Reading()
    named = {folder.name: folder.path for folder in folders.all}
    of = gallery.count + gallery.missing
    about = {_ABOUT: json.dumps({**asdict(index), **reading.to_dict(), "folders": named, "of": of})}
    for photos in gallery.parts([name for name in COLUMNS if name != "path_bytes"]):
        vectors = pa.array(matrix_of(photos.column("embedding")).ravel())
        paths = [os.fsencode(path) for path in paths_in(photos.column("path"))]
        texts = [path.decode("utf-8", "replace") for path in paths]
        raw = [None if text.encode() == path else path for text, path in zip(texts, paths, strict=True)]
        made = {
            "path": pa.array(texts, pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(vectors, index.dim),
            "path_bytes": pa.array(raw, pa.binary()),
        }
        columns = {name: made[name] if name in made else photos.column(name) for name in COLUMNS}
        yield pa.table(columns, metadata=about)


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


def export_parts(
    parts: Callable[[], Iterable[Any]], path: Path, named: str | None = None, *, force: bool = False
) -> list[Path]:
    """Write a table of `table_of`, which comes in parts, to `path`; returns the files, each written atomically.

    See `export_index`, for which of the formats has two files, and for what is raised.
    """
    form, files = format_of(path, named), _free_files(path, named, force)
    if form in _BESIDE:
        write_output(files[0], lambda file: _write_rows(parts(), file))
    write_output(path, lambda file: _WRITERS[form](parts(), file))
    return files


def _free_files(path: Path, named: str | None, force: bool) -> list[Path]:
    """The files to write. Raises ArgumentError, OutputError."""
    form = format_of(path, named)
    if not path.name:
        raise OutputError(path, "it is a folder")
    files = [path.with_suffix(".rows.jsonl"), path] if form in _BESIDE else [path]
    for file in files:
        reason = why_no_folder(file)
        if reason is not None:
            raise OutputError(file, reason)
        if file.is_dir():
            raise OutputError(file, "it is a folder")
        if file.exists() and not force:
            raise OutputError(file, "it exists; replace it with --force")
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
    """Write the first of the indexes of this prompt, as `table_of` has it, some rows at a time.

    named: one of FORMATS; None: by the suffix.  force: replace existing files.
    A format for vectors only gets a second file, <stem>.rows.jsonl, with the other columns of vector i in line i.
    Raises ArgumentError, OutputError.
    """
    index, _ = indexes[0], _free_files(path, named, force)

    def write(gallery: GalleryParts) -> Exported:
        parts = partial(_parts, galleries.place, galleries.folders, index, gallery)
        files = export_parts(parts, path, named, force=True)
        focus = Focus(prompt, 1.0, tuple(indexes), galleries.reading(index))
        return Exported(tuple(files), gallery.count, gallery.count + gallery.missing, focus)

    return Store(galleries.place).with_gallery(index.key, write)


def _paths(table: Any) -> list[str]:
    """Decoded paths; bytes that are not UTF-8 are lone surrogates, which JSON can represent."""
    each = zip(table.column("path").to_pylist(), table.column("path_bytes").to_pylist(), strict=True)
    return [path if raw is None else os.fsdecode(raw) for path, raw in each]


def _write_parquet(parts: Iterable[Any], file: IO[bytes]) -> None:
    import pyarrow.parquet

    first, parts = _peeked(parts)
    with pyarrow.parquet.ParquetWriter(file, first.schema) as writer:
        for part in parts:
            writer.write_table(part)


def _write_arrow(parts: Iterable[Any], file: IO[bytes]) -> None:
    first, parts = _peeked(parts)
    with pa.ipc.new_file(file, first.schema) as writer:
        for part in parts:
            writer.write_table(part)


def _write_faiss(parts: Iterable[Any], file: IO[bytes]) -> None:
    first, parts = _peeked(parts)
    dim = first.schema.field("embedding").type.list_size
    write_flat(file, dim, (matrix_of(part.column("embedding")) for part in parts))


def _peeked(parts: Iterable[Any]) -> tuple[Any, Iterator[Any]]:
    """The first part, and all of them."""
    remaining = iter(parts)
    first = next(remaining)
    return first, chain([first], remaining)


def _write_rows(parts: Iterable[Any], file: IO[bytes]) -> None:
    for part in parts:
        rows = part.drop_columns(["embedding", "path_bytes"]).to_pylist()
        for row, path in zip(rows, _paths(part), strict=True):
            taken_at = row["taken_at"]
            line = json.dumps(
                {**row, "path": path, "taken_at": None if taken_at is None else taken_at.isoformat()}
            )
            file.write(line.encode() + b"\n")


_WRITERS: dict[str, Callable[[Iterable[Any], IO[bytes]], None]] = {
    "parquet": _write_parquet,
    "arrow": _write_arrow,
    "faiss": _write_faiss,
}
