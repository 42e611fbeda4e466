"""The command line: each command parses, calls the Python interface and prints, in a module of its own.

Exit codes: 0 done; 1 failed, also if a photo or folder does not exist: the message on stderr names the file or value
and the way out; 2 misuse, such as options that contradict each other; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, ClassVar

import typer

import steersearch
from steersearch.cli.lazy import PLAIN, LazyGroup, Table
from steersearch.core.errors import FolderError, PromptError, SteerSearchError, in_words
from steersearch.views import terminal
from steersearch.views.streams import safe_streams

INTERRUPTED = 130
TRACEBACK_VARIABLE = "STEERSEARCH_TRACEBACK"
KEEP_WHAT_THEY_COMPUTED = ("index", "query", "find", "demo")  # when interrupted


class Commands(LazyGroup):
    """Translates what any command raises into a line on stderr and an exit code."""

    table: ClassVar[Table] = {
        "index": ("steersearch.cli.index", "Index a folder of photos, or update its index."),
        "query": ("steersearch.cli.query", "Search with a photo and a focus in it."),
        "find": ("steersearch.cli.find", "Find photos by text alone."),
        "explain": ("steersearch.cli.explain", "Draw where in a photo the model sees a focus."),
        "serve": ("steersearch.cli.serve", "Search in the browser: the page and its REST API."),
        "mcp": ("steersearch.cli.mcp", "Offer the libraries to agents as tools."),
        "info": ("steersearch.cli.info", "Show what a library holds and which prompts it has."),
        "libraries": ("steersearch.cli.libraries", "List all libraries."),
        "relocate": ("steersearch.cli.relocate", "Say that a photo folder or a disk has moved."),
        "verify": ("steersearch.cli.verify", "Check a library for damage, and repair it."),
        "optimize": ("steersearch.cli.optimize", "Make a library smaller and faster to open."),
        "remove": ("steersearch.cli.remove", "Remove a prompt or a folder, or delete a library."),
        "export": ("steersearch.cli.export", "Export a prompt's vectors to Parquet, Arrow or FAISS."),
        "plan": ("steersearch.cli.plan", "Estimate what a large job costs."),
        "demo": ("steersearch.cli.demo", "Try steersearch on a few photos and drawings."),
        "config": ("steersearch.cli.config", "Show and change your settings."),
        "models": ("steersearch.cli.models", "List, show and fetch models."),
        "bench": ("steersearch.cli.bench", "Run benchmarks of quality and speed."),
        "train": ("steersearch.cli.train", "Train a model; check and prepare training data."),
    }

    def invoke(self, ctx: Any) -> Any:
        try:
            _refuse_windows()
            _refuse_a_deleted_folder()
            return super().invoke(ctx)
        except PromptError as error:
            raise typer.BadParameter(str(error)) from error
        except KeyboardInterrupt:
            terminal.remark()
            kept = ctx.invoked_subcommand in KEEP_WHAT_THEY_COMPUTED
            terminal.remark(
                "stopped"
                + ("; what was computed is kept, the same command continues from there" if kept else "")
            )
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            said = in_words(error)
            if said is None:  # typer's own, and faults of ours
                raise
            terminal.show_traceback()
            terminal.error(said)
            raise typer.Exit(1) from error


def _refuse_windows() -> None:
    if sys.platform == "win32":
        raise SteerSearchError(
            "steersearch does not run on Windows itself; use WSL: https://learn.microsoft.com/windows/wsl"
        )


def _refuse_a_deleted_folder() -> None:
    """Raise FolderError if the current folder is gone: there, importing PyTorch ends the process."""
    try:
        os.getcwd()
    except OSError as error:
        reason = "was deleted or cannot be entered; change into another"
        raise FolderError("the current folder", reason) from error


app = typer.Typer(
    cls=Commands,
    help="Search photos with a photo and a focus: words that say what to look at in it.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    **PLAIN | {"add_completion": True},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"steersearch {steersearch.__version__}")
        raise typer.Exit()


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the program itself."""


def main() -> None:
    """The command `steersearch`. Always ends in SystemExit."""
    with safe_streams() as results:
        code = _exit_code()
        sys.stdout.flush()
        if results.loss is not None:
            terminal.error(f"standard output cannot be written ({results.loss}); results are lost")
            code = code or 1
    sys.exit(code)


def _exit_code() -> int:
    terminal.show_remarks()
    try:
        app(prog_name="steersearch")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        terminal.show_traceback()
        terminal.error(f"{type(error).__name__}: {error}")
        terminal.remark("this is a bug in steersearch: please report it, with what -v adds")
    return 1
