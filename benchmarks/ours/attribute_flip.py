"""attribute-flip: of two things that differ only in colour, does the heatmap choose the one that the prompt names?

Each picture has two prompts, one for each thing. A prompt is right if the mean heat on its thing is greater than on the
other. A map that ignores the colour is right for one of the two and never for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from steersearch.benchmarks.harness.benchmark import Outcome, Report
from steersearch.benchmarks.harness.catalogue import Value, check_template
from steersearch.benchmarks.harness.intervals import HOW, macro_interval
from steersearch.benchmarks.harness.method import Method
from steersearch.benchmarks.harness.metrics import percent
from steersearch.benchmarks.harness.pixel_metrics import patch_cover
from steersearch.benchmarks.harness.viewing import Progress, part_seen, see_all, squared
from steersearch.benchmarks.ours import attribute_flip_data, attribute_flip_world
from steersearch.benchmarks.ours.attribute_flip_data import Pair, Pairs
from steersearch.core.errors import BenchmarkError


class AttributeFlip:
    """See the module. split: of PhraseCut; template: the prompt, with {} for the phrase."""

    def __init__(self, split: str, template: str) -> None:
        self.split, self.template = split, template

    def load(self, place: Path | None, limit: int | None) -> Pairs:
        return attribute_flip_data.load(place, self.split, limit)

    def world(self, limit: int | None) -> Pairs:
        return attribute_flip_world.build(limit)

    def evaluate(self, method: Method, dataset: Pairs, progress: Report | None = None) -> Outcome:
        """accuracy: share of prompts that are right; both: share of pairs with both prompts right, in percent."""
        report = Progress(2 * dataset.n, progress)
        right: dict[str, list[list[float]]] = {}
        for pair in dataset.pairs:
            found = self._right(method, pair, report)
            if found is not None:
                right.setdefault(pair.noun, []).append(found)
        pairs = [pair for those in right.values() for pair in those]
        if not pairs:
            raise BenchmarkError(f"{dataset.name}: none of the things lies where {method.name} looks")
        answers = {
            "accuracy": [100 * float(np.mean(pair)) for pair in pairs],
            "both": [100 * float(min(pair) == 1) for pair in pairs],
        }
        intervals = {name: macro_interval({"": values}, top=100.0) for name, values in answers.items()}
        return Outcome(
            metrics={name: percent(np.array(values) / 100) for name, values in answers.items()}
            | {"chance": 50.0, "pairs": len(pairs), "unseen": dataset.n - len(pairs)},
            intervals={name: (round(low, 2), round(high, 2)) for name, (low, high) in intervals.items()},
            rows=[
                {
                    "noun": noun,
                    "pairs": len(those),
                    "accuracy": percent(those),
                    "both": percent([min(each) == 1 for each in those]),
                }
                for noun, those in sorted(right.items())
            ],
            answers=dict(answers),
            settings={"template": self.template, "intervals": HOW, **dataset.remarks},
        )

    def _right(self, method: Method, pair: Pair, report: Progress) -> list[float] | None:
        """For each prompt 1, 0, or 0.5 for a tie; None if the method does not see one of the things at all."""
        masks, picture = pair.masks(), squared(pair.open)
        right = []
        for own, other in ((0, 1), (1, 0)):
            maps = see_all(method, [picture], self.template.format(pair.phrases[own]), report, maps=True).maps
            assert maps is not None
            covers = [patch_cover(masks[i], maps.shape[1:], part_seen(method)) for i in (own, other)]
            if not all(cover.any() for cover in covers):
                return None
            heat = np.exp(maps[0] - maps[0].max())
            asked, beside = (float((heat * cover).sum() / cover.sum()) for cover in covers)
            right.append(0.5 if asked == beside else float(asked > beside))
        return right


def create(options: Mapping[str, Value]) -> AttributeFlip:
    return AttributeFlip(str(options["split"]), check_template(str(options["template"])))


examples: Any = attribute_flip_world.examples
