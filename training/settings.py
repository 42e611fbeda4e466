"""A recipe's settings as text: "section.key=value" on the command line, JSON in the run's folder, lines to read."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from steersearch.core.efficientnet_lite import STRIDE
from steersearch.core.errors import ArgumentError, ConfigError, DataError, RunError, UnknownSettingError
from steersearch.core.files import parse_json, read_regular
from steersearch.training.data.sources import FORMATS
from steersearch.training.recipe import HYBRID, Recipe
from steersearch.training.world.source import is_world

# The type of each key: int, float, bool, str, a Literal, or a tuple of one of these.
SECTIONS: dict[str, dict[str, Any]] = {
    name: get_type_hints(section) for name, section in get_type_hints(Recipe).items()
}
KEYS: dict[str, Any] = {
    f"{section}.{name}": kind for section, kinds in SECTIONS.items() for name, kind in kinds.items()
}

# Numbers must be at least 0, and these above it.
_FROM_ONE = set(
    """
    world.photos world.size world.patch world.drawn_per_kind world.plates
    distillation.steps distillation.batch distillation.save_every distillation.patches
    alignment.batch alignment.save_every alignment.patches
    alignment.classes alignment.wide alignment.names
    model.resolution model.num_heads model.head_dim model.connector_hidden
    objective.views
    optimiser.steps optimiser.batch optimiser.decay_steps
    run.validate_every run.save_every run.log_every
    """.split()
)
_ABOVE_ZERO = {
    "objective.sigma",
    "objective.temperature",
    "optimiser.lr",
    "optimiser.gate_lr",
    "distillation.lr",
    "alignment.lr",
}
_SEEDS = {key for key in KEYS if key.endswith(".seed")}
_LOWEST = {"model.text_layers": -1}
_WORDS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
MOST_BYTES = 2**24  # of a recipe
_WORLD = "world"  # the generated one, in place of a path


def apply_settings(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """`recipe` with each "section.key=value" of `settings` applied in order, and checked.

    The section may be omitted if only one has the key. Lists are 1,3,5 or JSON, [1, 3, 5]; nothing after the = means an
    empty text or list.
    Raises UnknownSettingError with the nearest key, and as `check`.
    """
    values: dict[str, object] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ArgumentError("setting", setting, "must be section.key=value, such as optimiser.lr=1e-3")
        key = _find_key(name.strip())
        values[key] = _typed(key, _from_text(KEYS[key], text))
    return check(_with(recipe, values))


def to_json(recipe: Recipe) -> str:
    """The whole recipe as JSON, one object per section. Inverse of `from_json`."""
    return json.dumps(asdict(recipe), indent=1) + "\n"


def from_json(source: str | Path) -> Recipe:
    """The recipe in a text, or in the file at a path. Missing keys have their defaults.

    Raises DataError for an unreadable or invalid file, and as `apply_settings`.
    """
    place, text = ("recipe", source) if isinstance(source, str) else (source, _read(source))
    try:
        sections = parse_json(text)
    except ValueError as error:
        raise DataError(place, f"it is not JSON ({error})") from None
    if not isinstance(sections, dict) or not all(isinstance(section, dict) for section in sections.values()):
        raise DataError(place, f"it is not a recipe: an object with the sections {', '.join(SECTIONS)}")
    values: dict[str, object] = {}
    for section, found in sections.items():
        if section not in SECTIONS:
            raise _unknown(section)
        for name, value in found.items():
            key = f"{section}.{name}"
            if key not in KEYS:
                raise _unknown(key)
            values[key] = _typed(key, value)
    return check(_with(Recipe(), values))


def describe(recipe: Recipe, base: Recipe, name: str = "preset") -> list[str]:
    """A line "section.key = value" per setting, with the value in `base`, called `name`, if it differs."""
    ours, theirs = flat(recipe), flat(base)
    width = max(map(len, ours))
    lines = []
    for key, value in ours.items():
        line = f"{key:{width}} = {as_text(value)}".rstrip()
        lines.append(line if value == theirs[key] else f"{line}  ({name}: {as_text(theirs[key]) or 'none'})")
    return lines


def differences(a: Recipe, b: Recipe) -> list[str]:
    """A line "section.key: value in a, value in b" for each setting that differs."""
    ours, theirs = flat(a), flat(b)
    return [
        f"{key}: {as_text(value) or 'none'}, {as_text(theirs[key]) or 'none'}"
        for key, value in ours.items()
        if value != theirs[key]
    ]


def may_change(key: str) -> bool:
    """Whether a run may be resumed with another value of "section.key", as it does not change the result."""
    free = ("optimiser.steps", "data.workers", "data.strict", "data.cache")
    return key in free or (key.startswith("run.") and key != "run.seed")


def flat(recipe: Recipe) -> dict[str, Any]:
    """The value of every "section.key"."""
    return {
        f"{section}.{name}": value
        for section in SECTIONS
        for name, value in vars(getattr(recipe, section)).items()
    }


def as_text(value: object) -> str:
    """A value in the syntax of `apply_settings`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        texts = [as_text(item) for item in value]
        plain = all(text and text == text.strip() and not set(text) & set(",[") for text in texts)
        return ",".join(texts) if plain else json.dumps(list(value))
    return str(value)


# ------------------------------------------------------------------------------------------------- checks


def check(recipe: Recipe) -> Recipe:
    """Return `recipe` if its numbers are in range and its settings are compatible.

    Raises ConfigError with the key, its value and what is allowed.
    """
    for key, value in flat(recipe).items():
        _check_range(key, value)
    _check_data(recipe)
    _check_model(recipe)
    _check_schedules(recipe)
    return recipe


def check_processes(recipe: Recipe, processes: int) -> None:
    """Raise ConfigError unless a batch divides evenly among the processes."""
    batch = recipe.optimiser.batch
    if batch % processes:
        raise ConfigError("optimiser.batch", batch, f"must be a multiple of the {processes} processes")


def _check_range(key: str, value: object) -> None:
    if isinstance(value, (bool, str, tuple)) or not isinstance(value, (int, float)):
        return
    if key in _ABOVE_ZERO and value <= 0:
        raise ConfigError(key, value, "must be above 0")
    lowest = 1 if key in _FROM_ONE else _LOWEST.get(key, 0)
    if value < lowest:
        raise ConfigError(key, value, f"must be at least {lowest}")
    if key in _SEEDS and value >= 2**32:
        raise ConfigError(key, value, "must be below 2 to the power of 32")


def _check_data(recipe: Recipe) -> None:
    data, absent = recipe.data, recipe.objective.absent
    if not data.train:
        raise ConfigError("data.train", data.train, f'name data sets, or "{_WORLD}" for the generated one')
    for key in ("train", "validation"):
        if "" in getattr(data, key):
            raise ConfigError(f"data.{key}", getattr(data, key), "one of its names is empty")
    if data.format != "auto" and data.format not in FORMATS:
        raise ConfigError("data.format", data.format, f"must be auto or one of {', '.join(FORMATS)}")
    if all(map(_is_world, (*data.train, *data.validation))):
        for key, unset in (("format", "auto"), ("images", ""), ("masks", "")):
            if getattr(data, key) != unset:
                raise ConfigError(
                    f"data.{key}",
                    getattr(data, key),
                    "the generated world has none; name data sets in data.train",
                )
    if data.cache_pictures and data.train == (_WORLD,) and not data.validation_rows:
        raise ConfigError(
            "data.validation_rows", 0, "must be the number of generated pictures to validate on"
        )
    on_photographs = recipe.world.photographs or recipe.model.trunk == HYBRID
    if data.without and not (on_photographs and data.train == (_WORLD,) and data.cache_pictures):
        way_out = (
            "only a world on photographs has these parts: world.photographs and data.cache_pictures=true"
        )
        raise ConfigError("data.without", as_text(data.without), way_out)
    if not absent < 1:
        raise ConfigError("objective.absent", absent, "is a share and must be below 1")
    if absent and not any(map(_is_world, data.train)):
        raise ConfigError(
            "objective.absent",
            absent,
            f'only the generated world has such expressions; set it to 0, or put "{_WORLD}" into data.train',
        )


def _is_world(name: str) -> bool:
    return is_world(Path(name))


def _check_model(recipe: Recipe) -> None:
    model, world = recipe.model, recipe.world
    layers = model.cross_attn_layers
    if not layers:
        raise ConfigError("model.cross_attn_layers", layers, "name at least one block, such as 1,3,5")
    if min(layers) < 0 or list(layers) != sorted(set(layers)):
        raise ConfigError(
            "model.cross_attn_layers",
            layers,
            "must be block numbers from 0 up, ascending, without duplicates",
        )
    for key in ("trunk", "text_encoder"):
        if not getattr(model, key):
            raise ConfigError(f"model.{key}", "", "must have a name")
    if recipe.objective.alignment and model.trunk != HYBRID:
        raise ConfigError(
            "objective.alignment",
            recipe.objective.alignment,
            f"continues the alignment of model.trunk={HYBRID}; set it to 0 for other backbones",
        )
    if model.trunk == HYBRID and model.test_resolution % (2 * STRIDE):
        raise ConfigError(
            "model.test_resolution",
            model.test_resolution,
            f"must be a multiple of {2 * STRIDE} for a hybrid backbone",
        )
    if world.size % world.patch:
        raise ConfigError(
            "world.size", world.size, f"must be a multiple of world.patch, which is {world.patch}"
        )


def _check_schedules(recipe: Recipe) -> None:
    optimiser = recipe.optimiser
    if optimiser.final_lr > optimiser.lr:
        raise ConfigError(
            "optimiser.final_lr",
            optimiser.final_lr,
            f"must not be above optimiser.lr, which is {optimiser.lr:g}; set both",
        )
    if optimiser.warmup >= optimiser.decay_steps:
        raise ConfigError(
            "optimiser.warmup",
            optimiser.warmup,
            f"must end before optimiser.decay_steps, which is {optimiser.decay_steps}; set both",
        )


# --------------------------------------------------------------------------------------------------- keys


def _find_key(name: str) -> str:
    """The full name of a key, given it or its last part. Raises UnknownSettingError, ArgumentError."""
    if name in KEYS:
        return name
    meant = [key for key in KEYS if key.partition(".")[2] == name]
    if len(meant) > 1:
        raise ArgumentError("setting", name, f"several sections have it: {', '.join(meant)}")
    if not meant:
        raise _unknown(name)
    return meant[0]


def _unknown(name: str) -> UnknownSettingError:
    section, _, last = name.rpartition(".")
    if name in SECTIONS:
        return UnknownSettingError(name, [f"{name}.{key}" for key in SECTIONS[name]], None)
    # The same key in another section is a likelier mistake than a similar key.
    namesakes = [key for key in KEYS if section and key.partition(".")[2] == last]
    spelt = {key if section else key.partition(".")[2]: key for key in namesakes or KEYS}
    close = difflib.get_close_matches(name, spelt, 1, cutoff=0.0 if namesakes else 0.6)
    around = (
        [f"{section}.{key}" for key in SECTIONS[section]]
        if section in SECTIONS
        else [f"{name}.*" for name in SECTIONS]
    )
    return UnknownSettingError(name, around, spelt[close[0]] if close else None)


# ------------------------------------------------------------------------------------------------- values


def _with(recipe: Recipe, values: Mapping[str, object]) -> Recipe:
    sections = {}
    for section in SECTIONS:
        names = {f.name for f in fields(getattr(recipe, section))}
        changed: dict[str, Any] = {n: values[f"{section}.{n}"] for n in names if f"{section}.{n}" in values}
        sections[section] = replace(getattr(recipe, section), **changed)
    return replace(recipe, **sections)


def _from_text(kind: Any, text: str) -> object:
    """Parse a text as `kind`; returns the text itself if that fails, which `_typed` then refuses."""
    if get_origin(kind) is tuple:
        return _list_from_text(get_args(kind)[0], text.strip())
    if kind is bool:
        return _WORDS.get(text.strip().lower(), text)
    if kind is int or kind is float:
        return _number_from_text(kind, text)
    return text


def _number_from_text(kind: type, text: str) -> object:
    try:
        return kind(text)
    except ValueError:
        pass
    try:
        number = float(text)  # a whole number may be written as 5e5
    except ValueError:
        return text
    return int(number) if number.is_integer() else number


def _list_from_text(kind: Any, text: str) -> object:
    if text.startswith("["):
        try:
            return parse_json(text)
        except ValueError:
            return text
    return [_from_text(kind, part.strip()) for part in text.split(",")] if text else []


def _typed(key: str, value: object) -> object:
    """A value from JSON, if it has the key's type. Raises ConfigError."""
    kind = KEYS[key]
    if get_origin(kind) is tuple:
        (item, _) = get_args(kind)
        if isinstance(value, (list, tuple)) and all(_is(item, part) for part in value):
            return tuple(value)
    elif _is(kind, value):
        return float(value) if kind is float else value  # type: ignore[arg-type]  # it is a number
    raise ConfigError(key, value, f"must be {_allowed(kind)}")


def _is(kind: Any, value: object) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is float:
        # An int too large for a float counts as infinite.
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and abs(value) <= 1.7e308 and math.isfinite(value)  # type: ignore[arg-type]
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _allowed(kind: Any) -> str:
    if get_origin(kind) is tuple:
        example = "1,3,5 or [1, 3, 5]" if get_args(kind)[0] is int else 'a,b or ["a", "b"]'
        return f"a list such as {example}"
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    return {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}[kind]


def _read(path: Path) -> str:
    try:
        return read_regular(path, MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise DataError(path, "it is not UTF-8 text") from None


def other_settings(path: Path, differences: Sequence[tuple[str, object, object]]) -> RunError:
    """The error for a run with other settings. differences: setting, saved value, given value."""
    said = "; ".join(f"{name} was {was!r}, is now {now!r}" for name, was, now in differences)
    return RunError(
        path, f"made with other settings: {said}; resume it with its own, or start over in another folder"
    )
