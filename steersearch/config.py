"""The user's settings: one TOML file, which `steersearch config` shows and changes. They hold for commands only."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from platformdirs import user_config_path

from steersearch.core.errors import ArgumentError, SettingError
from steersearch.core.files import as_path, read_regular, user_folder, write_output
from steersearch.core.objects import is_uri

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "bfloat16"]
MOST_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Settings:
    """model: what `index` uses for a new library.  device: where models run.  precision: in which they compute.
    budget: for a focus that is not indexed, a duration.  library: the one to search where neither the photo nor the
    current folder belongs to one; "": the one used last.  exclude: patterns of what `index` leaves out where neither
    the command line nor the library has any.  log_file: what every command appends its messages to; "": none.
    snapshot_cache: what copies of snapshots of libraries in buckets may take on this machine.
    """

    model: str = "auto"
    device: Device = "auto"
    precision: Precision = "auto"
    budget: str = "5s"
    library: str = ""
    exclude: tuple[str, ...] = ()
    log_file: str = ""
    snapshot_cache: str = "20GB"

    @property
    def budget_s(self) -> float:
        return seconds_of(self.budget)

    @property
    def snapshot_cache_bytes(self) -> int:
        return bytes_of(self.snapshot_cache)


def bytes_of(text: str) -> int:
    """A size such as "500MB", "20GB" or "1TB". Raises ValueError."""
    found = re.fullmatch(r"(?P<number>\d+\.?\d*|\.\d+)\s*(?P<unit>[MGT])B", text.strip())
    if found is None:
        raise ValueError(f'{text} is not a size, such as "500MB", "20GB" or "1TB"')
    return int(float(found["number"]) * {"M": 10**6, "G": 10**9, "T": 10**12}[found["unit"]])


def seconds_of(text: str) -> float:
    """A duration such as "500ms", "5s" or "2m"; a number alone is seconds. Raises ValueError."""
    found = re.fullmatch(r"(?P<number>\d+\.?\d*|\.\d+)\s*(?P<unit>ms|s|m|)", text.strip())
    value = float(found["number"]) * {"ms": 1e-3, "m": 60}.get(found["unit"], 1) if found else 0
    if not value > 0:
        raise ValueError(f'{text} is not a duration above 0, such as "500ms", "5s" or "2m"')
    return value


NAMES = tuple(field.name for field in fields(Settings))


def settings_file() -> Path | None:
    """Where the file is or would be; None for a user without a home folder."""
    folder = user_folder(user_config_path)
    return None if folder is None else folder / "config.toml"


def read_settings() -> Settings:
    """The settings of the file, and the defaults of others. Raises SettingError for a file that cannot be used."""
    try:
        return Settings(**{name: _checked(name, value) for name, value in values_in_file().items()})
    except ArgumentError as error:
        change = f"steersearch config set {error.name} VALUE, or " if error.name in NAMES else ""
        said = f"{error.name} = {_shown(error.value)}: {error.reason}"
        way_out = f"{change}steersearch config unset {error.name}"
        raise SettingError(f"{settings_file()}: {said}; {way_out}") from None


def values_in_file() -> dict[str, Any]:
    """The values in the file; {} if there is none. Raises SettingError for a file that is not TOML."""
    file = settings_file()
    if file is None:
        return {}
    try:
        text = read_regular(file, MOST_BYTES).decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(
            f"{file}: {getattr(error, 'strerror', None) or error}; mend or delete it"
        ) from error
    return _parsed(text, file)


def change(name: str, value: object | None) -> Path:
    """Set one value in the file, or remove it if None; all else stays, comments included. Returns the file.

    Raises ArgumentError for a name or value that is none, SettingError for a file that cannot be used, OutputError.
    """
    file = settings_file()
    if file is None:
        raise SettingError("there is no home folder to keep settings in; set HOME")
    before = values_in_file()
    after = {key: kept for key, kept in before.items() if key != name}
    if value is not None:
        checked = _checked(name, value)
        after[name] = list(checked) if isinstance(checked, tuple) else checked
    elif name not in before:
        refuse_unknown(name)
    lines = file.read_text("utf-8-sig").splitlines() if before or file.exists() else []
    start, end = _lines_of(name, lines, before)
    lines[start:end] = [] if value is None else [f"{name} = {_toml(after[name])}"]
    text = "".join(f"{line}\n" for line in lines)
    if _parsed(text, file) != after:
        raise SettingError(f"{file}: {name} cannot be changed in it by a command; edit the file")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_output(file.resolve(), lambda opened: opened.write(text.encode()))
    return file


def _lines_of(name: str, lines: list[str], values: Mapping[str, Any]) -> tuple[int, int]:
    """The lines that set this value, which may be a list over several; else an empty range before any table."""
    start = next((i for i, line in enumerate(lines) if re.match(rf"\s*{name}\s*=", line)), None)
    if start is None or name not in values:
        table = next((i for i, line in enumerate(lines) if line.lstrip().startswith("[")), len(lines))
        return table, table
    for end in range(start + 1, len(lines) + 1):
        try:
            if _parsed("\n".join(lines[start:end]), Path()) == {name: values[name]}:
                return start, end
        except SettingError:
            continue
    return start, start + 1


def _parsed(text: str, file: Path) -> dict[str, Any]:
    import tomllib  # which a command without a settings file does not load

    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingError(f"{file}: not TOML: {error}; mend or delete it") from error


def _toml(value: object) -> str:
    """A text or a list of texts. JSON's escapes are TOML's, except for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


# -------------------------------------------------------------------------------------------------------------- checks


def refuse_unknown(name: str) -> None:
    """Raise ArgumentError if there is no such setting."""
    if name not in NAMES:
        raise ArgumentError("NAME", name, _no_setting(name))


def _checked(name: str, value: object) -> Any:
    """The value as `Settings` has it. Raises ArgumentError."""
    if name not in NAMES:
        raise ArgumentError(name, value, _no_setting(name))
    try:
        return _CHECKS[name](value)
    except ValueError as error:
        raise ArgumentError(name, value, str(error)) from None


def _no_setting(name: str) -> str:
    near = difflib.get_close_matches(name, NAMES, n=1)
    meant = f' (did you mean "{near[0]}"?)' if near else ""
    return f"no such setting{meant}; there are {', '.join(NAMES)}"


def _shown(value: object) -> str:
    return repr(value) if len(repr(value)) < 200 else f"{repr(value)[:200]}…"


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError("must be a text in quotes, not empty")
    return value


def _one_of(kind: object, value: object) -> str:
    if value not in get_args(kind):
        raise ValueError(f"must be one of {', '.join(get_args(kind))}")
    return _text(value)


def _duration(value: object) -> str:
    seconds_of(_text(value))
    return _text(value)


def _size(value: object) -> str:
    bytes_of(_text(value))
    return _text(value)


def _place(value: object) -> str:
    path = as_path(_text(value))
    if not path.is_absolute():
        raise ValueError("must be an absolute path, or begin with ~")
    return str(path)


def _library(value: object) -> str:
    return _text(value) if is_uri(_text(value)) else _place(value)


def _patterns(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise ValueError('must be a list of patterns, such as ["*.png", "drafts/"]')
    return tuple(value)


_CHECKS: dict[str, Callable[[object], Any]] = {
    "model": _text,
    "device": partial(_one_of, Device),
    "precision": partial(_one_of, Precision),
    "budget": _duration,
    "library": _library,
    "exclude": _patterns,
    "log_file": _place,
    "snapshot_cache": _size,
}
