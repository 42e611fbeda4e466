"""Which reader reads what: by the name of a format, or by looking at what is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from steersearch.core.errors import ArgumentError, DataError
from steersearch.training.data.folder import Folder, expression_files
from steersearch.training.data.importers.coco_json import first_elements
from steersearch.training.data.importers.lvis import Lvis, lvis_files, lvis_split
from steersearch.training.data.importers.mapillary import ANNOTATIONS, Mapillary
from steersearch.training.data.importers.refcoco import RefCoco, refs_file
from steersearch.training.data.importers.steervit import HubMasks, parquet_files
from steersearch.training.data.importers.visual_genome import VisualGenome, mdetr_file
from steersearch.training.data.samples import Joined, Reading, Source, is_split
from steersearch.training.world.world import is_world, open_world

Format = Literal["auto", "folder", "refcoco", "lvis", "visual-genome", "mapillary", "hub"]
EXPECTED = (
    "a folder with expressions.jsonl; a folder with refs(unc).p and instances.json; lvis_v1_train.json; MDETR's "
    "final_mixed_train.json; Describe Anything's folder Mapillary; a folder with .parquet files; or world, which is "
    "generated"
)


def open_source(
    path: Path,
    format_name: str = "auto",
    *,
    images: Path | None = None,
    split: str | None = None,
    masks: Path | None = None,
    reading: Reading | None = None,
) -> Source:
    """The data set at `path`, indexed; or the generated world, where it says "world" or "world:seed=3,photos=1000".

    format_name: one of FORMATS, or auto.  images: the folder of the pictures; None: where the format has them
    split: only this one.  masks: for Visual Genome, the folder of masks made from its boxes
    reading: how rows are read; the world has its own way
    Raises DataError for what is missing, damaged as a whole or of another format; ArgumentError.
    """
    if format_name == "auto" and is_world(path):
        for name, folder in (("images", images), ("masks", masks)):
            if folder is not None:
                raise ArgumentError(name, str(folder), "the generated world makes its own")
        return open_world(str(path), split)
    if not os.path.exists(path):
        raise DataError(path, f"there is no such file or folder; expected one of: {EXPECTED}")
    if format_name == "auto":
        format_name = recognise(path)
    if format_name not in FORMATS:
        raise ArgumentError("format", format_name, f"must be auto or one of {', '.join(FORMATS)}")
    if format_name == "visual-genome":
        source: Source = VisualGenome(mdetr_file(path) or path, images, split, masks=masks)
    elif masks is not None:
        raise ArgumentError("masks", str(masks), "only visual-genome takes its masks from another folder")
    else:
        source = FORMATS[format_name](path, images, split)
    if reading is not None:
        source.read_as(reading)
    return source


def recognise(path: Path) -> str:
    """The name of the format of what is at `path`. Raises DataError if it is none of them."""
    if path.is_dir():
        found = next((name for name, is_there in _FOLDERS.items() if is_there(path)), None)
    elif refs_file(path):
        found = "refcoco"
    elif path.suffix == ".parquet":
        found = "hub"
    elif path.suffix == ".json":
        found = _recognise_json(path)
    else:
        found = "folder" if path.name == "expressions.jsonl" else None
    if found is None:
        raise DataError(path, f"not a data set of a known format; expected one of: {EXPECTED}")
    return found


def _recognise_json(path: Path) -> str | None:
    """By the first elements: MDETR's captions, Describe Anything's regions, or COCO's annotations."""
    for section, value in first_elements(path):
        if not isinstance(value, dict):
            continue
        if "tokens_positive" in value or (section == "images" and "caption" in value):
            return "visual-genome"
        if "mask_rle" in value:
            return "mapillary"
        if section in ("annotations", "images", "categories"):
            return "lvis"
    return None


def _folder(path: Path, images: Path | None, split: str | None) -> Source:
    return Folder(path.parent if path.is_file() else path, images, split)


def _lvis(path: Path, images: Path | None, split: str | None) -> Source:
    """One file, or all in a folder; a split that only one of them has picks that one."""
    files = lvis_files(path)
    if not files:
        raise DataError(path, "no lvis_v1_train.json or lvis_v1_val.json in it")
    wanted = [file for file in files if is_split(lvis_split(file), split)] or files
    if len(wanted) == 1:
        return Lvis(wanted[0], images, split)
    return Joined("lvis", [Lvis(file, images, split) for file in wanted])


def _visual_genome(path: Path, images: Path | None, split: str | None) -> Source:
    return VisualGenome(mdetr_file(path) or path, images, split)


FORMATS: dict[str, Callable[[Path, Path | None, str | None], Source]] = {
    "folder": _folder,
    "refcoco": RefCoco,
    "lvis": _lvis,
    "visual-genome": _visual_genome,
    "mapillary": Mapillary,
    "hub": HubMasks,
}

# What a folder must hold to be one of them.
_FOLDERS: dict[str, Callable[[Path], object]] = {
    "folder": expression_files,
    "refcoco": refs_file,
    "hub": parquet_files,
    "visual-genome": mdetr_file,
    "mapillary": lambda path: (path / ANNOTATIONS).is_file(),
    "lvis": lvis_files,
}
