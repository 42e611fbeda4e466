"""pods-world: the protocol of `pods` on drawn things with marks. A stand-in: no figure of it is the paper's.

Four kinds, and of each four objects of one look that differ in a small mark only: its shape and its colour. The
references show an object alone on a plain ground; the test photos show it smaller, in a scene with two other things.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
from PIL import Image, ImageDraw

from steersearch.benchmarks.harness.viewing import digest, kept
from steersearch.benchmarks.paper.pods_data import Objects, Shot
from steersearch.benchmarks.paper.world_photos import KIND_NAMES, Drawings, photo_of
from steersearch.training.world import scenes
from steersearch.training.world.kinds import KINDS
from steersearch.training.world.painting import PALETTE, Look
from steersearch.training.world.things import Thing, draw_thing

VERSION = 1
SEED = 95_000
SIZE = (240, 240)
REFERENCES, TESTS = 3, 4  # photos of each object
# Kind -> colour of its look.
OWNED = {"mug": "white", "backpack": "blue", "cushion": "yellow", "suitcase": "brown"}
MARKS = (("red", "dot"), ("green", "square"), ("black", "cross"), ("purple", "triangle"))
_MARK_SIZE = 0.17  # radius, as part of the longer side of the thing
_THING = 160  # pixels


def build(limit: int | None = None) -> Objects:
    """The stand-in, always the same; `limit`: only the first objects of each kind, of four."""
    stock = Drawings([SEED, VERSION], each=2)
    references: list[Shot] = []
    tests: list[Shot] = []
    prompts: dict[str, dict[str, str | None]] = {}
    for number, (kind, colour) in enumerate(OWNED.items()):
        for which, (paint, shape) in enumerate(MARKS[:limit]):
            label = f"{kind}_{paint}_{shape}"
            prompts[label] = {
                "none": None,
                "supercategory": f"the {kind}",
                "name": f"the {paint} {shape} {kind}",
                "description": f"the {colour} {kind} with a {paint} {shape} on it",
            }
            own = [Shot(label, kept(photo)) for photo in _photos(number, which, stock)]
            references += own[:REFERENCES]
            tests += own[REFERENCES:]
    shots = (*references, *tests)
    return Objects(
        name="pods-world",
        source="generated stand-in",
        licence="Apache-2.0",
        data_hash=digest(part for shot in shots for part in (shot.label.encode(), shot.picture().tobytes())),
        references=tuple(references),
        tests=tuple(tests),
        prompts=prompts,
    )


def examples() -> list[tuple[str, Image.Image]]:
    """The first object alone and in two photos, and a look-alike in one."""
    stock = Drawings([SEED, VERSION], each=2)
    own = list(islice(_photos(0, 0, stock), REFERENCES + 2))[REFERENCES - 1 :]
    other = list(islice(_photos(0, 1, stock), REFERENCES + 1))[-1:]
    (kind, colour), *_ = OWNED.items()
    named = [f"a {colour} {kind} with a {paint} {shape}" for paint, shape in MARKS]
    captions = (f"reference: {named[0]}", "the same one", "the same one", f"another: {named[1]}")
    return list(zip(captions, own + other, strict=True))


def _photos(number: int, which: int, stock: Drawings) -> Iterator[Image.Image]:
    """The references of the object of kind `number` with mark `which`, then its test photos."""
    (kind, colour), (paint, shape) = list(OWNED.items())[number], MARKS[which]
    rng = np.random.default_rng([SEED, VERSION, number, which])
    look = Look(kind=kind, colour=colour)
    for _ in range(REFERENCES):
        yield _alone(marked(look, paint, shape, rng), rng)
    for place in range(TESTS):
        family = scenes.FAMILIES[(number + which + place) % len(scenes.FAMILIES)]
        yield _among_others(marked(look, paint, shape, rng), family, stock, rng)


def marked(look: Look, paint: str, shape: str, rng: np.random.Generator) -> Thing:
    """A drawing of this look with a mark near the middle of it."""
    thing = draw_thing(look, rng, _THING)
    picture = thing.picture.copy()
    radius = _MARK_SIZE * max(picture.size)
    x, y = picture.width / 2 + rng.normal(0, 2), picture.height * 0.55 + rng.normal(0, 2)
    mark = Image.new("RGBA", picture.size)
    colour = tuple(round(255 * value) for value in PALETTE[paint])
    _draw_mark(ImageDraw.Draw(mark), shape, float(x), float(y), radius, (*colour[:3], 255))
    body = picture.getchannel("A")
    picture.alpha_composite(mark)
    picture.putalpha(body)  # the mark ends at the edge
    return replace(thing, picture=picture)


def _draw_mark(
    pen: ImageDraw.ImageDraw, shape: str, x: float, y: float, radius: float, colour: tuple[int, ...]
) -> None:
    if shape == "dot":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    elif shape == "square":
        pen.rectangle((x - radius, y - radius, x + radius, y + radius), fill=colour)
    elif shape == "triangle":
        pen.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=colour)
    else:
        arm = radius / 3
        pen.rectangle((x - radius, y - arm, x + radius, y + arm), fill=colour)
        pen.rectangle((x - arm, y - radius, x + arm, y + radius), fill=colour)


def _alone(thing: Thing, rng: np.random.Generator) -> Image.Image:
    shade = tuple(int(value) for value in rng.integers(150, 230, 3))
    ground = Image.new("RGB", SIZE, shade)
    corner = tuple((side - own) // 2 for side, own in zip(SIZE, thing.picture.size, strict=True))
    ground.paste(thing.picture, (corner[0], corner[1]), thing.picture)
    return ground


def _among_others(thing: Thing, family: str, stock: Drawings, rng: np.random.Generator) -> Image.Image:
    others = [
        kind
        for kind in KIND_NAMES
        if kind not in OWNED and KINDS[kind].category != KINDS[thing.noun].category
    ]
    beside = [stock.any_of(others[int(i)], rng) for i in rng.choice(len(others), 2, replace=False)]
    return photo_of(family, [([thing], (0.4, 0.5)), (beside, (0.25, 0.4))], rng, SIZE, 0.01).image
