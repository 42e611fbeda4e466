"""attribute-flip-world: two drawings of a kind in two colours on a plate, from seeds that training never used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
from PIL import Image

from steersearch.benchmarks.ours.attribute_flip_data import Pair, Pairs, pair_of
from steersearch.benchmarks.paper.world_photos import KIND_NAMES, photo_of
from steersearch.core.heatmaps import outlined
from steersearch.training.world import scenes
from steersearch.training.world.kinds import KINDS
from steersearch.training.world.things import draw_thing

SEED, VERSION, PAIRS = 97_000, 1, 120
SIZE, THING_SIZE, LEAST_AREA = (320, 240), (0.25, 0.4), 0.008


def build(limit: int | None = None) -> Pairs:
    """The stand-in, always the same; limit: of its 120 pairs, the first ones."""
    return Pairs(
        name="attribute-flip-world",
        source="generated stand-in",
        licence="Apache-2.0, as this program",
        pairs=tuple(islice(_pairs(), limit or PAIRS)),
        remarks={"version": VERSION},
    )


def examples() -> list[tuple[str, Image.Image]]:
    """The first three pairs, the thing that is named outlined."""
    return [
        (f'"the {pair.phrases[0]}"', outlined(pair.open(), pair.masks()[0])) for pair in islice(_pairs(), 3)
    ]


def _pairs() -> Iterator[Pair]:
    rng = np.random.default_rng([SEED, VERSION])
    kinds = [name for name in KIND_NAMES if len(set(KINDS[name].colours)) > 1]
    for number in range(10**6):
        kind = KINDS[kinds[number % len(kinds)]]
        look = replace(kind.sample_look(rng), pattern="plain")
        other = str(rng.choice(sorted(set(kind.colours) - {look.colour})))
        things = [draw_thing(each, rng, 160) for each in (look, replace(look, colour=other))]
        photo = photo_of(
            scenes.FAMILIES[number % len(scenes.FAMILIES)], [(things, THING_SIZE)], rng, SIZE, LEAST_AREA
        )
        masks = {placed.thing.phrase: placed.mask for placed in photo.placed}
        first, second = (thing.phrase for thing in things)
        yield pair_of(kind.name, (first, second), photo.image, (masks[first], masks[second]))
