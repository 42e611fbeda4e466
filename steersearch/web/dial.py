"""The steering dial: a few photos embedded again under their focuses at another gate_scale."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from steersearch.api import Library
from steersearch.core.errors import ArgumentError, ImageError
from steersearch.core.images.reader import read_picture
from steersearch.core.preprocess import least_side
from steersearch.core.vectors import Floats
from steersearch.indexer.manifest import PromptIndex
from steersearch.indexer.prompt_features import features_of
from steersearch.indexer.query_photo import embedding_of_several
from steersearch.indexer.query_terms import Focus, shares_of

MOST_PHOTOS = 60
_KEPT_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Dialled:
    """q query photos and n others at one gate_scale, all of them steered, none interpolated.

    scores: (n,) as `Hit.score`; NaN of a photo that cannot be read.
    heatmaps: under each focus (q + n) grids (Hp, Wp), the queries' first; None of a photo that cannot be read.
    """

    scores: Floats
    heatmaps: list[list[Floats | None]]


class Dial:
    """Keeps the pixels of earlier photos, so that a turn of the dial costs only forward passes."""

    def __init__(self) -> None:
        self._pixels: OrderedDict[tuple[str, int, str], Floats] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def turn(
        self,
        library: Library,
        images: Sequence[Path],
        focuses: Sequence[Focus],
        photos: Sequence[Path],
        gate_scale: float,
        *,
        any_of: bool = False,
    ) -> Dialled:
        """See `Dialled`. images, any_of: of the query. Raises ArgumentError, ImageError of a query photo,
        ModelMismatchError."""
        if not images:
            raise ArgumentError("image", None, "the dial needs a query photo")
        if len(photos) > MOST_PHOTOS:
            raise ArgumentError("photos", len(photos), f"at most {MOST_PHOTOS}")
        if not 0 <= gate_scale <= 4:
            raise ArgumentError(
                "gate_scale", gate_scale, "must be between 0 (no steering) and 4; 1 is as trained"
            )
        if not focuses:
            raise ArgumentError("focus", None, "the dial needs a focus: without one nothing is steered")
        resolved = [focus.index for focus in library.resolve(focuses)]
        heatmaps: list[list[Floats | None]] = []
        cosines = []
        for index in resolved:
            embeddings, maps = self._steered(library, index, images, photos, gate_scale)
            queries = embedding_of_several(embeddings[: len(images)], any_of=any_of)
            cosines.append(np.atleast_2d(queries) @ embeddings[len(images) :].T)
            heatmaps.append(maps)
        shares = np.array(shares_of([focus.weight for focus in focuses]), dtype=np.float32)
        return Dialled(np.tensordot(shares, np.stack(cosines), 1).max(axis=0), heatmaps)

    def _steered(
        self,
        library: Library,
        index: PromptIndex,
        images: Sequence[Path],
        photos: Sequence[Path],
        gate_scale: float,
    ) -> tuple[Floats, list[Floats | None]]:
        """Embeddings and heatmaps of the query photos, then of the others."""
        files = [*images, *photos]
        embedder = library.embedder_of(index)
        prompt = features_of(library.place, index, embedder.encode_prompt)
        pixels: dict[int, Floats] = {}
        for number, file in enumerate(files):
            try:
                pixels[number] = self._pixels_of(library, index, file)
            except ImageError:
                if number < len(images):
                    raise
        (found,) = embedder.embed_pixels(np.stack(list(pixels.values())), [prompt], gate_scale)
        embeddings = np.full((len(files), found.embeddings.shape[1]), np.nan, dtype=np.float32)
        embeddings[list(pixels)] = found.embeddings
        maps: list[Floats | None] = [None] * len(files)
        for number, heatmap in zip(pixels, found.heatmaps, strict=True):
            maps[number] = heatmap
        return embeddings, maps

    def _pixels_of(self, library: Library, index: PromptIndex, file: Path) -> Floats:
        try:
            state = file.stat()
        except OSError as error:
            raise ImageError(file, "is gone") from error
        name = (str(file), state.st_mtime_ns, f"{index.weights_hash}{index.view}")
        with self._lock:
            kept = self._pixels.pop(name, None)
        if kept is None:
            picture = read_picture(file, at_least=least_side(index.preprocessing) or None)
            kept = library.embedder_of(index).preprocess(picture)
            with self._lock:
                self._size += kept.nbytes
        with self._lock:
            self._pixels[name] = kept
            while self._size > _KEPT_BYTES and len(self._pixels) > 1:
                self._size -= self._pixels.popitem(last=False)[1].nbytes
        return kept
