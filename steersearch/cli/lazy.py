"""Commands that are imported when they are called: a table names them, so `--help` and completion import none."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from steersearch.config import read_settings
from steersearch.indexer.snapshot_cache import keep_at_most
from steersearch.views import terminal

# Name of a command -> the module that has it as `command`, or module:attribute; and a summary that fits a line.
Table = Mapping[str, tuple[str, str]]
PLAIN: dict[str, Any] = {"rich_markup_mode": None, "pretty_exceptions_enable": False, "add_completion": False}


class LazyGroup(TyperGroup):
    """The commands of a table."""

    table: ClassVar[Table] = {}

    def __init__(self, **settings: Any) -> None:
        commands = {name: LazyCommand(name, *entry) for name, entry in self.table.items()}
        params = [*(settings.pop("params", None) or ()), *_built(common_options).params]
        super().__init__(**settings | {"commands": commands, "params": params})

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _without_brackets(self.params, ctx)
        super().format_options(ctx, formatter)


class LazyCommand(TyperCommand):
    """Stands for a command or a group until it is called."""

    def __init__(self, name: str, place: str, summary: str) -> None:
        super().__init__(name, help=summary)
        self._place = place

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> Any:
        return self._imported().make_context(info_name, args, *more, **extra)

    def _imported(self) -> Any:
        module, _, attribute = self._place.partition(":")
        with _uncollected():
            found = getattr(import_module(module), attribute or "command")
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        made = _built(found)
        made.params += _built(common_options).params
        return made


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection, which finds nothing in modules but takes a tenth of an indexed query's time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class PlainCommand(TyperCommand):
    """A command whose help names arguments and choices without brackets, and which explains missing quotes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # a UsageError, for which Typer has no public name
            said = getattr(error, "message", "")
            if "unexpected extra argument" in said:
                error.message = f'{said}; several words need quotes, as in "red flower"'  # type: ignore[attr-defined]
            raise

    def invoke(self, ctx: Any) -> Any:
        if ctx.command_path != "steersearch config":
            chosen = read_settings()
            keep_at_most(chosen.snapshot_cache_bytes)
            if chosen.log_file and not terminal.is_logging():
                terminal.log_to(Path(chosen.log_file))
        return super().invoke(ctx)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        for param in self.params:
            if isinstance(param, TyperArgument):
                param.display_type_rich = lambda ctx: None  # type: ignore[method-assign]
        _without_brackets(self.params, ctx)
        super().format_options(ctx, formatter)


def _without_brackets(params: Sequence[Any], ctx: Any) -> None:
    """Name the choices of options a|b, not <a|b>."""
    for param in params:
        if isinstance(param, TyperOption) and param.metavar is None and not param.is_flag:
            param.metavar = param.display_type(ctx).strip("<>")


def group(table: Table, help: str) -> typer.Typer:
    """A group of the commands in `table`."""
    cls = type("Group", (LazyGroup,), {"table": table})
    made = typer.Typer(cls=cls, help=help, no_args_is_help=True, **PLAIN)
    made.callback()(lambda: None)
    return made


def _built(function: Any) -> Any:
    app = typer.Typer(**PLAIN)
    app.command(cls=PlainCommand)(function)
    return typer.main.get_command(app)


def common_options(
    quiet: Annotated[
        bool,
        typer.Option(
            "-q",
            "--quiet",
            expose_value=False,
            callback=lambda wanted: terminal.quiet() if wanted else None,
            help="Print results and errors only.",
        ),
    ] = False,
    log_file: Annotated[
        Path | None,
        typer.Option(
            "--log-file",
            metavar="FILE",
            expose_value=False,
            callback=lambda file: terminal.log_to(file) if file else None,
            help="Append all messages to this file, with time and tracebacks.",
        ),
    ] = None,
    verbose: Annotated[
        bool,
        typer.Option(
            "-v",
            "--verbose",
            expose_value=False,
            callback=lambda wanted: terminal.verbose() if wanted else None,
            help="Also print what other packages log, and the traceback of an error.",
        ),
    ] = False,
) -> None:
    """The options that every command has."""
