"""The generated world as a source: photos composed on demand, each with several expressions.

No photo is stored, and no two are the same. Row i depends on the configuration and i alone, whatever the order or
process of reading.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from steersearch.core.errors import ArgumentError, ConfigError
from steersearch.training.data.mask_codec import Mask
from steersearch.training.data.samples import Row, Sample, Skip, Source
from steersearch.training.world import composition
from steersearch.training.world.phrases import Phrase, Standing, describe
from steersearch.training.world.things import TEMPLATES, Thing
from steersearch.training.world.world import World, WorldConfig, squared

VALIDATION_SEED = 2**31  # added to the seed of the split val; training seeds are below it
PHOTOS_KEPT = 32  # the last ones, which the expressions of a photo share
TRIES = 12  # for a phrase that the photo does not have yet


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """The photos of a source and their expressions.

    photos: how many; expressions: of each; size: side of the square photos in pixels
    relations, absent: shares of expressions with a relation, and of those that fit nothing in the photo
    drawn_per_kind, plates, stamps, emoji, backgrounds: as in `WorldConfig`
    split: train or val; val has drawings, backgrounds and placements that no training seed gives. Both use the
        installed stamps and emoji.
    Raises ConfigError for values that are out of range.
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
    split: Literal["train", "val"] = "train"

    def __post_init__(self) -> None:
        for name in ("photos", "size", "expressions", "drawn_per_kind", "plates"):
            least = 16 if name == "size" else 1
            if getattr(self, name) < least:
                raise ConfigError(name, getattr(self, name), f"must be at least {least}")
        for name in ("relations", "absent"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(name, getattr(self, name), "is a share, from 0 to 1")
        if not 0 <= self.seed < VALIDATION_SEED:
            raise ConfigError("seed", self.seed, f"must be from 0 to {VALIDATION_SEED - 1}")
        if self.split not in ("train", "val"):
            raise ConfigError("split", self.split, "must be one of: train, val")

    @property
    def world(self) -> WorldConfig:
        """The world whose photos have the same numbers."""
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


@dataclass(frozen=True)
class Layout:
    """A photo without its pixels.

    masks: (K, S, S) bool, the visible part of each thing;  phrases: about them;  expressions: these in templates
    """

    masks: npt.NDArray[np.bool_]
    phrases: list[Phrase]
    expressions: list[str]


class WorldSource(Source):
    """Rows are the expressions of photo 0, 1, ...; those of one photo follow each other.

    Pictures are S × S, those of a corpus of `config.world`. Things are drawn when the source is made, or found in the
    cache folder; forked workers share them, other processes load them once.
    """

    def __init__(self, config: SourceConfig) -> None:
        self.config, self.name, self.skips = config, "world", []
        self._rows = config.photos * config.expressions
        digest = hashlib.sha256(json.dumps(asdict(config)).encode()).hexdigest()[:12]
        self._place = Path(f"world-{config.split}-{digest}")  # names the pictures; there is no such file
        self._forget()
        _world(config)

    def _forget(self) -> None:
        self._layout = lru_cache(PHOTOS_KEPT)(self._lay_out)
        self._picture = lru_cache(PHOTOS_KEPT)(self._paint)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ("_layout", "_picture")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    @property
    def world(self) -> World:
        return _world(self.config)

    def __len__(self) -> int:
        return self._rows

    def row(self, index: int) -> Row:
        """Row `index`. The photo is laid out for it, not painted."""
        photo, which = divmod(index, self.config.expressions)
        expression = self._layout(photo).expressions[which]
        name, place = f"{photo:07}", self._place
        return Row(place / name, expression, name, self.config.split, self.name, place, f"expression {which}")

    def annotation(self, index: int) -> Mask:
        """(S, S) bool; all False where the expression fits nothing in the photo."""
        photo, which = divmod(index, self.config.expressions)
        layout = self._layout(photo)
        mask: Mask = np.any(layout.masks[sorted(layout.phrases[which].targets)], axis=0)
        return mask

    def read(self, index: int) -> Sample | Skip:
        """Row `index` with its mask; never a Skip. The photo itself is `picture(index)`."""
        row, mask = self.row(index), self.annotation(index)
        photo, which = divmod(index, self.config.expressions)
        absent = not self._layout(photo).phrases[which].targets
        return Sample(row.image, row.expression, mask, row.source, row.image_id, row.split, absent)

    def picture(self, index: int) -> Image.Image:
        """The photo of row `index`, RGB, S × S."""
        photo = index // self.config.expressions
        return self._picture(photo).copy()

    def _paint(self, photo: int) -> Image.Image:
        return squared(self.world.plan(photo).compose().image, self.config.size)

    def _lay_out(self, photo: int) -> Layout:
        world, size = self.world, self.config.size
        plan = world.plan(photo)
        seen = composition.visible_masks(plan.plate.image.size, plan.spots)
        masks = [(thing, _squared_mask(mask, size)) for thing, mask in seen if mask.any()]
        standing = [_standing(thing, mask) for thing, mask in masks]
        rng = np.random.default_rng([world.config.seed, 5, photo])
        phrases = self._describe(standing, rng)
        chosen = rng.integers(len(TEMPLATES), size=len(phrases))
        expressions = [TEMPLATES[k].format(phrase.text) for k, phrase in zip(chosen, phrases, strict=True)]
        return Layout(np.stack([mask for _, mask in masks]), phrases, expressions)

    def _describe(self, standing: list[Standing], rng: np.random.Generator) -> list[Phrase]:
        """The photo's phrases, all different where it allows that many."""
        phrases: list[Phrase] = []
        for _ in range(self.config.expressions):
            absent = float(self.config.absent > 0 and rng.random() < self.config.absent)
            relations = float(self.config.relations > 0 and rng.random() < self.config.relations)
            for _ in range(TRIES):
                phrase = describe(standing, rng, self.world.stock, relations=relations, absent=absent)
                if phrase not in phrases:
                    break
            phrases.append(phrase)
        return phrases


_made: dict[SourceConfig, World] = {}
_making = threading.Lock()


def _world(config: SourceConfig) -> World:
    """One for all sources of this process whose photos are the same."""
    plain = replace(config, photos=1, expressions=1, relations=0.0, absent=0.0)
    with _making:
        if plain not in _made:
            _made[plain] = World(plain.world, keep=True)
        return _made[plain]


def _squared_mask(mask: Mask, size: int) -> Mask:
    """The mask squashed to size × size; a thing thinner than half a pixel keeps its densest pixels."""
    cover = np.asarray(
        Image.fromarray(mask.astype(np.uint8) * 255).resize((size, size), Image.Resampling.BOX)
    )
    return cover >= max(1, min(128, int(cover.max())))


def _standing(thing: Thing, mask: Mask) -> Standing:
    """The thing at the centre of its visible part."""
    rows, columns = mask.sum(axis=1), mask.sum(axis=0)
    area, (height, width) = int(rows.sum()), mask.shape
    x = float((columns * (np.arange(width) + 0.5)).sum() / area / width)
    y = float((rows * (np.arange(height) + 0.5)).sum() / area / height)
    return Standing(thing, x, y, area / (height * width))


# ------------------------------------------------------------------------------------------------- by its name


def is_world(path: Path) -> bool:
    """Whether `path` is "world" or "world:..."; a folder of that name is opened as "./world"."""
    return str(path) == "world" or str(path).startswith("world:")


def open_world(name: str, split: str | None = None) -> WorldSource:
    """The source that `name` describes: "world", or such as "world:seed=3,photos=1000,emoji=false".

    split: as in `SourceConfig`, unless the name sets it.  Raises ArgumentError for an unknown setting or a value of
    the wrong type, ConfigError for one that is out of range.
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
