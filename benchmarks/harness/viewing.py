"""Run a method over many pictures, a batch at a time; pictures are opened when needed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias, TypeVar

import numpy as np
from PIL import Image

from steersearch.benchmarks.harness.benchmark import Report
from steersearch.benchmarks.harness.method import Method, Seen
from steersearch.benchmarks.harness.pixel_metrics import WHOLE, Part
from steersearch.indexer.progress import ProgressEvent

T = TypeVar("T")
Opener: TypeAlias = Callable[[], Image.Image]  # gives the picture, RGB


@dataclass
class Progress:
    """Counts pictures over all prompts and reports each batch. total: their number."""

    total: int
    report: Report | None = None
    done: int = 0
    began: float = field(default_factory=time.monotonic)

    def add(self, number: int) -> None:
        self.done += number
        if self.report is not None:
            seconds = max(time.monotonic() - self.began, 1e-3)
            self.report(ProgressEvent(self.done, self.total, self.done / seconds))


def batches(
    method: Method,
    pictures: Sequence[Opener],
    prompt: str | None,
    progress: Progress | None = None,
    *,
    patches: bool = False,
    maps: bool = False,
    attention: bool = False,
) -> Iterator[tuple[slice, Seen]]:
    """The output of `method` for `pictures` under one prompt, a batch at a time, with its slice."""
    for start in range(0, len(pictures), method.batch_size):
        part = slice(start, min(start + method.batch_size, len(pictures)))
        opened = [open_picture() for open_picture in pictures[part]]
        yield part, method.see(opened, prompt, patches=patches, maps=maps, attention=attention)
        if progress is not None:
            progress.add(len(opened))


def see_all(
    method: Method,
    pictures: Sequence[Opener],
    prompt: str | None,
    progress: Progress | None = None,
    *,
    patches: bool = False,
    maps: bool = False,
    attention: bool = False,
) -> Seen:
    """As `batches`, as one `Seen`; needs at least one picture."""
    wanted = batches(method, pictures, prompt, progress, patches=patches, maps=maps, attention=attention)
    found = [seen for _, seen in wanted]
    joined: dict[str, Any] = {}
    for one in fields(Seen):
        values = [getattr(seen, one.name) for seen in found]
        joined[one.name] = None if values[0] is None else np.concatenate(values)
    return Seen(**joined)


def kept(image: Image.Image) -> Opener:
    """An opener of a picture in memory."""
    return lambda: image


def squared(picture: Opener) -> Opener:
    """The picture squashed to a square as wide as its longer side, so that no central crop cuts it."""

    def opened() -> Image.Image:
        image = picture()
        side = max(image.size)
        return image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BICUBIC)

    return opened


def part_seen(method: Method) -> Part:
    """The part of a square picture that the method's grid covers, to which masks are cropped.

    The evaluation transform of some backbones (MAE, SigLIP) sees 90 % of the side.
    """
    part: Part = getattr(method, "part_of_square", WHOLE)
    return part


def evenly(rows: Sequence[T], limit: int | None) -> list[T]:
    """At most `limit` of the rows, evenly spaced."""
    kept = len(rows) if limit is None else min(limit, len(rows))
    return [rows[place * len(rows) // kept] for place in range(kept)]


def digest(parts: Iterable[bytes]) -> str:
    """sha256 of `parts`, each prefixed by its length."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()
