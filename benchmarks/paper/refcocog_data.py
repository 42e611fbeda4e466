"""RefCOCOg: expressions with the masks of what they refer to."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from steersearch.benchmarks.harness.benchmark import Source as Origin
from steersearch.benchmarks.harness.viewing import digest, evenly, squared
from steersearch.core.errors import BenchmarkError
from steersearch.core.files import remembered_sha256
from steersearch.training.data.importers.refcoco import RefCoco, refs_file
from steersearch.training.data.mask_codec import Mask
from steersearch.training.data.samples import Sample, Source

LICENCE = "RefCOCOg: Apache-2.0; its pictures COCO's, from Flickr under their own terms"
TUNING = 1000  # expressions of the split train that the margin is tuned on


@dataclass(frozen=True)
class Expression:
    """An expression about row `index` of a source, and the mask of its referent, of the picture's size."""

    source: Source
    index: int
    text: str
    mask: Mask

    def picture(self) -> Image.Image:
        """The picture as a square, RGB."""
        return squared(lambda: self.source.picture(self.index))()


@dataclass(frozen=True, kw_only=True)
class Expressions:
    """The measured expressions, and those that the margin is tuned on. left_out: unusable rows with reasons."""

    name: str
    source: Origin
    licence: str
    data_hash: str
    measured: tuple[Expression, ...]
    tuning: tuple[Expression, ...]
    left_out: tuple[str, ...] = ()

    @property
    def partial(self) -> tuple[str, ...]:
        """See Dataset."""
        return (f"{len(self.left_out)} expressions left out",) if self.left_out else ()

    @property
    def n(self) -> int:
        return len(self.measured)


def chosen(source: Source, rows: Sequence[int]) -> tuple[list[Expression], list[str]]:
    """The expressions of `rows`, and the reasons for unusable ones."""
    found: list[Expression] = []
    left_out: list[str] = []
    for index in rows:
        row = source.read(index)
        if isinstance(row, Sample):
            found.append(Expression(source, index, row.expression, row.mask))
        else:
            left_out.append(f"row {index}: {getattr(row, 'reason', 'it has boxes and no mask')}")
    return found, left_out


def read_refcocog(folder: Path, split: str, limit: int | None) -> Expressions:
    """RefCOCOg as published (see training/data/importers/refcoco.py). limit: number of expressions, evenly spread.

    Raises DataError for a damaged folder, BenchmarkError if nothing is usable.
    """
    measured, tuned = (RefCoco(folder, split=name) for name in (split, "train"))
    found, left_out = chosen(measured, evenly(range(len(measured)), limit))
    tuning, _ = chosen(tuned, evenly(range(len(tuned)), TUNING if limit is None else min(TUNING, limit)))
    if not found or not tuning:
        raise BenchmarkError(
            f"{folder}: no expression of the split {split if not found else 'train'} can be used"
        )
    refs = refs_file(folder)
    assert refs is not None
    texts = [remembered_sha256(path) for path in (refs, refs.parent / "instances.json")]
    pictures = dict.fromkeys(one.source.row(one.index).image for one in found)
    return Expressions(
        name="refcocog",
        source="real",
        licence=LICENCE,
        data_hash=digest(itertools.chain((t.encode() for t in texts), (p.read_bytes() for p in pictures))),
        measured=tuple(found),
        tuning=tuple(tuning),
        left_out=tuple([str(skip) for skip in measured.skips] + left_out),
    )
