"""Photos of the generated world for the stand-ins: drawn things on drawn plates, from their own seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from steersearch.training.world import composition, scenes
from steersearch.training.world.kinds import KINDS
from steersearch.training.world.things import Thing, draw_thing

KIND_NAMES = tuple(KINDS)


class Drawings:
    """`each` drawings of every kind of thing, made on first use and always the same."""

    def __init__(self, seed: Sequence[int], each: int, size: int = 160) -> None:
        self._seed, self._each, self._size = tuple(seed), each, size
        self._drawn: dict[tuple[int, int], Thing] = {}

    def any_of(self, kind: str, rng: np.random.Generator) -> Thing:
        """One of the drawings of this kind."""
        key = (KIND_NAMES.index(kind), int(rng.integers(self._each)))
        if key not in self._drawn:
            own = np.random.default_rng([*self._seed, *key])
            self._drawn[key] = draw_thing(KINDS[kind].sample_look(own), own, self._size)
        return self._drawn[key]


def photo_of(
    family: str,
    groups: Sequence[tuple[Sequence[Thing], tuple[float, float]]],
    rng: np.random.Generator,
    size: tuple[int, int],
    least_area: float = 0.002,
) -> composition.Photo:
    """A photo of all these things, each visible on at least `least_area` of the picture.

    groups: things and the least and greatest longer side of each, as part of the picture's height, largest first.
    size: (width, height) in pixels.  Raises RuntimeError if fifty scenes have no room for them.
    """
    wanted = [thing for things, _ in groups for thing in things]
    for _ in range(50):
        plate = scenes.draw_scene(family, rng, size)
        standing: list[tuple[Thing, composition.Spot]] = []
        for things, sizes in groups:
            standing = composition.place_things(plate, things, rng, sizes, standing)
        if len(standing) < len(wanted):
            continue
        photo = composition.compose(plate, standing)
        if all(placed.mask.mean() >= least_area for placed in photo.placed):
            return photo
    raise RuntimeError(f"no room for {', '.join(thing.noun for thing in wanted)} in a {family}")
