"""embedding-map (the paper, Figure 9): how a prompt moves the map of all pictures, as a number and as points to draw.

500 photos that show exactly one of eight classes are embedded without a prompt and under three: of a whole group of
the classes ("animal"), of one class ("bird"), and of a part that several have ("eye"). The paper shows the maps and
prints no number. Ours, for each prompt, by cosine distance between the embeddings themselves:
- "silhouette_PROMPT": mean silhouette of the eight classes;
- "group_PROMPT": mean silhouette of the group (the animals) against the rest;
- "class_PROMPT": mean silhouette of the photos of the one class against all others.
The two-dimensional map by UMAP (cosine, 15 neighbours, least distance 0.1, seed 0), where umap-learn is installed, is
in the record's settings as points; its silhouette would be UMAP's as much as the method's, and is not taken.

What the paper leaves open, and what is done here (facts C9): the photos are VOC2012's val of ImageSets/Main, those
that one of the eight lists marks 1 and no other marks 1 or 0 (difficult); of these 500 at equal distances. Prompts are
the bare words.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from steersearch.benchmarks.benchmark import DataMissingError, Outcome, Source
from steersearch.benchmarks.catalogue import Value, card
from steersearch.benchmarks.embeddings import pair_vectors
from steersearch.benchmarks.intervals import HOW, micro_interval
from steersearch.benchmarks.method import Floats, Method
from steersearch.benchmarks.rankings import Doubles, cosine_distances, silhouettes
from steersearch.benchmarks.viewing import Opener, Report, digest
from steersearch.core.errors import BenchmarkError, MissingExtraError
from steersearch.core.preprocess import open_image

LICENCE = "PASCAL VOC: photos from Flickr under their own terms, for research"
CLASSES = ("bird", "bus", "car", "cat", "dog", "horse", "person", "train")
ANIMALS = frozenset({"bird", "cat", "dog", "horse"})
PROMPTS = ("animal", "bird", "eye")
PHOTOS = 500

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Photos:
    """Photos of one class each. group: the classes that belong together; one: the class that is looked at alone."""

    name: str
    source: Source
    licence: str
    data_hash: str
    pictures: tuple[Opener, ...]
    labels: tuple[str, ...]
    prompts: tuple[str, ...]
    group: frozenset[str]
    one: str

    @property
    def n(self) -> int:
        return len(self.pictures)

    @property
    def digest(self) -> str:
        return self.data_hash

    def __len__(self) -> int:
        return self.n

    def read(self, number: int) -> Image.Image:
        """RGB."""
        return self.pictures[number]()


def read_voc(folder: Path, limit: int | None = None) -> Photos:
    """VOC2012; see the module. Raises BenchmarkError for lists or pictures that are missing or damaged."""
    root = voc_root(folder)
    if root is None:
        raise BenchmarkError(
            f"{folder}: no ImageSets/Main/bird_val.txt in it, nor in VOCdevkit/VOC2012 below"
        )
    marks: dict[str, dict[str, str]] = {}  # picture -> class -> 1, 0 or -1
    for name in CLASSES:
        listed = root / f"ImageSets/Main/{name}_val.txt"
        if not listed.is_file():
            raise BenchmarkError(f"{listed}: is missing")
        for number, line in enumerate(listed.read_text("utf-8").splitlines(), 1):
            columns = line.split()
            if len(columns) == 2 and columns[1] in ("1", "0", "-1"):
                marks.setdefault(columns[0], {})[name] = columns[1]
            elif columns:
                raise BenchmarkError(f"{listed}, line {number}: not a picture and 1, 0 or -1")
    shown = {picture: [c for c, mark in said.items() if mark != "-1"] for picture, said in marks.items()}
    alone = [(p, c[0]) for p, c in sorted(shown.items()) if len(c) == 1 and marks[p][c[0]] == "1"]
    if not alone:
        raise BenchmarkError(f"{root}: no picture shows exactly one of the classes")
    kept = min(PHOTOS if limit is None else limit, len(alone))
    chosen = [alone[place * len(alone) // kept] for place in range(kept)]
    files = [root / f"JPEGImages/{picture}.jpg" for picture, _ in chosen]
    for path in files:
        if not path.is_file():
            raise BenchmarkError(f"{path}: is missing, though ImageSets/Main names it")
    return Photos(
        name="embedding-map",
        source="real",
        licence=LICENCE,
        data_hash=digest(path.read_bytes() for path in files),
        pictures=tuple(partial(open_image, path) for path in files),
        labels=tuple(label for _, label in chosen),
        prompts=PROMPTS,
        group=ANIMALS,
        one="bird",
    )


def voc_root(folder: Path) -> Path | None:
    """The folder VOC2012 itself, in `folder` or below; None if it is not there."""
    places = (folder, folder / "VOC2012", folder / "VOCdevkit/VOC2012")
    return next((place for place in places if (place / "ImageSets/Main/bird_val.txt").is_file()), None)


class EmbeddingMap:
    """See the module."""

    def load(self, place: Path | None, limit: int | None) -> Photos:
        if place is None:
            raise DataMissingError(card("embedding-map"), "name its folder with --data")
        if voc_root(place) is None:
            raise DataMissingError(card("embedding-map"), f"no VOC2012 in {place}")
        return read_voc(place, limit)

    def world(self, limit: int | None) -> Photos:
        from steersearch.benchmarks.embedding_map_world import build

        return build(limit)

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
        points: dict[str, list[list[float]]] = {}
        for prompt in prompts:
            said = prompt or "none"
            vectors = np.stack([found[prompt][number] for number in everything])
            figures = _figures(vectors, labels, dataset)
            for name, each in figures.items():
                metrics[f"{name}_{said}"] = float(each.mean())
                intervals[f"{name}_{said}"] = micro_interval({"photos": each.tolist()})
            for name, row in rows.items():
                row[f"silhouette_{said}"] = float(figures["silhouette"][labels == name].mean())
            drawn = _umap(vectors)
            if drawn is not None:
                points[said] = drawn.round(2).tolist()
        return Outcome(
            metrics=metrics,
            intervals=intervals,
            rows=list(rows.values()),
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
    """What each figure of one prompt is the mean of: silhouettes of photos, all (n,) or those of the one class."""
    away = cosine_distances(vectors)
    in_group, is_one = np.isin(labels, list(data.group)), labels == data.one
    figures = {"silhouette": silhouettes(away, labels)}
    if 0 < in_group.sum() < len(labels):
        figures["group"] = silhouettes(away, in_group)
    if 0 < is_one.sum() < len(labels):
        figures["class"] = silhouettes(away, is_one)[is_one]
    return figures


def _askable(method: Method, prompts: Sequence[str]) -> list[str | None]:
    """No prompt and all of them; without the former, and with a word about it, for a method that needs one."""
    try:
        method.see([Image.new("RGB", (64, 64), "grey")], None)
    except BenchmarkError as error:
        logger.warning("no map without a prompt: %s", error)
        return list(prompts)
    return list(itertools.chain([None], prompts))


def _umap(vectors: Floats) -> npt.NDArray[np.float64] | None:
    """(n, 2) by UMAP, or None, with a word about it, where umap-learn is not installed."""
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


def examples() -> list[tuple[str, Image.Image]]:
    """Photos of six classes of the stand-in."""
    from steersearch.benchmarks import embedding_map_world

    return embedding_map_world.examples()
