"""Pairs of things in one picture that differ only in colour, from PhraseCut as published.

PhraseCut (VGPhraseCut_v0) has refer_SPLIT.json, a list of phrases about pictures of Visual Genome with polygons of what
they name, and images/IMAGE_ID.jpg.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from steersearch.benchmarks.harness.benchmark import DataMissingError, Source
from steersearch.benchmarks.harness.cache import digest_of
from steersearch.benchmarks.harness.catalogue import card
from steersearch.benchmarks.harness.viewing import evenly
from steersearch.core.errors import BenchmarkError, ImageError
from steersearch.core.files import file_sha256, read_json
from steersearch.core.preprocess import open_image
from steersearch.training.data.mask_codec import Mask, MaskError, decode_segmentation

COLOURS = frozenset(
    "red orange yellow green blue purple pink brown black white grey gray silver gold beige tan".split()
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """A picture and two things in it. phrases: "red mug", "blue mug".  masks: of each, (H, W) as the
    picture.  digest: of picture and masks."""

    noun: str
    phrases: tuple[str, str]
    open: Callable[[], Image.Image]
    masks: Callable[[], tuple[Mask, Mask]]
    digest: str


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """All pairs. remarks: JSON-able, for the record; partial: see Dataset."""

    name: str
    source: Source
    licence: str
    pairs: tuple[Pair, ...]
    remarks: Mapping[str, Any] = field(default_factory=dict)
    partial: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        return len(self.pairs)

    @property
    def data_hash(self) -> str:
        return digest_of([[pair.phrases, pair.digest] for pair in self.pairs])


def load(place: Path | None, split: str, limit: int | None) -> Pairs:
    """The pairs in PhraseCut's `split` at `place`; limit: at most this many, evenly spread.

    A pair is two phrases about a picture with the same name, a single attribute each, two different colours, and no
    object in common. Raises DataMissingError, BenchmarkError.
    """
    known = card("attribute-flip")
    assert known.data is not None
    if place is None:
        raise DataMissingError(known, "name its folder with --data")
    file = place / f"refer_{split}.json"
    if not file.is_file():
        raise DataMissingError(known, f"no refer_{split}.json in {place}")
    try:
        tasks = read_json(file)
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{file}: cannot be read ({error})") from error
    if not isinstance(tasks, list):
        raise BenchmarkError(f"{file}: must be a list of phrases, it is a {type(tasks).__name__}")
    pairs, left_out = [], 0
    for first, second in evenly(list(_couples(tasks)), limit):
        picture = place / "images" / f"{first['image_id']}.jpg"
        try:
            pairs.append(_pair(first, second, picture))
        except (MaskError, ImageError, OSError, KeyError, TypeError, ValueError) as error:
            left_out += 1
            logger.warning("left out: picture %s, %s: %s", first["image_id"], first["phrase"], error)
    if not pairs:
        raise BenchmarkError(f"{file}: no picture with two things that differ in colour can be used")
    return Pairs(
        name="attribute-flip",
        source="real",
        licence=known.data.licence,
        pairs=tuple(pairs),
        remarks={"split": split, "left_out": left_out},
        partial=(f"{left_out} pairs left out",) if left_out else (),
    )


def _couples(tasks: Sequence[Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """For each picture and name, the first two phrases that differ only in a colour."""
    groups: dict[tuple[Any, str], list[dict[str, Any]]] = {}
    for task in tasks:
        if isinstance(task, dict) and (colour := _colour(task)):
            of_noun = groups.setdefault((task.get("image_id"), task["phrase_structure"]["name"]), [])
            objects = set(task["ann_ids"])
            if all(_colour(other) != colour and not objects & set(other["ann_ids"]) for other in of_noun):
                of_noun.append(task)
    yield from ((tasks[0], tasks[1]) for tasks in groups.values() if len(tasks) > 1)


def _colour(task: Mapping[str, Any]) -> str:
    """The colour of a phrase that names only a thing and its colour; "" for any other, and without an id that it
    needs."""
    structure, ids = task.get("phrase_structure"), task.get("ann_ids")
    if not isinstance(structure, dict) or structure.get("relation_descriptions") or not isinstance(ids, list):
        return ""
    needed = (structure.get("name"), task.get("phrase"), task.get("image_id"), *ids)
    if not all(isinstance(value, str | int) and value != "" for value in needed):
        return ""
    attributes = structure.get("attributes")
    single = str(attributes[0]) if isinstance(attributes, list) and len(attributes) == 1 else ""
    return single if single in COLOURS else ""


def _pair(first: Mapping[str, Any], second: Mapping[str, Any], picture: Path) -> Pair:
    width, height = open_image(picture).size
    codes = [
        [
            [float(v) for point in polygon for v in point]
            for instance in task["Polygons"]
            for polygon in instance
        ]
        for task in (first, second)
    ]

    def masks() -> tuple[Mask, Mask]:
        one, other = (decode_segmentation(code, (height, width)) for code in codes)
        return one & ~other, other & ~one

    if not all(mask.any() for mask in masks()):
        raise MaskError("its masks are empty, or cover each other")
    digest = digest_of(file_sha256(picture), codes)
    phrases = str(first["phrase"]).strip(), str(second["phrase"]).strip()
    return Pair(str(first["phrase_structure"]["name"]), phrases, lambda: open_image(picture), masks, digest)


def pair_of(noun: str, phrases: tuple[str, str], image: Image.Image, masks: tuple[Mask, Mask]) -> Pair:
    """A pair in memory."""
    parts = (image.tobytes(), *(np.packbits(mask).tobytes() for mask in masks))
    digest = hashlib.sha256(b"".join(parts)).hexdigest()
    return Pair(noun, phrases, lambda: image, lambda: masks, digest)
