"""How well `find` ranks photos by whether they show what a prompt names, compared with presence and heatmap alone.

Generated photos with known contents. Each prompt names a noun, and photos that show it should come first; the figure is
mean average precision over the prompts. (LOG.md has the scores from which presence and `find` were chosen.) A photo
shows up to four things: one or two of the prompted nouns, the rest of no prompt. The things are core_world's; plates
and positions are this benchmark's own. `rare` keeps only three matching photos in the gallery, drawn four times.
"""

from __future__ import annotations

import argparse
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from steersearch.benchmarks.harness.intervals import micro_interval
from steersearch.benchmarks.harness.rankings import average_precision
from steersearch.benchmarks.harness.record import Record
from steersearch.benchmarks.paper import core_world
from steersearch.benchmarks.paper.core_world import OBJECTS, Source, Targets
from steersearch.core.predictor import Predictor
from steersearch.core.steervit import Features
from steersearch.indexer.ranking import find_scores
from steersearch.training.world import composition, scenes, stamps
from steersearch.training.world.kinds import KINDS
from steersearch.training.world.things import Thing, draw_thing

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
VERSION = 1
SEED = 93_000  # training uses small seeds, other benchmarks 90,000 to 92,000
SIZE = (320, 240)
THINGS, THING_SIZE = 4, (0.2, 0.42)  # at most; longer side as part of the picture's height
LEAST_SHARE = 0.008  # share of the picture; a photo that shows less of a thing counts neither way
NOUNS = 30  # of stamps
LOOKS = 6  # of each drawn noun
EACH = 16  # photos made for each noun, which others may show too
TEMPLATE = "the {}"
RARE, RARE_DRAWS = 3, 4
CHANCE, CONCENTRATION = "chance: share of photos that show it", "heatmap: concentration, log N - H"
PRESENCE, FIND = "presence", "find"
_BATCH = 32


@dataclass(frozen=True)
class Photo:
    """A photo, with the names of the things that it shows and of those too hidden to count."""

    image: Image.Image
    shown: frozenset[str]
    hidden: frozenset[str]


def photos(source: Source, each: int = EACH) -> tuple[list[str], list[Photo]]:
    """The prompted nouns, and `each` photos made for every noun."""
    rng = np.random.default_rng([SEED, VERSION, zlib.crc32(source.encode())])
    wanted, others = _stock(source, rng)
    return list(wanted), [_photo(noun, wanted, others, rng) for noun in wanted for _ in range(each)]


def _stock(source: Source, rng: np.random.Generator) -> tuple[Targets, Sequence[Thing]]:
    """The things to prompt for, by noun or phrase, and others that none of these words fits."""
    if source == "drawn":
        things = {
            name: [draw_thing(kind.sample_look(rng), rng, 192) for _ in range(LOOKS)]
            for name, kind in KINDS.items()
        }
        nouns = [noun for scene in OBJECTS.values() for noun in scene]
        return {n: things[n] for n in nouns}, [t for n in things if n not in nouns for t in things[n]]
    if source == "stamps":
        trained = [t for t in core_world.stamp_stock(repeated=False) if t.noun not in stamps.HELD_OUT_NOUNS]
        chosen: list[Thing] = []
        for i in rng.permutation(len(trained)):
            if len(chosen) < NOUNS and not any(_own_names(trained[i]) & _own_names(one) for one in chosen):
                chosen.append(trained[i])
        taken = frozenset(name for thing in chosen for name in _own_names(thing))
        return {t.phrase: [t] for t in chosen}, [t for t in trained if not t.names & taken]
    wanted = core_world.held_out_pictures(source)
    return wanted, core_world.others_than(list(wanted))


def _own_names(thing: Thing) -> frozenset[str]:
    """All names except its category, which other things share."""
    return thing.names - {thing.category}


def _photo(noun: str, wanted: Targets, others: Sequence[Thing], rng: np.random.Generator) -> Photo:
    nouns = list(wanted)
    for _ in range(50):
        plate = scenes.draw_scene(scenes.FAMILIES[int(rng.integers(len(scenes.FAMILIES)))], rng, SIZE)
        asked = [noun, nouns[int(rng.integers(len(nouns)))]][: int(rng.integers(1, 3))]
        things = [wanted[name][int(rng.integers(len(wanted[name])))] for name in asked]
        things += [others[int(rng.integers(len(others)))] for _ in range(THINGS - len(things))]
        photo = composition.compose(plate, composition.place_things(plate, things, rng, THING_SIZE))
        if photo.mask(noun).mean() > LEAST_SHARE:
            names = frozenset(name for placed in photo.placed for name in placed.thing.names)
            shown = frozenset(name for name in names if photo.mask(name).mean() > LEAST_SHARE)
            return Photo(photo.image, shown, names - shown)
    raise RuntimeError(f"no room for a {noun} in 50 plates")


# ------------------------------------------------------------------------------------------------------ measuring


@dataclass(frozen=True)
class Seen:
    """G photos under one prompt. logits (G, N) of the head; embeddings (G, D) float32, unit length; presence (G,)."""

    logits: Doubles
    embeddings: npt.NDArray[np.float32]
    presence: npt.NDArray[np.float32]


def look(model: Predictor, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[Seen]:
    """All pictures under each prompt."""
    with torch.inference_mode():
        steerings = [model.steering(model.encode_prompts([prompt])) for prompt in prompts]
        found: list[list[Features]] = [[] for _ in prompts]
        for start in range(0, len(pictures), _BATCH):
            pixels = np.stack([model.preprocess(image) for image in pictures[start : start + _BATCH]])
            batches = model.encode(model.to_device(pixels), steerings)
            for under, features in zip(found, batches, strict=True):
                under.append(features)
    together = (Features.joined(under) for under in found)
    return [
        Seen(
            features.logits.double().cpu().numpy(),
            features.embedding("focus").float().cpu().numpy(),
            features.presence().cpu().numpy(),
        )
        for features in together
    ]


def concentration(seen: Seen) -> Doubles:
    """log N minus the entropy of each heatmap, (G,)."""
    logits = seen.logits - seen.logits.max(axis=1, keepdims=True)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found: Doubles = np.log(shares.shape[1]) + (shares * np.log(np.maximum(shares, 1e-300))).sum(axis=1)
    return found


def evaluate(
    model: Predictor, nouns: Sequence[str], gallery: Sequence[Photo]
) -> dict[str, dict[str, list[float]]]:
    """Average precision of each score, a value per noun: "all", and "rare", the mean over its draws."""
    rng = np.random.default_rng([SEED, 1])
    found: dict[str, dict[str, list[float]]] = {"all": {}, "rare": {}}
    under = look(model, [photo.image for photo in gallery], [TEMPLATE.format(noun) for noun in nouns])
    for noun, seen in zip(nouns, under, strict=True):
        shows = np.array([noun in photo.shown for photo in gallery])
        counts = np.array([noun not in photo.hidden for photo in gallery])
        _measure(seen, shows, np.flatnonzero(counts), found["all"])
        draws: dict[str, list[float]] = {}
        for _ in range(RARE_DRAWS):
            few = rng.choice(np.flatnonzero(shows & counts), RARE, replace=False)
            _measure(seen, shows, np.sort([*np.flatnonzero(~shows & counts), *few]), draws)
        for name, values in draws.items():
            found["rare"].setdefault(name, []).append(float(np.mean(values)))
    return found


def _measure(seen: Seen, shows: Mask, rows: npt.NDArray[np.int64], found: dict[str, list[float]]) -> None:
    ids = [str(row) for row in rows]
    scores: dict[str, npt.ArrayLike] = {
        CONCENTRATION: concentration(seen)[rows],
        PRESENCE: seen.presence[rows],
        FIND: find_scores(seen.presence[rows], seen.embeddings[rows], ids),
    }
    for name, score in scores.items():
        found.setdefault(name, []).append(average_precision(score, shows[rows]))
    found.setdefault(CHANCE, []).append(float(shows[rows].mean()))


def report(
    found: Mapping[str, Mapping[str, Sequence[float]]],
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Mean average precision in % under "<case>/<score>", and 95 % intervals over the nouns."""
    metrics, intervals = {}, {}
    for case, scores in found.items():
        for name, values in scores.items():
            percent = [100 * value for value in values]
            metrics[f"{case}/{name}"] = float(np.mean(percent))
            intervals[f"{case}/{name}"] = list(micro_interval({"nouns": percent}))
    return metrics, intervals


def main() -> None:
    """Measure a model on one source or all; print a record for each and, with --save, keep it."""
    parser = argparse.ArgumentParser(
        description="How well find ranks photos. About a minute a source with the mini."
    )
    parser.add_argument("--model", default="mini", help="a model's name or file")
    parser.add_argument(
        "--source", choices=get_args(Source), action="append", help="may be repeated; default: all"
    )
    parser.add_argument(
        "--each", type=int, default=EACH, help="photos made for each noun; default: %(default)s"
    )
    parser.add_argument("--save", action="store_true", help="keep the records in benchmarks/results")
    arguments = parser.parse_args()
    if arguments.each < RARE:
        parser.error(f"--each {arguments.each}: at least {RARE}")
    model = Predictor.from_pretrained(arguments.model)
    for source in arguments.source or get_args(Source):
        began = time.monotonic()
        nouns, gallery = photos(source, arguments.each)
        metrics, intervals = report(evaluate(model, nouns, gallery))
        settings = {
            "version": VERSION,
            "source": source,
            "photos": len(gallery),
            "nouns": nouns,
            "template": TEMPLATE,
            "rare": RARE,
            "preprocess": model.preprocess.to_dict(),
        }
        seconds = time.monotonic() - began
        record = Record.make(
            f"find-world/{source}",
            arguments.model,
            settings,
            metrics,
            seconds,
            weights_hash=model.weights_hash,
            intervals=intervals,
        )
        print(record.to_json())
        if arguments.save:
            record.save()


if __name__ == "__main__":
    main()
