"""What embeddings still say of a whole picture once they are steered: linear probes on generated photos.

Each photo shows one of six families of scenes, one large drawn thing (34 kinds) and three small ones of other kinds.
One general prompt is asked of all photos, so that it gives no label away. On top of the frozen embeddings a linear
classifier learns the scene, and another the kind of the large thing; the accuracy on photos with other plates and
other drawings is the figure. The paper's own probes (facts C4) need data sets that are not at hand.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from steersearch.benchmarks.harness.record import Record, add_save
from steersearch.core.predictor import Predictor
from steersearch.core.steervit import NO_STEERING
from steersearch.core.vectors import Aggregation
from steersearch.training.world import composition, scenes
from steersearch.training.world.things import KINDS, Thing, draw_stock

VERSION = 1
SEED = 91_000  # training uses small seeds, core-world 90,000
TRAIN, TEST = 1500, 600
SIZE = (320, 240)
PHOTOS_PER_PLATE = 3
THING_SIZE = 160  # longer side of a drawing in pixels
LOOKS_PER_KIND = {"train": 8, "test": 4}  # drawings of each kind that its photos are made of
PROMPTS = ("the thing", "the place")
GATE_SCALES = (0.6, 1.0)  # and 0, under which every prompt is the plain trunk
AGGREGATIONS: tuple[Aggregation, ...] = ("cls", "mean", "focus")
WEIGHT_DECAYS = (1.0, 0.1, 0.01, 1e-3, 1e-4)

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Labelled:
    """A photo (RGB), the number of its scene in scenes.FAMILIES, and that of its large thing's kind in KINDS."""

    image: Image.Image
    family: int
    kind: int


# ------------------------------------------------------------------------------------------------ photos


def photos(part: str, count: int, size: tuple[int, int] = SIZE) -> Iterator[Labelled]:
    """`count` photos of "train" or "test", always the same; both labels balanced, and independent of each other.

    size: (width, height) in pixels. Parts share neither plates nor drawings.
    """
    seed = [SEED, VERSION, 0 if part == "train" else 1]
    rng = np.random.default_rng(seed)
    stock = draw_stock(rng, LOOKS_PER_KIND[part], THING_SIZE)
    plates = [i % len(scenes.FAMILIES) for i in range(math.ceil(count / PHOTOS_PER_PLATE))]
    kinds = rng.permutation(np.arange(count) % len(KINDS))
    for number, kind in enumerate(kinds):
        if number % PHOTOS_PER_PLATE == 0:
            family = plates[number // PHOTOS_PER_PLATE]
            plate = scenes.draw_scene(scenes.FAMILIES[family], np.random.default_rng([*seed, number]), size)
        yield Labelled(_photo(plate, int(kind), stock, rng), family, int(kind))


def _photo(plate: scenes.Scene, kind: int, stock: Sequence[Thing], rng: np.random.Generator) -> Image.Image:
    """A large thing of this kind, which covers at least twice as much as any of three others."""
    name = list(KINDS)[kind]
    meant = [thing for thing in stock if thing.noun == name]
    others = [thing for thing in stock if thing.noun != name]
    for _ in range(100):
        large = meant[int(rng.integers(len(meant)))]
        small = [others[int(i)] for i in rng.choice(len(others), 3, replace=False)]
        standing = composition.place_things(plate, [large], rng, (0.4, 0.6))
        photo = composition.compose(plate, composition.place_things(plate, small, rng, (0.1, 0.2), standing))
        shares = {id(placed.thing): float(placed.mask.mean()) for placed in photo.placed}
        share = shares.pop(id(large), 0.0)
        if share > 0.02 and share >= 2 * max(shares.values(), default=0.0):
            return photo.image
    raise RuntimeError(f"no room for a large {name} in a {plate.family}")


# -------------------------------------------------------------------------------------------- embeddings


@dataclass(frozen=True)
class Embedded:
    """n photos: embeddings (n, D) by condition and aggregation, and labels (n,) by task, "scene" and "object"."""

    embeddings: dict[tuple[str, Aggregation], Floats]
    labels: dict[str, npt.NDArray[np.int64]]


@torch.inference_mode()
def embed(
    model: Predictor,
    pictures: Iterable[Labelled],
    prompts: Sequence[str] = PROMPTS,
    gate_scales: Sequence[float] = GATE_SCALES,
) -> Embedded:
    """Every photo under each condition: "0", the plain trunk, and "<gate scale>/<prompt>"."""
    steerings = {"0": NO_STEERING}
    for prompt in prompts:
        said = model.encode_prompts([prompt])
        steerings |= {f"{scale:g}/{prompt}": model.steering(said, scale) for scale in gate_scales}
    found: dict[tuple[str, Aggregation], list[Floats]] = {}
    families, kinds = [], []
    rest = iter(pictures)
    while batch := list(islice(rest, model.batch_size)):
        pixels = model.to_device(np.stack([model.preprocess(picture.image) for picture in batch]))
        for condition, features in zip(
            steerings, model.encode(pixels, list(steerings.values())), strict=True
        ):
            for kind in AGGREGATIONS:
                if kind != "cls" or features.prefix.shape[1] > 0:
                    vectors = features.aggregate(kind).float().cpu().numpy()
                    found.setdefault((condition, kind), []).append(vectors)
        families += [picture.family for picture in batch]
        kinds += [picture.kind for picture in batch]
    return Embedded(
        {key: np.concatenate(parts) for key, parts in found.items()},
        {"scene": np.array(families), "object": np.array(kinds)},
    )


# ------------------------------------------------------------------------------------------ linear probe


@dataclass(frozen=True)
class LinearProbe:
    """Class scores (x - mean) / std · weight + bias. mean, std (D,), weight (D, C), bias (C,), all float64."""

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    def scores(self, features: Floats) -> Tensor:
        """(n, D) -> (n, C); their softmax over C is the predicted distribution."""
        return _standardised(features, self.mean, self.std) @ self.weight + self.bias

    def accuracy(self, features: Floats, labels: npt.NDArray[np.int64]) -> float:
        """Share of the rows whose greatest score is that of their label."""
        guesses = self.scores(features).argmax(dim=1)
        return float((guesses == torch.from_numpy(labels)).double().mean())


def fit_probe(
    features: Floats,
    labels: npt.NDArray[np.int64],
    classes: int,
    weight_decay: float,
    start: LinearProbe | None = None,
) -> LinearProbe:
    """Multinomial logistic regression: least mean cross-entropy + weight_decay / 2 · |weight|², by L-BFGS.

    features (n, D), standardised here; labels (n,) in 0..classes-1. The bias is not decayed. With weight_decay > 0
    there is one solution; `start`, a probe of another weight decay, only makes it faster.
    """
    rows, targets = torch.from_numpy(features).double(), torch.from_numpy(labels)
    mean, std = rows.mean(dim=0), rows.std(dim=0, unbiased=False)
    inputs = _standardised(features, mean, std)
    weight = torch.zeros(features.shape[1], classes, dtype=torch.float64) if start is None else start.weight
    bias = torch.zeros(classes, dtype=torch.float64) if start is None else start.bias
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=500,
        tolerance_grad=1e-6,
        tolerance_change=1e-13,  # of the loss: next to its minimum that is the square of the gradient
        line_search_fn="strong_wolfe",
    )

    def loss() -> float:
        solver.zero_grad()
        value = F.cross_entropy(inputs @ weight + bias, targets) + weight_decay / 2 * weight.square().sum()
        torch.autograd.backward(value)
        return float(value.detach())

    solver.step(loss)  # type: ignore[no-untyped-call]
    return LinearProbe(mean, std, weight.detach(), bias.detach())


def _standardised(features: Floats, mean: Tensor, std: Tensor) -> Tensor:
    return (torch.from_numpy(features).double() - mean) / std.clamp_min(1e-6)


def choose_probe(features: Floats, labels: npt.NDArray[np.int64], classes: int) -> tuple[LinearProbe, float]:
    """The probe with the weight decay of WEIGHT_DECAYS that is best on the last fifth, fitted to all; and that."""
    kept = len(features) * 4 // 5
    best, best_accuracy, probe = WEIGHT_DECAYS[0], -1.0, None
    for weight_decay in WEIGHT_DECAYS:  # from stiff to loose
        probe = fit_probe(features[:kept], labels[:kept], classes, weight_decay, probe)
        accuracy = probe.accuracy(features[kept:], labels[kept:])
        if accuracy > best_accuracy:
            best, best_accuracy = weight_decay, accuracy
    return fit_probe(features, labels, classes, best), best


def evaluate(train: Embedded, test: Embedded) -> dict[str, object]:
    """Test accuracy under "<task>/<aggregation>/<condition>", weight decays chosen, and what guessing gives."""
    metrics: dict[str, object] = {}
    decays: dict[str, float] = {}
    for task, classes in (("scene", len(scenes.FAMILIES)), ("object", len(KINDS))):
        labels = test.labels[task]
        metrics[f"{task}/chance"] = float(np.bincount(labels).max() / len(labels))
        for (condition, kind), features in train.embeddings.items():
            name = f"{task}/{kind}/{condition}"
            probe, decays[name] = choose_probe(features, train.labels[task], classes)
            metrics[name] = probe.accuracy(test.embeddings[condition, kind], labels)
    metrics["greatest_standard_error"] = 0.5 / math.sqrt(len(test.labels["scene"]))
    metrics["weight_decays"] = decays
    return metrics


def main() -> None:
    """Measure one model and print the record as a JSON object."""
    parser = argparse.ArgumentParser(
        description="Linear probes of scene and object on steered embeddings of generated photos. Takes about five "
        "minutes with the mini on two cores, of which three draw the photos."
    )
    parser.add_argument("--model", default="mini", help="a model's name or file")
    parser.add_argument("--train", type=int, default=TRAIN, help="photos to learn from; default: %(default)s")
    parser.add_argument("--test", type=int, default=TEST, help="photos to test on; default: %(default)s")
    parser.add_argument(
        "--prompt",
        action="append",
        help=f"asked of all photos; may be repeated; default: {', '.join(PROMPTS)}",
    )
    add_save(parser)
    arguments = parser.parse_args()
    for name in ("train", "test"):
        if getattr(arguments, name) < len(KINDS):
            parser.error(f"--{name} {getattr(arguments, name)}: at least {len(KINDS)}, a photo of each kind")
    began = time.monotonic()
    model = Predictor.from_pretrained(arguments.model)
    prompts = tuple(arguments.prompt or PROMPTS)
    train = embed(model, photos("train", arguments.train), prompts)
    test = embed(model, photos("test", arguments.test), prompts)
    settings = {
        "version": VERSION,
        "train": arguments.train,
        "test": arguments.test,
        "size": SIZE,
        "prompts": prompts,
        "gate_scales": (0.0, *GATE_SCALES),
        "preprocess": model.preprocess.to_dict(),
        "weights": model.weights_hash,
    }
    record = Record.make("probes", arguments.model, settings, evaluate(train, test), time.monotonic() - began)
    record.report(save=arguments.save)


if __name__ == "__main__":
    main()
