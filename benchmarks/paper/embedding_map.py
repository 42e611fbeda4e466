"""embedding-map (the paper, Figure 9): how a prompt rearranges the map of all pictures, in figures and points.

500 photos that show exactly one of eight classes are embedded without a prompt and under three: of a whole group of
the classes ("animal"), of one class ("bird"), and of a part that several have ("eye"). The paper shows the maps and
prints no number. Ours, for each prompt, by cosine distance between the embeddings themselves:
- "silhouette_PROMPT": mean silhouette of the eight classes;
- "group_PROMPT": mean silhouette of the group (the animals) against the rest;
- "class_PROMPT": mean silhouette of the photos of the one class against all others.
If umap-learn is installed, the record's settings hold a two-dimensional map by UMAP (cosine, 15 neighbours, least
distance 0.1, seed 0) as points; its silhouette would reflect UMAP as much as the method, and is not computed.

What the paper leaves open, and what is done here (facts C9): the photos are VOC2012's val of ImageSets/Main, those
that one of the eight lists marks 1 and no other marks 1 or 0 (difficult); of these 500 at equal distances. Prompts are
the bare words.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from steersearch.benchmarks.harness.benchmark import DataMissingError, Outcome, Report
from steersearch.benchmarks.harness.catalogue import Value, card
from steersearch.benchmarks.harness.embeddings import pair_vectors
from steersearch.benchmarks.harness.intervals import HOW, Answers, limits, macro_rounds
from steersearch.benchmarks.harness.method import Floats, Method
from steersearch.benchmarks.harness.rankings import Doubles, cosine_distances, silhouettes
from steersearch.benchmarks.paper import embedding_map_world
from steersearch.benchmarks.paper.embedding_map_data import Photos, read_voc
from steersearch.core.errors import BenchmarkError, MissingExtraError

logger = logging.getLogger(__name__)


class EmbeddingMap:
    """See the module."""

    def load(self, place: Path | None, limit: int | None) -> Photos:
        if place is None:
            raise DataMissingError(card("embedding-map"), "name its folder with --data")
        found = read_voc(place, limit)
        if found is None:
            raise DataMissingError(card("embedding-map"), f"no VOC2012 in {place}")
        return found

    def world(self, limit: int | None) -> Photos:
        return embedding_map_world.build(limit)

    def evaluate(self, method: Method, dataset: Photos, progress: Report | None = None) -> Outcome:
        labels = np.array(dataset.labels)
        prompts = _askable(method, dataset.prompts)
        everything = range(dataset.n)
        found = pair_vectors(method, dataset, dict.fromkeys(prompts, everything), progress)
        metrics: dict[str, Any] = {}
        intervals: dict[str, tuple[float, float]] = {}
        rows: dict[str, dict[str, Any]] = {
            name: {"class": name, "photos": int((labels == name).sum())}
            for name in np.unique(labels).tolist()
        }
        answers: dict[str, Answers] = {}
        points: dict[str, list[list[float]]] = {}
        for prompt in prompts:
            said = prompt or "none"
            vectors = np.stack([found[prompt][number] for number in everything])
            figures = _figures(vectors, labels, dataset)
            for name, each in figures.items():
                metrics[f"{name}_{said}"] = float(each.mean())
                intervals[f"{name}_{said}"] = limits(macro_rounds(each.tolist()))
                answers[f"{name}_{said}"] = each.tolist()
            for name, row in rows.items():
                row[f"silhouette_{said}"] = float(figures["silhouette"][labels == name].mean())
            drawn = _umap(vectors)
            if drawn is not None:
                points[said] = drawn.round(2).tolist()
        return Outcome(
            metrics=metrics,
            intervals=intervals,
            rows=list(rows.values()),
            answers=answers,
            settings={
                "prompts": [prompt or "none" for prompt in prompts],
                "group": sorted(dataset.group),
                "class": dataset.one,
                "umap": metadata.version("umap-learn") if points else "not installed",
                "points": points,
                "labels": list(dataset.labels) if points else [],
                "interval": HOW,
            },
        )


def _figures(vectors: Floats, labels: npt.NDArray[np.str_], data: Photos) -> dict[str, Doubles]:
    """The silhouettes that each figure of one prompt averages: of all photos (n,), or those of the one class."""
    away = cosine_distances(vectors)
    in_group, is_one = np.isin(labels, list(data.group)), labels == data.one
    figures = {"silhouette": silhouettes(away, labels)}
    if 0 < in_group.sum() < len(labels):
        figures["group"] = silhouettes(away, in_group)
    if 0 < is_one.sum() < len(labels):
        figures["class"] = silhouettes(away, is_one)[is_one]
    return figures


def _askable(method: Method, prompts: Sequence[str]) -> list[str | None]:
    """None and all prompts; for a method that needs a prompt, without None and with a warning."""
    try:
        method.see([Image.new("RGB", (64, 64), "grey")], None)
    except BenchmarkError as error:
        logger.warning("no map without a prompt: %s", error)
        return list(prompts)
    return list(itertools.chain([None], prompts))


def _umap(vectors: Floats) -> npt.NDArray[np.float64] | None:
    """(n, 2) by UMAP, or None, with a warning, if umap-learn is not installed."""
    try:
        import umap
    except ImportError:
        logger.warning("%s", MissingExtraError("umap-learn", "bench", "the map itself"))
        return None
    neighbours = min(15, len(vectors) - 1)
    mapper = umap.UMAP(metric="cosine", n_neighbors=neighbours, min_dist=0.1, random_state=0, n_jobs=1)
    points: npt.NDArray[np.float64] = np.asarray(mapper.fit_transform(vectors), np.float64)
    return points


def create(options: Mapping[str, Value]) -> EmbeddingMap:
    """The benchmark; it has no options."""
    return EmbeddingMap()


examples = embedding_map_world.examples
