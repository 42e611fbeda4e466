"""embedding-map-world: the protocol of `embedding-map` on generated photos. A stand-in: no figure of it is the paper's.

Each photo shows one large thing of eight kinds, and two small things of others. Three kinds are vehicles, the group;
the part that several have is their stripes.
"""

from __future__ import annotations

import numpy as np

from steersearch.benchmarks.embedding_map import Photos
from steersearch.benchmarks.viewing import digest, kept
from steersearch.benchmarks.world_photos import KIND_NAMES, Drawings, photo_of
from steersearch.training import scenes

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
    others = [kind for kind in KIND_NAMES if kind not in CLASSES]
    images, labels = [], []
    for place in range(number):
        rng = np.random.default_rng([SEED, VERSION, 1, place])
        kind = CLASSES[place % len(CLASSES)]
        beside = [stock.any_of(others[int(i)], rng) for i in rng.choice(len(others), 2, replace=False)]
        family = scenes.FAMILIES[place // len(CLASSES) % len(scenes.FAMILIES)]
        groups = [([stock.any_of(kind, rng)], (0.45, 0.6)), (beside, (0.2, 0.3))]
        images.append(photo_of(family, groups, rng, (SIDE, SIDE), 0.005).image)
        labels.append(kind)
    return Photos(
        name="embedding-map-world",
        source="generated stand-in",
        licence="Apache-2.0",
        data_hash=digest(image.tobytes() for image in images),
        pictures=tuple(kept(image) for image in images),
        labels=tuple(labels),
        prompts=PROMPTS,
        group=VEHICLES,
        one="car",
    )
