"""`steersearch config`: the user's settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from steersearch import config
from steersearch.cli.options import Json
from steersearch.core.errors import ArgumentError, SettingError
from steersearch.core.objects import is_uri
from steersearch.settings import LIBRARY_VARIABLE
from steersearch.views import terminal

Action = Literal["show", "path", "get", "set", "unset"]
PATHS = ("library", "log_file")


def command(
    action: Annotated[
        Action, typer.Argument(metavar="ACTION", help="show, path, get, set or unset.")
    ] = "show",
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A setting: " + ", ".join(config.NAMES) + ".")
    ] = None,
    value: Annotated[
        list[str] | None, typer.Argument(metavar="VALUE", help="For `set`; exclude takes several.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show your settings, each with where its value comes from, or change them.

    They are kept in one TOML file. The command line takes precedence, then the environment, then the file.

    \b
    Example:
      steersearch config
      steersearch config set model mini
      steersearch config set exclude "*.png" drafts/
      steersearch config unset model
    """
    _refuse_misuse(action, name, value)
    try:
        if action == "path":
            terminal.line(str(_file()))
        elif action == "set":
            assert name is not None
            assert value is not None
            terminal.remark(f"{terminal.readable(config.change(name, _given(name, value)))}: {name} is set")
        elif action == "unset":
            assert name is not None
            terminal.remark(f"{terminal.readable(config.change(name, None))}: {name} is not set")
        else:
            _show(name, as_json=as_json, alone=action == "get")
    except ArgumentError as error:
        raise typer.BadParameter(str(error)) from error


def _refuse_misuse(action: Action, name: str | None, value: list[str] | None) -> None:
    if (name is None) == (action in ("get", "set", "unset")):
        needs = "needs the NAME of a setting" if name is None else "takes no NAME"
        raise typer.BadParameter(f"{action} {needs}", param_hint="NAME")
    if bool(value) != (action == "set") or (name != "exclude" and len(value or ()) > 1):
        takes = "needs one VALUE, for exclude one or more" if action == "set" else "takes no VALUE"
        raise typer.BadParameter(f"{action} {takes}", param_hint="VALUE")


def _file() -> Path:
    file = config.settings_file()
    if file is None:
        raise SettingError("there is no home folder to keep settings in; set HOME")
    return file


def _given(name: str, value: list[str]) -> object:
    """Paths are relative to the current folder, as on every command line."""
    if name == "exclude":
        return value
    is_local = name in PATHS and value[0] and not is_uri(value[0])
    return os.path.abspath(os.path.expanduser(value[0])) if is_local else value[0]


def _show(name: str | None, *, as_json: bool, alone: bool) -> None:
    chosen, in_file = config.read_settings(), config.values_in_file()
    rows: list[tuple[str, Any, str]] = []
    for key in config.NAMES:
        of_variable = os.environ.get(LIBRARY_VARIABLE) if key == "library" else None
        source = LIBRARY_VARIABLE if of_variable else str(_file()) if key in in_file else "default"
        rows.append((key, of_variable or getattr(chosen, key), source))
    if name is not None:
        config.refuse_unknown(name)
        rows = [row for row in rows if row[0] == name]
    if as_json:
        for key, value, source in rows:
            terminal.json_line({"name": key, "value": value, "from": source})
        return
    shown = [(key, " ".join(v) if isinstance(v, tuple) else str(v), source) for key, v, source in rows]
    if alone:
        terminal.line(shown[0][1])
    else:
        terminal.table(("setting", "value", "from"), shown)
