"""CORE (the paper, section 4.1): retrieval by one small object among photos that are otherwise the same.

In each scene the photos have five (or so) variants, each with one object added. All photos of the scene are embedded
under the prompt of one object; the queries are the photos with that object, and a query's nearest neighbour, its own
source photo with all variants left out, should have the object too. A query that no other source photo can answer is
left out, as in the authors' script. `core_data` reads the published data, `core_world` and `core_photographs` make
stand-ins; the protocol is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from steersearch.benchmarks.harness.benchmark import Outcome, Report
from steersearch.benchmarks.harness.catalogue import Value
from steersearch.benchmarks.harness.embeddings import gallery_vectors, needs_a_prompt, part_of
from steersearch.benchmarks.harness.intervals import HOW, macro_interval, mean_of, micro_interval
from steersearch.benchmarks.harness.method import Floats, Method
from steersearch.benchmarks.harness.metrics import core_precision, percent
from steersearch.benchmarks.harness.pointing import pointing_of
from steersearch.benchmarks.harness.steervit_method import SteerViTMethod
from steersearch.benchmarks.paper import core_data, core_photographs, core_world
from steersearch.benchmarks.paper.core_data import CoreData, Scene
from steersearch.core.errors import BenchmarkError

SEED = 90_000  # seed of the choice of wrong prompts
CASES = ("right", "wrong", "wrong_all", "none")
NAMES = {
    "right": "",
    "wrong": "_wrong_prompt",
    "wrong_all": "_wrong_prompt_mean_of_all",
    "none": "_no_prompt",
}


@dataclass(frozen=True)
class Core:
    """The benchmark. k: of precision at k; the other settings are the stand-in's, see the card."""

    k: int = 5
    source: str = "drawn"
    template: str = "the {}"
    object_size: float = 0.2

    def load(self, place: Path | None, limit: int | None) -> CoreData:
        """The published data, at `place` or else from the model hub."""
        return core_data.load(place, limit)

    def world(self, limit: int | None) -> CoreData:
        """The stand-in."""
        if self.source == "photographs":
            return core_photographs.dataset(limit or core_photographs.BASES, self.object_size, self.template)
        return core_world.dataset(self.source, limit or core_world.BASES, self.object_size, self.template)

    def evaluate(self, method: Method, dataset: CoreData, progress: Report | None = None) -> Outcome:
        """Accuracy (precision at 1), and precision at k, whose metrics bear the k in their names, in percent.

        macro: mean over scenes, as in the paper's tables; micro: over queries, as in the authors' script.
        Precision at k covers the scenes in which every query has k others to find; it is absent if there are none.
        _wrong_prompt: query and gallery under the prompt of another object of the scene, drawn at random per object,
        the target unchanged; _wrong_prompt_mean_of_all: each other object in turn; _no_prompt: without text.
        """
        reason = needs_a_prompt(method)
        done, vectors = 0, {}
        for scene in dataset.scenes:
            vectors[scene.name] = _embed(method, scene, reason is None, part_of(progress, done, dataset.n))
            done += len(scene.rows)
        outcome = self.judge(method, dataset, vectors)
        said = {} if reason is None else {"no_prompt": reason}
        return replace(
            outcome,
            metrics=outcome.metrics | _pointing(method, dataset),
            settings=outcome.settings | said,
        )

    def judge(
        self, method: Method, dataset: CoreData, seen: Mapping[str, Mapping[str | None, Floats]]
    ) -> Outcome:
        """The figures of `evaluate` that need only vectors. seen: by scene and prompt, None for no prompt"""
        scores: dict[str, dict[str, list[float]]] = {case: {} for case in CASES}
        at_k: dict[str, list[float]] = {}
        rng = np.random.default_rng([SEED, 1])
        for scene in dataset.scenes:
            for name, values in self._scores(scene, seen[scene.name], method, rng).items():
                if values:
                    (at_k if name == "at_k" else scores[name])[scene.name] = values
        if not scores["right"]:
            raise BenchmarkError(f"{dataset.name}: no object was added to two source photos of a scene")
        metrics, intervals = _figures(scores)
        if at_k:
            metrics[f"macro_precision_at_{self.k}"] = percent(mean_of(at_k))
            metrics[f"micro_precision_at_{self.k}"] = percent(np.mean(list(chain(*at_k.values()))))
        answered = [scene for scene in dataset.scenes if scene.name in scores["right"]]
        chances = [_chance(scene) for scene in answered]
        metrics["chance"] = percent(np.mean(chances))
        if metrics["macro_wrong_prompt"] is not None:
            metrics["drop"] = round(metrics["macro"] - metrics["macro_wrong_prompt"], 2)
        unanswerable = sum(len(scene.rows) - len(scene.queries) for scene in dataset.scenes)
        settings = {"k": self.k, "intervals": HOW, "queries_left_out": unanswerable, **dataset.remarks}
        return Outcome(
            metrics=metrics,
            intervals=intervals,
            rows=[self._row(scene, scores, at_k.get(scene.name)) for scene in answered],
            answers={
                f"macro{NAMES[case]}": {
                    scene: [100 * value for value in values] for scene, values in by_scene.items()
                }
                for case, by_scene in scores.items()
                if by_scene and case != "wrong_all"
            },
            settings=settings,
        )

    def _scores(
        self,
        scene: Scene,
        vectors: Mapping[str | None, Floats],
        method: Method,
        rng: np.random.Generator,
    ) -> dict[str, list[float]]:
        """One value per query of the scene for each of CASES that is possible, and for precision at k ("at_k").

        For "wrong_all": one per query and other object.
        """
        names, ids = [row.object for row in scene.rows], [row.image_id for row in scene.rows]
        prompts = scene.prompts
        objects = list(prompts)

        def found(prompt: str | None, target: str, k: int = 1) -> list[float]:
            gallery = vectors[prompt if method.gallery_takes_prompt else None]
            return list(core_precision(vectors[prompt], names, ids, target, k, gallery=gallery))

        values: dict[str, list[float]] = {"at_k": []}
        has_k = self.k <= min(sum(other != own for other in ids) for own in set(ids))
        for i, target in enumerate(objects):
            values.setdefault("right", []).extend(found(prompts[target], target))
            values["at_k"] += found(prompts[target], target, self.k) if has_k else []
            if None in vectors:
                values.setdefault("none", []).extend(found(None, target))
            if len(objects) > 1:
                wrong = objects[(i + int(rng.integers(1, len(objects)))) % len(objects)]
                values.setdefault("wrong", []).extend(found(prompts[wrong], target))
            for other in objects:
                if other != target:
                    values.setdefault("wrong_all", []).extend(found(prompts[other], target))
        return values

    def _row(
        self, scene: Scene, scores: Mapping[str, Mapping[str, list[float]]], at_k: list[float] | None
    ) -> dict[str, Any]:
        row: dict[str, Any] = {
            "scene": scene.name,
            "pictures": len(scene.rows),
            "sources": len({row.image_id for row in scene.rows}),
            "objects": len(scene.prompts),
            "queries": len(scene.queries),
        }
        for case in CASES:
            values = scores[case].get(scene.name)
            row[f"accuracy{NAMES[case]}"] = None if values is None else percent(np.mean(values))
        right = {scene.name: scores["right"][scene.name]}
        low, high = macro_interval(right)
        return row | {
            "low": percent(low),
            "high": percent(high),
            f"precision_at_{self.k}": None if at_k is None else percent(np.mean(at_k)),
            "chance": percent(_chance(scene)),
        }


def create(options: Mapping[str, Value]) -> Core:
    return Core(
        k=int(options["k"]),
        source=str(options["source"]),
        template=str(options["template"]),
        object_size=float(options["object_size"]),
    )


examples = core_world.examples


def _embed(method: Method, scene: Scene, without: bool, report: Report | None) -> dict[str | None, Floats]:
    prompts: list[str | None] = [*scene.prompts.values(), *([None] if without else [])]
    return gallery_vectors(method, scene.gallery, list(dict.fromkeys(prompts)), report)


def _figures(
    scores: Mapping[str, Mapping[str, list[float]]],
) -> tuple[dict[str, Any], dict[str, tuple[float, float]]]:
    metrics: dict[str, Any] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for case, by_scene in scores.items():
        macro, micro = f"macro{NAMES[case]}", f"micro{NAMES[case]}"
        if not by_scene:
            metrics[macro] = metrics[micro] = None
            continue
        metrics[macro] = percent(np.mean([np.mean(values) for values in by_scene.values()]))
        metrics[micro] = percent(np.mean([value for values in by_scene.values() for value in values]))
        if case != "wrong_all":  # which counts a query several times
            for name, interval in ((macro, macro_interval(by_scene)), (micro, micro_interval(by_scene))):
                intervals[name] = percent(interval[0]), percent(interval[1])
    return metrics, intervals


def _chance(scene: Scene) -> float:
    """Accuracy by chance: mean over queries of the share of right pictures in the gallery."""
    shares = []
    for query in scene.queries:
        others = [row for row in scene.rows if row.image_id != query.image_id]
        shares.append(np.mean([row.object == query.object for row in others]))
    return float(np.mean(shares))


def _pointing(method: Method, dataset: CoreData) -> dict[str, float]:
    """Pointing of the heatmap under the right prompt; empty without masks, or for methods other than SteerViT."""
    if not isinstance(method, SteerViTMethod) or not all(scene.masks for scene in dataset.scenes):
        return {}
    return pointing_of(method, dataset.scenes)
