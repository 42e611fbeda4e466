"""Folding copies: hits that show the same photo again stand behind the best of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from steersearch.core.errors import ImageError
from steersearch.core.images.pillow import opened_content
from steersearch.core.preprocess import open_image
from steersearch.core.vectors import Floats
from steersearch.indexer.hits import Hit, Hits
from steersearch.indexer.loader import THUMBNAIL_SIDE
from steersearch.indexer.same_picture import Shown, are_alike, is_same

# What two pictures may differ by where they differ most, see `same_picture.differences`, as thumbnails and as photos.
# Measured on copies and look-alikes: python -m steersearch.benchmarks.engineering.copies, benchmarks/LOG.md.
PERHAPS, SAME = 0.5, 0.25
SIDE = 512  # pixels at which photos are compared, longer side
_IN_MEMORY = 64  # photos
_MORE = 3  # times as many hits are asked for at first, and again where too many of them are copies


def folded(
    search: Callable[[int], Hits], k: int, thumbnails: Callable[[Sequence[str]], Mapping[str, bytes]]
) -> Hits:
    """The k best hits of `search(count)` that are not copies of one another; each names what was folded into it.

    Copies are files of the same content, and photos that show the same pixels (see `same_picture`): alike as
    thumbnails, and then as they are read from their files; what cannot be read is not folded.
    thumbnails: contents -> their JPEGs. Copies that rank far behind their photo may be left unsaid: no more hits are
    looked at than it takes to find k.
    """
    asked = _MORE * k
    while True:
        hits = search(asked)
        kept = list(_fold(hits, Comparison(thumbnails([hit.image_id for hit in hits]))))
        if len(kept) >= k or len(hits) < asked:
            first = (replace(hit, rank=rank) for rank, hit in enumerate(kept[:k], start=1))
            return Hits(first, hits.searched, hits.query)
        asked *= _MORE


def _fold(hits: Sequence[Hit], comparison: Comparison) -> Iterator[Hit]:
    kept: list[Hit] = []
    copies: list[list[Path]] = []
    for hit in hits:
        number = comparison.first_copy(hit, kept)
        if number is None:
            kept.append(hit)
            copies.append([])
        else:
            copies[number].append(hit.path)
    for hit, paths in zip(kept, copies, strict=True):
        yield replace(hit, copies=tuple(paths))


class PhotoFile(Protocol):
    """A file and the hash of its content, such as a hit."""

    @property
    def path(self) -> Path: ...

    @property
    def image_id(self) -> str: ...


class Comparison:
    """Compares the photos of one search. thumbnails: contents -> their JPEGs, which are decoded again when needed."""

    def __init__(self, thumbnails: Mapping[str, bytes]) -> None:
        self._thumbnails = thumbnails
        self._photo = lru_cache(_IN_MEMORY)(_photo)
        self._small = lru_cache(_IN_MEMORY)(self._decoded)
        self._signatures: dict[str, Floats] = {}
        for image_id in thumbnails:
            small = self._decoded(image_id)
            if small is not None:
                self._signatures[image_id] = small.signature

    def first_copy(self, file: PhotoFile, others: Sequence[PhotoFile]) -> int | None:
        """The number of the first of `others` that shows the same photo as `file`; None if none does."""
        candidates = {number for number, other in enumerate(others) if other.image_id == file.image_id}
        shown = [number for number, other in enumerate(others) if other.image_id in self._signatures]
        if shown and file.image_id in self._signatures:
            signatures = np.stack([self._signatures[others[number].image_id] for number in shown])
            alike = are_alike(self._signatures[file.image_id], signatures)
            candidates.update(np.array(shown)[alike].tolist())
        return next((number for number in sorted(candidates) if self.is_copy(file, others[number])), None)

    def is_copy(self, file: PhotoFile, other: PhotoFile) -> bool:
        """Whether two files show the same photo."""
        if file.image_id == other.image_id:
            return True
        one, two = self._small(file.image_id), self._small(other.image_id)
        if one is None or two is None or not is_same(one, two, THUMBNAIL_SIDE, PERHAPS):
            return False
        one, two = self._photo(file.path), self._photo(other.path)
        return one is not None and two is not None and is_same(one, two, SIDE, SAME)

    def _decoded(self, image_id: str) -> Shown | None:
        """A thumbnail; None if there is none, or it is damaged, which `verify` says."""
        try:
            with opened_content(io.BytesIO(self._thumbnails.get(image_id, b"")), ["JPEG"]) as image:
                return Shown(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError):
            return None


def _photo(path: Path) -> Shown | None:
    """The photo at the size at which it is compared; None if it cannot be read now."""
    try:
        image = open_image(path, at_least=SIDE)
    except ImageError:
        return None
    return Shown(image.reduce(max(1, max(image.size) // SIDE)))  # whole pixels: a little more than SIDE
