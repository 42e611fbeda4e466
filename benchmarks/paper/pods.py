"""pods (the paper, section 4.4): which photos show *this* mug, among mugs? PODS: 100 personal objects of five kinds.

Each object has three reference photos. Under a prompt for the object all pictures are embedded; then
- PR-AUC: each test photo scores the greatest cosine to the object's references; average precision of all test photos,
  mean over objects;
- NDCG: each test photo of the object ranks the references of all objects by cosine; relevance is 1 for the object's
  own, over the whole list; mean over test photos, then over objects.

What the paper leaves open, and what is done here (facts C5):
- prompts: "none"; "supercategory", such as "the mug"; "name", the words of the label with the kind at the end ("the
  white shobhita mug" for mugs_white_shobhita); "description", which the authors wrote with a language model and did not
  release: it is measured where the data has a descriptions.json, {label: text}.
- objects: the mean over all ("pr_auc_name"), and where pods_info.json lies beside the data over the 70 of its split
  test among themselves ("pr_auc_name_test"), as PODS' own paper has it.
- the test photos are those of the split test; test_dense, which is for masks, is not read.
- a method whose prompt belongs to the query alone sees the references under it for PR-AUC and the test photos for NDCG,
  and the others without a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from steersearch.benchmarks.harness.benchmark import DataMissingError, Outcome, Report
from steersearch.benchmarks.harness.catalogue import Value, card
from steersearch.benchmarks.harness.embeddings import pair_vectors
from steersearch.benchmarks.harness.intervals import HOW, Answers, macro_interval, mean_of
from steersearch.benchmarks.harness.method import Method
from steersearch.benchmarks.harness.metrics import unit_rows
from steersearch.benchmarks.harness.rankings import average_precision, ndcg
from steersearch.benchmarks.harness.viewing import Progress
from steersearch.benchmarks.paper import pods_world
from steersearch.benchmarks.paper.pods_data import Objects, has_pods, read_pods
from steersearch.core.errors import BenchmarkError

VARIANTS = ("none", "supercategory", "name", "description")
_AT_ONCE = 8  # prompts whose vectors are in memory together


@dataclass(frozen=True)
class _Reached:
    """The PR-AUC of an object under a prompt, and the NDCG of each of its test photos."""

    pr_auc: float
    ndcgs: list[float]


class PodsBenchmark:
    """See the module. variants: of the prompts; those that the data has are measured."""

    def __init__(self, variants: Sequence[str]) -> None:
        self.variants = tuple(variants)

    def load(self, place: Path | None, limit: int | None) -> Objects:
        if place is None:
            raise DataMissingError(card("pods"), "name its folder with --data")
        if not has_pods(place):
            raise DataMissingError(card("pods"), f"no parquet files of the splits train and test in {place}")
        return read_pods(place, limit)

    def world(self, limit: int | None) -> Objects:
        return pods_world.build(limit)

    def evaluate(self, method: Method, dataset: Objects, progress: Report | None = None) -> Outcome:
        offered = next(iter(dataset.prompts.values()))
        variants = [variant for variant in self.variants if variant in offered]
        if not variants:
            raise BenchmarkError(f"{dataset.name}: has no prompts of the sort {', '.join(self.variants)}")
        counted = Progress(_passes(dataset, variants), progress)
        metrics: dict[str, Any] = {}
        intervals: dict[str, tuple[float, float]] = {}
        answers: dict[str, Answers] = {}
        rows: dict[str, dict[str, Any]] = {label: {"object": label} for label in dataset.prompts}
        for variant in variants:
            everyone = _reached(method, dataset, variant, frozenset(dataset.prompts), counted)
            answers |= (found := _answers(everyone, variant))
            metrics |= {name: mean_of(each) for name, each in found.items()}
            intervals |= {name: macro_interval(each, 100) for name, each in found.items()}
            if dataset.test_split:
                of_test = _reached(method, dataset, variant, dataset.test_split, counted)
                metrics |= {
                    name: mean_of(each) for name, each in _answers(of_test, f"{variant}_test").items()
                }
            for label, one in everyone.items():
                rows[label][f"pr_auc_{variant}"] = 100 * one.pr_auc
                rows[label][f"ndcg_{variant}"] = 100 * float(np.mean(one.ndcgs))
        return Outcome(
            metrics=metrics,
            intervals=intervals,
            rows=list(rows.values()),
            answers=answers,
            settings={
                "prompts": {label: dict(said) for label, said in dataset.prompts.items()},
                "objects": len(dataset.prompts),
                "interval": f"{HOW}; of PR-AUC, the objects are drawn anew",
            },
        )


def _passes(data: Objects, variants: Sequence[str]) -> int:
    """Number of pictures, over all prompts and both sets of objects."""
    passes = 0
    for labels in filter(None, (frozenset(data.prompts), data.test_split)):
        shots = sum(shot.label in labels for shot in (*data.references, *data.tests))
        passes += sum(shots * len({data.prompts[label][variant] for label in labels}) for variant in variants)
    return passes


def _answers(found: Mapping[str, _Reached], name: str) -> dict[str, Answers]:
    """Of PR-AUC one for each object, of NDCG one for each of its test photos."""
    return {
        f"pr_auc_{name}": [100 * one.pr_auc for one in found.values()],
        f"ndcg_{name}": {label: [100 * value for value in one.ndcgs] for label, one in found.items()},
    }


def _reached(
    method: Method, data: Objects, variant: str, labels: frozenset[str], progress: Progress
) -> dict[str, _Reached]:
    """The results for the objects `labels` among themselves, under the prompts of `variant`."""
    everything = (*data.references, *data.tests)
    chosen = [number for number, shot in enumerate(everything) if shot.label in labels]
    by_prompt: dict[str | None, list[str]] = {}
    for label in data.prompts:
        if label in labels:
            by_prompt.setdefault(data.prompts[label][variant], []).append(label)
    names = np.array([everything[number].label for number in chosen])
    is_reference = np.array([number < len(data.references) for number in chosen])
    found: dict[str, _Reached] = {}
    prompts = list(by_prompt)
    for start in range(0, len(prompts), _AT_ONCE):
        part = prompts[start : start + _AT_ONCE]
        gallery = [] if method.gallery_takes_prompt else [None]
        vectors = pair_vectors(method, data, dict.fromkeys([*part, *gallery], chosen))
        progress.add(len(part) * len(chosen))
        for prompt in part:
            asking, shown = (
                unit_rows(np.stack([vectors[under][number] for number in chosen]))
                for under in (prompt, prompt if method.gallery_takes_prompt else None)
            )
            of_references = shown[~is_reference] @ asking[is_reference].T  # (T, R): these ask for test photos
            of_tests = asking[~is_reference] @ shown[is_reference].T  # (T, R): these ask for references
            for label in by_prompt[prompt]:
                mine, own = names[~is_reference] == label, names[is_reference] == label
                area = average_precision(of_references[:, own].max(axis=1), mine)
                found[label] = _Reached(area, [ndcg(row, own) for row in of_tests[mine]])
    return {label: found[label] for label in data.prompts if label in labels}


def create(options: Mapping[str, Value]) -> PodsBenchmark:
    """The benchmark with its options: prompts, "all" or one of VARIANTS."""
    return PodsBenchmark(VARIANTS if options["prompts"] == "all" else (str(options["prompts"]),))


examples = pods_world.examples
