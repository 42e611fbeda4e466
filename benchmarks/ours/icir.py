"""i-CIR (Psomas et al. 2025): a particular object, as a text wants it, among hard negatives.

A query is a picture of an instance and a text, "at night"; pictures of that instance that fit the text are right. Query
and database are seen under the text as prompt and ranked by cosine. The text says what is to change, so steering both
sides by it is a makeshift, as in GeneCIS' "change" splits; figures without a prompt stand beside.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from steersearch.benchmarks.harness.benchmark import Outcome, Report
from steersearch.benchmarks.harness.catalogue import Value, check_template
from steersearch.benchmarks.harness.embeddings import PairVectors, needs_a_prompt, pair_vectors, part_of
from steersearch.benchmarks.harness.intervals import HOW, Answers, macro_interval
from steersearch.benchmarks.harness.method import Method
from steersearch.benchmarks.harness.metrics import percent, unit_rows
from steersearch.benchmarks.ours import icir_data, icir_world
from steersearch.benchmarks.ours.icir_data import IcirData, Instance, Query


def precision_under_curve(scores: npt.NDArray[np.floating[Any]], right: Collection[int]) -> float:
    """Average precision as the authors compute it: precision before and after each right picture, averaged.

    Among tied pictures the wrong ones come first, so a constant embedding gains nothing.
    """
    wanted = np.isin(np.arange(len(scores)), list(right))
    order = np.lexsort((wanted, -scores))
    ranks = np.flatnonzero(wanted[order])
    found = np.arange(len(ranks))
    before = np.where(ranks == 0, 1.0, found / np.maximum(ranks, 1))
    return float((before + (found + 1) / (ranks + 1)).mean() / 2)


@dataclass(frozen=True)
class Icir:
    """The benchmark. template: the prompt, with {} for the text."""

    template: str = "{}"

    def load(self, place: Path | None, limit: int | None) -> IcirData:
        return icir_data.load(place, limit)

    def world(self, limit: int | None) -> IcirData:
        return icir_world.dataset(limit)

    def evaluate(self, method: Method, dataset: IcirData, progress: Report | None = None) -> Outcome:
        """map: mean over queries; mmap: over instances of their means, in percent. _no_prompt: without text."""
        reason = needs_a_prompt(method)
        found: dict[str, dict[str, list[float]]] = {}
        done = 0
        for instance in dataset.instances:
            vectors = self._vectors(method, instance, reason is None, part_of(progress, done, dataset.n))
            done += len(instance)
            for name, prompted in (("", True), ("_no_prompt", False)):
                if prompted or reason is None:
                    values = [
                        self._precision(method, vectors, instance, q, prompted) for q in instance.queries
                    ]
                    found.setdefault(name, {})[instance.name] = values
        metrics: dict[str, Any] = {}
        answers: dict[str, Answers] = {}
        intervals: dict[str, tuple[float, float]] = {}
        for name, parts in found.items():
            everything = [value for values in parts.values() for value in values]
            metrics |= {
                f"map{name}": percent(everything),
                f"mmap{name}": percent([np.mean(v) for v in parts.values()]),
            }
            answers[f"map{name}"] = [100 * value for value in everything]
            answers[f"mmap{name}"] = {
                each: [100 * value for value in values] for each, values in parts.items()
            }
            for figure, of in ((f"map{name}", {"": everything}), (f"mmap{name}", parts)):
                low, high = macro_interval(of)
                intervals[figure] = percent(low), percent(high)
        settings = {"template": self.template, "intervals": HOW, **dataset.remarks}
        if reason is not None:
            settings["no_prompt"] = reason
        return Outcome(
            metrics=metrics,
            intervals=intervals,
            rows=[
                {"instance": i.name, "queries": len(i.queries), "database": len(i.database)}
                | {f"map{name}": percent(parts[i.name]) for name, parts in found.items()}
                for i in dataset.instances
            ],
            answers=answers,
            settings=settings,
        )

    def _vectors(self, method: Method, instance: Instance, plain: bool, report: Report | None) -> PairVectors:
        wanted: dict[str | None, set[int]] = {None: set()} if plain else {}
        for query in instance.queries:
            prompt = self.template.format(query.text)
            wanted.setdefault(prompt, set()).add(query.picture)
            gallery = prompt if method.gallery_takes_prompt else None
            wanted.setdefault(gallery, set()).update(instance.database)
            if plain:
                wanted[None] |= {query.picture, *instance.database}
        return pair_vectors(method, instance, wanted, report)

    def _precision(
        self, method: Method, found: PairVectors, instance: Instance, query: Query, prompted: bool
    ) -> float:
        prompt = self.template.format(query.text) if prompted else None
        gallery = found[prompt if method.gallery_takes_prompt else None]
        own = unit_rows(found[prompt][query.picture][None])[0]
        scores = unit_rows(np.stack([gallery[i] for i in instance.database])) @ own
        return precision_under_curve(scores, query.right)


def create(options: Mapping[str, Value]) -> Icir:
    return Icir(check_template(str(options["template"])))


examples = icir_world.examples

__all__: Sequence[str] = ("Icir", "create", "examples", "precision_under_curve")
