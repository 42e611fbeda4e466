"""The stock of a corpus on photographs: drawn things, stamps, emoji, recoloured stamps, cutouts and instances."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np

from steersearch.training.photographs.wordnet import PHYSICAL
from steersearch.training.world import emoji, stamps
from steersearch.training.world.instances import Photograph, cutout
from steersearch.training.world.recolour import COLOURS, has_one_colour, recolour
from steersearch.training.world.things import Thing

Names = Callable[[str, frozenset[str]], frozenset[str]]  # of a noun, among these wider words

COLOURS_EACH = 4  # of a stamp that is recoloured
ALIVE = frozenset({"animal", "bird", "fish", "insect"})  # has its own colours
# By folder of the package: WordNet nouns, of one of which the stamp's noun must be a kind.
ANCHORS: dict[str, frozenset[str]] = {
    place: frozenset(words.split("|"))
    for place, words in {
        "animals": "animal",
        "clothes": "clothing|covering|adornment",
        "food/fruit": "fruit|food|plant|plant part|edible fruit|vegetable",
        "food/vegetables": "vegetable|food|plant|plant part",
        "food": "food|nutriment|plant|plant part|nutrient",
        "hobbies": "artifact",
        "household": "artifact",
        "medical": "artifact",
        "plants": "plant|plant part|fungus|flower",
        "seasonal": "artifact|plant|food",
        "space": "artifact|celestial body",
        "sports": "artifact",
        "town": "structure|artifact",
        "vehicles": "vehicle|machine|craft",
    }.items()
}
# Nouns of photographs whose salient mask covers the thing and nothing else; all masks were inspected.
CLEAN = frozenset(
    "baseball|bee|bucket|butterfly|cup|dog|drum|duck|eraser|fish|fork|hammer|horse|kitten|lute|measuring tape|moose|"
    "multimeter|pencil|penguin|pillow|plate|plier|pliers|red panda|scale|screw driver|sickle|solar panel|spoon|"
    "spray bottle|tweezer|wrench".split("|")
)


@dataclass(frozen=True)
class PhotoStock:
    """things: all.  groups: stock numbers by group.  instances: stock numbers of each photograph's instances"""

    things: list[Thing]
    groups: dict[str, range]
    instances: list[list[int]]

    @cached_property
    def by_noun(self) -> dict[str, list[int]]:
        """Stock numbers of each noun, of all that can be placed: not the photographs' instances."""
        found: dict[str, list[int]] = {}
        for number in range(self.groups["instance"].start):
            found.setdefault(self.things[number].noun, []).append(number)
        return found


def make_stock(
    drawn: Sequence[Thing],
    photographs: Sequence[Photograph],
    names: Names,
    *,
    size: int,
    seed: int,
    with_stamps: bool,
    with_emoji: bool,
) -> PhotoStock:
    """The stock, without anything held out. size: of the cutouts in pixels; `with_*`: whether these packages are used.

    Raises StampsMissingError and EmojiMissingError.
    """
    stamped = _stamps(size, names) if with_stamps else []
    groups: dict[str, list[Thing]] = {
        "drawn": [_named(thing, names(thing.noun, PHYSICAL) | names(thing.category, PHYSICAL)) for thing in drawn],
        "stamp": stamped,
        "emoji": _emoji(size, [*drawn, *stamped], names) if with_emoji else [],
        "recoloured": [
            coloured
            for number, thing in enumerate(stamped)
            if thing.category not in ALIVE and has_one_colour(thing.picture)
            for coloured in _recoloured(thing, np.random.default_rng([seed, 5, number]))
        ],
        "cutout": [
            cutout(photograph, photograph.instances[0], size) for photograph in photographs if _is_clean(photograph)
        ],
        "instance": [cutout(photograph, one, size) for photograph in photographs for one in photograph.instances],
    }  # fmt: skip
    things = [thing for group in groups.values() for thing in group]
    starts = _starts(groups.values())
    numbers = {name: range(*ends) for name, ends in zip(groups, pairwise(starts), strict=True)}
    first = numbers["instance"].start
    ends = pairwise(_starts([photograph.instances for photograph in photographs]))
    instances = [list(range(first + start, first + end)) for start, end in ends]
    return PhotoStock(things, numbers, instances)


def _starts(parts: Iterable[Sequence[object]]) -> list[int]:
    """The offset of each part in their concatenation, and the end of the last."""
    return [0, *accumulate(map(len, parts))]


def _stamps(size: int, names: Names) -> list[Thing]:
    places = stamps.places()
    return [
        _named(thing, names(thing.noun, _anchor(places[thing.phrase])))
        for thing in stamps.load_stamps(size)
        if thing.noun not in stamps.HELD_OUT_NOUNS
    ]


def _anchor(place: str) -> frozenset[str]:
    """The entry of ANCHORS for the innermost folder of `place`."""
    known = [beginning for beginning in ANCHORS if place.startswith(f"{beginning}/")]
    return ANCHORS[max(known, key=len)] if known else PHYSICAL


def _emoji(size: int, others: Sequence[Thing], names: Names) -> list[Thing]:
    return [
        _named(thing, names(thing.noun, PHYSICAL))
        for thing in emoji.load_emoji(size, others)
        if thing.noun not in stamps.HELD_OUT_NOUNS
    ]


def _named(thing: Thing, names: frozenset[str]) -> Thing:
    return replace(thing, names=thing.names | (names - {""}))


def _recoloured(thing: Thing, rng: np.random.Generator) -> list[Thing]:
    """The stamp in a few colours, each in its names. Its own phrase is left out, since it may name another colour."""
    return [
        replace(
            thing,
            picture=recolour(thing.picture, colour, rng),
            phrase=f"{colour} {thing.noun}",
            colour=colour,
            names=(thing.names - {thing.phrase})
            | {thing.noun}
            | {f"{colour} {word}" for word in (thing.noun, "thing", thing.category) if word},
        )
        for colour in map(str, rng.choice(list(COLOURS), COLOURS_EACH, replace=False))
    ]


def _is_clean(photograph: Photograph) -> bool:
    """Whether it shows a single thing that can be cut out."""
    if not photograph.shows_one or photograph.instances[0].noun not in CLEAN:
        return False
    return bool(0.02 < photograph.instances[0].mask.mean() < 0.8)
