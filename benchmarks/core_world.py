"""core-world: CORE's protocol (facts C1) on generated photos. A stand-in, not CORE: no figure here is the paper's.

Six families of scenes, five objects each. A base photo holds salient things; its five variants differ in one small
object only. All variants of a scene are embedded under an object's prompt, and a query's nearest neighbour among
other bases should hold the same object. Plates, drawings and placements come from seeds that training never used.

Four sources of objects, harder from one to the next:
drawn              new drawings of the kinds that training draws
stamps             cutouts, most of which training pastes too
held-out-pictures  second cutouts of nouns that training knows by another one (24 nouns, so four objects a scene)
held-out-objects   cutouts of nouns that training neither shows nor says (`stamps.HELD_OUT_NOUNS`); a model trained
                   before these were set apart has met them
"""

from __future__ import annotations

import argparse
import re
import time
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
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
from steersearch.training.things import (
    HELD_OUT_TEMPLATES,
    KINDS,
    UNSEEN_STAMP_WORDS,
    UNSEEN_WORDS,
    Thing,
    draw_thing,
)

Source = Literal["drawn", "stamps", "held-out-objects", "held-out-pictures"]
Targets = Mapping[str, Sequence[Thing]]  # what a prompt calls an object -> the pictures of it
VERSION = 1
SEED = 90_000  # training uses small seeds
TEMPLATE = "the {}"
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

# Other words for what the held-out sources show; training uses neither these nor, for objects, those.
UNSEEN_HELD_OUT_WORDS: dict[Source, dict[str, str]] = {
    "held-out-objects": {
        "reindeer": "caribou", "tangerine": "mandarin orange", "jug": "pitcher", "tipi": "tepee", "castle": "fortress",
        "burro": "donkey", "teakettle": "kettle", "locust": "grasshopper", "porpoise": "dolphin",
        "rubbish lorry": "garbage truck", "violoncello": "cello", "towboat": "tugboat",
    },
    "held-out-pictures": {
        "calf": "cow", "toad": "frog", "swine": "tamworth pig", "ladybird": "ladybug", "fire engine": "fire truck",
        "housefly": "fly", "xmas tree": "christmas tree", "cairn": "inukshuk", "narcissus": "daffodil",
        "blossom": "flower",
    },
}  # fmt: skip

# Trained stamps that a held-out noun could mean although the words differ: they do not stand beside it.
LOOK_ALIKES: dict[str, tuple[str, ...]] = {
    "caribou": ("deer", "doe", "wapiti"),
    "fortress": ("fairytale castle", "medieval city", "round tower", "square tower", "watch tower"),
    "hammer": ("metal mallet",),
    "peacock": ("peahen",),
    "tepee": ("medieval tent", "tent"),
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
    """The whole stand-in: 6 scenes x `bases` x 5 pictures of `size` (width, height) pixels; held-out-pictures: x 4.

    object_size: smaller ones than the default make the task harder, and the other things stay as large.
    Raises StampsMissingError for every source but "drawn" where their package is not installed.
    """
    pictures = []
    for number, (family, nouns) in enumerate(OBJECTS.items()):
        rng = np.random.default_rng([SEED, VERSION, zlib.crc32(source.encode()), number])
        targets, distractors = _things(source, nouns, number, rng)
        for base in range(bases):
            image_id = f"{family}-{base:03d}"
            pictures += _variants(family, image_id, targets, distractors, rng, size, object_size)
    return pictures


def _things(
    source: Source, nouns: Sequence[str], number: int, rng: np.random.Generator
) -> tuple[Targets, Sequence[Thing]]:
    """The objects of scene `number`, and the stock of other things to distract."""
    if source == "drawn":
        return _drawn(nouns, number, rng)
    return _stamped(number) if source == "stamps" else _held_out(source, number)


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


def _drawn(nouns: Sequence[str], number: int, rng: np.random.Generator) -> tuple[Targets, Sequence[Thing]]:
    """Per object eight redrawings of one look."""
    looks = [KINDS[noun].sample_look(rng) for noun in nouns]
    targets = {look.phrase: _Drawings([look] * 8, [SEED, 2, number, i]) for i, look in enumerate(looks)}
    others = [kind.sample_look(rng) for name, kind in KINDS.items() if name not in nouns for _ in range(2)]
    return targets, _Drawings(others, [SEED, 3, number])


@cache
def _stamps(repeated: bool) -> tuple[Thing, ...]:
    """The stamps that are a noun's second picture or a later one, or the others."""
    return tuple(stamps.load_stamps(192, held_out=repeated))


def _stamped(number: int) -> tuple[Targets, Sequence[Thing]]:
    """Five stamps for a scene, none of them in two scenes."""
    stock = _stamps(repeated=False)
    order = np.random.default_rng([SEED, VERSION]).permutation(len(stock))
    chosen: list[Thing] = []
    for i in order:  # different nouns, and the same shuffle for every scene so that scenes share none
        if all(not stock[i].names & other.names - {stock[i].category} for other in chosen):
            chosen.append(stock[i])
    mine = chosen[number * 5 : number * 5 + 5]
    taken = {name for thing in mine for name in thing.names - {thing.category}}
    rest = [thing for thing in chosen[30:] if not thing.names & taken]
    return {thing.phrase: [thing] for thing in mine}, rest


def _held_out(source: Source, number: int) -> tuple[Targets, Sequence[Thing]]:
    """Every sixth held-out noun, among trained stamps that no prompt of the scene could mean."""
    pictures = _held_out_pictures(source)
    nouns = sorted(pictures)[number :: len(scenes.FAMILIES)]
    return {noun: pictures[noun] for noun in nouns}, _others(nouns)


@cache
def _held_out_pictures(source: Source) -> Targets:
    """The pictures of each held-out noun; 30 nouns of objects, 24 with other pictures than training's."""
    stock = _stamps(repeated=True)
    if source == "held-out-objects":
        nouns: Collection[str] = stamps.HELD_OUT_NOUNS
        stock = (*_stamps(repeated=False), *stock)
    else:
        nouns = {thing.noun for thing in _trained()} - {"flowers"}  # which are a flower
    found: dict[str, list[Thing]] = {}
    for thing in stock:
        if thing.noun in nouns:
            found.setdefault(thing.noun, []).append(thing)
    return found


def _trained() -> list[Thing]:
    return [thing for thing in _stamps(repeated=False) if thing.noun not in stamps.HELD_OUT_NOUNS]


def _others(nouns: Sequence[str]) -> list[Thing]:
    """Trained stamps that none of `nouns` could mean: no gull beside a seagull, no castle beside a fortress."""
    return [thing for thing in _trained() if not any(_could_mean(noun, thing) for noun in nouns)]


def _could_mean(noun: str, thing: Thing) -> bool:
    parts = noun in thing.noun or thing.noun in noun
    return parts or noun in thing.names or thing.noun in LOOK_ALIKES.get(noun, ())


def _variants(
    family: str,
    image_id: str,
    targets: Targets,
    distractors: Sequence[Thing],
    rng: np.random.Generator,
    size: tuple[int, int],
    object_size: tuple[float, float],
) -> list[Picture]:
    """The variants of one base: the same plate and distractors, one small object each."""
    least_area = 0.004 * (object_size[0] / OBJECT_SIZE[0]) ** 2
    for _ in range(50):
        plate = scenes.draw_scene(family, rng, size)
        salient = [distractors[int(i)] for i in rng.choice(len(distractors), 3, replace=False)]
        standing = world.place_things(plate, salient, rng, (0.28, 0.45))
        if len(standing) < 3:
            continue
        made = []
        for name, redrawings in targets.items():
            thing = redrawings[int(rng.integers(len(redrawings)))]
            spots = world.place_things(plate, [thing], rng, object_size, standing)
            photo = world.compose(plate, spots)
            mask = next((p.mask for p in photo.placed if p.thing is thing), None)
            if mask is None or mask.mean() < least_area:
                break
            made.append(Picture(photo.image, family, name, image_id, mask))
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


def evaluate(model: SteerViT, pictures: Sequence[Picture], template: str = TEMPLATE) -> dict[str, object]:
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


def unseen_words(
    model: SteerViT, source: Source, pictures_each: int = 8, template: str = TEMPLATE
) -> dict[str, Any]:
    """Pointing accuracy and pmass with the nouns of things, and with words for them that no training prompt used.

    Each noun has `pictures_each` photos of its own, with three other things. Returns the means over all photos under
    "trained" (under "held_out" for the source held-out-objects, whose nouns are not trained either) and "unseen",
    those of pmass with "_pmass" behind, the number of photos, and per word the two accuracies.
    """
    words = _other_words(source)
    rng = np.random.default_rng([SEED, 4, zlib.crc32(source.encode())])
    stock = _word_stock(source, rng)
    hits: dict[str, dict[str, list[float]]] = {}
    mass: dict[str, dict[str, list[float]]] = {}
    for word, noun in words.items():
        hits[word], mass[word] = {noun: [], word: []}, {noun: [], word: []}
        meant, others = _word_things(source, noun, stock)
        for number in range(pictures_each):
            family = scenes.FAMILIES[number % len(scenes.FAMILIES)]
            photo, mask = _photo_with(noun, meant, others, family, rng)
            cover = _patch_cover(mask, model)[None]
            for name in (noun, word):
                logits = model.features([photo], template.format(name)).logits.cpu()
                hits[word][name].append(float(pointing(logits, cover)[0]))
                mass[word][name].append(float(pmass(logits, cover)[0]))
    known = "held_out" if source == "held-out-objects" else "trained"
    result: dict[str, Any] = {"n": len(words) * pictures_each}
    for found, end in ((hits, ""), (mass, "_pmass")):
        result[known + end] = float(np.mean([found[word][noun] for word, noun in words.items()]))
        result["unseen" + end] = float(np.mean([found[word][word] for word in words]))
    result["each"] = {
        word: {name: float(np.mean(values)) for name, values in by_name.items()}
        for word, by_name in hits.items()
    }
    return result


def _other_words(source: Source) -> dict[str, str]:
    """Unseen words, and the nouns of the things that they mean."""
    if source == "drawn":
        return UNSEEN_WORDS
    return UNSEEN_STAMP_WORDS if source == "stamps" else UNSEEN_HELD_OUT_WORDS[source]


def _word_stock(source: Source, rng: np.random.Generator) -> Sequence[Thing]:
    if source != "drawn":
        return _stamps(repeated=False)
    return [draw_thing(kind.sample_look(rng), rng, 160) for kind in KINDS.values() for _ in range(3)]


def _word_things(
    source: Source, noun: str, stock: Sequence[Thing]
) -> tuple[Sequence[Thing], Sequence[Thing]]:
    """The things that a noun means, and those that may stand beside them."""
    if source in UNSEEN_HELD_OUT_WORDS:
        return _held_out_pictures(source)[noun], _others([noun])
    return [t for t in stock if noun in t.names], [t for t in stock if noun not in t.names]


def _photo_with(
    noun: str, meant: Sequence[Thing], others: Sequence[Thing], family: str, rng: np.random.Generator
) -> tuple[Image.Image, npt.NDArray[np.bool_]]:
    """A photo of one of the things meant among three others, and its mask."""
    for _ in range(50):
        plate = scenes.draw_scene(family, rng, (320, 240))
        thing = meant[int(rng.integers(len(meant)))]
        crowd = [others[int(i)] for i in rng.choice(len(others), 3, replace=False)]
        photo = world.compose(plate, world.place_things(plate, [thing, *crowd], rng, (0.25, 0.4)))
        mask = photo.mask(noun)
        if mask.mean() > 0.008:
            return photo.image, mask
    raise RuntimeError(f"no room for a {noun} in 50 plates of a {family}")


def _templates(said: str) -> tuple[str, ...]:
    """What --template asks for. Raises ArgumentTypeError for a prompt without a place for the thing."""
    if said == "held-out":
        return HELD_OUT_TEMPLATES
    if said.count("{}") != 1 or set(said.replace("{}", "")) & set("{}"):
        raise argparse.ArgumentTypeError(f'"{said}" must have one {{}} in it, where the thing is named')
    return (said,)


def main() -> None:
    """Measure one model on one source and print a record as a JSON object for each template."""
    parser = argparse.ArgumentParser(
        description="CORE's protocol on generated photos (a stand-in). Takes about three minutes with the mini."
    )
    parser.add_argument("--model", default="mini", help="a model's name or file")
    parser.add_argument("--source", choices=get_args(Source), default="drawn", help="default: %(default)s")
    parser.add_argument("--bases", type=int, default=20, help="base pictures per scene")
    parser.add_argument(
        "--template",
        type=_templates,
        default=(TEMPLATE,),
        help=f'the prompt, with {{}} for the thing, or "held-out": each of the {len(HELD_OUT_TEMPLATES)} that training '
        f"never uses; default: {TEMPLATE}",
    )
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
    built = time.monotonic() - began
    for template in arguments.template:
        began = time.monotonic()
        metrics = evaluate(model, pictures, template)
        metrics["unseen_words"] = unseen_words(model, arguments.source, template=template)
        settings = {
            "version": VERSION,
            "source": arguments.source,
            "pictures": len(pictures),
            "chance": _chance(pictures),
            "template": template,
            "object_size": object_size,
            "preprocess": model.config.preprocess.to_dict(),
            "aggregation": model.config.aggregation,
            "weights": model.weights_hash,
        }
        name = f"core-world/{arguments.source}" + (f"/{arguments.view}" if arguments.view else "")
        if object_size != OBJECT_SIZE:
            name += f"/{object_size[0]:g}-{object_size[1]:g}"
        if template != TEMPLATE:
            name += "/" + re.sub(r"[^a-z0-9]+", "-", template.format("x").lower()).strip("-")
        record = Record.make(name, arguments.model, settings, metrics, built + time.monotonic() - began)
        print(record.to_json())
        if arguments.save:
            record.save()


def _chance(pictures: Sequence[Picture]) -> float:
    """Accuracy of a guess: of the pictures in a scene's gallery that can be found, one in so many has the object."""
    return len({p.scene for p in pictures}) / len({(p.scene, p.object) for p in pictures})


if __name__ == "__main__":
    main()
