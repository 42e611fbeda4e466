"""CORE's data: scenes, photos with objects edited in, and the reader of the published set.

JonaRuthardt/CORE has parquet files of the split "test", columns image, scene, object, image_id (of the photo before it
was edited) and prompt. They become a folder of pictures per scene in the cache.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steersearch.benchmarks.harness.benchmark import DataMissingError, Source
from steersearch.benchmarks.harness.cache import digest_of, kept_dataset
from steersearch.benchmarks.harness.catalogue import card
from steersearch.benchmarks.harness.embeddings import Gallery
from steersearch.benchmarks.harness.table_file import opened_parquet, picture_in
from steersearch.core.errors import BenchmarkError, ImageError
from steersearch.core.files import file_sha256, missing_shards
from steersearch.core.hub import why_unreachable
from steersearch.core.images.pillow import opened
from steersearch.core.preprocess import open_image

REPO = "JonaRuthardt/CORE"
COLUMNS = ("scene", "object", "image_id", "prompt")
VERSION = 1  # of the unpacked layout
ROWS_AT_ONCE = 64  # encoded pictures in memory at a time
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One picture: `object` was added to the photo `image_id` of `scene`; `prompt` names it."""

    scene: str
    object: str
    image_id: str
    prompt: str


@dataclass(frozen=True)
class Scene:
    """One gallery; its pictures in the order of `rows`. masks: a file per picture with its object's mask, or none."""

    name: str
    rows: tuple[Row, ...]
    gallery: Gallery
    masks: tuple[Path, ...] = ()

    @property
    def prompts(self) -> dict[str, str]:
        """object -> its prompt, in the order in which objects appear."""
        return {row.object: row.prompt for row in self.rows}

    @property
    def queries(self) -> list[Row]:
        """The pictures whose object occurs with another source photo too."""
        sources: dict[str, set[str]] = {}
        for row in self.rows:
            sources.setdefault(row.object, set()).add(row.image_id)
        return [row for row in self.rows if len(sources[row.object]) > 1]


@dataclass(frozen=True, kw_only=True)
class CoreData:
    """A CORE data set. remarks: JSON-able, for the record: how it was made, what was left out; partial: see Dataset."""

    name: str
    source: Source
    licence: str
    scenes: tuple[Scene, ...]
    remarks: Mapping[str, Any] = field(default_factory=dict)
    partial: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        return sum(len(scene.rows) for scene in self.scenes)

    @property
    def data_hash(self) -> str:
        scenes = [[scene.gallery.digest, [vars(row) for row in scene.rows]] for scene in self.scenes]
        return digest_of(scenes)


def check_rows(rows: Sequence[Row]) -> None:
    """Raise BenchmarkError for rows that make no gallery."""
    prompts: dict[tuple[str, str], str] = {}
    sources: dict[str, set[str]] = {}
    for row in rows:
        known = prompts.setdefault((row.scene, row.object), row.prompt)
        if known != row.prompt:
            raise BenchmarkError(f'{row.scene}, {row.object}: two prompts, "{known}" and "{row.prompt}"')
        sources.setdefault(row.scene, set()).add(row.image_id)
    if not rows:
        raise BenchmarkError("the data set has no row that can be used")
    for scene, ids in sources.items():
        if len(ids) < 2:
            raise BenchmarkError(
                f"{scene}: all pictures come from one source photo, so no query has a gallery"
            )


def load(place: Path | None, limit: int | None) -> CoreData:
    """The data set at `place`, or from the hub.

    limit: source photos of each scene. Unusable rows (an empty field, a damaged picture, a duplicate) are skipped,
    logged and counted in the record.
    Raises DataMissingError, BenchmarkError.
    """
    files = parquet_files(fetch_core() if place is None else _existing(place))
    key = {
        "version": VERSION,
        "files": [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files],
        "limit": limit,
    }
    folder, said = kept_dataset("core", key, lambda empty: _unpack(files, limit, empty))
    return _as_data(folder, said, [f"{name} is missing" for name in missing_shards(files)])


def fetch_core() -> Path:
    """The folder of the published data set, downloaded from the model hub if necessary (some gigabytes)."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted: dict[str, Any] = {"repo_type": "dataset", "allow_patterns": "*.parquet"}
    try:
        return Path(huggingface_hub.snapshot_download(REPO, local_files_only=True, **wanted))
    except LocalEntryNotFoundError:
        reason = why_unreachable()
        if reason is not None:
            raise DataMissingError(card("core"), f"not downloaded yet, and {reason}") from None
    return Path(huggingface_hub.snapshot_download(REPO, **wanted))


def parquet_files(folder: Path) -> list[Path]:
    """The files of the split "test" in a copy of the data set, in order. Raises BenchmarkError if there are none."""
    files = sorted(folder.rglob("*.parquet"))
    test = [path for path in files if re.search(r"(^|/)test[-./]", path.relative_to(folder).as_posix())]
    if not test:
        raise BenchmarkError(
            f'{folder}: holds no parquet file of the split "test"; it has {len(files)} others'
        )
    return test


def read_rows(files: list[Path]) -> list[Row | str]:
    """All rows without their pictures; for an unusable one the reason. Raises BenchmarkError for other columns."""
    rows: list[Row | str] = []
    for path in files:
        with opened_parquet(path) as file:
            names = file.schema_arrow.names
            lacking = [name for name in ("image", *COLUMNS) if name not in names]
            if lacking:
                raise BenchmarkError(
                    f"{path}: lacks the columns {', '.join(lacking)}; it has {', '.join(names)}"
                )
            read = file.read(columns=list(COLUMNS)).to_pydict()
        for number, values in enumerate(zip(*(read[name] for name in COLUMNS), strict=True)):
            texts = ["" if value is None else str(value).strip() for value in values]
            empty = [name for name, text in zip(COLUMNS, texts, strict=True) if not text]
            rows.append(f"{path.name}, row {number}: no {' and no '.join(empty)}" if empty else Row(*texts))
    return rows


def read_images(files: list[Path]) -> Iterator[bytes | None]:
    """The pictures as files, in the order of `read_rows`; None for a row without one."""
    for path in files:
        with opened_parquet(path) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=["image"]):
                yield from map(picture_in, batch.column("image").to_pylist())


def _unpack(files: list[Path], limit: int | None, folder: Path) -> dict[str, Any]:
    """Write the pictures of the usable rows; returns these rows and the reasons for the others."""
    rows = read_rows(files)
    chosen = _first_sources([row for row in rows if isinstance(row, Row)], limit)
    kept: list[dict[str, str]] = []
    left_out: list[str] = []
    seen: set[tuple[str, str, str]] = set()
    for number, (row, image) in enumerate(zip(rows, read_images(files), strict=True)):
        if isinstance(row, str):
            left_out.append(row)
        elif (row.scene, row.image_id) in chosen:
            key = (row.scene, row.object, row.image_id)
            path = None if key in seen else _write(folder, row.scene, number, image)
            if path is None:
                what = "the same again" if key in seen else "its picture cannot be read"
                left_out.append(f"row {number} ({', '.join(key)}): {what}")
            else:
                seen.add(key)
                named = path.relative_to(folder).as_posix()
                kept.append({**vars(row), "file": named, "sha256": file_sha256(path)})
    return {"rows": kept, "left_out": left_out}


def _first_sources(rows: list[Row], limit: int | None) -> set[tuple[str, str]]:
    """(scene, image_id) of the first `limit` source photos of each scene."""
    sources: dict[str, dict[str, None]] = {}
    for row in rows:
        sources.setdefault(row.scene, {})[row.image_id] = None
    return {(scene, image_id) for scene, ids in sources.items() for image_id in list(ids)[:limit]}


def _write(folder: Path, scene: str, number: int, image: bytes | None) -> Path | None:
    """Write the picture with its published bytes; None if it cannot be read."""
    try:
        with opened(io.BytesIO(image or b"")) as found:
            kind = found.format or ""
    except ImageError:
        return None
    path = folder / "pictures" / slug(scene) / f"{number:05d}{SUFFIXES.get(kind, '.png')}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image or b"")
    try:
        picture = open_image(path)
    except ImageError:
        path.unlink()
        return None
    if kind not in SUFFIXES:
        picture.save(path)
    return path


def slug(name: str) -> str:
    """A folder's name for `name`; different names stay different."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{words or 'scene'}-{digest_of(name)[:6]}"


def _as_data(folder: Path, said: dict[str, Any], partial: list[str]) -> CoreData:
    for line in said["left_out"]:
        logger.warning("left out: %s", line)
    rows = [Row(*(row[name] for name in COLUMNS)) for row in said["rows"]]
    check_rows(rows)
    scenes = []
    for name in dict.fromkeys(row.scene for row in rows):
        mine = [i for i, row in enumerate(rows) if row.scene == name]
        below = folder / "pictures" / slug(name)
        files = tuple((folder / said["rows"][i]["file"]).name for i in mine)
        digest = digest_of([said["rows"][i]["sha256"] for i in mine])
        scenes.append(Scene(name, tuple(rows[i] for i in mine), Gallery(below, files, digest)))
    return CoreData(
        name="core",
        source="real",
        licence=_licence(),
        scenes=tuple(scenes),
        remarks={"left_out": len(said["left_out"])},
        partial=(*partial, *([f"{len(said['left_out'])} rows left out"] if said["left_out"] else [])),
    )


def _licence() -> str:
    data = card("core").data
    assert data is not None
    return data.licence


def _existing(place: Path) -> Path:
    if not place.is_dir():
        raise DataMissingError(card("core"), f"{place} is not a folder")
    return place
