"""The generated world as a source: photos composed when they are asked for, each with several expressions.

Nothing is read from a disk but what the photos are composed of, and no two photos are the same. Row i is a function
of the configuration and i alone, in whatever order and process it is asked for.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from steersearch.core.errors import ArgumentError, ConfigError
from steersearch.training.data.mask_codec import Mask
from steersearch.training.data.samples import Row, Sample, Skip, Source
from steersearch.training.world import composition, emoji, stamps
from steersearch.training.world.phrases import Phrase, Standing, describe
from steersearch.training.world.things import HELD_OUT_TEMPLATES, TEMPLATES, Thing
from steersearch.training.world.world import World, WorldConfig, squared

VALIDATION_SEED = 2**31  # added to the seed of the split val; training seeds are below it
PHOTOS_KEPT = 32  # the last ones, so that the expressions of a photo share it
TRIES = 12  # at a phrase that its photo has not got yet, and that is about what it should be about

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """What a generated world holds.

    photos: how many; expressions: of each; size: side of the square photos in pixels
    relations, absent: shares of expressions with a relation, and of those that fit nothing in the photo
    drawn_per_kind, plates, stamps, emoji, backgrounds: as of `WorldConfig`
    split: train, or val, which has drawings, backgrounds and placements that no training seed gives. Stamps and
        emoji are the installed ones in both.
    held_out: nothing, or what training never sees. It needs the split val, which it sets.
        objects: expressions are about stamps and emoji of `stamps.HELD_OUT_NOUNS`, among other things
        scenes: the drawn things are those of training; backgrounds and placements are not. Of scenes there are six
            families, all of them trained on, so these are new pictures of known sorts of places
        templates: expressions in `things.HELD_OUT_TEMPLATES`, for the rest as val
    Raises ConfigError for what cannot be.
    """

    photos: int = 40_000
    size: int = 128
    seed: int = 0
    expressions: int = 4
    relations: float = 0.2
    absent: float = 0.0
    drawn_per_kind: int = 24
    plates: int = 40
    stamps: bool = True
    emoji: bool = True
    backgrounds: str = ""
    held_out: Literal["", "objects", "scenes", "templates"] = ""
    split: Literal["", "train", "val"] = ""

    def __post_init__(self) -> None:
        if not self.split:
            object.__setattr__(self, "split", "val" if self.held_out else "train")
        for name, least in (
            ("photos", 1),
            ("size", 16),
            ("expressions", 1),
            ("drawn_per_kind", 1),
            ("plates", 1),
        ):
            if getattr(self, name) < least:
                raise ConfigError(name, getattr(self, name), f"must be at least {least}")
        for name in ("relations", "absent"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(name, getattr(self, name), "is a share, from 0 to 1")
        if not 0 <= self.seed < VALIDATION_SEED:
            raise ConfigError("seed", self.seed, f"must be from 0 to {VALIDATION_SEED - 1}")
        for name, known in (
            ("held_out", ("", "objects", "scenes", "templates")),
            ("split", ("train", "val")),
        ):
            if getattr(self, name) not in known:
                wanted = ", ".join(word for word in known if word)
                raise ConfigError(name, getattr(self, name), f"must be one of: {wanted}")
        if self.held_out and self.split == "train":
            raise ConfigError("held_out", self.held_out, "is for evaluation; leave split=train away")
        if self.held_out == "objects" and not self.stamps:
            raise ConfigError("held_out", self.held_out, "these are stamps; leave stamps=false away")

    @property
    def name(self) -> str:
        """world, or world-objects, world-scenes, world-templates for what is held out."""
        return f"world-{self.held_out}" if self.held_out else "world"

    @property
    def world(self) -> WorldConfig:
        """The world that has the same photos under the same numbers, unless objects or scenes are held out."""
        return WorldConfig(
            photos=self.photos,
            size=self.size,
            drawn_per_kind=self.drawn_per_kind,
            plates=self.plates,
            stamps=self.stamps,
            emoji=self.emoji,
            seed=self.seed + (VALIDATION_SEED if self.split == "val" else 0),
            backgrounds=self.backgrounds,
        )


def make_world(config: SourceConfig) -> World:
    """What the photos are composed of. Raises StampsMissingError, EmojiMissingError, DataError."""
    return World(
        config.world,
        keep=True,
        drawn_seed=config.seed if config.held_out == "scenes" else None,
        featured=_held_out_things(config) if config.held_out == "objects" else (),
    )


def _held_out_things(config: SourceConfig) -> list[Thing]:
    found = stamps.load_stamps(config.size)
    found = [thing for thing in found if thing.noun in stamps.HELD_OUT_NOUNS]
    return found + (emoji.load_emoji(config.size, found) if config.emoji else [])


@dataclass(frozen=True)
class Layout:
    """A photo but for its pixels.

    masks: (K, S, S) bool, what is visible of each thing in it;  said: its phrases;  expressions: these in templates
    """

    masks: npt.NDArray[np.bool_]
    said: list[Phrase]
    expressions: list[str]


class WorldSource(Source):
    """Rows are the expressions of photo 0, 1, ...; those of one photo follow each other.

    Pictures are S × S, the same as the corpus of `config.corpus` has under the same number. Its things are drawn when
    it is made, or found in the cache folder; forked workers share them, others make them once each.
    """

    def __init__(self, config: SourceConfig) -> None:
        self.config, self.name, self.skips = config, config.name, []
        self._rows = config.photos * config.expressions
        digest = hashlib.sha256(json.dumps(asdict(config)).encode()).hexdigest()[:12]
        self._place = Path(f"{self.name}-{config.split}-{digest}")  # no such file: a name for the pictures
        self._forget()
        _world(config)

    def _forget(self) -> None:
        self._layouts: _Last[Layout] = _Last(PHOTOS_KEPT, self._lay_out)
        self._pictures: _Last[Image.Image] = _Last(PHOTOS_KEPT, self._paint)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ("_layouts", "_pictures")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    @property
    def world(self) -> World:
        return _world(self.config)

    def __len__(self) -> int:
        return self._rows

    def row(self, index: int) -> Row:
        """Row `index`. Where things are is worked out for it, the photo is not painted."""
        photo, which = divmod(index, self.config.expressions)
        expression = self._layouts[photo].expressions[which]
        name = f"{photo:07}"
        return Row(
            self._place / name,
            expression,
            name,
            self.config.split,
            self.name,
            self._place,
            f"expression {which}",
        )

    def annotation(self, index: int) -> Mask:
        """(S, S) bool; all False where the expression fits nothing in the photo."""
        photo, which = divmod(index, self.config.expressions)
        layout = self._layouts[photo]
        meant: Mask = np.any(layout.masks[sorted(layout.said[which].meant)], axis=0)
        return meant

    def read(self, index: int) -> Sample | Skip:
        """Row `index` with its mask; never a Skip. The photo itself is `picture(index)`."""
        row, mask = self.row(index), self.annotation(index)
        photo, which = divmod(index, self.config.expressions)
        absent = not self._layouts[photo].said[which].meant
        return Sample(row.image, row.expression, mask, row.source, row.image_id, row.split, absent)

    def picture(self, index: int) -> Image.Image:
        """The photo of row `index`, RGB, S × S."""
        photo = index // self.config.expressions
        return self._pictures[photo].copy()

    def _paint(self, photo: int) -> Image.Image:
        return squared(self.world.plan(photo).compose().image, self.config.size)

    def _lay_out(self, photo: int) -> Layout:
        world, size = self.world, self.config.size
        plan = world.plan(photo)
        seen = composition.visible_masks(plan.plate.image.size, plan.spots)
        masks = [(thing, _squared_mask(mask, size)) for thing, mask in seen if mask.any()]
        standing = [_standing(thing, mask) for thing, mask in masks]
        about = [k for k, one in enumerate(standing) if plan.numbers[id(one.thing)] in world.featured]
        rng = np.random.default_rng([world.config.seed, 5, photo])
        said = self._talk(standing, about, rng)
        templates = HELD_OUT_TEMPLATES if self.config.held_out == "templates" else TEMPLATES
        chosen = rng.integers(len(templates), size=len(said))
        expressions = [templates[k].format(phrase.text) for k, phrase in zip(chosen, said, strict=True)]
        return Layout(np.stack([mask for _, mask in masks]), said, expressions)

    def _talk(self, standing: list[Standing], about: Sequence[int], rng: np.random.Generator) -> list[Phrase]:
        """The photo's expressions, all different if it has that many to offer."""
        stock = self.world.stock[self.world.featured.start :]
        said: list[Phrase] = []
        for _ in range(self.config.expressions):
            absent = float(self.config.absent > 0 and rng.random() < self.config.absent)
            relations = float(self.config.relations > 0 and rng.random() < self.config.relations)
            for _ in range(TRIES):
                phrase = describe(standing, rng, stock, relations=relations, absent=absent, about=about)
                if phrase not in said:
                    break
            said.append(phrase)
        return said


_made: dict[SourceConfig, World] = {}
_making = threading.Lock()


def _world(config: SourceConfig) -> World:
    """Made once in a process, for all sources that differ only in what is said of their photos."""
    plain = replace(config, photos=1, expressions=1, relations=0.0, absent=0.0)
    with _making:
        if plain not in _made:
            _made[plain] = make_world(plain)
        return _made[plain]


class _Last(Generic[T]):
    """The values that were asked for last, by number. Threads may ask at once; two may then make the same one."""

    def __init__(self, most: int, make: Callable[[int], T]) -> None:
        self._most, self._make = most, make
        self._values: OrderedDict[int, T] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, number: int) -> T:
        with self._lock:
            if number in self._values:
                self._values.move_to_end(number)
                return self._values[number]
        value = self._make(number)
        with self._lock:
            self._values[number] = value
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value


def _squared_mask(mask: Mask, size: int) -> Mask:
    """The mask squashed to size × size; what is thinner than half a pixel keeps its densest ones."""
    cover = np.asarray(
        Image.fromarray(mask.astype(np.uint8) * 255).resize((size, size), Image.Resampling.BOX)
    )
    return cover >= max(1, min(128, int(cover.max())))


def _standing(thing: Thing, mask: Mask) -> Standing:
    """Where it is: the centre of what is visible of it."""
    rows, columns = mask.sum(axis=1), mask.sum(axis=0)
    area, (height, width) = int(rows.sum()), mask.shape
    x = float((columns * (np.arange(width) + 0.5)).sum() / area / width)
    y = float((rows * (np.arange(height) + 0.5)).sum() / area / height)
    return Standing(thing, x, y, area / (height * width))


# ------------------------------------------------------------------------------------------------- by its name


def is_world(path: Path) -> bool:
    """Whether `path` says "world" or "world:...". A folder of that name is opened by a path with a folder before it."""
    return str(path) == "world" or str(path).startswith("world:")


def open_world(name: str, split: str | None = None) -> WorldSource:
    """The world that `name` describes: "world", or such as "world:seed=3,photos=1000,emoji=false".

    split: as of `SourceConfig`, unless the name says it.  Raises ArgumentError for a setting that there is not, or
    a value that is none; ConfigError for one that cannot be
    """
    settings: dict[str, Any] = {}
    for setting in filter(None, name.partition(":")[2].split(",")):
        key, equals, value = setting.partition("=")
        settings[key] = _value(key, value, bool(equals))
    if split is not None and settings.setdefault("split", split) != split:
        raise ArgumentError("split", split, f"{name} is of the split {settings['split']}")
    return WorldSource(SourceConfig(**settings))


def _value(key: str, value: str, given: bool) -> object:
    defaults = {field.name: field.default for field in fields(SourceConfig)}
    if key not in defaults:
        nearest = get_close_matches(key, defaults, 1, 0.4)
        meant = f'did you mean "{nearest[0]}"? ' if nearest else ""
        raise ArgumentError("world", key, f"no such setting; {meant}known: {', '.join(defaults)}")
    if not given:
        raise ArgumentError("world", key, f"give it a value: {key}=...")
    default = defaults[key]
    if isinstance(default, str):
        return value
    if isinstance(default, bool):
        if value not in ("true", "false"):
            raise ArgumentError(f"world: {key}", value, "must be true or false")
        return value == "true"
    whole = isinstance(default, int)
    try:
        return int(value) if whole else float(value)
    except ValueError:
        raise ArgumentError(f"world: {key}", value, f"must be a{' whole' if whole else ''} number") from None
