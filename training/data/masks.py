"""Masks from boxes: convert a data set that has only boxes, such as Visual Genome, to a folder with masks.

The folder has our own format, in files of 64 pictures, each written atomically. An interrupted run continues with the
first missing file, and gives the same result.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from steersearch.core.errors import DataError, ImageError, OutputError
from steersearch.core.files import read_json, write_atomically
from steersearch.core.preprocess import open_image
from steersearch.indexer.loader import read_ahead
from steersearch.training.data.folder import SETTINGS, FolderWriter
from steersearch.training.data.mask_codec import encode_changes
from steersearch.training.data.orientation import BoxArray
from steersearch.training.data.sam2 import Segmenter
from steersearch.training.data.samples import Boxed, Skip, Source

PICTURES_PER_FILE = 64


@dataclass
class Made:
    """The result of a run. pictures, masks: made by this run;  kept: pictures from existing files
    skips: rows of this run without a mask, with reasons"""

    pictures: int = 0
    masks: int = 0
    kept: int = 0
    skips: list[Skip] = field(default_factory=list)


@dataclass(frozen=True)
class _Job:
    """A picture and its rows."""

    image: Path
    rows: tuple[int, ...]


@dataclass(frozen=True)
class _Opened:
    """A decoded picture and its rows with boxes. corners: (K, 4) left, top, right, bottom for each row
    skips: the other rows"""

    picture: Image.Image | None
    rows: list[int]
    corners: list[BoxArray]
    skips: list[Skip]


def make_masks(
    source: Source,
    folder: Path,
    segmenter: Segmenter,
    *,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Made:
    """Write masks for the rows of `source` that have boxes to `folder`; rows with masks are left out.

    A row's id in the folder is its `Row.row`. Several boxes give the union of their masks.
    batch_size: pictures at a time; None: as suits the device.  progress: called with pictures done and in all.
    Raises DataError if the folder holds something else, OutputError, ArgumentError.
    """
    if not source.has_boxes:
        raise DataError(folder, f"nothing to do: {source.name} has no row with a box and no mask")
    jobs = _jobs(source)
    root = Path(os.path.commonpath([os.path.abspath(job.image.parent) for job in jobs]))
    _begin(folder, root, source, segmenter, len(jobs))
    made, done = Made(), 0
    for number in range(-(-len(jobs) // PICTURES_PER_FILE)):
        part = jobs[number * PICTURES_PER_FILE : (number + 1) * PICTURES_PER_FILE]
        path = folder / f"expressions-{number:05d}.jsonl"
        steps: Iterable[int] = [len(part)]
        if path.exists():
            made.kept += len(part)
        else:
            steps = _write(path, part, source, segmenter, batch_size or segmenter.default_batch, root, made)
        for pictures in steps:
            done += pictures
            if progress is not None:
                progress(done, len(jobs))
    return made


def _jobs(source: Source) -> list[_Job]:
    """Pictures in the order of their first row, with all their rows."""
    rows: dict[Path, list[int]] = {}
    for index in range(len(source)):
        rows.setdefault(source.row(index).image, []).append(index)
    return [_Job(image, tuple(of_image)) for image, of_image in rows.items()]


def _begin(folder: Path, root: Path, source: Source, segmenter: Segmenter, pictures: int) -> None:
    """Record the folder's origin, or compare it with that of an existing folder."""
    made_from = {
        "rows": len(source),
        "pictures": pictures,
        "pictures_per_file": PICTURES_PER_FILE,
        "model": segmenter.name,
        "weights": segmenter.weights,
    }
    rows = _digest(source)
    path = folder / SETTINGS
    if path.exists():
        try:
            found = read_json(path)["made_from"]
            other = [
                f"{key} {found[key]}, here {value}" for key, value in made_from.items() if found[key] != value
            ]
            if not other and found.get("rows_sha256", rows) != rows:  # earlier versions did not record it
                other = ["the same number of rows, but other ones"]
        except (OSError, ValueError, KeyError, TypeError):
            raise DataError(folder, f"it holds something else ({SETTINGS}); choose another folder") from None
        if other:
            reason = f"it was started with other data or another model ({'; '.join(other)})"
            raise DataError(folder, f"{reason}; choose another folder, or delete it")
        return
    if folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise DataError(folder, "it is not empty; choose another folder")
    settings = {
        "name": source.name,
        "images": _relative(root, folder),
        "made_from": made_from | {"rows_sha256": rows},
    }
    try:
        text = json.dumps(settings | {"licence": segmenter.licence}, indent=1) + "\n"
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error


def _digest(source: Source) -> str:
    """A hash of pictures, expressions and ids of all rows."""
    digest = hashlib.sha256()
    for index in range(len(source)):
        row = source.row(index)
        digest.update(f"{row.image.name}\0{row.expression}\0{row.row}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _relative(root: Path, folder: Path) -> str:
    """`root` relative to `folder`, so that both can be moved together; absolute on another drive."""
    try:
        return Path(os.path.relpath(root, folder.absolute())).as_posix()
    except ValueError:
        return root.as_posix()


# ------------------------------------------------------------------------------------------------ one file


def _write(
    path: Path,
    jobs: Sequence[_Job],
    source: Source,
    segmenter: Segmenter,
    batch_size: int,
    root: Path,
    made: Made,
) -> Iterator[int]:
    """Write one file; yields the number of pictures in each batch."""
    opened = read_ahead(
        jobs, lambda job: _open(job, source), threads=min(8, 2 * batch_size), look_ahead=3 * batch_size
    )
    try:
        with FolderWriter(path) as rows:
            while batch := list(islice(opened, batch_size)):
                _write_batch(batch, source, segmenter, root, rows, made)
                yield len(batch)
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error
    finally:
        opened.close()


def _write_batch(
    batch: Sequence[_Opened],
    source: Source,
    segmenter: Segmenter,
    root: Path,
    rows: FolderWriter,
    made: Made,
) -> None:
    made.skips += [skip for job in batch for skip in job.skips]
    usable = [(job, job.picture) for job in batch if job.picture is not None and job.rows]
    if not usable:
        return
    found = segmenter.masks(
        [picture for _, picture in usable], [np.concatenate(job.corners) for job, _ in usable]
    )
    for (job, _), masks in zip(usable, found, strict=True):
        for index, code in zip(job.rows, _codes(masks, [len(c) for c in job.corners]), strict=True):
            row = source.row(index)
            if code is None:
                made.skips.append(Skip(row.path, row.row, "the model finds nothing in its box"))
                continue
            image = Path(os.path.abspath(row.image)).relative_to(root).as_posix()
            rows.add(image, row.expression, code, split=row.split, row_id=row.row)
            made.masks += 1
        made.pictures += 1


def _open(job: _Job, source: Source) -> _Opened:
    """Runs on a thread."""
    found = [(index, source.read(index)) for index in job.rows]
    skips = [row for _, row in found if isinstance(row, Skip)]
    boxed = [(index, row.boxes) for index, row in found if isinstance(row, Boxed)]
    if not boxed:
        return _Opened(None, [], [], skips)
    try:
        picture = open_image(job.image)
    except ImageError as error:
        return _Opened(None, [], [], [*skips, Skip(job.image, "", error.reason, len(boxed))])
    rows, corners = [], []
    for index, boxes in boxed:
        inside = _corners(boxes, picture.size)
        if len(inside):
            rows.append(index)
            corners.append(inside)
        else:
            place = source.row(index)
            skips.append(Skip(place.path, place.row, "its box lies outside of the picture"))
    return _Opened(picture, rows, corners, skips)


def _corners(boxes: BoxArray, size: tuple[int, int]) -> BoxArray:
    """Left, top, width, height -> left, top, right, bottom, clipped to a picture of `size` (W, H); drops empty ones."""
    limits = np.array([*size, *size], np.float32)
    corners = np.clip(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1), 0, limits)
    inside: BoxArray = corners[(corners[:, 2:] - corners[:, :2] >= 1).all(axis=1)]
    return inside


def _codes(parts: Iterator[Tensor], counts: Sequence[int]) -> Iterator[dict[str, Any] | None]:
    """The run-length code of each row, the union of its masks; None if it is empty.

    parts: masks (k, H, W) bool, row after row;  counts: number of masks of each row, at least one
    """
    masks = (mask for part in parts for mask in part)
    for count in counts:
        union = next(masks)
        for mask in islice(masks, count - 1):
            union = union | mask
        yield _code(union)


def _code(mask: Tensor) -> dict[str, Any] | None:
    """The run-length code of (H, W) bool; only the positions of changes leave the GPU."""
    flat = mask.T.reshape(-1)
    changes = (flat != F.pad(flat[:-1], (1, 0))).nonzero().squeeze(1).cpu().numpy()
    return encode_changes(changes, (mask.shape[0], mask.shape[1])) if len(changes) else None
