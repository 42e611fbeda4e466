"""Hits as JSON and back, so that one process can search for another. Both have the library, and the same version."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from steersearch.core.images.dates import CaptureDate
from steersearch.core.images.limits import Limits
from steersearch.core.prompts import Reading
from steersearch.core.vectors import Floats
from steersearch.indexer.doubts import Doubt
from steersearch.indexer.embedder import QueryFeatures
from steersearch.indexer.hits import FocusScore, Hit, Hits, Method, Searched
from steersearch.indexer.library import Library
from steersearch.indexer.manifest import PromptIndex, UnsteeredIndex
from steersearch.indexer.query_photo import query_photos
from steersearch.indexer.query_terms import Focus
from steersearch.indexer.region import as_region


def data_of(hits: Hits) -> dict[str, Any]:
    """All that `hits_of` needs. Pictures and stored heatmaps are not part of it: the library has them."""
    return {
        "searched": _searched_data(hits.searched),
        "hits": [_hit_data(hit) for hit in hits],
        "sorted": hits.sorted,
        "query": None if hits.query is None else [_computed(photo.computed) for photo in hits.query.photos],
    }


def hits_of(data: Mapping[str, Any], library: Library, images: Sequence[Path], limits: Limits) -> Hits:
    """The hits of a library, as they were before `data_of`, marked as served. images, limits: of the search.

    Raises KeyError, TypeError or ValueError for data that another version wrote.
    """
    searched = _searched(data["searched"])
    query = None
    if data["query"] is not None:
        query = query_photos(
            images,
            searched.focuses,
            library.galleries,
            library.embedder_of,
            limits,
            searched.unsteered,
            any_of=searched.any_of,
        )
        for photo, computed in zip(query.photos, data["query"], strict=True):
            photo.recall({key: _features(one) for key, one in computed.items()})
    hits = (_hit(one, searched, library) for one in data["hits"])
    return Hits(hits, searched, query, data["sorted"])


# ------------------------------------------------------------------------------------------------------------ searched


def _searched_data(searched: Searched) -> dict[str, Any]:
    fields = dict(vars(searched))
    fields["focuses"] = [_focus_data(focus) for focus in searched.focuses]
    fields["method"] = searched.method.value
    fields["unsteered"] = None if searched.unsteered is None else asdict(searched.unsteered)
    fields["region"] = None if searched.region is None else str(searched.region)
    fields["left_out"] = list(map(os.fspath, searched.left_out))
    fields["doubt"] = None if searched.doubt is None else asdict(searched.doubt)
    return fields


def _searched(data: Mapping[str, Any]) -> Searched:
    fields = dict(data)
    fields["focuses"] = tuple(map(_focus, data["focuses"]))
    fields["method"] = Method(data["method"])
    fields["probed"] = None if data["probed"] is None else tuple(data["probed"])
    fields["unsteered"] = None if data["unsteered"] is None else UnsteeredIndex(**data["unsteered"])
    fields["region"] = None if data["region"] is None else as_region(data["region"])
    fields["left_out"] = tuple(map(Path, data["left_out"]))
    fields["remarks"] = tuple(data["remarks"])
    doubt = data["doubt"]
    fields["doubt"] = None if doubt is None else Doubt(**doubt | {"untaught": tuple(doubt["untaught"])})
    return Searched(**fields | {"is_served": True})


def _focus_data(focus: Focus) -> dict[str, Any]:
    return {
        "text": focus.text,
        "weight": focus.weight,
        "indexes": list(map(asdict, focus.indexes)),
        "reading": None if focus.reading is None else focus.reading.to_dict(),
    }


def _focus(data: Mapping[str, Any]) -> Focus:
    reading = None if data["reading"] is None else Reading.from_dict(data["reading"])
    indexes = tuple(PromptIndex(**index) for index in data["indexes"])
    return Focus(data["text"], data["weight"], indexes, reading)


# ---------------------------------------------------------------------------------------------------------------- hits


def _hit_data(hit: Hit) -> dict[str, Any]:
    date = hit.date
    return {
        "path": os.fspath(hit.path),
        "score": hit.score,
        "rank": hit.rank,
        "image_id": hit.image_id,
        "z": None if math.isnan(hit.z) else hit.z,
        "parts": [part.score for part in hit.parts],
        "match": None if hit.match is None else _array_data(hit.match),
        "copies": list(map(os.fspath, hit.copies)),
        "date": None if date is None else [date.moment.isoformat(), date.precision, date.source],
        "indexed": hit.indexed,
    }


def _hit(data: Mapping[str, Any], searched: Searched, library: Library) -> Hit:
    date = None
    if data["date"] is not None:
        moment, precision, source = data["date"]
        date = CaptureDate(datetime.fromisoformat(moment), precision, source)
    scores = zip(searched.focuses, data["parts"], strict=bool(data["parts"]))
    return Hit(
        path=Path(data["path"]),
        score=data["score"],
        rank=data["rank"],
        image_id=data["image_id"],
        z=math.nan if data["z"] is None else data["z"],
        parts=tuple(FocusScore(focus, score) for focus, score in scores),
        searched=searched,
        match=None if data["match"] is None else _array(data["match"]),
        copies=tuple(map(Path, data["copies"])),
        date=date,
        indexed=None if data["indexed"] is None else tuple(data["indexed"]),
        galleries=library.galleries,
    )


# ------------------------------------------------------------------------------------------------------- query photos


def _computed(features: Mapping[str, QueryFeatures]) -> dict[str, Any]:
    return {
        key: {"embedding": _array_data(one.embedding), "heatmap": _array_data(one.heatmap)}
        for key, one in features.items()
    }


def _features(data: Mapping[str, Any]) -> QueryFeatures:
    return QueryFeatures(_array(data["embedding"]), _array(data["heatmap"]))


def _array_data(array: Floats) -> dict[str, Any]:
    values = np.ascontiguousarray(array, dtype="<f4")
    return {"shape": list(array.shape), "values": base64.b64encode(values.tobytes()).decode()}


def _array(data: Mapping[str, Any]) -> Floats:
    values: Floats = np.frombuffer(base64.b64decode(data["values"]), dtype="<f4").reshape(data["shape"])
    return values
