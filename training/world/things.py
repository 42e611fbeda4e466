"""Things: cutouts with alpha and every noun phrase that truly describes them.

A prompt is one of these phrases in a template; its mask is the union of all things in the picture that bear it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from steersearch.training.world.kinds import KINDS
from steersearch.training.world.painting import Look

TEMPLATES: tuple[str, ...] = (
    "{}",
    "the {}",
    "a photo of the {}",
    "find the {}",
    "look at the {} in the picture",
)

# Words for trained things that no training prompt uses: they test whether steering follows meaning.
UNSEEN_WORDS: dict[str, str] = {  # for drawn things
    "cup": "mug", "couch": "armchair", "pillow": "cushion", "novel": "book", "houseplant": "potted plant",
    "kitten": "cat", "parasol": "umbrella", "automobile": "car", "bike": "bicycle", "yacht": "sailboat",
    "rucksack": "backpack", "luggage": "suitcase", "stuffed animal": "teddy bear", "pail": "bucket",
    "wristwatch": "clock", "tv controller": "remote control", "toadstool": "mushroom",
}  # fmt: skip
UNSEEN_STAMP_WORDS: dict[str, str] = {
    "puppy": "dog", "pony": "horse", "hare": "rabbit", "toad": "frog", "jet": "airplane", "lamb": "sheep",
    "calf": "cow", "spanner": "wrench", "aubergine": "eggplant", "bumblebee": "bee", "fiddle": "violin", "swine": "pig",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One object that can be placed in a photo.

    picture: RGBA cutout, cropped to what is visible
    noun:    its plain name; phrase: the full description; category: a wider word
    colour:  the named colour of a drawn or recoloured thing, else ""
    names:   every phrase that is true of it, from "mug" to "striped red mug"
    stands:  "floor", "table", "wall" or "air"; scale: size beside other things, 1 is average
    source:  "drawn", "stamp", "emoji" or "photo"
    """

    picture: Image.Image
    noun: str
    phrase: str
    category: str
    names: frozenset[str]
    source: str
    colour: str = ""
    stands: str = "table"
    scale: float = 1.0


def about_thing(thing: Thing) -> dict[str, Any]:
    """A thing without its picture, as JSON data, for `thing_of`."""
    about = {field.name: getattr(thing, field.name) for field in fields(thing) if field.name != "picture"}
    return about | {"names": sorted(thing.names)}


def thing_of(picture: Image.Image, about: Mapping[str, Any]) -> Thing:
    """Inverse of `about_thing`. Raises ValueError for other data."""
    texts = [value for name, value in about.items() if name not in ("names", "scale")]
    names, scale = about.get("names"), about.get("scale")
    if not isinstance(names, list) or not all(isinstance(text, str) for text in [*names, *texts]):
        raise ValueError("a thing's description is damaged")
    try:
        return Thing(picture=picture, **{**about, "names": frozenset(names), "scale": float(scale)})  # type: ignore[arg-type]
    except TypeError as error:
        raise ValueError(f"a thing's description is damaged ({error})") from error


def look_names(look: Look, category: str) -> frozenset[str]:
    """All phrases that fit a drawn look: shape, pattern and colour may each be left out."""
    parts = [
        ("", word) if word and word != "plain" else ("",) for word in (look.shape, look.pattern, look.colour)
    ]
    nouns = {" ".join(w for w in (*words, look.kind) if w) for words in product(*parts)}
    return frozenset(nouns | {category, f"{look.colour} thing"})


def draw_thing(look: Look, rng: np.random.Generator, size: int = 256) -> Thing:
    """Draw one thing of this look; `rng` sets its small details, `size` its longer side in pixels."""
    kind = KINDS[look.kind]
    return Thing(
        picture=kind.draw(look, rng, size),
        noun=kind.name,
        phrase=look.phrase,
        category=kind.category,
        names=look_names(look, kind.category),
        source="drawn",
        colour=look.colour,
        stands=kind.stands,
        scale=kind.scale,
    )


def draw_stock(
    rng: np.random.Generator, per_kind: int, size: int, kinds: Iterable[str] | None = None
) -> list[Thing]:
    """`per_kind` things of each kind, with looks drawn at random."""
    chosen = [KINDS[name] for name in (kinds if kinds is not None else KINDS)]
    return [draw_thing(kind.sample_look(rng), rng, size) for kind in chosen for _ in range(per_kind)]


def thing_alone(thing: Thing, size: int, rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """The thing, large on plain grey (RGB, size × size), and its mask (L)."""
    side = rng.uniform(0.5, 0.75) * size
    scale = side / max(thing.picture.size)
    shape = (max(2, round(thing.picture.width * scale)), max(2, round(thing.picture.height * scale)))
    cutout = thing.picture.resize(shape, Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        cutout = ImageOps.mirror(cutout)
    grey = int(rng.integers(100, 160))
    image, mask = Image.new("RGB", (size, size), (grey, grey, grey)), Image.new("L", (size, size))
    left, top = (int((size - s) / 2 + rng.uniform(-0.08, 0.08) * size) for s in shape)
    image.paste(cutout, (left, top), cutout)
    mask.paste(255, (left, top), cutout)
    return image, mask
