"""Opens data sets, by the name of their format or by recognising it."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from steersearch.core.errors import ArgumentError, DataError
from steersearch.training.data import folder
from steersearch.training.data.importers import lvis, mapillary, refcoco, steervit, visual_genome
from steersearch.training.data.importers.importer import Importer
from steersearch.training.data.importers.json_stream import elements
from steersearch.training.data.samples import Reading, Source
from steersearch.training.world.source import is_world, open_world

# The first that recognises a data set counts. LVIS is last: it takes any file in COCO's layout.
FORMATS: dict[str, Importer] = {
    "folder": folder.IMPORTER,
    "refcoco": refcoco.IMPORTER,
    "hub": steervit.IMPORTER,
    "visual-genome": visual_genome.IMPORTER,
    "mapillary": mapillary.IMPORTER,
    "lvis": lvis.IMPORTER,
}
ELEMENTS = 100  # of a JSON file, enough to recognise it


def open_source(
    path: Path,
    format_name: str = "auto",
    *,
    images: Path | None = None,
    split: str | None = None,
    masks: Path | None = None,
    reading: Reading | None = None,
) -> Source:
    """The data set at `path`, indexed; or the generated world, for "world" or "world:seed=3,photos=1000".

    format_name: one of FORMATS, or auto.  images: the folder of the pictures; None: the format's usual place
    split: only this one.  masks: for Visual Genome, the folder of masks made from its boxes
    reading: how rows are read; the world ignores it
    Raises DataError for what is missing, damaged as a whole or of another format; ArgumentError.
    """
    if format_name == "auto" and is_world(path):
        for name, given in (("images", images), ("masks", masks)):
            if given is not None:
                raise ArgumentError(name, str(given), "the generated world makes its own")
        return open_world(str(path), split)
    if not os.path.exists(path):
        raise DataError(path, f"no such file or folder; expected one of: {_expected()}")
    if format_name == "auto":
        format_name = recognise(path)
    if format_name not in FORMATS:
        raise ArgumentError("format", format_name, f"must be auto or one of {', '.join(FORMATS)}")
    importer = FORMATS[format_name]
    if masks is not None and not importer.takes_masks:
        takers = ", ".join(name for name, one in FORMATS.items() if one.takes_masks)
        raise ArgumentError("masks", str(masks), f"only {takers} takes its masks from another folder")
    options = {} if masks is None else {"masks": masks}
    source = importer.open(path, images, split, **options)
    if reading is not None:
        source.read_as(reading)
    return source


def recognise(path: Path) -> str:
    """The name of the format at `path`. Raises DataError if there is none."""
    if path.is_file() and path.suffix == ".json":
        found = _recognise_json(path)
    else:
        found = next((name for name, importer in FORMATS.items() if importer.holds(path)), None)
    if found is None:
        raise DataError(path, f"not a data set of a known format; expected one of: {_expected()}")
    return found


def _recognise_json(path: Path) -> str | None:
    for element in islice(elements(path), ELEMENTS):
        if isinstance(element.value, dict):
            for name, importer in FORMATS.items():
                if importer.shows(element.section, element.value):
                    return name
    return None


def _expected() -> str:
    return "; ".join([*(importer.expects for importer in FORMATS.values()), "or world, which is generated"])
