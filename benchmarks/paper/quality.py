"""quality (the paper, section 4.3): how much steering costs the features' quality.

"fg_cls" is the mean top-1 accuracy of linear probes on frozen global features of ImageWoof, Waterbirds and Stanford
Cars, under "the dog", "the bird" and "the car". "ade20k" is the mean IoU of ADE20k's classes, each against all else,
labelled by nearest patches under "the {class}". "quality" is the mean of both, if all four data sets are available.
Several gate_scales are measured one by one, each with its steering (CORE), which shows the trade-off.

What the paper leaves open, and what is done here (facts C4):
- probes: trained as the paper says, 300 epochs at a learning rate of 1e-3 in batches of 128. It says no more; here the
  optimiser is Adam without weight decay, there is no augmentation, and features are standardised by mean and deviation
  of the training rows. Waterbirds counts by average accuracy; "waterbirds_worst_group" is the worst of its four
  groups of bird and background. Stanford Cars is read with a folder for each class.
- ADE20k: a patch is labelled by the patches most like it, as in Open-Hummingbird. The memory of a class holds the
  patches of MEMORY training pictures from a fixed seed, half of them with the class if there are enough; labels are
  the share of a patch that the class covers; 30 neighbours by cosine, softmax at 0.02. Pictures are squashed to
  squares; the truth is cut to what the method's preprocessing keeps (90 % of the side for MAE and SigLIP). The labels
  of patches are upsampled bilinearly to PIXELS; more than half is the class. "ade20k" is the mean over classes of the
  mean IoU of class and non-class, as Open-Hummingbird has it with two classes; "ade20k_foreground" takes the class
  alone. Classes in no validation picture are left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from steersearch.benchmarks.harness.benchmark import DataMissingError, Outcome, Report
from steersearch.benchmarks.harness.catalogue import Value, card
from steersearch.benchmarks.harness.embeddings import pair_vectors
from steersearch.benchmarks.harness.intervals import (
    HOW,
    Answers,
    Doubles,
    draws,
    limits,
    macro_interval,
    macro_rounds,
)
from steersearch.benchmarks.harness.method import Floats, Method
from steersearch.benchmarks.harness.pixel_metrics import patch_cover
from steersearch.benchmarks.harness.steervit_method import SteerViTMethod
from steersearch.benchmarks.harness.viewing import Progress, batches, part_seen, squared
from steersearch.benchmarks.paper import core, quality_world
from steersearch.benchmarks.paper.quality_data import (
    LabelledSet,
    QualityData,
    Segmented,
    SegmentedSet,
    read_quality,
)
from steersearch.core.errors import ArgumentError, BenchmarkError
from steersearch.core.heatmaps import upsample

MEMORY = 400  # training pictures of a class
PIXELS = 224  # of the square in which labels are compared
SEED = 97_100
EPOCHS, LEARNING_RATE, BATCH = 300, 1e-3, 128  # of a probe
PROBE_SEED = 97_000
NEIGHBOURS, TEMPERATURE = 30, 0.02
_QUERIES_AT_ONCE = 2048
PROBES = ("imagewoof", "waterbirds", "cars")

Counts = npt.NDArray[np.int64]

logger = logging.getLogger(__name__)


class QualityBenchmark:
    """See the module. gate_scales: empty for the method's own.  memory: as MEMORY."""

    def __init__(self, gate_scales: Sequence[float], memory: int) -> None:
        self.gate_scales, self.memory = tuple(gate_scales), memory

    def load(self, place: Path | None, limit: int | None) -> QualityData:
        if place is None:
            raise DataMissingError(card("quality"), "name the folder that holds the data sets with --data")
        found = read_quality(place, limit)
        if found is None:
            raise DataMissingError(card("quality"), f"none of the four data sets in {place}")
        return self._named(found)

    def world(self, limit: int | None) -> QualityData:
        return self._named(quality_world.build(limit))

    def _named(self, data: QualityData) -> QualityData:
        """A sweep is recorded separately from a single gate_scale."""
        return replace(data, name=f"{data.name}/gates") if self.gate_scales else data

    def evaluate(self, method: Method, dataset: QualityData, progress: Report | None = None) -> Outcome:
        methods = self._methods(method)
        counted = Progress(len(methods) * self._passes(dataset), progress)
        settings = {
            "memory": self.memory,
            "pixels": PIXELS,
            "gate_scales": list(self.gate_scales),
            "interval": f"{HOW}; of the segmentation, the test pictures are, the same for all classes",
        }
        if not self.gate_scales:
            return replace(self._one(method, dataset, counted), settings=settings)
        steers, note = _core(dataset)
        settings["core"] = note
        sweep = []
        for scale, one in methods.items():
            sweep.append({"gate_scale": scale} | self._one(one, dataset, counted).metrics | steers(one))
        best = max(sweep, key=lambda row: row.get("quality", 0.0))
        metrics = {
            f"{name}_gate{row['gate_scale']:g}": row[name]
            for row in sweep
            for name in row
            if name != "gate_scale"
        }
        if "quality" in best:
            metrics["best_gate_scale"] = best["gate_scale"]
        return Outcome(metrics=metrics, rows=sweep, settings=settings)

    def _methods(self, method: Method) -> dict[float | None, Method]:
        if not self.gate_scales:
            return {None: method}
        if not isinstance(method, SteerViTMethod):
            raise BenchmarkError(f"{method.name} has no gate_scale: leave out gate_scales")
        return {scale: method.at(scale) for scale in self.gate_scales}

    def _passes(self, data: QualityData) -> int:
        passes = sum(map(len, data.labelled))
        segmented = data.segmented
        if segmented is not None:
            each = min(self.memory, len(segmented.memory)) + len(segmented.test)
            passes += each * len(_measured_classes(segmented))
        return passes

    def _one(self, method: Method, data: QualityData, progress: Progress) -> Outcome:
        """What one method reached, without settings."""
        metrics: dict[str, Any] = {}
        intervals: dict[str, tuple[float, float]] = {}
        rows: list[dict[str, Any]] = []
        answers: dict[str, Answers] = {}
        rounds: list[Doubles] = []  # fg_cls and ade20k in each round of the intervals
        hits = {one.name: _probe(method, one, progress) for one in data.labelled}
        for one in data.labelled:
            right = hits[one.name]
            metrics[one.name] = 100 * float(right.mean())
            rows.append({"part": one.name, "accuracy": metrics[one.name], "pictures": len(one.test)})
            groups = np.array([picture.group for picture in one.test])
            if (groups >= 0).any():
                worst = min(float(right[groups == group].mean()) for group in np.unique(groups))
                metrics[f"{one.name}_worst_group"] = 100 * worst
        if data.labelled and (data.source != "real" or set(hits) == set(PROBES)):
            metrics["fg_cls"] = float(np.mean([metrics[name] for name in hits]))
            answers["fg_cls"] = {name: (100 * right).tolist() for name, right in hits.items()}
            rounds.append(macro_rounds(answers["fg_cls"]))
            intervals["fg_cls"] = macro_interval(answers["fg_cls"], 100)
        counts = {} if data.segmented is None else self._segment(method, data.segmented, progress)
        if counts:
            found = [_segmented_row(name, each) for name, each in counts.items()]
            metrics["ade20k"] = float(np.mean([row["iou"] for row in found]))
            metrics["ade20k_foreground"] = float(np.mean([row["iou_foreground"] for row in found]))
            answers["ade20k"] = [row["iou"] for row in found]
            rounds.append(_segmented_rounds(np.stack(list(counts.values()))))
            intervals["ade20k"] = limits(rounds[-1])
            rows += found
        if "fg_cls" in metrics and "ade20k" in metrics:
            metrics["quality"] = (metrics["fg_cls"] + metrics["ade20k"]) / 2
            intervals["quality"] = limits((rounds[0] + rounds[1]) / 2)
            answers["quality"] = dict(answers)
        return Outcome(metrics=metrics, intervals=intervals, rows=rows, answers=answers)

    def _segment(self, method: Method, data: SegmentedSet, progress: Progress) -> dict[str, Counts]:
        """Pixels by (truth, guess) of each test picture (n, 2, 2), class by class."""
        found: dict[str, Counts] = {}
        for label, name in _measured_classes(data).items():
            prompt = f"the {name}"
            chosen = _remembered(data, label, self.memory)
            keys, shares = _patches(method, chosen, prompt, label, progress)
            counts = []
            pictures = [squared(one.picture) for one in data.test]
            for part, seen in batches(method, pictures, prompt, progress, patches=True):
                assert seen.patches is not None
                for patches, one in zip(seen.patches, data.test[part], strict=True):
                    soft = labels_of_nearest(keys, shares, patches.reshape(-1, patches.shape[-1]))
                    guess = upsample(soft.reshape(patches.shape[:2]), (PIXELS, PIXELS)) > 0.5
                    truth = patch_cover(one.labels() == label, (PIXELS, PIXELS), part_seen(method)) > 0.5
                    counts.append(np.bincount(2 * truth.ravel() + guess.ravel(), minlength=4))
            found[name] = np.stack(counts).reshape(-1, 2, 2)
        return found


def _probe(method: Method, data: LabelledSet, progress: Progress) -> npt.NDArray[np.bool_]:
    """Which test pictures a linear probe classifies correctly (n,)."""
    found = pair_vectors(method, data, {data.prompt: range(len(data))})[data.prompt]
    progress.add(len(data))
    vectors = np.stack([found[number] for number in range(len(data))])
    first = len(data.train)
    labels = np.array([picture.label for picture in (*data.train, *data.test)], np.int64)
    guessed = predict(vectors[:first], labels[:first], vectors[first:], data.classes)
    right: npt.NDArray[np.bool_] = guessed == labels[first:]
    return right


def predict(
    train: Floats, labels: npt.NDArray[np.int64], test: Floats, classes: int
) -> npt.NDArray[np.int64]:
    """The class (n,) that a probe trained on `train` (m, D) and its labels (m,) gives each row of `test` (n, D).

    Deterministic: weights start at 0, and a fixed seed orders the batches.
    """
    mean, deviation = train.mean(axis=0), np.maximum(train.std(axis=0), 1e-6)
    inputs, targets = torch.from_numpy((train - mean) / deviation), torch.from_numpy(labels)
    weight = torch.zeros(train.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.Adam([weight, bias], lr=LEARNING_RATE)
    generator = torch.Generator().manual_seed(PROBE_SEED)
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(inputs), generator=generator), BATCH):
            optimiser.zero_grad()
            loss = F.cross_entropy(inputs[rows] @ weight + bias, targets[rows])
            torch.autograd.backward(loss)
            optimiser.step()
    with torch.inference_mode():
        scores = torch.from_numpy((test - mean) / deviation) @ weight + bias
        best: npt.NDArray[np.int64] = scores.argmax(dim=1).numpy()
        return best


def _measured_classes(data: SegmentedSet) -> dict[int, str]:
    """The classes in both the memory and the test pictures."""
    shown = [frozenset().union(*(one.present for one in part)) for part in (data.memory, data.test)]
    return {label: name for label, name in data.classes.items() if label in shown[0] & shown[1]}


def _remembered(data: SegmentedSet, label: int, most: int) -> list[Segmented]:
    """The pictures in the memory of a class: at least half of them with it, if there are enough."""
    rng = np.random.default_rng([SEED, label])
    shuffled = [data.memory[int(i)] for i in rng.permutation(len(data.memory))]
    having = [one for one in shuffled if label in one.present]
    lacking = [one for one in shuffled if label not in one.present]
    kept = min(len(having), max(most - len(lacking), (most + 1) // 2))
    return having[:kept] + lacking[: most - kept]


def _patches(
    method: Method, chosen: Sequence[Segmented], prompt: str, label: int, progress: Progress
) -> tuple[Floats, Floats]:
    """Patch features of pictures (M, D) and the share of each that the class covers (M,)."""
    keys: list[Floats] = []
    shares: list[Floats] = []
    pictures = [squared(one.picture) for one in chosen]
    for part, seen in batches(method, pictures, prompt, progress, patches=True):
        assert seen.patches is not None
        grid = (seen.patches.shape[1], seen.patches.shape[2])
        keys.append(seen.patches.reshape(-1, seen.patches.shape[-1]))
        covers = (patch_cover(one.labels() == label, grid, part_seen(method)) for one in chosen[part])
        shares += [cover.astype(np.float32).ravel() for cover in covers]
    return np.concatenate(keys), np.concatenate(shares)


def labels_of_nearest(
    memory: Floats,
    labels: Floats,
    queries: Floats,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> Floats:
    """Mean label of each query's nearest patches in memory by cosine, weighted by softmax(cosine / temperature).

    memory (M, D) and queries (Q, D) of any length; labels (M,) in [0, 1], such as the share of a patch that a class
    covers; (Q,).
    """
    keys = F.normalize(torch.from_numpy(memory), dim=1)
    values = torch.from_numpy(labels)
    found = []
    for part in torch.split(torch.from_numpy(queries), _QUERIES_AT_ONCE):
        scores, rows = (F.normalize(part, dim=1) @ keys.T).topk(min(neighbours, len(keys)), dim=1)
        found.append(((scores / temperature).softmax(dim=1) * values[rows]).sum(dim=1))
    return torch.cat(found).numpy() if found else np.zeros(0, np.float32)


def _segmented_row(name: str, counts: Counts) -> dict[str, Any]:
    """counts: of the test pictures under the prompt of one class (n, 2, 2)."""
    both = 100 * _ious(counts.sum(axis=0))
    return {"part": name, "iou": float(both.mean()), "iou_foreground": float(both[1])}


def _segmented_rounds(counts: Counts) -> Doubles:
    """What "ade20k" is in each round of its interval (ROUNDS,). counts: of C classes (C, n, 2, 2)."""
    drawn = draws(counts.shape[1], np.random.default_rng(SEED))
    sums = np.tensordot(drawn.astype(np.float64), counts.astype(np.float64), (1, 1))
    rounds: Doubles = 100 * _ious(sums).mean(axis=(1, 2))
    return rounds


def _ious(counts: npt.NDArray[Any]) -> Doubles:
    """IoU of non-class and class (..., 2), 1 if neither present nor predicted. counts: (..., 2, 2)."""
    both = np.diagonal(counts, axis1=-2, axis2=-1)
    union = counts.sum(axis=-1) + counts.sum(axis=-2) - both
    return np.where(union > 0, both / np.maximum(union, 1), 1.0)


def _core(data: QualityData) -> tuple[Callable[[Method], dict[str, float]], str]:
    """A function for CORE on data of the same origin, and the name of that data."""
    benchmark = core.create(card("core").settings({}))
    try:
        photos = benchmark.world(10) if data.source != "real" else benchmark.load(None, None)
    except DataMissingError as error:
        logger.warning("the sweep is without CORE: %s", str(error).splitlines()[0])
        return lambda method: {}, "not measured"
    return lambda method: {"core": float(benchmark.evaluate(method, photos).metrics["macro"])}, photos.name


def create(options: Mapping[str, Value]) -> QualityBenchmark:
    """The benchmark with its options: gate_scales, numbers between commas, and memory. Raises ArgumentError."""
    given = str(options["gate_scales"])
    try:
        scales = [float(part) for part in given.split(",") if part.strip()]
    except ValueError:
        raise ArgumentError("gate_scales", given, "must be numbers between commas, such as 0,0.5,1") from None
    memory = int(options["memory"])
    if memory < 1:
        raise ArgumentError("memory", memory, "must be at least one picture")
    return QualityBenchmark(scales, memory)


examples = quality_world.examples
