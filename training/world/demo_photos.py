"""The demo's drawn photos, about sixty, some of which share a thing with the query photo; and a drawn remote control to
put into photographs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from steersearch.training.world import composition, scenes
from steersearch.training.world.kinds import KINDS
from steersearch.training.world.painting import Look
from steersearch.training.world.things import Thing, draw_thing

FOCUSES = ("the remote control", "bookshelf")
SIZE = (640, 480)

REMOTE = Look(kind="remote control", colour="red")
SHELF = Look(kind="bookshelf", colour="green")
OTHER_REMOTES = tuple(Look(kind="remote control", colour=c) for c in ("black", "gray"))
OTHER_SHELVES = tuple(Look(kind="bookshelf", colour=c) for c in ("brown", "white"))


@dataclass(frozen=True)
class DemoFolder:
    """photos: all files, the query among them; query: the photo to search with; focuses: the two prompts."""

    photos: tuple[Path, ...]
    query: Path
    focuses: tuple[str, str]


def demo_photos(folder: Path, count: int = 60, seed: int = 7) -> DemoFolder:
    """Draw `count` JPEGs into `folder`, named after what they show; the same seed draws the same photos.

    A fifth of them shows the query's red remote control, another its green bookshelf, a few the same in other
    colours, and the rest neither.
    """
    rng = np.random.default_rng([seed, 77])
    crowd = _crowd(rng)
    plan = _plan(count, rng)
    cat = Look(kind="cat", colour="orange", shape="sitting")
    query = _photo("living room", [REMOTE, SHELF, cat], crowd, np.random.default_rng([seed, 78, 2]))
    photos = [_save(query, folder, 0)]
    for number, (family, looks) in enumerate(plan, 1):
        photos.append(_save(_photo(family, looks, crowd, rng), folder, number))
    return DemoFolder(tuple(photos), photos[0], FOCUSES)


def with_remote(photo: Image.Image, spot: composition.Spot) -> Image.Image:
    """A copy of the photograph in which a drawn black remote control lies at `spot`, the same one in every picture."""
    remote = draw_thing(OTHER_REMOTES[0], np.random.default_rng(7), 256)
    lying = composition.compose(scenes.Scene("", photo, ()), [(remote, spot)])
    (placed,) = lying.placed
    depth = max(1.0, spot.size * photo.height / 40)
    shadow = Image.fromarray(placed.mask).convert("L").filter(ImageFilter.GaussianBlur(depth))
    ground = photo.copy()
    ground.paste((20, 16, 14), (round(depth / 2), round(depth)), shadow.point(lambda value: value * 3 // 4))
    return composition.compose(scenes.Scene("", ground, ()), [(remote, spot)]).image


def _plan(count: int, rng: np.random.Generator) -> list[tuple[str, list[Look]]]:
    """For each photo except the query: the family of its scene, and what it must show."""
    families = [scenes.FAMILIES[i % len(scenes.FAMILIES)] for i in range(count - 1)]
    wanted: list[list[Look]] = [[] for _ in families]
    order = [int(i) for i in rng.permutation(len(families))]
    fifth = max(1, count // 5)
    for i in order[:fifth]:
        wanted[i].append(REMOTE)
    for i in order[fifth : 2 * fifth]:
        wanted[i].append(SHELF)
    for turn, i in enumerate(order[2 * fifth : 2 * fifth + count // 6]):
        wanted[i].append((*OTHER_REMOTES, *OTHER_SHELVES)[turn % 4])
    return list(zip(families, wanted, strict=True))


def _crowd(rng: np.random.Generator) -> list[Thing]:
    """Other things, drawn once and used in many photos."""
    names = [name for name in KINDS if name not in (REMOTE.kind, SHELF.kind)]
    return [draw_thing(KINDS[name].sample_look(rng), rng, 224) for name in names for _ in range(2)]


def _photo(family: str, looks: list[Look], crowd: list[Thing], rng: np.random.Generator) -> composition.Photo:
    """A photo of the wanted looks and about three of the crowd; drawn again until all of them fit."""
    wanted = [draw_thing(look, rng, 256) for look in looks]
    for _ in range(40):
        plate = scenes.draw_scene(family, rng, SIZE)
        spots: list[tuple[Thing, composition.Spot]] = []
        for thing in wanted:
            size = (0.42, 0.55) if thing.noun == SHELF.kind else (0.26, 0.34)
            spots = composition.place_things(plate, [thing], rng, size, spots, loose=0.0)
        if len(spots) < len(wanted):
            continue
        others = [crowd[int(i)] for i in rng.choice(len(crowd), 4 - len(wanted) // 2, replace=False)]
        photo = composition.compose(
            plate, composition.place_things(plate, others, rng, (0.22, 0.4), spots, loose=0.0)
        )
        alone = {id(thing): _area(plate, thing, spot) for thing, spot in spots}
        shown = {id(p.thing): p.mask.sum() for p in photo.placed}
        if all(
            shown[one] >= 0.9 * area > 0.004 * photo.image.width * photo.image.height
            for one, area in alone.items()
        ):
            return photo
    raise RuntimeError(f"no room in 40 plates of a {family} for {[look.phrase for look in looks]}")


def _area(plate: scenes.Scene, thing: Thing, spot: composition.Spot) -> int:
    """How many pixels a thing covers if nothing hides it."""
    ((_, mask),) = composition.visible_masks(plate.image.size, [(thing, spot)])
    return int(mask.sum())


def _save(photo: composition.Photo, folder: Path, number: int) -> Path:
    """Write the JPEG; its name tells scene and things, so that a list of hits can be read."""
    things = [placed.thing.phrase.replace(" ", "-") for placed in photo.placed]
    first = sorted(things, key=lambda name: ("remote" not in name, "bookshelf" not in name, name))[:3]
    path = folder / f"{number:02d}_{photo.family.replace(' ', '-')}_{'_'.join(first)}.jpg"
    photo.image.save(path, quality=90)
    return path
