"""Generated photos with known contents: a gallery, and photos to query it with.

A photo shows one of six families of scenes and four drawn things. There are some four hundred looks, up to twelve of
each of 34 kinds (kind "mug", look "striped red mug"), each drawn several times; about one gallery photo in a hundred
shows a given look. Gallery and queries share looks, but no drawings, plates or positions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from steersearch.training.world import composition, scenes
from steersearch.training.world.kinds import KINDS
from steersearch.training.world.things import Thing, draw_thing

VERSION = 1
SEED = 92_000  # training uses small seeds, other benchmarks 90,000 and 91,000
SIZE = (224, 168)
LOOKS_PER_KIND, DRAWINGS = 12, 3
THINGS = 4  # or fewer, if there is no room
THING_SIZE = (0.22, 0.42)  # longer side as part of the picture's height
PHOTOS_PER_PLATE = 4
LEAST_SHARE = 0.006  # share of the picture that a thing must cover to count as shown
_LABELS = "labels.json"


@dataclass(frozen=True)
class Shown:
    """A thing in a photo: its kind ("mug"), its look ("striped red mug"), the share of the picture it covers."""

    kind: str
    look: str
    share: float


@dataclass(frozen=True)
class LabelledPhoto:
    """A file and what it shows."""

    path: Path
    shown: tuple[Shown, ...]

    def looks(self, kind: str) -> set[str]:
        """The looks of this kind that the photo shows."""
        return {thing.look for thing in self.shown if thing.kind == kind and thing.share >= LEAST_SHARE}


def photo_gallery(folder: Path, part: str, count: int) -> list[LabelledPhoto]:
    """`count` photos of the part "gallery" or "query" below `folder`; drawn the first time, later read.

    The first photos are the same whatever `count` is.
    """
    labels = folder / f"{part}-{count}-v{VERSION}.{_LABELS}"
    if not labels.exists():
        _draw(folder, part, count, labels)
    return [
        LabelledPhoto(folder / name, tuple(Shown(**thing) for thing in shown))
        for name, shown in json.loads(labels.read_text("utf-8")).items()
    ]


def _draw(folder: Path, part: str, count: int, labels: Path) -> None:
    (folder / part).mkdir(parents=True, exist_ok=True)
    seed = [SEED, VERSION, 0 if part == "gallery" else 1]
    stock, rng = _stock(seed), np.random.default_rng([*seed, 1])
    shown = {}
    for number in range(count):
        if number % PHOTOS_PER_PLATE == 0:
            family = scenes.FAMILIES[number // PHOTOS_PER_PLATE % len(scenes.FAMILIES)]
            plate = scenes.draw_scene(family, rng, SIZE)
        photo = _photo(plate, stock, rng)
        name = f"{part}/{number:06}.jpg"
        photo.image.save(folder / name, quality=90)
        shown[name] = [
            {"kind": p.thing.noun, "look": p.thing.phrase, "share": round(float(p.mask.mean()), 4)}
            for p in photo.placed
        ]
    labels.write_text(json.dumps(shown), "utf-8")


def _stock(seed: Sequence[int]) -> list[Thing]:
    """Every look, drawn several times; both parts share the generator of the looks, not that of the drawings."""
    looks_rng, rng = np.random.default_rng([SEED, VERSION]), np.random.default_rng(seed)
    stock = []
    for kind in KINDS.values():
        looks = {look.phrase: look for look in (kind.sample_look(looks_rng) for _ in range(LOOKS_PER_KIND))}
        stock += [draw_thing(look, rng, 128) for look in looks.values() for _ in range(DRAWINGS)]
    return stock


def _photo(plate: scenes.Scene, stock: Sequence[Thing], rng: np.random.Generator) -> composition.Photo:
    things = [stock[int(i)] for i in rng.choice(len(stock), THINGS, replace=False)]
    return composition.compose(plate, composition.place_things(plate, things, rng, THING_SIZE))
