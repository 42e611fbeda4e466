"""Searches in rounds, each answer better than the one before, until nothing is missing or time is up."""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from steersearch.api import Library
from steersearch.core.errors import ArgumentError
from steersearch.core.heatmaps import shared_vmax
from steersearch.indexer.hits import Hits
from steersearch.indexer.progress import ProgressEvent
from steersearch.indexer.query_terms import Focus
from steersearch.web.answers import SearchAnswer, search_answer
from steersearch.web.engine import Engine
from steersearch.web.heat import heat_layer
from steersearch.web.photos import PhotoList, Photos

ROUNDS_S = (0.4, 0.8, 1.5, 2.5)  # the last repeats
MOST_SECONDS = 600.0


class Cancelled(Exception):
    """Nobody is waiting for the answer any more."""


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """images: to search with, by their mean or by any of them; none: a find by text, which takes one focus.
    seconds: for photos without vectors."""

    images: Sequence[Path]
    focuses: Sequence[Focus]
    k: int
    any_of: bool = False
    region: str | None = None
    folder: str | None = None
    after: str | None = None
    before: str | None = None
    collapse: bool = False
    seconds: float = 30.0
    cancelled: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        if not self.images and len(self.focuses) != 1:
            raise ArgumentError(
                "focus", [str(one) for one in self.focuses], "without a photo, give exactly one"
            )
        if not self.images and self.region is not None:
            raise ArgumentError("region", self.region, "marks a part of the query photo, and there is none")
        if not 0 < self.seconds <= MOST_SECONDS:
            raise ArgumentError("seconds", self.seconds, f"must be above 0 and at most {MOST_SECONDS:g}")


def rounds(
    library: Library, photos: Photos, engine: Engine, request: SearchRequest
) -> Iterator[SearchAnswer]:
    """Answers, each better than the one before; the last has `is_final`. Raises what `Library.query` raises, BusyError,
    Cancelled."""
    began = time.monotonic()
    compared, number = -1, 0
    while True:
        spent = time.monotonic() - began
        budget = min(ROUNDS_S[min(number, len(ROUNDS_S) - 1)], max(request.seconds - spent, 0.05))
        hits = engine.run(partial(_search, library, request, budget))
        searched, spent = hits.searched, time.monotonic() - began
        is_stuck = searched.compared == compared  # what is missing cannot be read
        is_final = (
            searched.compared + searched.unreadable >= searched.of or is_stuck or spent >= request.seconds
        )
        yield _answer(hits, library, photos, spent, is_final=is_final)
        if is_final:
            return
        compared, number = searched.compared, number + 1


def _search(library: Library, request: SearchRequest, budget_s: float) -> Hits:
    def stop_if_cancelled(_: ProgressEvent) -> None:
        if request.cancelled.is_set():
            raise Cancelled

    narrowed: dict[str, Any] = {
        "k": request.k,
        "folder": request.folder,
        "after": request.after,
        "before": request.before,
        "collapse": request.collapse,
    }
    steered: dict[str, Any] = {"budget_s": budget_s, "progress": stop_if_cancelled}
    if not request.images:
        return library.find(request.focuses[0], **narrowed, **steered)
    narrowed |= {"region": request.region, "any_of": request.any_of and len(request.images) > 1}
    if not request.focuses:
        return library.query(request.images, **narrowed)
    return library.query(request.images, request.focuses, **narrowed, **steered)


def _answer(hits: Hits, library: Library, photos: Photos, seconds: float, *, is_final: bool) -> SearchAnswer:
    now = photos.now()
    return search_answer(hits, now, _ranges(hits, library), _layers(hits, now), seconds, is_final=is_final)


def _layers(hits: Hits, photos: PhotoList) -> list[str | None]:
    """Where each hit matches the marked region, on one colour scale."""
    top = shared_vmax([hit.match for hit in hits if hit.match is not None])
    index = hits.searched.index
    return [
        None
        if hit.match is None
        else b64encode(heat_layer(hit.match, top, index, photos.photo(hit.image_id).size)).decode()
        for hit in hits
    ]


def _ranges(hits: Hits, library: Library) -> list[float]:
    """Under each focus the one range of the heatmaps of query and hits."""
    if hits.searched.is_guess:
        return [shared_vmax([]) for _ in hits.searched.focuses]
    ranges = []
    for focus in hits.searched.focuses:
        gallery = library.gallery(focus.index)
        maps = [hit.heatmap_in(gallery) for hit in hits]
        if hits.query is not None:
            maps += [photo.heatmap(focus.index) for photo in hits.query.photos]
        ranges.append(shared_vmax(maps))
    return ranges
