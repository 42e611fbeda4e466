"""The generated world: the things and backgrounds of a configuration, and photo 0, 1, ... composed of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from steersearch.training.world import composition, drawings, emoji, stamps
from steersearch.training.world.composition import Photo, Spot
from steersearch.training.world.kinds import KINDS
from steersearch.training.world.painting import pick
from steersearch.training.world.scenes import Scene
from steersearch.training.world.things import Thing

MAX_THINGS = 6
MAX_THINGS_ON_PHOTOGRAPHS = 8


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """What a world's photos are composed of.

    photos: how many; size: side of the square photos in pixels; patch: side of a patch of the mask grid in pixels
    drawn_per_kind: drawn things of each kind; plates: backgrounds of each family of scenes
    stamps, emoji: whether to use the things of these packages too, which must then be installed
    backgrounds: a folder of photographs of textures, whose crops are backgrounds too; "" for none
    photographs: a folder that `steersearch train photographs` made, to compose pictures of (`composites`); "" for none,
        or in a run with a hybrid backbone for the one that it makes
    wordnet: whether things also have WordNet's wider names; it must then be installed
    held_back: whether to leave out the photographs on which choices are made (`listed.is_held_back`)
    """

    photos: int = 40_000
    size: int = 128
    patch: int = 16
    drawn_per_kind: int = 72
    plates: int = 160
    stamps: bool = True
    emoji: bool = True
    seed: int = 0
    backgrounds: str = ""
    photographs: str = ""
    wordnet: bool = False
    held_back: bool = False

    @property
    def most_things(self) -> int:
        """How many things a picture may show."""
        return MAX_THINGS_ON_PHOTOGRAPHS if self.photographs else MAX_THINGS


@dataclass(frozen=True)
class Plan:
    """A photo before it is composed: its background, what stands where, the stock numbers of the things by identity,
    and the generator that decides the light."""

    plate: Scene
    spots: list[tuple[Thing, Spot]]
    numbers: dict[int, int]
    rng: np.random.Generator

    def compose(self) -> Photo:
        """The photo under its light, in the plate's shape."""
        photo = composition.compose(self.plate, self.spots)
        return Photo(composition.relight(photo.image, self.rng), photo.family, photo.placed)


class World:
    """stock: all things, the drawn ones first.  plates: all backgrounds."""

    def __init__(self, config: WorldConfig, *, keep: bool = False) -> None:
        """Draw things and plates. keep: whether to read them from the cache folder, and to keep them in it

        Raises StampsMissingError, EmojiMissingError, DataError for backgrounds that cannot be used.
        """
        draw_things = drawings.kept_things if keep else drawings.draw_things
        draw_plates = drawings.kept_plates if keep else drawings.draw_plates
        drawn = draw_things(config.seed, config.size, config.drawn_per_kind)
        self.config = config
        self.stock = with_packages(drawn, config)
        self.plates = draw_plates(config.seed, config.size, config.plates, config.backgrounds)
        self._drawn = len(KINDS) * config.drawn_per_kind

    def plan(self, number: int) -> Plan:
        """The layout of photo `number`, determined by the configuration."""
        rng = np.random.default_rng([self.config.seed, 3, number])
        while True:
            plan = self._plan(rng)
            if plan.spots:
                return plan

    def _plan(self, rng: np.random.Generator) -> Plan:
        """Without any thing if none found room."""
        plate = pick(rng, self.plates)
        alone = rng.random() < 0.12
        count = 1 if alone else int(rng.integers(2, MAX_THINGS + 1))
        picked = [self._pick(rng) for _ in range(count)]
        if not alone and rng.random() < 0.4:
            picked[1] = self._like(picked[0], rng)
        numbers = {id(self.stock[i]): i for i in picked}
        things = [self.stock[i] for i in numbers.values()]
        spots = composition.place_things(
            plate, things, rng, (0.45, 0.8) if alone else (0.19, 0.48), loose=0.4
        )
        return Plan(plate, spots, numbers, rng)

    def _pick(self, rng: np.random.Generator) -> int:
        """A drawn thing or one of the packages with even odds."""
        if self._drawn == len(self.stock) or rng.random() < 0.5:
            return int(rng.integers(self._drawn))
        return int(rng.integers(self._drawn, len(self.stock)))

    def _like(self, number: int, rng: np.random.Generator) -> int:
        """A hard negative: another thing of the same kind, which attributes must tell apart, or of the same colour."""
        thing = self.stock[number]
        if thing.colour != "" and rng.random() < 0.4:
            alike = [i for i in self._by_colour[thing.colour] if self.stock[i].noun != thing.noun]
        else:
            alike = self._by_noun[thing.noun]
        return pick(rng, alike) if alike else number

    @cached_property
    def _by_noun(self) -> dict[str, list[int]]:
        return _grouped([thing.noun for thing in self.stock])

    @cached_property
    def _by_colour(self) -> dict[str, list[int]]:
        return _grouped([thing.colour for thing in self.stock])


def with_packages(drawn: Sequence[Thing], config: WorldConfig) -> list[Thing]:
    """Drawn things, then those of the configured packages, except those held out."""
    things = list(drawn)
    if config.stamps:
        things += stamps.load_stamps(config.size)
    if config.emoji:
        things += emoji.load_emoji(config.size, things)
    return [thing for thing in things if thing.source == "drawn" or thing.noun not in stamps.HELD_OUT_NOUNS]


def squared(image: Image.Image, size: int) -> Image.Image:
    """The photo as it is stored: squashed to size × size."""
    return image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0)


def _grouped(words: list[str]) -> dict[str, list[int]]:
    """The places of each word in the list."""
    groups: dict[str, list[int]] = {}
    for i, word in enumerate(words):
        groups.setdefault(word, []).append(i)
    return groups
