"""core-world: CORE's protocol (facts C1) on generated photos. A stand-in, not CORE: no figure here is the paper's.

Six families of scenes, five objects each. A base photo holds salient things; its five variants differ in one small
object only. All variants of a scene are embedded under an object's prompt, and a query's nearest neighbour among
other bases should hold the same object. Plates, drawings and placements come from seeds that training never used.

Four sources of objects, in order of difficulty:
drawn              new drawings of the kinds that training draws
stamps             cutouts, most of which training pastes too
held-out-pictures  second cutouts of nouns that training knows by another one (24 nouns, so four objects a scene)
held-out-objects   cutouts of nouns (`stamps.HELD_OUT_NOUNS`) of which the world that steering trains on shows no
                   cutout and says no expression; 16 of the 30 are words for classes of ImageNet, which mini knows
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image

from steersearch.benchmarks.harness.cache import digest_of, kept_dataset
from steersearch.benchmarks.harness.catalogue import check_template
from steersearch.benchmarks.harness.embeddings import Gallery
from steersearch.benchmarks.paper.core_data import CoreData, Row, Scene, check_rows
from steersearch.core.errors import ArgumentError, BenchmarkError
from steersearch.core.files import file_sha256
from steersearch.training.world import composition, drawings, scenes, stamps
from steersearch.training.world.kinds import KINDS
from steersearch.training.world.painting import Look
from steersearch.training.world.things import Thing, draw_thing

Source = Literal["drawn", "stamps", "held-out-objects", "held-out-pictures"]
Targets = Mapping[str, Sequence[Thing]]  # an object's name in prompts -> its pictures
VERSION = 1
SEED = 90_000  # training uses small seeds
BASES = 20  # source photos of each scene
PLATES = 1000  # attempts per base; most need one, some over fifty
OBJECT_SIZE = (0.2, 0.3)  # range of the longer side, as a share of the picture's height
LICENCES: dict[Source, str] = dict.fromkeys(get_args(Source), "GPL-2 (the stamps of tuxpaint)") | {
    "drawn": "Apache-2.0, as this program"
}

OBJECTS: dict[str, tuple[str, ...]] = {
    "kitchen": ("mug", "teapot", "bottle", "fruit bowl", "cake"),
    "living room": ("remote control", "book", "cushion", "telephone", "guitar"),
    "bathroom": ("rubber duck", "bucket", "clock", "boot", "key"),
    "street": ("bicycle", "umbrella", "suitcase", "hat", "backpack"),
    "garden": ("watering can", "mushroom", "bird", "potted plant", "ball"),
    "beach": ("sailboat", "kite", "lamp", "teddy bear", "car"),
}

# Trained stamps that a held-out noun could mean although the words differ: never placed beside it.
LOOK_ALIKES: dict[str, tuple[str, ...]] = {
    "caribou": ("deer", "doe", "wapiti"),
    "fortress": ("fairytale castle", "medieval city", "round tower", "square tower", "watch tower"),
    "hammer": ("metal mallet",),
    "peacock": ("peahen",),
    "tepee": ("medieval tent", "tent"),
}


@dataclass(frozen=True)
class Picture:
    """One variant: the photo, its scene family, the object added, its base's id, and the object's mask (H, W)."""

    image: Image.Image
    scene: str
    object: str
    image_id: str
    mask: npt.NDArray[np.bool_]


def build(
    source: Source = "drawn",
    bases: int = BASES,
    size: tuple[int, int] = (320, 240),
    object_size: tuple[float, float] = OBJECT_SIZE,
) -> list[Picture]:
    """The whole stand-in: 6 scenes x `bases` x 5 pictures of `size` (width, height) pixels; held-out-pictures: x 4.

    object_size: smaller than the default is harder; the other things keep their size.
    Raises StampsMissingError for every source but "drawn" if the package of stamps is not installed.
    """
    return list(_pictures(source, bases, size, object_size))


def _pictures(
    source: Source, bases: int, size: tuple[int, int], object_size: tuple[float, float]
) -> Iterator[Picture]:
    for number, (family, nouns) in enumerate(OBJECTS.items()):
        rng = np.random.default_rng([SEED, VERSION, zlib.crc32(source.encode()), number])
        targets, distractors = _things(source, nouns, number, rng)
        for base in range(bases):
            image_id = f"{family}-{base:03d}"
            yield from _variants(family, image_id, targets, distractors, rng, size, object_size)


def dataset(
    source: str = "drawn",
    bases: int = BASES,
    object_size: float = OBJECT_SIZE[0],
    template: str = "the {}",
    size: tuple[int, int] = (320, 240),
) -> CoreData:
    """The stand-in as a data set in the cache folder, drawn once per version of the drawing code.

    object_size: least longer side of the objects as part of the picture's height; the greatest is 1.5 times that.
    template: the prompt, with {} for the object. Raises ArgumentError, StampsMissingError.
    """
    if source not in get_args(Source):
        raise ArgumentError("source", source, f"must be one of {', '.join(get_args(Source))}")
    check_template(template)
    sizes = check_size(object_size, bases)
    kind = cast(Source, source)
    return kept_pictures(
        f"core-world/{source}",
        {"bases": bases, "size": size, "object_size": sizes, "code": _code()},
        lambda: _pictures(kind, bases, size, sizes),
        template=template,
        licence=LICENCES[kind],
        remarks={"version": VERSION, "source": source, "template": template, "object_size": sizes},
    )


def check_size(object_size: float, bases: int) -> tuple[float, float]:
    """Least and greatest longer side of the objects. Raises ArgumentError."""
    if not 0 < object_size <= 0.5:
        raise ArgumentError("object_size", object_size, "must lie between 0 and 0.5 of the picture's height")
    if bases < 2:
        raise ArgumentError(
            "limit", bases, "must be at least 2: a query's gallery are the other source photos"
        )
    return object_size, round(1.5 * object_size, 6)


def kept_pictures(
    name: str,
    key: Mapping[str, Any],
    pictures: Callable[[], Iterator[Picture]],
    *,
    template: str,
    licence: str,
    remarks: Mapping[str, Any],
) -> CoreData:
    """The data set `name` in the cache folder; `pictures` are made once for each `key`."""
    folder, said = kept_dataset(name, key, lambda empty: _draw(pictures(), empty))
    found = []
    for scene, family in enumerate(dict.fromkeys(each["scene"] for each in said["pictures"])):
        mine = [each for each in said["pictures"] if each["scene"] == family]
        names = tuple(each["file"] for each in mine)
        rows = tuple(Row(family, e["object"], e["image_id"], template.format(e["object"])) for e in mine)
        gallery = Gallery(folder / "pictures" / str(scene), names, digest_of([e["sha256"] for e in mine]))
        found.append(
            Scene(family, rows, gallery, tuple(folder / "masks" / str(scene) / name for name in names))
        )
    check_rows([row for scene in found for row in scene.rows])
    return CoreData(
        name=name,
        source="generated stand-in",
        licence=licence,
        scenes=tuple(found),
        remarks=remarks,
    )


def examples() -> list[tuple[str, Image.Image]]:
    """The variants of the first photo, each with its prompt."""
    pictures = _pictures("drawn", 1, (320, 240), OBJECT_SIZE)
    each = len(next(iter(OBJECTS.values())))
    return [(f'"the {picture.object}"', picture.image) for picture in islice(pictures, each)]


def _draw(pictures: Iterator[Picture], folder: Path) -> dict[str, Any]:
    """Write pictures and masks as PNG files, a folder per scene; returns their description."""
    said: list[dict[str, str]] = []
    scene_numbers: dict[str, int] = {}
    for picture in pictures:
        number = scene_numbers.setdefault(picture.scene, len(scene_numbers))
        name = f"{len(said):05d}.png"
        for part, image in (("pictures", picture.image), ("masks", Image.fromarray(picture.mask))):
            path = folder / part / str(number) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
        identity = {"scene": picture.scene, "object": picture.object, "image_id": picture.image_id}
        said.append(
            {**identity, "file": name, "sha256": file_sha256(folder / "pictures" / str(number) / name)}
        )
    return {"pictures": said}


def _code() -> list[str]:
    """Everything that determines the drawn pictures."""
    own = [file_sha256(Path(str(part))) for part in (__file__, composition.__file__, stamps.__file__)]
    return [drawings.drawing_code(), *own, PIL.__version__, np.__version__]


def _things(
    source: Source, nouns: Sequence[str], number: int, rng: np.random.Generator
) -> tuple[Targets, Sequence[Thing]]:
    """The objects of scene `number`, and the stock of other things to distract."""
    if source == "drawn":
        return _drawn(nouns, number, rng)
    return _stamped(number) if source == "stamps" else _held_out(source, number)


class _Drawings(Sequence[Thing]):
    """Things of given looks, each drawn on first use: most of a large stock is never used."""

    def __init__(self, looks: Sequence[Look], seed: Sequence[int]) -> None:
        self._looks, self._seed = looks, seed
        self._drawn: dict[int, Thing] = {}

    def __len__(self) -> int:
        return len(self._looks)

    def __getitem__(self, i: Any) -> Any:
        if i not in self._drawn:
            self._drawn[i] = draw_thing(self._looks[i], np.random.default_rng([*self._seed, i]), 192)
        return self._drawn[i]


def _drawn(nouns: Sequence[str], number: int, rng: np.random.Generator) -> tuple[Targets, Sequence[Thing]]:
    """Per object eight redrawings of one look."""
    looks = [KINDS[noun].sample_look(rng) for noun in nouns]
    targets = {look.phrase: _Drawings([look] * 8, [SEED, 2, number, i]) for i, look in enumerate(looks)}
    others = [kind.sample_look(rng) for name, kind in KINDS.items() if name not in nouns for _ in range(2)]
    return targets, _Drawings(others, [SEED, 3, number])


@cache
def stamp_stock(repeated: bool) -> tuple[Thing, ...]:
    """The stamps that are not the first picture of their noun, or those that are."""
    return tuple(stamps.load_stamps(192, held_out=repeated))


def _stamped(number: int) -> tuple[Targets, Sequence[Thing]]:
    """Five stamps for a scene; scenes share none."""
    stock = stamp_stock(repeated=False)
    order = np.random.default_rng([SEED, VERSION]).permutation(len(stock))
    chosen: list[Thing] = []
    for i in order:  # different nouns, in one shuffle for all scenes so that they share none
        if all(not stock[i].names & other.names - {stock[i].category} for other in chosen):
            chosen.append(stock[i])
    mine = chosen[number * 5 : number * 5 + 5]
    taken = {name for thing in mine for name in thing.names - {thing.category}}
    rest = [thing for thing in chosen[30:] if not thing.names & taken]
    return {thing.phrase: [thing] for thing in mine}, rest


def _held_out(source: Source, number: int) -> tuple[Targets, Sequence[Thing]]:
    """Every sixth held-out noun, and trained stamps that no prompt of the scene could mean."""
    pictures = held_out_pictures(source)
    nouns = sorted(pictures)[number :: len(scenes.FAMILIES)]
    return {noun: pictures[noun] for noun in nouns}, others_than(nouns)


@cache
def held_out_pictures(source: Source) -> Targets:
    """The pictures of each held-out noun; 30 nouns of objects, 24 with other pictures than training's."""
    stock = stamp_stock(repeated=True)
    if source == "held-out-objects":
        nouns: Collection[str] = stamps.HELD_OUT_NOUNS
        stock = (*stamp_stock(repeated=False), *stock)
    else:
        nouns = {thing.noun for thing in _trained()} - {"flowers"}  # which are a flower
    found: dict[str, list[Thing]] = {}
    for thing in stock:
        if thing.noun in nouns:
            found.setdefault(thing.noun, []).append(thing)
    return found


def _trained() -> list[Thing]:
    return [thing for thing in stamp_stock(repeated=False) if thing.noun not in stamps.HELD_OUT_NOUNS]


def others_than(nouns: Sequence[str]) -> list[Thing]:
    """Trained stamps that none of `nouns` could mean: no gull beside a seagull, no castle beside a fortress."""
    return [thing for thing in _trained() if not any(_could_mean(noun, thing) for noun in nouns)]


def _could_mean(noun: str, thing: Thing) -> bool:
    parts = noun in thing.noun or thing.noun in noun
    return parts or noun in thing.names or thing.noun in LOOK_ALIKES.get(noun, ())


def _variants(
    family: str,
    image_id: str,
    targets: Targets,
    distractors: Sequence[Thing],
    rng: np.random.Generator,
    size: tuple[int, int],
    object_size: tuple[float, float],
) -> list[Picture]:
    """The variants of one base: the same plate and distractors, one small object each.

    Raises BenchmarkError if there is no room for objects of that size.
    """
    for _ in range(PLATES):
        plate = scenes.draw_scene(family, rng, size)
        salient = [distractors[int(i)] for i in rng.choice(len(distractors), 3, replace=False)]
        standing = composition.place_things(plate, salient, rng, (0.28, 0.45))
        if len(standing) < 3:
            continue
        made = one_each(targets, plate, standing, rng, object_size)
        if made is not None:
            return [Picture(image, family, name, image_id, mask) for name, image, mask in made]
    raise BenchmarkError(
        f"{PLATES} pictures of a {family} have no room for objects of {object_size[0]:g} to {object_size[1]:g} of "
        "their height; ask for smaller ones"
    )


def one_each(
    targets: Targets,
    plate: scenes.Scene,
    standing: Sequence[tuple[Thing, composition.Spot]],
    rng: np.random.Generator,
    object_size: tuple[float, float],
    loose: float = 0.25,
) -> list[tuple[str, Image.Image, composition.Mask]] | None:
    """For each target its name, the plate with a picture of it beside what is `standing`, and its mask.

    None if one of them has no room.  loose: as for `composition.place_things`
    """
    least_area = 0.004 * (object_size[0] / OBJECT_SIZE[0]) ** 2
    made = []
    for name, pictures in targets.items():
        thing = pictures[int(rng.integers(len(pictures)))]
        spots = composition.place_things(plate, [thing], rng, object_size, standing, loose)
        photo = composition.compose(plate, spots)
        mask = next((placed.mask for placed in photo.placed if placed.thing is thing), None)
        if mask is None or mask.mean() < least_area:
            return None
        made.append((name, photo.image, mask))
    return made
