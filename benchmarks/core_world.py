"""core-world: CORE's protocol (facts C1) on generated photos. A stand-in, not CORE: no figure here is the paper's.

Six families of scenes, five objects each. A base photo holds salient things; its five variants differ in one small
object only. All variants of a scene are embedded under an object's prompt, and a query's nearest neighbour among
other bases should hold the same object. Plates, drawings and placements come from seeds that training never used.
"""

from __future__ import annotations

import argparse
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from steersearch.benchmarks.metrics import core_precision
from steersearch.benchmarks.record import Record
from steersearch.core.preprocess import View
from steersearch.core.steervit import Aggregation, SteerViT
from steersearch.training import scenes, stamps, world
from steersearch.training.drawing import Look
from steersearch.training.losses import pmass, pointing
from steersearch.training.things import KINDS, UNSEEN_STAMP_WORDS, UNSEEN_WORDS, Thing, draw_thing

Source = Literal["drawn", "stamps"]
VERSION = 1
SEED = 90_000  # training uses small seeds
OBJECT_SIZE = (0.2, 0.3)  # least and greatest longer side, as part of the picture's height
AGGREGATIONS: tuple[Aggregation, ...] = ("cls", "mean", "focus")

OBJECTS: dict[str, tuple[str, ...]] = {
    "kitchen": ("mug", "teapot", "bottle", "fruit bowl", "cake"),
    "living room": ("remote control", "book", "cushion", "telephone", "guitar"),
    "bathroom": ("rubber duck", "bucket", "clock", "boot", "key"),
    "street": ("bicycle", "umbrella", "suitcase", "hat", "backpack"),
    "garden": ("watering can", "mushroom", "bird", "potted plant", "ball"),
    "beach": ("sailboat", "kite", "lamp", "teddy bear", "car"),
}


@dataclass(frozen=True)
class Picture:
    """One variant: the photo, its scene family, the object added, its base's id, and the object's mask (H, W)."""

    image: Image.Image
    scene: str
    object: str
    image_id: str
    mask: npt.NDArray[np.bool_]


def build(
    source: Source = "drawn",
    bases: int = 20,
    size: tuple[int, int] = (320, 240),
    object_size: tuple[float, float] = OBJECT_SIZE,
) -> list[Picture]:
    """The whole stand-in: 6 scenes x `bases` x 5 pictures of `size` (width, height) pixels.

    object_size: smaller ones than the default make the task harder, and the other things stay as large.
    Raises StampsMissingError for source "stamps" where their package is not installed.
    """
    pictures = []
    for number, (family, nouns) in enumerate(OBJECTS.items()):
        rng = np.random.default_rng([SEED, VERSION, zlib.crc32(source.encode()), number])
        targets, distractors = _drawn(nouns, number, rng) if source == "drawn" else _stamped(number)
        for base in range(bases):
            image_id = f"{family}-{base:03d}"
            pictures += _variants(family, image_id, targets, distractors, rng, size, object_size)
    return pictures


class _Drawings(Sequence[Thing]):
    """Things of given looks, each drawn when it is first asked for: most of a large stock is never used."""

    def __init__(self, looks: Sequence[Look], seed: Sequence[int]) -> None:
        self._looks, self._seed = looks, seed
        self._drawn: dict[int, Thing] = {}

    def __len__(self) -> int:
        return len(self._looks)

    def __getitem__(self, i: Any) -> Any:
        if i not in self._drawn:
            self._drawn[i] = draw_thing(self._looks[i], np.random.default_rng([*self._seed, i]), 192)
        return self._drawn[i]


def _drawn(
    nouns: Sequence[str], number: int, rng: np.random.Generator
) -> tuple[list[Sequence[Thing]], Sequence[Thing]]:
    """Per object eight redrawings of one look, and a stock of other things to distract."""
    looks = [KINDS[noun].sample_look(rng) for noun in nouns]
    targets = [_Drawings([look] * 8, [SEED, 2, number, i]) for i, look in enumerate(looks)]
    others = [kind.sample_look(rng) for name, kind in KINDS.items() if name not in nouns for _ in range(2)]
    return list(targets), _Drawings(others, [SEED, 3, number])


def _stamped(number: int) -> tuple[list[Sequence[Thing]], Sequence[Thing]]:
    """Five stamps for a scene, none of them in two scenes, and the rest to distract."""
    stock = stamps.load_stamps(192, held_out=False)
    order = np.random.default_rng([SEED, VERSION]).permutation(len(stock))
    chosen: list[Thing] = []
    for i in order:  # different nouns, and the same shuffle for every scene so that scenes share none
        if all(not stock[i].names & other.names - {stock[i].category} for other in chosen):
            chosen.append(stock[i])
    mine = chosen[number * 5 : number * 5 + 5]
    taken = {name for thing in mine for name in thing.names - {thing.category}}
    rest = [thing for thing in chosen[30:] if not thing.names & taken]
    return [[thing] for thing in mine], rest


def _variants(
    family: str,
    image_id: str,
    targets: Sequence[Sequence[Thing]],
    distractors: Sequence[Thing],
    rng: np.random.Generator,
    size: tuple[int, int],
    object_size: tuple[float, float],
) -> list[Picture]:
    """The five variants of one base: the same plate and distractors, one small object each."""
    least_area = 0.004 * (object_size[0] / OBJECT_SIZE[0]) ** 2
    for _ in range(50):
        plate = scenes.draw_scene(family, rng, size)
        salient = [distractors[int(i)] for i in rng.choice(len(distractors), 3, replace=False)]
        standing = world.place_things(plate, salient, rng, (0.28, 0.45))
        if len(standing) < 3:
            continue
        made = []
        for redrawings in targets:
            thing = redrawings[int(rng.integers(len(redrawings)))]
            spots = world.place_things(plate, [thing], rng, object_size, standing)
            photo = world.compose(plate, spots)
            mask = next((p.mask for p in photo.placed if p.thing is thing), None)
            if mask is None or mask.mean() < least_area:
                break
            made.append(Picture(photo.image, family, thing.phrase, image_id, mask))
        if len(made) == len(targets):
            return made
    raise RuntimeError(f"no room for the objects in 50 plates of a {family}")


@dataclass
class _Embedded:
    """What one prompt gives for the pictures of a scene: embeddings (G, D) per aggregation, logits (G, N)."""

    embeddings: dict[Aggregation, npt.NDArray[np.float32]]
    logits: torch.Tensor


@torch.inference_mode()
def _embed(model: SteerViT, pixels: torch.Tensor, prompt: str | None) -> _Embedded:
    prompts = None if prompt is None else model.encode_prompts([prompt])
    found = [model(part, prompts) for part in torch.split(pixels, model.batch_size)]
    embeddings = {
        kind: torch.cat([f.aggregate(kind) for f in found]).float().cpu().numpy()
        for kind in AGGREGATIONS
        if kind != "cls" or found[0].prefix.shape[1] > 0
    }
    return _Embedded(embeddings, torch.cat([f.logits for f in found]).cpu())


def evaluate(model: SteerViT, pictures: Sequence[Picture], template: str = "the {}") -> dict[str, object]:
    """Accuracy (precision at 1) right, wrong prompt and without, macro over scenes and micro, per aggregation.

    Also where the heatmap points under the right prompt. The wrong prompt is another object of the scene, drawn at
    random per object, on query and gallery alike; the target stays.
    """
    rng = np.random.default_rng([SEED, 1])
    scores: dict[tuple[str, str], dict[str, list[float]]] = {}
    mass, hits = [], []
    for scene in dict.fromkeys(p.scene for p in pictures):
        gallery = [p for p in pictures if p.scene == scene]
        names, ids = [p.object for p in gallery], [p.image_id for p in gallery]
        pixels = torch.from_numpy(np.stack([model.preprocess(p.image) for p in gallery])).to(model.device)
        objects = list(dict.fromkeys(names))
        plain = _embed(model, pixels, None)
        steered = {name: _embed(model, pixels, template.format(name)) for name in objects}
        for name in objects:
            wrong = objects[(objects.index(name) + int(rng.integers(1, len(objects)))) % len(objects)]
            for case, found in (("right", steered[name]), ("wrong", steered[wrong]), ("none", plain)):
                for kind, vectors in found.embeddings.items():
                    values = core_precision(vectors, names, ids, name)
                    scores.setdefault((kind, case), {}).setdefault(scene, []).extend(values)
            rows = [i for i, other in enumerate(names) if other == name]
            cover = torch.stack([_patch_cover(gallery[i].mask, model) for i in rows])
            logits = steered[name].logits[rows]
            mass += pmass(logits, cover).tolist()
            hits += pointing(logits, cover).float().tolist()
    result: dict[str, object] = {"pmass": float(np.mean(mass)), "pointing": float(np.mean(hits))}
    for (aggregation, case), by_scene in scores.items():
        result[f"{aggregation}/{case}/macro"] = float(
            np.mean([np.mean(values) for values in by_scene.values()])
        )
        result[f"{aggregation}/{case}/micro"] = float(
            np.mean([v for values in by_scene.values() for v in values])
        )
    return result


def _patch_cover(mask: npt.NDArray[np.bool_], model: SteerViT) -> torch.Tensor:
    """(H, W) mask of a picture -> (N,) covered share of each patch, through the model's own preprocessing."""
    preprocess = model.config.preprocess
    white = Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB")
    seen = preprocess(white)[0] * preprocess.std[0] + preprocess.mean[0]
    grid = model.grid
    cells = seen.reshape(grid[0], seen.shape[0] // grid[0], grid[1], seen.shape[1] // grid[1])
    return torch.from_numpy(np.clip(cells.mean(axis=(1, 3)), 0, 1).flatten())


def unseen_words(model: SteerViT, source: Source, pictures_each: int = 8) -> dict[str, Any]:
    """Pointing accuracy with nouns that training used, and with words for the same things that it never did.

    Each noun has `pictures_each` photos of its own, with three other things. Returns the means over all photos, their
    number, and per word the two accuracies.
    """
    words = UNSEEN_WORDS if source == "drawn" else UNSEEN_STAMP_WORDS
    rng = np.random.default_rng([SEED, 4, zlib.crc32(source.encode())])
    stock = _word_stock(source, rng)
    each: dict[str, dict[str, float]] = {}
    for word, noun in words.items():
        found: dict[str, list[float]] = {noun: [], word: []}
        for number in range(pictures_each):
            family = scenes.FAMILIES[number % len(scenes.FAMILIES)]
            photo, mask = _photo_with(noun, stock, family, rng)
            cover = _patch_cover(mask, model)[None]
            for name, hits in found.items():
                logits = model.features([photo], f"the {name}").logits.cpu()
                hits.append(float(pointing(logits, cover)[0]))
        each[word] = {name: float(np.mean(hits)) for name, hits in found.items()}
    trained = float(np.mean([each[word][noun] for word, noun in words.items()]))
    unseen = float(np.mean([each[word][word] for word in words]))
    return {"trained": trained, "unseen": unseen, "n": len(words) * pictures_each, "each": each}


def _word_stock(source: Source, rng: np.random.Generator) -> Sequence[Thing]:
    if source == "stamps":
        return stamps.load_stamps(192, held_out=False)
    return [draw_thing(kind.sample_look(rng), rng, 160) for kind in KINDS.values() for _ in range(3)]


def _photo_with(
    noun: str, stock: Sequence[Thing], family: str, rng: np.random.Generator
) -> tuple[Image.Image, npt.NDArray[np.bool_]]:
    """A photo of one thing of that noun among three that do not bear it, and its mask."""
    meant = [thing for thing in stock if noun in thing.names]
    others = [thing for thing in stock if noun not in thing.names]
    for _ in range(50):
        plate = scenes.draw_scene(family, rng, (320, 240))
        thing = meant[int(rng.integers(len(meant)))]
        crowd = [others[int(i)] for i in rng.choice(len(others), 3, replace=False)]
        photo = world.compose(plate, world.place_things(plate, [thing, *crowd], rng, (0.25, 0.4)))
        mask = photo.mask(noun)
        if mask.mean() > 0.008:
            return photo.image, mask
    raise RuntimeError(f"no room for a {noun} in 50 plates of a {family}")


def main() -> None:
    """Measure one model on one source and print the record as a JSON object."""
    parser = argparse.ArgumentParser(description="CORE's protocol on generated photos (a stand-in).")
    parser.add_argument("--model", default="mini", help="a model's name or file")
    parser.add_argument("--source", choices=["drawn", "stamps"], default="drawn")
    parser.add_argument("--bases", type=int, default=20, help="base pictures per scene")
    parser.add_argument("--template", default="the {}", help="the prompt, with {} for the thing")
    parser.add_argument(
        "--view", choices=get_args(View), help="how the pictures are seen; default: as the model sees them"
    )
    parser.add_argument(
        "--object-size",
        nargs=2,
        type=float,
        default=OBJECT_SIZE,
        metavar=("LEAST", "GREATEST"),
        help="longer side of the object, as part of the picture's height; default: %(default)s",
    )
    parser.add_argument("--save", action="store_true", help="keep the record in benchmarks/results")
    arguments = parser.parse_args()
    began = time.monotonic()
    model = SteerViT.from_pretrained(arguments.model).with_view(arguments.view)
    object_size = tuple(arguments.object_size)
    pictures = build(arguments.source, arguments.bases, object_size=object_size)
    metrics = evaluate(model, pictures, arguments.template)
    metrics["unseen_words"] = unseen_words(model, arguments.source)
    settings = {
        "version": VERSION,
        "source": arguments.source,
        "pictures": len(pictures),
        "template": arguments.template,
        "object_size": object_size,
        "preprocess": model.config.preprocess.to_dict(),
        "aggregation": model.config.aggregation,
        "weights": model.weights_hash,
    }
    name = f"core-world/{arguments.source}" + (f"/{arguments.view}" if arguments.view else "")
    if object_size != OBJECT_SIZE:
        name += f"/{object_size[0]:g}-{object_size[1]:g}"
    record = Record.make(name, arguments.model, settings, metrics, time.monotonic() - began)
    print(record.to_json())
    if arguments.save:
        record.save()


if __name__ == "__main__":
    main()
