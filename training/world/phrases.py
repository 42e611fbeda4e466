"""Noun phrases about a composed picture: names, attributes and relations, and the things that each is true of.

Truth has three values: true, false and borderline. A phrase that is borderline for anything in the picture is never
chosen, so a person who reads a phrase points at the same things.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from steersearch.training.world.kinds import KINDS
from steersearch.training.world.painting import PALETTE, pick
from steersearch.training.world.recolour import COLOURS
from steersearch.training.world.things import Thing

# Distances of two centres, in widths or heights of the picture: from APART on one is surely left of or above the other;
# up to NOT_APART it surely is not.
APART, NOT_APART = 0.12, -0.05
STEEP, FAR = 2.5, 0.2  # a thing FAR above, and STEEP times further above than aside, is surely not "left of"
NEAR, NOT_NEAR = 0.08, 0.22  # gap between two things, each as a square of its visible area
OUTERMOST = 0.06  # least distance of the leftmost from the next
LARGER = 1.4  # least ratio of the largest to the next

PATTERNS = frozenset({"striped", "dotted", "checked", "zigzag"})
RELATIONS = ("left of", "right of", "above", "below", "next to")
MIRRORED = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
SUPERLATIVES = ("leftmost", "rightmost", "largest", "smallest")
TRIES = 6

_ATTRIBUTES = frozenset({*PALETTE, *PATTERNS, *(shape for kind in KINDS.values() for shape in kind.shapes)})


@dataclass(frozen=True, slots=True)
class Standing:
    """A thing in a picture. x, y: centre of its visible part, in unit coordinates, y down; size: its share of the
    picture's area, > 0."""

    thing: Thing
    x: float
    y: float
    size: float


@dataclass(frozen=True, slots=True)
class Phrase:
    """A noun phrase without article or template. targets: indices of the standing things that it is true of; empty
    if it fits nothing in the picture."""

    text: str
    targets: frozenset[int]


def describe(
    standing: Sequence[Standing],
    rng: np.random.Generator,
    stock: Sequence[Thing],
    *,
    relations: float = 0.2,
    absent: float = 0.0,
) -> Phrase:
    """A phrase about the picture, drawn at random.

    relations: share of phrases with a relation or a superlative, where the picture allows one
    absent:    share of phrases that fit nothing in it: half of them near misses, such as the right noun in a wrong
               colour or the mirrored relation, the others names of things in `stock`
    Without a relation, a thing is called by its full phrase (35 %), its noun (35 %), a wider word (10 %) or any of its
    names. If no phrase of a form is certain, a plainer form is used. If nothing is standing, the phrase is always
    absent, and `stock` must not be empty.
    """
    if not standing or (absent and rng.random() < absent):
        missing = _absent(standing, rng, stock)
        if missing is not None:
            return missing
    if relations and rng.random() < relations:
        for _ in range(TRIES):
            form = _superlative if rng.random() < 0.35 else _related
            related = form(standing, rng)
            if related is not None:
                return related
    return _named(standing, rng)


def fits(name: str, thing: Thing) -> bool | None:
    """Whether `name` is true of the thing; None where that is unknown.

    Of a drawn thing all attributes are known, of a recoloured stamp the colour. Another stamp has the adjectives of its
    phrase, and perhaps others, such as red or ripe; of an emoji only the noun is known.
    """
    if name in thing.names:
        return True
    words, first = _parts(name)
    if first == "plain":
        wider = fits(words[1], thing)
        return is_plain(thing) if wider else wider
    for end, noun in enumerate(words[1:], 1):
        if noun in thing.names or noun == "thing":
            return False if _knows(thing, name.split()[:end]) else None
    return False


def _knows(thing: Thing, attributes: Sequence[str]) -> bool:
    """For each attribute, whether it is known if the thing has it."""
    known = _ATTRIBUTES if thing.source == "drawn" else PALETTE if thing.colour else ()
    return all(word in known for word in attributes)


def has(attribute: str, thing: Thing) -> bool | None:
    """Whether the thing has this colour or pattern ("plain": no pattern); None where that is unknown."""
    if thing.source != "drawn":
        return attribute == thing.colour if _knows(thing, [attribute]) else None
    if attribute == "plain":
        return is_plain(thing)
    return attribute in thing.phrase.removesuffix(thing.noun).split()


def is_plain(thing: Thing) -> bool | None:
    """Whether it has no pattern; None for kinds without patterns."""
    kind = KINDS.get(thing.noun)
    if thing.source != "drawn" or kind is None or len(kind.patterns) < 2:
        return None
    return not _patterns(thing)


def _patterns(thing: Thing) -> list[str]:
    return [word for word in thing.phrase.split() if word in PATTERNS]


def relates(relation: str, one: Standing, other: Standing) -> bool | None:
    """Whether `one` stands in this relation to `other`; None where the margin is too small to tell."""
    right, down = one.x - other.x, one.y - other.y
    if relation == "next to":
        gap = math.hypot(right, down) - (math.sqrt(one.size) + math.sqrt(other.size)) / 2
        if gap <= NEAR and abs(down) <= 0.8 * abs(right):
            return True
        return False if gap >= NOT_NEAR else None
    along, across = {
        "left of": (-right, down), "right of": (right, down), "above": (-down, right), "below": (down, right),
    }[relation]  # fmt: skip
    if along >= APART and abs(across) <= along:
        return True
    steep = abs(across) >= FAR and abs(across) >= STEEP * along
    return False if along <= NOT_APART or steep else None


# ------------------------------------------------------------------------------------------------------ targets


def _bearers(standing: Sequence[Standing], name: str) -> frozenset[int] | None:
    """The things that bear the name; None if it is borderline for any."""
    truths = [fits(name, one.thing) for one in standing]
    return None if None in truths else frozenset(i for i, truth in enumerate(truths) if truth)


def _read_relation(
    standing: Sequence[Standing], head: str, relation: str, landmark: int
) -> frozenset[int] | None:
    """The things that "`head` `relation` the landmark" is true of. "red one" is any red thing; it is borderline if
    "one" may as well stand for the landmark's noun and the red things of that noun are others."""
    attribute = head.removesuffix(" one")
    targets = set()
    for i, one in enumerate(standing):
        placed = i != landmark and relates(relation, one, standing[landmark])
        described = fits(head, one.thing) if attribute == head else has(attribute, one.thing)
        if placed is False or described is False:
            continue
        if placed is None or described is None:
            return None
        targets.add(i)
    if attribute != head:
        alike = {i for i in targets if standing[landmark].thing.noun in standing[i].thing.names}
        if alike and alike != targets:
            return None
    return frozenset(targets)


# ------------------------------------------------------------------------------------------ phrases that fit


def _named(standing: Sequence[Standing], rng: np.random.Generator) -> Phrase:
    for _ in range(TRIES):
        name = _call(pick(rng, standing).thing, rng)
        targets = _bearers(standing, name)
        if targets is not None:
            return Phrase(name, targets)
    certain = [
        Phrase(name, targets)
        for name in sorted({name for one in standing for name in one.thing.names})
        if (targets := _bearers(standing, name)) is not None
    ]
    if certain:
        return pick(rng, certain)
    noun = standing[0].thing.noun  # "lion" beside a "sea lion": the things whose own name it is come first
    return Phrase(noun, frozenset(i for i, one in enumerate(standing) if noun in one.thing.names))


def _call(thing: Thing, rng: np.random.Generator) -> str:
    """A name for the thing, with the odds of `Vocabulary.call`."""
    roll = rng.random()
    if roll < 0.35:
        return thing.phrase
    if roll < 0.70:
        return thing.noun
    if roll < 0.80 and thing.category:
        return thing.category
    between = sorted(thing.names - {thing.category}) or [thing.phrase]
    return pick(rng, between)


def _superlative(standing: Sequence[Standing], rng: np.random.Generator) -> Phrase | None:
    """The leftmost, rightmost, largest or smallest of those that bear a name."""
    name = _call(pick(rng, standing).thing, rng)
    bearers = _bearers(standing, name)
    if bearers is None or len(bearers) < 2:
        return None
    word = pick(rng, SUPERLATIVES)
    sign = 1 if word in ("rightmost", "largest") else -1
    sideways = word.endswith("most")
    values = {i: sign * (standing[i].x if sideways else math.log(standing[i].size)) for i in bearers}
    best, second = sorted(bearers, key=values.__getitem__, reverse=True)[:2]
    if values[best] - values[second] < (OUTERMOST if sideways else math.log(LARGER)):
        return None
    return Phrase(f"{word} {name}", frozenset({best}))


def _related(standing: Sequence[Standing], rng: np.random.Generator, mirrored: bool = False) -> Phrase | None:
    """A thing by its relation to another thing, whose name fits nothing else.

    mirrored: with the opposite relation, so that the phrase fits nothing
    """
    if len(standing) < 2:
        return None
    i, j = int(rng.integers(len(standing))), int(rng.integers(len(standing) - 1))
    j += j >= i
    relations = [
        name for name in (MIRRORED if mirrored else RELATIONS) if relates(name, standing[i], standing[j])
    ]
    if not relations:
        return None
    relation = pick(rng, relations)
    landmark = _plainly(standing[j].thing, rng) or _call(standing[j].thing, rng)
    if landmark == standing[j].thing.category or _bearers(standing, landmark) != frozenset({j}):
        return None
    head = _one(standing[i].thing, rng) or _plainly(standing[i].thing, rng) or _call(standing[i].thing, rng)
    said = MIRRORED[relation] if mirrored else relation
    targets = _read_relation(standing, head, said, j)
    if targets is None or (not targets) != mirrored:
        return None
    return Phrase(f"{head} {said} the {landmark}", targets)


def _one(thing: Thing, rng: np.random.Generator) -> str | None:
    """Now and then "red one" or "striped one", where its attributes are known."""
    if (thing.source != "drawn" and not thing.colour) or rng.random() >= 0.3:
        return None
    patterns = [word for word in thing.phrase.split() if word in PATTERNS]
    attributes = [
        *([thing.colour] if thing.colour else []),
        *(patterns or (["plain"] if is_plain(thing) else [])),
    ]
    return f"{pick(rng, attributes)} one" if attributes else None


def _plainly(thing: Thing, rng: np.random.Generator) -> str | None:
    """Now and then "plain mug"."""
    return f"plain {thing.noun}" if is_plain(thing) and rng.random() < 0.15 else None


# -------------------------------------------------------------------------------------- phrases that fit nothing


def _absent(standing: Sequence[Standing], rng: np.random.Generator, stock: Sequence[Thing]) -> Phrase | None:
    """None if every phrase tried fits, or may fit, something in the picture."""
    if standing and rng.random() < 0.5:
        nearly = (_wrong_attribute, _wrong_noun, _wrong_side)
        first = int(rng.integers(len(nearly)))
        for k in range(len(nearly)):
            missed = nearly[(first + k) % len(nearly)](standing, rng, stock)
            if missed is not None:
                return Phrase(missed, frozenset())
    for _ in range(2 * TRIES if stock else 0):
        thing = pick(rng, stock)
        name = thing.noun if rng.random() < 0.5 else thing.phrase
        if _is_missing(standing, name, thing.noun, thing.names):
            return Phrase(name, frozenset())
    return None


def _wrong_attribute(
    standing: Sequence[Standing], rng: np.random.Generator, stock: Sequence[Thing]
) -> str | None:
    """The right noun with a colour or pattern that no thing of that noun has."""
    thing = pick(rng, standing).thing
    kind = KINDS.get(thing.noun)
    bearers = [one.thing for one in standing if thing.noun in one.thing.names]
    if thing.source != "drawn":
        words = list(COLOURS) if thing.colour else []
    elif kind and any(_patterns(bearer) for bearer in bearers):
        # A striped thing has a second colour, which the phrase might mean.
        words = [pattern for pattern in kind.patterns if pattern != "plain"]
    else:
        words = list(kind.colours) if kind else []
    if not words:
        return None
    name = f"{pick(rng, words)} {thing.noun}"
    return name if _bearers(standing, name) == frozenset() else None


def _wrong_noun(standing: Sequence[Standing], rng: np.random.Generator, stock: Sequence[Thing]) -> str | None:
    """The right colour with the noun of an absent thing."""
    colour = pick(rng, standing).thing.colour
    other = pick(rng, stock)
    if not colour or other.source != "drawn" or any(one.thing.noun == other.noun for one in standing):
        return None
    name = f"{colour} {other.noun}"
    return name if _is_missing(standing, name, other.noun, frozenset({other.noun, other.category})) else None


def _wrong_side(standing: Sequence[Standing], rng: np.random.Generator, stock: Sequence[Thing]) -> str | None:
    for _ in range(TRIES // 2):
        phrase = _related(standing, rng, mirrored=True)
        if phrase is not None:
            return phrase.text
    return None


def _is_missing(standing: Sequence[Standing], name: str, noun: str, names: frozenset[str]) -> bool:
    """Whether nothing in the picture can be called `name`, a name of a thing with this noun and these names.

    Beyond `fits`: a hat may be the fedora of the phrase, and a bear its polar bear.
    """
    last = noun.split()[-1]
    for one in standing:
        thing = one.thing
        if fits(name, thing) is not False:
            return False
        if (
            noun == thing.noun and thing.source == "drawn"
        ):  # another look of the same kind: all its attributes are known
            if _patterns(thing) and not PATTERNS & set(name.split()):
                return False  # except the second colour of a pattern, which the phrase may name
            continue
        if noun in thing.names or thing.noun in names or last == thing.noun.split()[-1]:
            return False
    return True


# ------------------------------------------------------------------------------------------------------- words


@lru_cache(maxsize=50_000)
def _parts(name: str) -> tuple[tuple[str, ...], str]:
    """The name and each of its ends ("big red mug", "red mug", "mug"), and its first word."""
    words = name.split()
    return tuple(" ".join(words[start:]) for start in range(len(words))), words[0]
