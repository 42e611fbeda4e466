"""What `learned_map.fit` learns from: vectors of generated photos, and for each name which of them show it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from steersearch.benchmarks.baselines.learned_map import text_of, unsteered
from steersearch.core.errors import ArgumentError
from steersearch.core.predictor import Predictor
from steersearch.training.world.things import Thing
from steersearch.training.world.world import World, WorldConfig

SIZE = 224  # of the photos, in pixels
LOOKS, PLATES = 24, 24  # drawn things of each kind, backgrounds of each family of scenes
LEAST_AREA = 0.006  # of a photo, of a thing in it
LEAST_SHOWN = 6  # photos that show a name
POSITIVES, NEGATIVES = 48, 144  # of a group, at most
AT_ONCE = 32

Group = tuple[Tensor, Tensor, Tensor]  # see `learned_map.fit`


def drawn_groups(model: Predictor, photos: int, report: Callable[[int], None]) -> list[Group]:
    """A group for each name, "mug" or "striped red mug", that enough of the photos show.

    The photos are drawn as those that training shows, from its seeds, not from those of the stand-ins. report: is
    called with the number of photos that are done. Raises ArgumentError for too few.
    """
    world = World(
        WorldConfig(
            photos=photos,
            size=SIZE,
            drawn_per_kind=LOOKS,
            plates=PLATES,
            stamps=False,
            emoji=False,
        )
    )
    vectors, shown = [], []
    for start in range(0, photos, AT_ONCE):
        made = [world.plan(number).compose() for number in range(start, min(start + AT_ONCE, photos))]
        vectors.append(unsteered(model, [photo.image for photo in made]).cpu())
        shown += [
            {
                name
                for placed in photo.placed
                if placed.mask.mean() >= LEAST_AREA
                for name in names_of(placed.thing)
            }
            for photo in made
        ]
        report(len(shown))
    rng = np.random.default_rng([0, photos])
    groups = [
        _group(model, name, torch.cat(vectors), np.array([name in each for each in shown]), rng)
        for name in sorted({name for each in shown for name in each})
        if sum(name in each for each in shown) >= LEAST_SHOWN
    ]
    if not groups:
        raise ArgumentError("photos", photos, f"too few: no name is shown by {LEAST_SHOWN} of them")
    return groups


def names_of(thing: Thing) -> set[str]:
    """Its plain and its full name."""
    return {thing.noun, thing.phrase}


def _group(
    model: Predictor, name: str, vectors: Tensor, shows: npt.NDArray[np.bool_], rng: np.random.Generator
) -> Group:
    """Photos that show the name have label 0; each of the others one of its own, so it is like none."""
    chosen = [
        rng.permutation(np.flatnonzero(those))[:most]
        for those, most in ((shows, POSITIVES), (~shows, NEGATIVES))
    ]
    numbers = np.concatenate(chosen)
    labels = np.where(shows[numbers], 0, np.arange(1, len(numbers) + 1))
    return text_of(model, f"the {name}"), vectors[numbers], torch.from_numpy(labels)
