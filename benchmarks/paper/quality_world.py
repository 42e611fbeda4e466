"""quality-world: the protocol of `quality` on generated photos. A stand-in: no figure of it is the paper's.

Probes: photos of one of six families of scenes with one large drawn thing of 34 kinds and three small ones of other
kinds; the scene is learned under "the place", the kind of the large thing under "the thing". Training and test photos
share neither plates nor drawings.
Segmentation: photos with two or three of six kinds of things, whose nouns are the classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from PIL import Image

from steersearch.benchmarks.harness.label_file import Labels
from steersearch.benchmarks.harness.viewing import digest, kept
from steersearch.benchmarks.paper.quality_data import (
    Labelled,
    LabelledSet,
    QualityData,
    Segmented,
    SegmentedSet,
)
from steersearch.benchmarks.paper.world_photos import Drawings, photo_of
from steersearch.core.heatmaps import outlined
from steersearch.training.world import composition, scenes
from steersearch.training.world.kinds import KINDS
from steersearch.training.world.things import Thing, draw_stock

VERSION = 1
SEED = 97_200
TRAIN, TEST = 340, 170  # photos of the probes
MEMORY, SEGMENTED = 48, 30  # photos of the segmentation
SIDE = 160
PROBE_VERSION, PROBE_SEED = 1, 91_000
PROBE_SIZE = (320, 240)
PROBE_LOOKS = {"train": 8, "test": 4}  # drawings of each kind that the photos are made of
PHOTOS_PER_PLATE = 3
CLASSES = ("mug", "book", "potted plant", "suitcase", "guitar", "bird")


def build(limit: int | None = None) -> QualityData:
    """The stand-in, always the same; `limit`: photos of each part at most."""
    train, test = (
        list(probe_photos(part, _most(n, limit))) for part, n in (("train", TRAIN), ("test", TEST))
    )
    scene = [[Labelled(kept(photo.image), photo.family) for photo in part] for part in (train, test)]
    thing = [[Labelled(kept(photo.image), photo.kind) for photo in part] for part in (train, test)]
    pixels = digest(photo.image.tobytes() for photo in (*train, *test))
    return QualityData(
        name="quality-world",
        source="generated stand-in",
        licence="Apache-2.0",
        labelled=(
            _labelled("scenes", "the place", len(scenes.FAMILIES), scene, pixels),
            _labelled("things", "the thing", len(KINDS), thing, pixels),
        ),
        segmented=_segmented(limit),
    )


def examples() -> list[tuple[str, Image.Image]]:
    """A test photo of each probe with its label, and one of the segmentation with two classes of it."""
    first, second = islice(probe_photos("test", TEST), 2)
    scene, thing = scenes.FAMILIES[first.family], list(KINDS)[second.kind]
    segmented = _photo([SEED, VERSION, 1, 1, 0], Drawings([SEED, VERSION, 1], each=4))
    photo, labels = segmented.picture().resize((320, 320)), segmented.labels()
    return [
        (f'"the place": {scene}', first.image),
        (f'"the thing": {thing}', second.image),
        *((f'"the {CLASSES[n - 1]}"', outlined(photo, labels == n)) for n in sorted(segmented.present)[:2]),
    ]


@dataclass(frozen=True)
class ProbePhoto:
    """A photo (RGB), the number of its scene in scenes.FAMILIES, and that of its large thing's kind in KINDS."""

    image: Image.Image
    family: int
    kind: int


def probe_photos(part: str, count: int, size: tuple[int, int] = PROBE_SIZE) -> Iterator[ProbePhoto]:
    """`count` photos of "train" or "test", always the same; both labels balanced and independent of each other.

    size: (width, height) in pixels.
    """
    seed = [PROBE_SEED, PROBE_VERSION, 0 if part == "train" else 1]
    rng = np.random.default_rng(seed)
    stock = draw_stock(rng, PROBE_LOOKS[part], SIDE)
    plates = [i % len(scenes.FAMILIES) for i in range(math.ceil(count / PHOTOS_PER_PLATE))]
    kinds = rng.permutation(np.arange(count) % len(KINDS))
    for number, kind in enumerate(kinds):
        if number % PHOTOS_PER_PLATE == 0:
            family = plates[number // PHOTOS_PER_PLATE]
            plate = scenes.draw_scene(scenes.FAMILIES[family], np.random.default_rng([*seed, number]), size)
        yield ProbePhoto(_with_a_large_thing(plate, int(kind), stock, rng), family, int(kind))


def _with_a_large_thing(
    plate: scenes.Scene, kind: int, stock: Sequence[Thing], rng: np.random.Generator
) -> Image.Image:
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


def _most(number: int, limit: int | None) -> int:
    return number if limit is None else min(number, limit)


def _labelled(
    name: str, prompt: str, classes: int, parts: Sequence[Sequence[Labelled]], pixels: str
) -> LabelledSet:
    train, test = (tuple(part) for part in parts)
    return LabelledSet(name=name, prompt=prompt, classes=classes, train=train, test=test, digest=pixels)


def _segmented(limit: int | None) -> SegmentedSet:
    parts = []
    for part, number in enumerate((MEMORY, SEGMENTED)):
        stock = Drawings([SEED, VERSION, part], each=4)
        parts.append(
            tuple(_photo([SEED, VERSION, part, 1, place], stock) for place in range(_most(number, limit)))
        )
    memory, test = parts
    pixels = (
        piece for one in (*memory, *test) for piece in (one.picture().tobytes(), one.labels().tobytes())
    )
    return SegmentedSet(classes=dict(enumerate(CLASSES, 1)), memory=memory, test=test, digest=digest(pixels))


def _photo(seed: Sequence[int], stock: Drawings) -> Segmented:
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(CLASSES), int(rng.integers(2, 4)), replace=False)
    things = [stock.any_of(CLASSES[int(number)], rng) for number in chosen]
    family = scenes.FAMILIES[seed[-1] % len(scenes.FAMILIES)]
    photo = photo_of(family, [(things, (0.3, 0.5))], rng, (SIDE, SIDE), 0.02)
    labels = _labels(photo)
    present = frozenset(int(value) for value in np.unique(labels) if value)
    return Segmented(kept(photo.image), lambda: labels, present)


def _labels(photo: composition.Photo) -> Labels:
    labels = np.zeros((photo.image.height, photo.image.width), np.uint8)
    for placed in photo.placed:
        labels[placed.mask] = CLASSES.index(placed.thing.noun) + 1
    return labels
