"""mosaic-world: the protocol of `mosaic` on generated photos. A stand-in: no figure of it is the paper's.

Each of the four photos shows one or two large things of the 34 drawn kinds on a drawn plate; the classes are the
kinds, named by their nouns. Plates and drawings come from seeds that training never uses.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from PIL import Image

from steersearch.benchmarks.harness.label_file import Labels
from steersearch.benchmarks.harness.viewing import digest, kept
from steersearch.benchmarks.paper.mosaic_data import Mosaics, Tile, compose
from steersearch.benchmarks.paper.world_photos import KIND_NAMES, Drawings, photo_of
from steersearch.core.heatmaps import outlined
from steersearch.training.world import composition, scenes

VERSION = 1
SEED = 93_000  # training uses small seeds, core-world 90,000, the probes 91,000
MOSAICS = 60
SIDE = 168  # pixels of a tile
THING_SIZE = (0.45, 0.75)  # longer side of a thing, as part of its photo's height


def build(limit: int | None = None) -> Mosaics:
    """The stand-in, always the same; its first `limit` composites, of MOSAICS."""
    number = min(MOSAICS, MOSAICS if limit is None else limit)
    stock = Drawings([SEED, VERSION], each=3)
    tiles = [_tile(place, stock) for place in range(4 * number)]
    mosaics = compose([(f"{place:03d}", tile) for place, tile in enumerate(tiles)], tile=SIDE)
    return Mosaics(
        name="mosaic-world",
        source="generated stand-in",
        licence="Apache-2.0",
        data_hash=digest(
            part for mosaic in mosaics for part in (mosaic.picture().tobytes(), mosaic.labels().tobytes())
        ),
        classes=KIND_NAMES,
        mosaics=mosaics,
    )


def examples() -> list[tuple[str, Image.Image]]:
    """The first composite, and what the first prompts name in it."""
    mosaic = build(1).mosaics[0]
    picture, labels = mosaic.picture().resize((320, 320)), mosaic.labels()
    asked = [
        (f'"the {KIND_NAMES[label - 1]}"', outlined(picture, labels == label)) for label in mosaic.classes[:3]
    ]
    return [(f"a composite with {len(mosaic.classes)} classes", picture), *asked]


def _tile(place: int, stock: Drawings) -> Tile:
    rng = np.random.default_rng([SEED, VERSION, 1, place])
    kinds = rng.choice(len(KIND_NAMES), int(rng.integers(1, 3)), replace=False)
    things = [stock.any_of(KIND_NAMES[int(kind)], rng) for kind in kinds]
    photo = photo_of(
        scenes.FAMILIES[place % len(scenes.FAMILIES)], [(things, THING_SIZE)], rng, (SIDE, SIDE), 0.05
    )
    return Tile(kept(photo.image), partial(_labels, photo))


def _labels(photo: composition.Photo) -> Labels:
    labels = np.zeros((photo.image.height, photo.image.width), np.uint8)
    for placed in photo.placed:
        labels[placed.mask] = KIND_NAMES.index(placed.thing.noun) + 1
    return labels
