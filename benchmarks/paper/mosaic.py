"""mosaic (the paper, section 4.2): does the attention of CLS go to the prompt's class among four photos stitched 2 x 2?

Each composite is embedded under every class in it. The score map is the CLS row of the last block's self-attention; the
figure is the area under its precision-recall curve (average precision) against the class's mask on the patch grid.

What the paper leaves open, and what is done here (facts C3):
- data: the 1,449 pictures of VOC2012's segmentation val in the order of the list, by fours; the last composite has one
  picture. That makes the paper's 363.
- a tile: its picture in the middle of a black square as wide as its longer side, scaled to TILE pixels (bicubic; masks
  nearest). A composite is then brought to its own input size by the method.
- heads: their mean. "ap" takes the attention as it is, "ap_sinks_suppressed" without its sinks, as the released
  attention maps are by default. On a coarse grid that suppresses small objects too.
- the truth is cut to what the method's preprocessing keeps of a composite (90 % of its side for MAE and SigLIP).
- a patch belongs to the class if half of it is covered; "ap_any_cover" takes any cover. VOC's void is background.
  A class that covers half of no patch is left out of the former; "pairs" and "pairs_any_cover" say how many are left.
- the mean is over all pairs of composite and class; "ap_class_mean" is the mean over classes of theirs.
- the prompt is "the {}" with the class's name as a person would write it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from steersearch.benchmarks.harness.benchmark import DataMissingError, Outcome, Report
from steersearch.benchmarks.harness.catalogue import Value, card
from steersearch.benchmarks.harness.intervals import HOW, micro_interval
from steersearch.benchmarks.harness.method import Floats, Method
from steersearch.benchmarks.harness.pixel_metrics import patch_cover
from steersearch.benchmarks.harness.rankings import average_precision
from steersearch.benchmarks.harness.viewing import Progress, part_seen, see_all
from steersearch.benchmarks.paper import mosaic_world
from steersearch.benchmarks.paper.mosaic_data import TILE, Mosaics, read_mosaics, read_voc, voc_root
from steersearch.core.attention_maps import without_sinks
from steersearch.core.errors import BenchmarkError


@dataclass(frozen=True, eq=False)
class _Pair:
    """A composite and a class in it: the score maps of the prompt (Hp, Wp), and the class's share of each patch."""

    mosaic: int
    label: int
    attention: Floats | None
    head: Floats | None
    cover: npt.NDArray[np.float64]


class MosaicBenchmark:
    """See the module. template: the prompt, with {} for the class."""

    def __init__(self, template: str) -> None:
        self.template = template

    def load(self, place: Path | None, limit: int | None) -> Mosaics:
        if place is None:
            raise DataMissingError(card("mosaic"), "name its folder with --data")
        if (place / "mosaic.json").is_file():
            return read_mosaics(place, limit)
        if voc_root(place) is None:
            raise DataMissingError(card("mosaic"), f"no VOC2012 in {place}")
        return read_voc(place, limit)

    def world(self, limit: int | None) -> Mosaics:
        return mosaic_world.build(limit)

    def evaluate(self, method: Method, dataset: Mosaics, progress: Report | None = None) -> Outcome:
        given = _what_it_gives(method, dataset)
        pairs = self._look(method, dataset, given, progress)
        values = _precisions(pairs)
        if not values["ap"]:
            grid = " x ".join(map(str, pairs[0].cover.shape)) if pairs else "any"
            raise BenchmarkError(f"{dataset.name}: no class covers half of a patch of a {grid} grid")
        by_class = _grouped(pairs, values["ap"])
        metrics = {
            name: 100 * float(np.mean(list(found.values()))) for name, found in values.items() if found
        }
        metrics["ap_class_mean"] = 100 * float(np.mean([np.mean(found) for found in by_class.values()]))
        shares = [float((pair.cover >= 0.5).mean()) for pair in pairs]
        metrics["chance"] = 100 * float(np.mean([share for share in shares if share]))
        metrics["pairs"], metrics["pairs_any_cover"] = len(values["ap"]), len(pairs)
        low, high = micro_interval(by_class)
        return Outcome(
            metrics=metrics,
            intervals={"ap": (100 * low, 100 * high)},
            rows=_rows(dataset, pairs, values),
            answers={
                name: [100 * value for value in found.values()] for name, found in values.items() if found
            },
            settings={
                "template": self.template,
                "tile": TILE,
                "map": "attention of CLS" if "attention" in given else "score map of the head",
                "interval": HOW,
            },
        )

    def _look(
        self, method: Method, data: Mosaics, given: Mapping[str, bool], report: Report | None
    ) -> list[_Pair]:
        """Each composite under the prompt of each of its classes, class by class."""
        progress = Progress(sum(len(mosaic.classes) for mosaic in data.mosaics), report)
        pairs = []
        for label, name in enumerate(data.classes, 1):
            chosen = [number for number, mosaic in enumerate(data.mosaics) if label in mosaic.classes]
            if not chosen:
                continue
            pictures = [data.mosaics[number].picture for number in chosen]
            seen = see_all(method, pictures, self.template.format(name), progress, **given)
            for row, number in enumerate(chosen):
                attention = None if seen.attention is None else seen.attention[row]
                head = None if seen.maps is None else seen.maps[row]
                grid = next(found for found in (attention, head) if found is not None).shape
                cover = patch_cover(data.mosaics[number].labels() == label, grid, part_seen(method))
                if cover.any():
                    pairs.append(_Pair(number, label, attention, head, cover))
        return pairs


def _what_it_gives(method: Method, data: Mosaics) -> dict[str, bool]:
    """Which of attention and the head's maps the method has. Raises BenchmarkError if it has neither."""
    given: dict[str, bool] = {}
    refused = []
    first = [data.mosaics[0].picture()]
    for name in ("attention", "maps"):
        try:
            method.see(first, "the thing", **{name: True})
            given[name] = True
        except BenchmarkError as error:
            refused.append(str(error))
    if not given:
        raise BenchmarkError("; ".join(refused))
    return given


def _precisions(pairs: Sequence[_Pair]) -> dict[str, dict[int, float]]:
    """Average precision of each way to score, by the number of the pair, if it is defined there."""
    found: dict[str, dict[int, float]] = {
        name: {} for name in ("ap", "ap_any_cover", "ap_sinks_suppressed", "ap_wrong_prompt", "ap_head")
    }
    by_mosaic: dict[int, list[_Pair]] = {}
    for pair in pairs:
        by_mosaic.setdefault(pair.mosaic, []).append(pair)
    for number, pair in enumerate(pairs):
        score, half = _score(pair), pair.cover >= 0.5
        found["ap_any_cover"][number] = average_precision(score, pair.cover > 0)
        if not half.any():
            continue
        found["ap"][number] = average_precision(score, half)
        if pair.attention is not None:
            calm = without_sinks(torch.from_numpy(pair.attention)).numpy()
            found["ap_sinks_suppressed"][number] = average_precision(calm, half)
            if pair.head is not None:
                found["ap_head"][number] = average_precision(pair.head, half)
        others = by_mosaic[pair.mosaic]
        if len(others) > 1:
            wrong = others[(others.index(pair) + 1) % len(others)]
            found["ap_wrong_prompt"][number] = average_precision(_score(wrong), half)
    return found


def _score(pair: _Pair) -> Floats:
    """The measured map: attention, or the head's for a method without."""
    score = pair.head if pair.attention is None else pair.attention
    assert score is not None
    return score


def _grouped(pairs: Sequence[_Pair], values: Mapping[int, float]) -> dict[str, list[float]]:
    by_class: dict[str, list[float]] = {}
    for number, value in values.items():
        by_class.setdefault(str(pairs[number].label), []).append(value)
    return by_class


def _rows(
    data: Mosaics, pairs: Sequence[_Pair], values: Mapping[str, Mapping[int, float]]
) -> list[dict[str, Any]]:
    rows = []
    for label, name in enumerate(data.classes, 1):
        numbers = [number for number, pair in enumerate(pairs) if pair.label == label]
        if not numbers:
            continue
        row: dict[str, Any] = {"class": name, "pairs": len(numbers)}
        for metric, found in values.items():
            mine = [found[number] for number in numbers if number in found]
            if mine:
                row[metric] = 100 * float(np.mean(mine))
        rows.append(row)
    return rows


def create(options: Mapping[str, Value]) -> MosaicBenchmark:
    """The benchmark with its options: template."""
    return MosaicBenchmark(str(options["template"]))


examples = mosaic_world.examples
