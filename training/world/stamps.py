"""Stamps: photographs and cartoons with alpha from Debian's package tuxpaint-stamps-default (GPL-2).

They are read from the installed package and never copied into this repository. The first line of the `.txt` beside
each picture describes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from steersearch.core.errors import SteerSearchError
from steersearch.core.images.pillow import opened
from steersearch.training.world.things import Thing

STAMPS_FOLDER = Path("/usr/share/tuxpaint/stamps")
LEFT_OUT = ("symbols", "people", "naturalforces", "military", "town/flags", "town/roadsigns", "space/planets",
            "seasonal/hanukkah/dreydl-", "seasonal/halloween/grave", "seasonal/newyears/fireworks")  # fmt: skip
CATEGORIES = {
    "animals/birds": "bird", "animals/fish": "fish", "animals/insects": "insect", "animals": "animal",
    "clothes/hats": "hat", "clothes": "clothing", "food/fruit": "fruit", "food/vegetables": "vegetable", "food": "food",
    "hobbies/music": "musical instrument", "household/tools": "tool", "household/dishes": "kitchenware",
    "plants/flowers": "flower", "plants/trees": "tree", "plants": "plant", "sports": "sports equipment",
    "town": "building", "vehicles": "vehicle",
}  # fmt: skip
# Last words that name the thing by themselves; others do not (a "sea lion" is no lion, a "candy cane" no cane).
HEADS = frozenset(
    "apple ball balloon bear bird boat bulb bus cake car cat cow deer dog duck fedora fish flower fowl "
    "frog glove gnu guitar hat horse leaf mug mushroom orange pepper penguin pig pot potato rabbit shirt spider "
    "squash teapot tiger tower toy tractor train tree truck tub turkey wrench".split()
)
ADJECTIVES = frozenset(
    "albino big black blue brown closed colorful colourful electric european floppy-eared folded golden green happy "
    "huge large little lit modern old old-fashioned open pink purple quarter red ripe silver sitting sleeping small "
    "sweet toy very white wooden yellow singing".split()
)


# No stamp or emoji of these is trained on: a model meets neither the objects nor most of their words.
HELD_OUT_NOUNS = frozenset({
    "badger", "baseball cap", "basketball", "caribou", "cello", "clownfish", "dolphin", "donkey", "flamingo",
    "fortress", "garbage truck", "goat", "grasshopper", "hammer", "hedgehog", "kettle", "koala", "mandarin orange",
    "mango", "marigold", "peacock", "pickup truck", "pitcher", "polo shirt", "raspberry", "seagull", "squirrel",
    "tepee", "trumpet", "tugboat",
})  # fmt: skip


class StampsMissingError(SteerSearchError):
    """The stamps' package is not installed. Field: `folder`, where it should be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(
            f"no stamps in {folder}; install them with: apt-get install tuxpaint-stamps-default; "
            "or make the world without them: stamps=false"
        )


def load_stamps(size: int, folder: Path = STAMPS_FOLDER, held_out: bool = False) -> list[Thing]:
    """Usable stamps as things, longer side at most `size` pixels, in a stable order: the first picture of each noun,
    or, if `held_out`, the further ones, which are kept from training."""
    things: list[Thing] = []
    seen: set[str] = set()
    for path, relative, phrase in _described(folder):
        picture = _picture(path, size)
        if picture is None:
            continue
        repeated = phrase in seen
        seen.add(phrase)
        if held_out == repeated:
            things.append(_stamp(phrase, relative, picture))
    return things


def places(folder: Path = STAMPS_FOLDER) -> dict[str, str]:
    """Relative path in the package of the first stamp of each phrase: "animals/birds/owl.png". Raises
    StampsMissingError."""
    found: dict[str, str] = {}
    for _, relative, phrase in _described(folder):
        found.setdefault(phrase, relative)
    return found


def _described(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """File, its place in the package and the phrase of every stamp with one, in a stable order."""
    if not folder.is_dir():
        raise StampsMissingError(folder)
    for path in sorted(folder.rglob("*.png")):
        relative = path.relative_to(folder).as_posix()
        phrase = _phrase(path.with_suffix(".txt"))
        if phrase is not None and not relative.startswith(LEFT_OUT):
            yield path, relative, phrase


def _stamp(phrase: str, relative: str, picture: Image.Image) -> Thing:
    noun = _strip_adjectives(phrase)
    category = next((word for place, word in CATEGORIES.items() if relative.startswith(place + "/")), "")
    names = {phrase, noun}
    if category:
        names.add(category)
    last = phrase.split()[-1]
    if last in HEADS:
        names.add(last)
    return Thing(
        picture=picture, noun=noun, phrase=phrase, category=category, names=frozenset(names), source="stamp",
        stands="floor",
    )  # fmt: skip


def _phrase(text_file: Path) -> str | None:
    """The noun phrase of a description such as "A very small pumpkin."; None where the line is not a noun phrase."""
    if not text_file.is_file():
        return None
    line = text_file.read_text(encoding="utf-8", errors="replace").split("\n", 1)[0]
    line = re.sub(r"\(.*?\)|[“”\"]", "", line)
    line = re.split(r",|—|!|\.\s| called | in its | from | for | used in ", line)[0].strip(" .")
    match = re.match(r"(?:an?|the|our|some|two|a pair of|a couple of) (.+)$", line, re.IGNORECASE)
    if match is None:
        return None
    phrase = match.group(1).lower().removeprefix("pair of ").removeprefix("plant of ")
    words = phrase.split()
    verbs = {
        "is",
        "are",
        "lets",
        "resembles",
        "must",
        "making",
        "playing",
        "dancing",
        "this",
        "of",
        "on",
        "in",
    }
    usable = 1 <= len(words) <= 4 and not verbs & set(words) and re.fullmatch(r"[a-z’' \-0-9]+", phrase)
    names_something = words[-1] not in ADJECTIVES  # "a ripe, red tomato" is cut to "ripe"
    return phrase.replace("’", "'") if usable and names_something else None


def _strip_adjectives(phrase: str) -> str:
    words = phrase.split()
    while len(words) > 1 and words[0] in ADJECTIVES:
        words.pop(0)
    return " ".join(words)


def _picture(path: Path, size: int) -> Image.Image | None:
    """The stamp as RGBA, cropped to what is visible; None if it is not a cutout (opaque or nearly empty)."""
    with opened(path) as image:
        picture = image.convert("RGBA")
    alpha = picture.getchannel("A")
    box = alpha.point(lambda a: 255 if a > 40 else 0).getbbox()
    if box is None:
        return None
    picture = picture.crop(box)
    share = float(np.mean(np.asarray(picture.getchannel("A")) > 127))
    if not 0.08 < share < 0.97 or min(picture.size) < 24:
        return None
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    return picture
