"""embedding-map-world: the protocol of `embedding-map` on generated photos. A stand-in: no figure of it is the paper's.

Each photo shows one large thing of eight kinds, and two small things of others. Three kinds are vehicles, the group;
the part that several have is their stripes.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from steersearch.benchmarks.harness.viewing import digest, kept
from steersearch.benchmarks.paper.embedding_map_data import Photos
from steersearch.benchmarks.paper.world_photos import KIND_NAMES, Drawings, photo_of
from steersearch.training.world import scenes

VERSION = 1
SEED = 98_000
CLASSES = ("bicycle", "car", "sailboat", "cat", "bird", "mug", "guitar", "suitcase")
VEHICLES = frozenset({"bicycle", "car", "sailboat"})
PROMPTS = ("vehicle", "car", "striped")
PHOTOS = 120
SIDE = 160


def build(limit: int | None = None) -> Photos:
    """The stand-in, always the same; `limit`: only its first photos, at least two of each class."""
    number = PHOTOS if limit is None else min(PHOTOS, max(limit, 2 * len(CLASSES)))
    stock = Drawings([SEED, VERSION], each=3)
    images = [_photo(place, stock) for place in range(number)]
    return Photos(
        name="embedding-map-world",
        source="generated stand-in",
        licence="Apache-2.0",
        data_hash=digest(image.tobytes() for image in images),
        pictures=tuple(kept(image) for image in images),
        labels=tuple(_kind(place) for place in range(number)),
        prompts=PROMPTS,
        group=VEHICLES,
        one="car",
    )


def examples() -> list[tuple[str, Image.Image]]:
    """A photo of each of six classes, each in another family of scenes."""
    stock = Drawings([SEED, VERSION], each=3)
    places = range(0, 6 * (len(CLASSES) + 1), len(CLASSES) + 1)
    return [
        (_kind(place) + (", a vehicle" if _kind(place) in VEHICLES else ""), _photo(place, stock))
        for place in places
    ]


def _kind(place: int) -> str:
    return CLASSES[place % len(CLASSES)]


def _photo(place: int, stock: Drawings) -> Image.Image:
    """A large thing of the next kind in turn, and two small things of others."""
    rng = np.random.default_rng([SEED, VERSION, 1, place])
    others = [kind for kind in KIND_NAMES if kind not in CLASSES]
    beside = [stock.any_of(others[int(i)], rng) for i in rng.choice(len(others), 2, replace=False)]
    family = scenes.FAMILIES[place // len(CLASSES) % len(scenes.FAMILIES)]
    groups = [([stock.any_of(_kind(place), rng)], (0.45, 0.6)), (beside, (0.2, 0.3))]
    return photo_of(family, groups, rng, (SIDE, SIDE), 0.005).image
