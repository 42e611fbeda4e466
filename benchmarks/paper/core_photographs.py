"""core-photographs: CORE's protocol on held-out test photographs, with cutouts of held-out nouns.

A stand-in, not CORE. A base is a part of one of GCompris' photographs (`photographs.is_test_only`) with two salient
photographic cutouts on it; its five variants differ in one smaller cutout only, of a noun held out from the world that
steering trains on (`stamps.HELD_OUT_NOUNS`; `core_world` says how new they are). Nothing may be tuned on it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from steersearch.benchmarks.harness.cache import cache_folder
from steersearch.benchmarks.harness.catalogue import check_template
from steersearch.benchmarks.ours.labelled_photographs import decoded
from steersearch.benchmarks.paper import core_world
from steersearch.benchmarks.paper.core_data import CoreData
from steersearch.benchmarks.paper.core_world import (
    PLATES,
    Picture,
    Targets,
    check_size,
    kept_pictures,
    one_each,
    others_than,
)
from steersearch.core.errors import BenchmarkError
from steersearch.core.files import file_sha256
from steersearch.training.photographs.listed import PACKAGES, is_test_only
from steersearch.training.photographs.packages import fetch
from steersearch.training.photographs.qt_resources import read_resources
from steersearch.training.world import composition, stamps
from steersearch.training.world.scenes import Scene
from steersearch.training.world.things import Thing

logger = logging.getLogger(__name__)

PACKAGE = PACKAGES["gcompris-qt-data"]
LICENCE = "each photograph its own (GCompris: public domain, CC0, CC BY, CC BY-SA); cutouts GPL-2 (tuxpaint's stamps)"
VERSION = 1
SEED = 95_000  # other benchmarks have 90,000 to 93,000
BASES = 12  # of each scene
OBJECTS = 5  # in each scene
SIZE = (320, 240)
SALIENT_SIZE = (0.28, 0.42)  # longer side as part of the picture's height
LEAST_PART = 0.6  # of a photograph, by its side
# Archive folders whose photographs show a place, or a thing in its surroundings.
PLACES = (
    "categorization/images/monuments", "categorization/images/renewable", "erase", "explore_farm_animals",
    "explore_monuments", "explore_world_animals", "explore_world_music",
)  # fmt: skip
MOST_FLAT = 0.2  # share of a cutout's neighbouring pixels that are equal: drawings have more


def dataset(
    bases: int = BASES, object_size: float = 0.2, template: str = "the {}", package: Path | None = None
) -> CoreData:
    """The stand-in as a data set in the cache folder; settings as of `core_world.dataset`.

    package: GCompris' package, unpacked; fetched if there is none. Raises ArgumentError, StampsMissingError, DataError.
    """
    check_template(template)
    sizes = check_size(object_size, bases)
    unpacked = package or fetch(PACKAGE, cache_folder() / "packages", logger.warning)
    code = [
        file_sha256(Path(str(part)))
        for part in (__file__, core_world.__file__, composition.__file__, stamps.__file__)
    ]
    key = {"bases": bases, "object_size": sizes, "code": [*code, PIL.__version__, np.__version__]}
    return kept_pictures(
        "core-photographs",
        key,
        lambda: _pictures(photographs(unpacked), bases, sizes),
        template=template,
        licence=LICENCE,
        remarks={"version": VERSION, "source": "photographs", "template": template, "object_size": sizes},
    )


def photographs(package: Path) -> dict[str, Image.Image]:
    """The photographs of places held out for tests, by archive and name, in a stable order. Raises DataError."""
    found: dict[str, Image.Image] = {}
    for archive in sorted(package.rglob("*.rcc")):
        if not any(place.split("/")[0] == archive.stem for place in PLACES):
            continue
        for name, content in sorted(read_resources(archive).items()):
            inside = f"{archive.stem}/{name.rpartition('/resource/')[2]}"
            if not inside.startswith(PLACES) or not inside.endswith((".webp", ".jpg", ".png")):
                continue
            if is_test_only(PACKAGE.name, name):
                found[inside] = decoded(content, name)
    if len(found) < 2:
        raise BenchmarkError(
            f"{package}: {len(found)} photographs in it are held out for tests, fewer than two"
        )
    return found


def is_photographic(thing: Thing) -> bool:
    """Whether a cutout is a photograph: few neighbouring pixels are equal."""
    pixels = np.asarray(thing.picture, np.int16)
    opaque = pixels[..., 3] > 200
    both = opaque[:, 1:] & opaque[:, :-1]
    same = (np.diff(pixels[..., :3], axis=1) == 0).all(axis=2)
    return bool(both.any() and same[both].mean() < MOST_FLAT)


def _targets() -> list[Targets]:
    """The photographic cutouts of the held-out nouns, `OBJECTS` nouns per scene; the remainder is unused."""
    held_out = core_world.held_out_pictures("held-out-objects")
    photographic = {
        noun: [thing for thing in things if is_photographic(thing)] for noun, things in held_out.items()
    }
    nouns = sorted(noun for noun, things in photographic.items() if things)
    order = np.random.default_rng([SEED, VERSION]).permutation(len(nouns)).tolist()
    scenes = [order[start : start + OBJECTS] for start in range(0, len(order) - OBJECTS + 1, OBJECTS)]
    return [{nouns[i]: photographic[nouns[i]] for i in scene} for scene in scenes]


def _pictures(
    shown: Mapping[str, Image.Image], bases: int, object_size: tuple[float, float]
) -> Iterator[Picture]:
    for number, targets in enumerate(_targets()):
        rng = np.random.default_rng([SEED, VERSION, 1, number])
        salient = [thing for thing in others_than(list(targets)) if is_photographic(thing)]
        grounds = [image for name, image in shown.items() if not any(noun in name for noun in targets)]
        for base in range(bases):
            scene = f"scene {number + 1}"
            yield from _variants(scene, f"{scene}-{base:03d}", targets, salient, grounds, rng, object_size)


def _variants(
    scene: str,
    image_id: str,
    targets: Targets,
    salient: Sequence[Thing],
    grounds: Sequence[Image.Image],
    rng: np.random.Generator,
    object_size: tuple[float, float],
) -> list[Picture]:
    """The variants of one base. Raises BenchmarkError if there is no room for objects of that size."""
    for _ in range(PLATES):
        plate = Scene("", part_of(grounds[int(rng.integers(len(grounds)))], rng), ())
        others = [salient[int(i)] for i in rng.choice(len(salient), 2, replace=False)]
        standing = composition.place_things(plate, others, rng, SALIENT_SIZE, loose=1.0)
        if len(standing) < len(others):
            continue
        made = one_each(targets, plate, standing, rng, object_size, loose=1.0)
        if made is not None:
            return [Picture(image, scene, noun, image_id, mask) for noun, image, mask in made]
    raise BenchmarkError(
        f"no room for objects of {object_size[0]:g} of the pictures' height; ask for smaller ones"
    )


def part_of(photograph: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A part of the photograph in the shape of SIZE."""
    scale = min(photograph.width / SIZE[0], photograph.height / SIZE[1]) * float(rng.uniform(LEAST_PART, 1))
    width, height = SIZE[0] * scale, SIZE[1] * scale
    left, top = (
        float(rng.uniform(0, room)) for room in (photograph.width - width, photograph.height - height)
    )
    box = (left, top, min(photograph.width, left + width), min(photograph.height, top + height))
    return photograph.resize(SIZE, Image.Resampling.BICUBIC, box, reducing_gap=3.0)
