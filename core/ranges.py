"""Checks of settings from a file: type and range. A ConfigError names the setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from steersearch.core.errors import ConfigError
from steersearch.core.files import parse_json

MOST_JSON = 2**20  # bytes


def check_whole(name: str, value: object, least: int, most: int) -> None:
    """Raise ConfigError unless `value` is a whole number from `least` to `most`."""
    if type(value) is not int or not least <= value <= most:
        raise ConfigError(name, value, f"must be a whole number from {least:,} to {most:,}")


def check_number(name: str, value: object, least: float, most: float) -> None:
    """Raise ConfigError unless `value` is a number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ConfigError(name, value, f"must be a number from {least:g} to {most:g}")


def check_text(name: str, value: object, longest: int = 300) -> None:
    """Raise ConfigError unless `value` is a text of printable characters, of at most `longest`."""
    if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
        raise ConfigError(name, value, f"must be a text of up to {longest} printable characters")


def check_flag(name: str, value: object) -> None:
    """Raise ConfigError unless `value` is true or false."""
    if not isinstance(value, bool):
        raise ConfigError(name, value, "must be true or false")


def read_fields(kind: type, data: object, name: str) -> dict[str, Any]:
    """`data` as arguments of the dataclass `kind`. Raises ConfigError for unknown and missing fields.

    name: what is read, for the message.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(name, data, "must be a table of settings")
    known = {field.name: field for field in fields(kind)}
    for key in data:
        if key not in known:
            raise ConfigError(str(key), data[key], "no such setting; was the file made by a newer version?")
    for key, field in known.items():
        if key not in data and field.default is MISSING:
            raise ConfigError(key, None, f"is missing: {name} is damaged")
    return dict(data)


def read_json(text: str | bytes) -> Any:
    """Parse JSON of at most a megabyte. Raises ValueError."""
    if len(text) > MOST_JSON:
        raise ValueError(f"{len(text):,} bytes of JSON, more than {MOST_JSON:,}")
    return parse_json(text)


def read_list(name: str, value: object, longest: int = 256) -> tuple[Any, ...]:
    """A list as a tuple. Raises ConfigError for anything else, or more entries than `longest`."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) > longest:
        raise ConfigError(name, value, f"must be a list of up to {longest} entries")
    return tuple(value)
