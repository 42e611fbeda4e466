"""anomaly (the paper, section 4.5): finding damage by words alone on MVTec AD and VisA.

Each test picture is seen under ten phrases for damage; their score maps are averaged, resized to a square and compared
with the mask, pixel by pixel: area under the ROC curve, per-region overlap up to a false positive rate of 0.3, and the
greatest F1, per class of objects, then averaged over classes (as in WinCLIP and FADE, facts C6).

What the paper leaves open, and what is done here:
- prompts: of the paper's ten, one is published ("the anomaly in the <object>"); the nine others of PROMPTS are ours.
  Figures ending in "_single" are those of the published one alone.
- the map: the paper says the continuous output of the head. "auroc", "pro" and "f1" take it raw, as logits;
  "_sigmoid" averages sigmoids; "_softmax" the heatmap as it is released, whose values sum to 1 over each picture,
  which removes the difference between a damaged and a sound picture. The objective never sees the level of the logits.
- a picture that is not square is squashed to a square, as wide as its longer side, before a method sees it, so that a
  central crop takes nothing off. Maps are upsampled bilinearly to 448 pixels (as FADE; the stand-in to its pictures'
  size); masks are brought there by the share of each pixel that they cover, of which more than half counts. They are
  cut to what the method's preprocessing keeps of a square (90 % of its side for MAE and SigLIP).
- a method that builds its own sentences from an object's name (WinCLIP) gets the name instead of the phrases.
- names: those of the data, "_" as a space, without VisA's numbers: "metal nut", "pcb".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from steersearch.benchmarks.harness.benchmark import DataMissingError, Outcome, Report
from steersearch.benchmarks.harness.catalogue import Value, card
from steersearch.benchmarks.harness.intervals import micro_interval
from steersearch.benchmarks.harness.method import Floats, Method
from steersearch.benchmarks.harness.pixel_metrics import Part, patch_cover
from steersearch.benchmarks.harness.rankings import auroc, best_f1, pro
from steersearch.benchmarks.harness.viewing import Progress, part_seen, see_all, squared
from steersearch.benchmarks.paper import anomaly_world
from steersearch.benchmarks.paper.anomaly_data import Item, Items, kind_of
from steersearch.core.errors import BenchmarkError
from steersearch.core.heatmaps import upsample

PUBLISHED_PROMPT = "the anomaly in the {}"
PROMPTS = (
    PUBLISHED_PROMPT,
    "the defect in the {}",
    "the damage on the {}",
    "the flaw in the {}",
    "the scratch on the {}",
    "the crack in the {}",
    "the stain on the {}",
    "the hole in the {}",
    "the broken part of the {}",
    "the contamination on the {}",
)
METRICS = {"auroc": auroc, "pro": pro, "f1": best_f1}
HOW = "95 % percentile bootstrap: the classes are drawn anew with replacement"


class AnomalyBenchmark:
    """See the module."""

    def load(self, place: Path | None, limit: int | None) -> Items:
        if place is None:
            raise DataMissingError(card("anomaly"), "name its folder with --data")
        read = kind_of(place)
        if read is None:
            raise DataMissingError(card("anomaly"), f"neither MVTec AD nor VisA in {place}")
        return read(place, limit)

    def world(self, limit: int | None) -> Items:
        return anomaly_world.build(limit)

    def evaluate(self, method: Method, dataset: Items, progress: Report | None = None) -> Outcome:
        prompts = _prompts(method)
        counted = Progress(dataset.n * len(prompts), progress)
        rows = []
        for name, items in dataset.objects.items():
            masks = np.stack([_mask(item, dataset.side, part_seen(method)) for item in items])
            row: dict[str, Any] = {
                "object": name,
                "pictures": len(items),
                "damaged": int(masks.any(axis=(1, 2)).sum()),
            }
            if row["damaged"] == 0:
                raise BenchmarkError(f"{dataset.name}, {name}: no damage lies where {method.name} looks")
            for variant, maps in _maps(method, prompts, name, items, counted).items():
                scores = np.stack([upsample(found, masks.shape[1:]) for found in maps])
                for metric, measure in METRICS.items():
                    row[metric + variant] = 100 * measure(scores, masks)
            rows.append(row)
        names = [name for name in rows[0] if name not in ("object", "pictures", "damaged")]
        intervals = {name: micro_interval({"classes": [row[name] for row in rows]}) for name in METRICS}
        return Outcome(
            metrics={name: float(np.mean([row[name] for row in rows])) for name in names},
            intervals=intervals,
            rows=rows,
            answers={name: [row[name] for row in rows] for name in METRICS},
            settings={"prompts": list(prompts), "side": dataset.side, "interval": HOW},
        )


def _maps(
    method: Method, prompts: Sequence[str], name: str, items: Sequence[Item], progress: Progress
) -> dict[str, Floats]:
    """Score maps (n, Hp, Wp) of a class by variant of reading the logits: means over the prompts."""
    pictures = [squared(item.picture) for item in items]
    sums: dict[str, Floats] = {}
    for prompt in prompts:
        logits = see_all(method, pictures, prompt.format(name), progress, maps=True).maps
        assert logits is not None
        if prompt == prompts[0]:
            sums["_single"] = logits * len(prompts)
        for variant, values in (("", logits), ("_sigmoid", _sigmoid(logits)), ("_softmax", _softmax(logits))):
            sums[variant] = sums[variant] + values if variant in sums else values
    return {variant: total / np.float32(len(prompts)) for variant, total in sums.items()}


def _prompts(method: Method) -> tuple[str, ...]:
    """PROMPTS, the published one first; or the bare name, for a method that builds its own sentences."""
    return ("{}",) if getattr(method, "prompt_is_object", False) else PROMPTS


def _sigmoid(logits: Floats) -> Floats:
    return (0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))).astype(np.float32)


def _softmax(logits: Floats) -> Floats:
    """Softmax over the patches of each picture (n, Hp, Wp)."""
    grown = np.exp(logits - logits.max(axis=(1, 2), keepdims=True))
    shares: Floats = grown / grown.sum(axis=(1, 2), keepdims=True)
    return shares


def _mask(item: Item, side: int, part: Part) -> npt.NDArray[np.bool_]:
    if item.mask is None:
        return np.zeros((side, side), np.bool_)
    marked: npt.NDArray[np.bool_] = patch_cover(item.mask(), (side, side), part) > 0.5
    return marked


def create(options: Mapping[str, Value]) -> AnomalyBenchmark:
    """The benchmark; it has no options."""
    return AnomalyBenchmark()


examples = anomaly_world.examples
