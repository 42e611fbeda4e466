"""Which number says best whether a photo shows what a prompt names: candidates for `core.presence` and for `find`.

Generated photos whose things are known. Each prompt names a noun, and photos with a thing that bears it should come
before all others; the figure is mean average precision over the prompts. A photo shows up to four things: one or two of
the nouns asked for, the rest things that no prompt means. The things are those of core_world, plates and places are
this benchmark's own. `rare` leaves only three photos in the gallery that show what is asked for, drawn four times.
"""

from __future__ import annotations

import argparse
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from steersearch.benchmarks import core_world
from steersearch.benchmarks.core_world import OBJECTS, Source, Targets
from steersearch.benchmarks.intervals import micro_interval
from steersearch.benchmarks.rankings import average_precision
from steersearch.benchmarks.record import Record
from steersearch.core.presence import presence
from steersearch.core.steervit import Features, SteerViT
from steersearch.indexer.find import find_scores
from steersearch.training import scenes, stamps, world
from steersearch.training.alone import GREYS
from steersearch.training.things import KINDS, Thing, draw_thing

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
VERSION = 1
SEED = 93_000  # training uses small seeds, other benchmarks 90,000 to 92,000
SIZE = (320, 240)
THINGS, THING_SIZE = 4, (0.2, 0.42)  # at most; longer side as part of the picture's height
LEAST_SHARE = 0.008  # of the picture; a photo that shows less than this of a thing counts neither way
NOUNS = 30  # of stamps
LOOKS = 6  # of each drawn noun
EACH = 16  # photos made for each noun; others may show it too
TEMPLATE = "the {}"
NEUTRAL = ("the thing", "the picture", "the background")
RARE, RARE_DRAWS = 3, 4
_BATCH = 32


@dataclass(frozen=True)
class Photo:
    """A photo, the names of things that it shows well, and of those of which it shows too little to count."""

    image: Image.Image
    shown: frozenset[str]
    hidden: frozenset[str]


def photos(source: Source, each: int = EACH) -> tuple[list[str], list[Photo]]:
    """The nouns to ask for, and `each` photos made for every noun."""
    rng = np.random.default_rng([SEED, VERSION, zlib.crc32(source.encode())])
    wanted, others = _stock(source, rng)
    return list(wanted), [_photo(noun, wanted, others, rng) for noun in wanted for _ in range(each)]


def _stock(source: Source, rng: np.random.Generator) -> tuple[Targets, Sequence[Thing]]:
    """The things to ask for, each under its noun or phrase, and others that none of these words could mean."""
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
    """All but the wider word that it shares with others of its sort."""
    return thing.names - {thing.category}


def _photo(noun: str, wanted: Targets, others: Sequence[Thing], rng: np.random.Generator) -> Photo:
    nouns = list(wanted)
    for _ in range(50):
        plate = scenes.draw_scene(scenes.FAMILIES[int(rng.integers(len(scenes.FAMILIES)))], rng, SIZE)
        asked = [noun, nouns[int(rng.integers(len(nouns)))]][: int(rng.integers(1, 3))]
        things = [wanted[name][int(rng.integers(len(wanted[name])))] for name in asked]
        things += [others[int(rng.integers(len(others)))] for _ in range(THINGS - len(things))]
        photo = world.compose(plate, world.place_things(plate, things, rng, THING_SIZE))
        if photo.mask(noun).mean() > LEAST_SHARE:
            names = frozenset(name for placed in photo.placed for name in placed.thing.names)
            shown = frozenset(name for name in names if photo.mask(name).mean() > LEAST_SHARE)
            return Photo(photo.image, shown, names - shown)
    raise RuntimeError(f"no room for a {noun} in 50 plates")


# ------------------------------------------------------------------------------------------ what a score may look at


@dataclass(frozen=True)
class Seen:
    """G photos under one prompt. logits (G, N) of the head; cls, focus (G, D) embeddings; presence (G,)."""

    logits: Doubles
    cls: Doubles
    focus: Doubles
    presence: Doubles

    def of(self, rows: npt.NDArray[np.int64]) -> Seen:
        return Seen(*(getattr(self, name)[rows] for name in ("logits", "cls", "focus", "presence")))


@dataclass(frozen=True)
class Evidence:
    """under: the prompt asked; frozen: without any; neutral: prompts that mean anything; grey: plain grey pictures
    under the prompt.  mean_of_others (G, N), mean_peak_of_others (G,): of the logits under all the other prompts."""

    under: Seen
    frozen: Seen
    neutral: Sequence[Seen]
    grey: Seen
    mean_of_others: Doubles = field(repr=False)
    mean_peak_of_others: Doubles = field(repr=False)

    @cached_property
    def shares(self) -> Doubles:
        """(G, N): the heatmap, each row summing to 1."""
        logits = self.under.logits
        shares: Doubles = np.exp(logits - _logsumexp(logits)[:, None])
        return shares

    def of(self, rows: npt.NDArray[np.int64]) -> Evidence:
        """The same for some of the photos."""
        return replace(
            self,
            under=self.under.of(rows),
            frozen=self.frozen.of(rows),
            neutral=[seen.of(rows) for seen in self.neutral],
            mean_of_others=self.mean_of_others[rows],
            mean_peak_of_others=self.mean_peak_of_others[rows],
        )


def look(model: SteerViT, pictures: Sequence[Image.Image], prompts: Sequence[str | None]) -> list[Seen]:
    """All pictures under each prompt (None: the frozen trunk)."""
    with torch.inference_mode():
        steerings = [model.steering(None if p is None else model.encode_prompt(p)) for p in prompts]
        found: list[list[Features]] = [[] for _ in prompts]
        for start in range(0, len(pictures), _BATCH):
            pixels = np.stack([model.preprocess(image) for image in pictures[start : start + _BATCH]])
            batches = model.encode(model.to_device(pixels), steerings)
            for under, features in zip(found, batches, strict=True):
                under.append(features)
        return [_seen(Features.joined(under)) for under in found]


def _seen(features: Features) -> Seen:
    def doubles(values: torch.Tensor) -> Doubles:
        array: Doubles = values.double().cpu().numpy()
        return array

    return Seen(
        doubles(features.logits),
        doubles(features.embedding("cls")),
        doubles(features.embedding("focus")),
        doubles(presence(features)),
    )


# --------------------------------------------------------------------------------------------------------- scores


def _logsumexp(logits: Doubles) -> Doubles:
    top = logits.max(axis=1)
    found: Doubles = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return found


def _peak(logits: Doubles, level: float) -> Doubles:
    """log(mean of exp(logits)) less so much of their mean."""
    found: Doubles = _logsumexp(logits) - np.log(logits.shape[1]) - level * logits.mean(axis=1)
    return found


def _entropy(shares: Doubles) -> Doubles:
    found: Doubles = -(shares * np.log(np.maximum(shares, 1e-300))).sum(axis=1)
    return found


def _first_less_second(logits: Doubles) -> Doubles:
    rising = np.sort(logits, axis=1)
    found: Doubles = rising[:, -1] - rising[:, -2]
    return found


def _away(vectors: Doubles, others: Doubles) -> Doubles:
    """Minus the cosine to the mean of others."""
    mean = others.mean(axis=0)
    found: Doubles = -(vectors @ mean) / max(float(np.linalg.norm(mean)), 1e-12)
    return found


def _like_the_surest(sure: Doubles, vectors: Doubles, count: int) -> Doubles:
    """Pseudo-relevance: the cosine to the mean of the photos that are surest by another score."""
    return -_away(vectors, vectors[np.argsort(-sure)[:count]])


def _found(seen: Seen, kind: str) -> Doubles:
    """The score of `find`."""
    ids = [str(i) for i in range(len(seen.presence))]
    return find_scores(seen.presence.astype(np.float32), getattr(seen, kind).astype(np.float32), ids)


# Each from `Evidence` to (G,), higher is surer. The first group costs nothing beside the forward pass.
SCORES: dict[str, Callable[[Evidence], Doubles]] = {
    "heatmap: largest": lambda e: e.shares.max(axis=1),
    "heatmap: concentration, log N - H": lambda e: np.log(e.shares.shape[1]) - _entropy(e.shares),
    "heatmap: first over second peak": lambda e: _first_less_second(e.under.logits),
    "logits: largest": lambda e: e.under.logits.max(axis=1),
    "logits: mean under the heatmap": lambda e: (e.shares * e.under.logits).sum(axis=1),
    "logits: largest less mean": lambda e: e.under.logits.max(axis=1) - e.under.logits.mean(axis=1),
    "logits: largest less mean, in sd": lambda e: (
        (e.under.logits.max(axis=1) - e.under.logits.mean(axis=1)) / e.under.logits.std(axis=1)
    ),
    "logits: log mean exp": lambda e: _peak(e.under.logits, 0),
    "logits: log mean exp less mean": lambda e: _peak(e.under.logits, 1),
    "logits: log mean exp less half of mean (presence)": lambda e: e.under.presence,
    # a forward pass of each photo under another prompt, or under three
    "largest less that of 'the thing'": lambda e: (
        e.under.logits.max(axis=1) - e.neutral[0].logits.max(axis=1)
    ),
    "largest less mean of three neutral prompts": lambda e: (
        e.under.logits.max(axis=1) - np.mean([seen.logits.max(axis=1) for seen in e.neutral], axis=0)
    ),
    "mean under the heatmap of logits less those of 'the background'": lambda e: (
        e.shares * (e.under.logits - e.neutral[2].logits)
    ).sum(axis=1),
    # one under each of the other prompts
    "largest less mean of other prompts": lambda e: e.under.logits.max(axis=1) - e.mean_peak_of_others,
    "mean under the heatmap of logits less those of other prompts": lambda e: (
        e.shares * (e.under.logits - e.mean_of_others)
    ).sum(axis=1),
    # a constant per prompt
    "focus: away from steered grey": lambda e: _away(e.under.focus, e.grey.focus),
    "cls: away from steered grey": lambda e: _away(e.under.cls, e.grey.cls),
    # one frozen forward pass
    "focus: moved from frozen": lambda e: -(e.under.focus * e.frozen.focus).sum(axis=1),
    "cls: moved from frozen": lambda e: -(e.under.cls * e.frozen.cls).sum(axis=1),
    # the gallery's own embeddings
    "focus: like the 10 surest": lambda e: _like_the_surest(e.under.presence, e.under.focus, 10),
    "cls: like the 10 surest": lambda e: _like_the_surest(e.under.presence, e.under.cls, 10),
    "focus: like the 10 surest, and presence (find)": lambda e: _found(e.under, "focus"),
    "cls: like the 10 surest, and presence (find)": lambda e: _found(e.under, "cls"),
}


# ------------------------------------------------------------------------------------------------------ measuring


def evaluate(
    model: SteerViT, nouns: Sequence[str], gallery: Sequence[Photo]
) -> dict[str, dict[str, list[float]]]:
    """Average precision of every score, a value per noun: under "all", and under "rare" the mean of its draws."""
    pictures = [photo.image for photo in gallery]
    prompts = [TEMPLATE.format(noun) for noun in nouns]
    frozen, *seen = look(model, pictures, [None, *NEUTRAL, *prompts])
    neutral, under = seen[: len(NEUTRAL)], seen[len(NEUTRAL) :]
    greys = look(model, [Image.new("RGB", SIZE, (grey,) * 3) for grey in GREYS], prompts)
    total = np.sum([one.logits for one in under], axis=0)
    peaks = np.sum([one.logits.max(axis=1) for one in under], axis=0)
    rng = np.random.default_rng([SEED, 1])
    found: dict[str, dict[str, list[float]]] = {"all": {}, "rare": {}}
    for noun, one, grey in zip(nouns, under, greys, strict=True):
        shows = np.array([noun in photo.shown for photo in gallery])
        counts = np.array([noun not in photo.hidden for photo in gallery])
        others = len(nouns) - 1
        evidence = Evidence(
            one,
            frozen,
            neutral,
            grey,
            (total - one.logits) / others,
            (peaks - one.logits.max(axis=1)) / others,
        )
        _measure(evidence, shows, np.flatnonzero(counts), found["all"])
        draws: dict[str, list[float]] = {}
        for _ in range(RARE_DRAWS):
            few = rng.choice(np.flatnonzero(shows & counts), RARE, replace=False)
            _measure(evidence, shows, np.sort([*np.flatnonzero(~shows & counts), *few]), draws)
        for name, values in draws.items():
            found["rare"].setdefault(name, []).append(float(np.mean(values)))
    return found


def _measure(
    evidence: Evidence, shows: Mask, rows: npt.NDArray[np.int64], found: dict[str, list[float]]
) -> None:
    some = evidence.of(rows)
    for name, score in SCORES.items():
        found.setdefault(name, []).append(average_precision(score(some), shows[rows]))
    found.setdefault("chance: share of photos that show it", []).append(float(shows[rows].mean()))


def report(
    found: Mapping[str, Mapping[str, Sequence[float]]],
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Mean average precision in % under "<case>/<score>", and 95 % intervals over the choice of the nouns."""
    metrics, intervals = {}, {}
    for case, scores in found.items():
        for name, values in scores.items():
            percent = [100 * value for value in values]
            metrics[f"{case}/{name}"] = float(np.mean(percent))
            intervals[f"{case}/{name}"] = list(micro_interval({"nouns": percent}))
    return metrics, intervals


def main() -> None:
    """Measure one model on one source or all, and print a record for each as a JSON object."""
    parser = argparse.ArgumentParser(
        description="Scores for whether a photo shows what a prompt names. Some two minutes a source with the mini."
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
    model = SteerViT.from_pretrained(arguments.model)
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
            "preprocess": model.config.preprocess.to_dict(),
            "weights": model.weights_hash,
        }
        seconds = time.monotonic() - began
        record = Record.make(
            f"find-world/{source}", arguments.model, settings, metrics, seconds, intervals=intervals
        )
        print(record.to_json())
        if arguments.save:
            record.save()


if __name__ == "__main__":
    main()
