"""GeneCIS (Vaze et al. 2023; the paper's Table 7): which picture resembles the reference in what the condition names?

Each row has a reference, a condition in words, one target and 9 or 14 other pictures. Reference and gallery are seen
under the condition as prompt and ranked by cosine; recall at k is the share of rows whose target is among the first k.
In the two "focus" splits the condition names what stays the same. In the "change" splits it names what the target shows
instead, so steering both sides by it is only a makeshift.

What is left open, and what is done here:
- prompt: the paper does not give it. "the {}" is the headline, the bare condition is in the rows beside it.
- ties: a tied target counts by its chance to come first, so a constant embedding scores like guessing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from steersearch.benchmarks.harness.benchmark import Outcome, Report
from steersearch.benchmarks.harness.catalogue import Value, check_template
from steersearch.benchmarks.harness.embeddings import PairVectors, needs_a_prompt, pair_vectors, part_of
from steersearch.benchmarks.harness.intervals import HOW, Answers, macro_interval, mean_of
from steersearch.benchmarks.harness.method import Floats, Method
from steersearch.benchmarks.harness.metrics import percent, unit_rows
from steersearch.benchmarks.paper import genecis_data, genecis_world
from steersearch.benchmarks.paper.genecis_data import GenecisData, Question, Split

SPLITS = ("focus_attribute", "change_attribute", "focus_object", "change_object")
TEMPLATES = ("the {}", "{}")
KS = (1, 2, 3)


def recall(scores: npt.NDArray[np.floating[Any]], k: int) -> float:
    """Probability that the first of `scores` (G,) is among the k greatest, with equal ones in random order."""
    greater = int((scores > scores[0]).sum())
    equal = int((scores == scores[0]).sum())  # itself among them
    return float(np.clip((k - greater) / equal, 0, 1))


@dataclass(frozen=True)
class Genecis:
    """The benchmark. split: one of SPLITS, or "all"; template: the prompt with {} for the condition, or "both"."""

    split: str = "all"
    template: str = "both"

    @property
    def templates(self) -> tuple[str, ...]:
        return TEMPLATES if self.template == "both" else (self.template,)

    def load(self, place: Path | None, limit: int | None) -> GenecisData:
        return genecis_data.load(place, limit, SPLITS if self.split == "all" else (self.split,))

    def world(self, limit: int | None) -> GenecisData:
        return genecis_world.dataset(
            limit or genecis_world.ROWS, SPLITS if self.split == "all" else (self.split,)
        )

    def evaluate(self, method: Method, dataset: GenecisData, progress: Report | None = None) -> Outcome:
        """Recall at 1, 2 and 3 in percent: r1, r2, r3 are means over the splits, as GeneCIS gives them.

        Figures of a split begin with its name. _no_prompt: without text.
        """
        rows: list[dict[str, Any]] = []
        hits: dict[str, dict[str, list[float]]] = {}
        done = 0
        for split in dataset.splits:
            found, reason = self._vectors(method, split, part_of(progress, done, dataset.n))
            done += len(split)
            for number, template in enumerate(self.templates):
                scores = [_scores(found, question, template, method) for question in split.questions]
                values = {f"r{k}": [recall(each, k) for each in scores] for k in KS}
                if number == 0 and reason is None:
                    plain = [_scores(found, question, None, method) for question in split.questions]
                    values["r1_no_prompt"] = [recall(each, 1) for each in plain]
                rows.append(_row(split, template, values))
                if number == 0:
                    for name, each in values.items():
                        hits.setdefault(name, {})[split.name] = each
        settings = {"templates": list(self.templates), "intervals": HOW, **dataset.remarks}
        if reason is not None:
            settings["no_prompt"] = reason
        answers: dict[str, Answers] = {
            figure: {split: [100 * hit for hit in each] for split, each in parts.items()}
            for figure, parts in _figures(hits).items()
        }
        return Outcome(
            metrics=_metrics(hits), intervals=_intervals(hits), rows=rows, answers=answers, settings=settings
        )

    def _vectors(self, method: Method, split: Split, report: Report | None) -> tuple[PairVectors, str | None]:
        """Vectors of the pictures under each prompt that needs them; and why there are none without a prompt."""
        wanted: dict[str | None, set[int]] = {}
        for question in split.questions:
            seen = {question.reference, *question.gallery}
            for template in self.templates:
                prompt = template.format(question.condition)
                wanted.setdefault(prompt, set()).update(
                    seen if method.gallery_takes_prompt else {question.reference}
                )
        reason = needs_a_prompt(method)
        if reason is None:
            wanted[None] = {number for q in split.questions for number in (q.reference, *q.gallery)}
        return pair_vectors(method, split, wanted, report), reason


def create(options: Mapping[str, Value]) -> Genecis:
    template = str(options["template"])
    return Genecis(str(options["split"]), template if template == "both" else check_template(template))


examples = genecis_world.examples


def _scores(
    found: PairVectors, question: Question, template: str | None, method: Method
) -> npt.NDArray[np.float32]:
    """Cosine of the reference with each picture of the gallery (G,)."""
    prompt = None if template is None else template.format(question.condition)
    gallery = found[prompt if method.gallery_takes_prompt else None]
    reference: Floats = unit_rows(found[prompt][question.reference][None])
    scores: npt.NDArray[np.float32] = (
        unit_rows(np.stack([gallery[i] for i in question.gallery])) @ reference[0]
    )
    return scores


def _row(split: Split, template: str, values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    sizes = [len(question.gallery) for question in split.questions]
    low, high = macro_interval({split.name: values["r1"]})
    return {
        "split": split.name,
        "prompt": template,
        "rows": len(split.questions),
        "gallery": round(float(np.mean(sizes)), 2),
        **{name: percent(each) for name, each in values.items()},
        "low": percent(low),
        "high": percent(high),
        "chance": percent(np.mean([1 / size for size in sizes])),
    }


_Hits = Mapping[str, Mapping[str, Sequence[float]]]  # figure -> split -> a value for each of its rows


def _figures(hits: _Hits) -> _Hits:
    """The figures over all splits, as in `hits`, and those of each split."""
    return {**hits} | {
        f"{split}_{name}": {split: values}
        for name, by_split in hits.items()
        for split, values in by_split.items()
    }


def _metrics(hits: _Hits) -> dict[str, Any]:
    return {name: percent(mean_of(by_split)) for name, by_split in _figures(hits).items()}


def _intervals(hits: _Hits) -> dict[str, tuple[float, float]]:
    found = {name: macro_interval(by_split) for name, by_split in _figures(hits).items()}
    return {name: (percent(low), percent(high)) for name, (low, high) in found.items()}
