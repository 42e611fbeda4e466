"""refcocog (the paper, appendix C.2): how well the head's heatmap covers what a sentence refers to.

What the paper leaves open, and what is done here (facts C7):
- split: val by umd, or test; every sentence is one expression, and counts alike.
- a picture is squashed to a square before a method sees it, so that a central crop takes nothing off; where a method's
  preprocessing sees less of it (MAE, SigLIP: 90 % of the side), masks are cut to that, and expressions about what lies
  wholly outside are left out ("unseen").
- truth: a patch belongs to the object if half of it is covered; of an object that covers half of no patch, the patch
  that it covers most ("small" says how many these are).
- threshold: a patch is predicted where the score map is at most a margin below its own maximum. For logits of a
  softmax over patches that is p >= tau · max p with tau = exp(-margin). The margin is tuned once per method, for
  the best mean IoU on expressions of the split train; both are in the settings.
- "mean_iou" is the mean over expressions, on the patch grid; "cumulative_iou" all intersections over all unions;
  "over_half" the share of expressions with an IoU above 0.5; "pointing" that of those whose strongest patch is right.
  "mean_iou_pixels" upsamples map and mask to PIXELS first (bilinear, and by cover), with the same margin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from steersearch.benchmarks.harness.benchmark import DataMissingError, Outcome, Report
from steersearch.benchmarks.harness.catalogue import Value, card
from steersearch.benchmarks.harness.intervals import HOW, micro_interval
from steersearch.benchmarks.harness.method import Floats, Method
from steersearch.benchmarks.harness.pixel_metrics import (
    Part,
    choose_margin,
    intersections_and_unions,
    iou,
    near_best,
    patch_cover,
)
from steersearch.benchmarks.harness.viewing import Progress, part_seen, see_all
from steersearch.benchmarks.paper import refcocog_world
from steersearch.benchmarks.paper.refcocog_data import Expression, Expressions, read_refcocog
from steersearch.core.errors import BenchmarkError, DataError
from steersearch.core.heatmaps import upsample
from steersearch.training.data.importers.refcoco import refs_file
from steersearch.training.data.mask_codec import Mask

PIXELS = 168
LENGTHS = (("1 to 4", 1, 4), ("5 to 8", 5, 8), ("9 and more", 9, 10**6))  # of an expression, in words


class RefcocogBenchmark:
    """See the module. split: val or test."""

    def __init__(self, split: str) -> None:
        self.split = split

    def load(self, place: Path | None, limit: int | None) -> Expressions:
        if place is None:
            raise DataMissingError(card("refcocog"), "name its folder with --data")
        if refs_file(place) is None:
            raise DataMissingError(card("refcocog"), f"no refs(umd).p in {place}")
        try:
            return read_refcocog(place, self.split, limit)
        except DataError as error:
            raise BenchmarkError(str(error)) from error

    def world(self, limit: int | None) -> Expressions:
        return refcocog_world.build(limit)

    def evaluate(self, method: Method, dataset: Expressions, progress: Report | None = None) -> Outcome:
        part = part_seen(method)
        tuned_on, measured = (_within(part, one) for one in (dataset.tuning, dataset.measured))
        if not tuned_on or not measured:
            raise BenchmarkError(f"{dataset.name}: no expression is about what {method.name} sees")
        counted = Progress(len(tuned_on) + len(measured), progress)
        tuning = _look(method, tuned_on, counted)
        margin = choose_margin(tuning, _truth(tuned_on, tuning.shape[1:], part)[0])
        maps = _look(method, measured, counted)
        truth, small = _truth(measured, maps.shape[1:], part)
        pixels = [
            _in_pixels(found, one.mask, part, margin) for found, one in zip(maps, measured, strict=True)
        ]
        predicted = near_best(maps.astype(np.float64), margin)
        each = 100 * iou(predicted, truth)
        shared, union = intersections_and_unions(predicted, truth)
        strongest = maps.reshape(len(maps), -1).argmax(axis=1)
        pointing = truth.reshape(len(maps), -1)[np.arange(len(maps)), strongest]
        return Outcome(
            metrics={
                "mean_iou": float(each.mean()),
                "cumulative_iou": 100 * float(shared.sum() / union.sum()),
                "over_half": 100 * float((each > 50).mean()),
                "pointing": 100 * float(pointing.mean()),
                "mean_iou_pixels": 100 * float(np.mean(pixels)),
                "small": small,
            },
            intervals={"mean_iou": micro_interval({"expressions": each.tolist()})},
            rows=_by_length(measured, each, pointing),
            answers={"mean_iou": each.tolist()},
            settings={
                "split": self.split if dataset.source == "real" else "generated",
                "margin": margin,
                "tau": math.exp(-margin),
                "tuned_on": len(tuned_on),
                "left_out": list(dataset.left_out),
                "unseen": len(dataset.measured) - len(measured),
                "interval": HOW,
            },
        )


def _within(part: Part, expressions: Sequence[Expression]) -> list[Expression]:
    """Those with something in this part of the picture."""
    return [one for one in expressions if patch_cover(one.mask, (1, 1), part).any()]


def _look(method: Method, expressions: Sequence[Expression], progress: Progress) -> Floats:
    """The score map of each expression (n, Hp, Wp); expressions of the same words form a batch."""
    by_text: dict[str, list[int]] = {}
    for number, expression in enumerate(expressions):
        by_text.setdefault(expression.text, []).append(number)
    maps: dict[int, Floats] = {}
    for text, numbers in by_text.items():
        seen = see_all(method, [expressions[number].picture for number in numbers], text, progress, maps=True)
        assert seen.maps is not None
        maps |= dict(zip(numbers, seen.maps, strict=True))
    return np.stack([maps[number] for number in range(len(expressions))])


def _in_pixels(score: Floats, mask: Mask, part: Part, margin: float) -> float:
    """The IoU of a score map (Hp, Wp) in pixels."""
    large = upsample(score, (PIXELS, PIXELS))[None]
    meant = _most_covered(patch_cover(mask, (PIXELS, PIXELS), part))
    return float(iou(near_best(large, margin), meant[None])[0])


def _truth(
    expressions: Sequence[Expression], grid: tuple[int, ...], part: Part
) -> tuple[npt.NDArray[np.bool_], int]:
    """The patches of each expression's object (n, Hp, Wp), and the number of objects that cover half of none."""
    covers = [patch_cover(expression.mask, (grid[0], grid[1]), part) for expression in expressions]
    return np.stack([_most_covered(cover) for cover in covers]), sum(
        bool(cover.max() < 0.5) for cover in covers
    )


def _most_covered(cover: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Where at least half is covered, or else the most covered."""
    belongs: npt.NDArray[np.bool_] = cover >= min(0.5, float(cover.max()))
    return belongs


def _by_length(
    expressions: Sequence[Expression], each: npt.NDArray[np.float64], pointing: npt.NDArray[np.bool_]
) -> list[dict[str, Any]]:
    words = np.array([len(expression.text.split()) for expression in expressions])
    rows = []
    for name, least, most in LENGTHS:
        those = (words >= least) & (words <= most)
        if those.any():
            row = {"words": name, "expressions": int(those.sum())}
            rows.append(
                row | {"mean_iou": float(each[those].mean()), "pointing": 100 * float(pointing[those].mean())}
            )
    return rows


def create(options: Mapping[str, Value]) -> RefcocogBenchmark:
    """The benchmark with its options: split."""
    return RefcocogBenchmark(str(options["split"]))


examples = refcocog_world.examples
