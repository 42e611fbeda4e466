"""icir-world: i-CIR's protocol on generated photos, in the published layout. A stand-in, not i-CIR.

An instance is one drawing of a thing, the same in each of its pictures and the largest thing there; a text says where
it shall be: "in a kitchen". A query shows it somewhere else. Right are pictures of it in the place that the text names.
Beside them the database has the three sorts of hard negatives of i-CIR: the instance in other places, another thing of
its kind in the place, and the place without anything of its kind. Drawings, scenes and placements come from seeds that
training never used.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image

from steersearch.benchmarks.harness.cache import kept_dataset
from steersearch.benchmarks.ours.icir_data import DATABASE, QUERIES, IcirData, read_instances
from steersearch.benchmarks.paper import world_photos
from steersearch.core.files import file_sha256
from steersearch.training.world import composition, drawings, scenes
from steersearch.training.world.kinds import KINDS
from steersearch.training.world.things import Thing, draw_thing

VERSION = 1
SEED = 99_000  # training uses small seeds, other stand-ins 90,000 to 98,000
INSTANCES = 10
TEXTS = 3  # of each instance; the other families of scenes are those of its queries
RIGHT, ALIKE, OTHERS = 4, 2, 2  # pictures of the database for each text
DRAWING = 160  # pixels
SIZE, THING_SIZE, BESIDE, LEAST_AREA = (320, 240), (0.38, 0.5), (0.2, 0.3), 0.004
IN = {
    "kitchen": "in a kitchen",
    "living room": "in a living room",
    "bathroom": "in a bathroom",
    "street": "on a street",
    "garden": "in a garden",
    "beach": "on a beach",
}

Rng = np.random.Generator


@dataclass(frozen=True)
class Picture:
    """part: QUERIES or DATABASE, whose row it is; text: asked, or true; "" for one that answers no query.

    sort: "query", "right", "alike" (another thing of the kind) or "place" (nothing of the kind).
    """

    part: str
    sort: str
    text: str
    image: Image.Image


def dataset(limit: int | None = None) -> IcirData:
    """The stand-in as a data set in the cache folder; limit: of its 10 instances, the first ones."""
    count = limit or INSTANCES
    folder, _ = kept_dataset("icir-world", {"instances": count, "code": _code()}, lambda f: _write(f, count))
    instances, _ = read_instances(folder, None)
    return IcirData(
        name="icir-world",
        source="generated stand-in",
        licence="Apache-2.0, as this program",
        instances=instances,
        remarks={"version": VERSION},
    )


def examples() -> list[tuple[str, Image.Image]]:
    """A query of the first instance, then a picture of each sort for it."""
    first, second = TEXTS, TEXTS + RIGHT + ALIKE + OTHERS  # where the pictures of a text begin
    pictures = list(islice(pictures_of(0), second + 1))
    query = pictures[0]
    right, alike, place = (pictures[first + n] for n in (0, RIGHT, RIGHT + ALIKE))
    return [
        (f'query, "{query.text}"', query.image),
        ("right", right.image),
        ("wrong: elsewhere", pictures[second].image),
        ("wrong: another of the kind", alike.image),
        ("wrong: not there", place.image),
    ]


def pictures_of(number: int) -> Iterator[Picture]:
    """All pictures of an instance; the queries come first."""
    rng = np.random.default_rng([SEED, VERSION, number])
    kind, own, alike = _things(number, rng)
    families = [str(family) for family in rng.permutation(scenes.FAMILIES)]
    asked, away = families[:TEXTS], families[TEXTS:]
    others = [name for name in KINDS if name != kind]

    def photo(family: str, thing: Thing | None) -> Image.Image:
        first, *beside = (_drawn(str(name), rng) for name in rng.choice(others, 3, replace=False))
        groups = [([thing or first], THING_SIZE), (beside, BESIDE)]
        return world_photos.photo_of(family, groups, rng, SIZE, LEAST_AREA).image

    for family, elsewhere in zip(asked, away, strict=True):
        yield Picture(QUERIES, "query", IN[family], photo(elsewhere, own))
    for family in asked:
        yield from (Picture(DATABASE, "right", IN[family], photo(family, own)) for _ in range(RIGHT))
        yield from (Picture(DATABASE, "alike", IN[family], photo(family, alike)) for _ in range(ALIKE))
        yield from (Picture(DATABASE, "place", IN[family], photo(family, None)) for _ in range(OTHERS))


def _drawn(kind: str, rng: Rng) -> Thing:
    return draw_thing(KINDS[kind].sample_look(rng), rng, DRAWING)


def _things(number: int, rng: Rng) -> tuple[str, Thing, Thing]:
    """The instance's kind, its drawing, and one of another thing of that kind, in another colour."""
    kinds = [name for name in KINDS if len(set(KINDS[name].colours)) > 1]
    order = np.random.default_rng([SEED, VERSION]).permutation(len(kinds))
    kind = kinds[int(order[number % len(kinds)])]
    look = KINDS[kind].sample_look(rng)
    other = look
    while other.colour == look.colour:
        other = KINDS[kind].sample_look(rng)
    return kind, draw_thing(look, rng, DRAWING), draw_thing(other, rng, DRAWING)


def _write(folder: Path, instances: int) -> dict[str, Any]:
    """Pictures and lists in the published layout; only a right picture's row has a text that a query asks."""
    rows: dict[str, list[tuple[str, str, str]]] = {QUERIES: [], DATABASE: []}
    (folder / "pictures").mkdir()
    for number in range(instances):
        for picture in pictures_of(number):
            name = f"pictures/{sum(map(len, rows.values())):05d}.png"
            picture.image.save(folder / name)
            text = picture.text if picture.sort in ("query", "right") else f"{picture.sort}, {picture.text}"
            rows[picture.part].append((name, text, f"instance {number:02d}"))
    for part, own in rows.items():
        with open(folder / part, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(own)
    return {part: len(own) for part, own in rows.items()}


def _code() -> list[str]:
    """What determines the drawn pictures."""
    own = [file_sha256(Path(str(part))) for part in (__file__, composition.__file__, world_photos.__file__)]
    return [drawings.drawing_code(), *own, PIL.__version__, np.__version__]
