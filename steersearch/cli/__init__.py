"""The command line: each command parses, calls the Python interface and renders. Nothing heavy is imported.

Exit codes: 0 done; 1 failed: the message on stderr names the file or value and the way out, and a photo or
folder that does not exist is among these; 2 misuse: flags and values that cannot be meant; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from steersearch.cli import bench, explain, find, library, models, train
from steersearch.cli.library import open_library as _open_library
from steersearch.cli.library import weights_remark
from steersearch.cli.options import (
    VIEWS,
    After,
    Before,
    Budget,
    Collapse,
    Device,
    GateScale,
    InFolder,
    Json,
    OneModel,
    OneScale,
    OneView,
    Page,
    Paths,
    PhotoLimits,
    Place,
    Print0,
    View,
    Where,
    all_words,
    exact_or_budget,
    focuses,
    form_of_hits,
    limits_of,
    local_folder,
    view_name,
)
from steersearch.core.errors import FolderError, PromptError
from steersearch.core.refusals import in_words
from steersearch.views import terminal
from steersearch.views.streams import safe_streams

INTERRUPTED = 130
TRACEBACK_VARIABLE = "STEERSEARCH_TRACEBACK"


class Commands(TyperGroup):
    """Turns what a command raises into a line on stderr and an exit code, in one place for all of them."""

    def invoke(self, ctx: Any) -> Any:
        terminal.show_remarks()
        try:
            _refuse_a_deleted_folder()
            return super().invoke(ctx)
        except PromptError as error:
            raise typer.BadParameter(str(error)) from error
        except KeyboardInterrupt:
            kept = ctx.invoked_subcommand in ("index", "query", "find", "demo")
            terminal.remark()
            terminal.remark(
                "stopped; what was computed is kept, the same command goes on from there"
                if kept
                else "stopped"
            )
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            said = in_words(error)
            if said is None:  # typer's own, and faults of ours
                raise
            terminal.remark(f"error: {said}")
            raise typer.Exit(1) from error


def _refuse_a_deleted_folder() -> None:
    """Raise FolderError where no relative path leads anywhere, and PyTorch ends the process as it is imported."""
    try:
        os.getcwd()
    except OSError as error:
        reason = "was deleted or cannot be entered; change into another"
        raise FolderError("the current folder", reason) from error


app = typer.Typer(
    cls=Commands,
    help="Search photos with a photo and a focus: what in it the search is to look at.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(models.models, name="models")
app.add_typer(bench.bench, name="bench")
app.add_typer(train.train, name="train")


def _show_version(wanted: bool) -> None:
    if wanted:
        import steersearch

        print(f"steersearch {steersearch.__version__}")
        raise typer.Exit()


@app.callback()
def steersearch(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def index(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", parser=local_folder, help="The photo folder, with all below it."),
    ],
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            callback=lambda texts: all_words(texts or []),
            help="What to look at; give it several times to read the photos once for all. "
            "None: bring those that the library has for the model and view up to date.",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="A name of `models list`, a file or a hub id; auto: the library's own, else the best here.",
        ),
    ] = "auto",
    gate_scale: GateScale = None,
    view: Annotated[
        View | None,
        typer.Option(
            help=f"{VIEWS}  [default: the library's last, else the model's own]", show_default=False
        ),
    ] = None,
    library: Place = None,
    device: Annotated[Device, typer.Option(help="Where the model runs.")] = Device.auto,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Photos per forward pass; a processor may take them in smaller parts.  [default: by device]",
        ),
    ] = None,
    regions: Annotated[
        bool,
        typer.Option(
            "--regions/--no-regions",
            help="Also keep regions of each photo, so that any other focus can be answered at once; costs about as "
            "much as one prompt, the first time.",
        ),
    ] = True,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help='Leave out what a .gitignore would with this line, such as "*.png" or "drafts/"; may be repeated, '
            'and a later "!keep.png" takes back. '
            'The library remembers the patterns until others are given; "" drops them.',
        ),
    ] = None,
    limit: PhotoLimits = None,
) -> None:
    """Index a folder, so that its photos can be searched under a prompt.

    A second run computes only what is new or changed.

    \b
    Example:
      steersearch index ./photos --prompt "the remote control" --prompt bookshelf
    """
    from steersearch import api, settings

    if gate_scale is not None and not prompt:
        reason = "belongs to the prompts that are named; without --prompt each index keeps its own"
        raise typer.BadParameter(reason, param_hint="--gate-scale")
    photos = api.Library.create(folder, model=model, place=settings.place_given(library), device=device.value)
    terminal.remark(f"library: {terminal.readable(photos.place)}")
    if view is None and photos.view == "tile":
        terminal.remark("view: tile, as the library has used last; --view names another")
    if not exclude and photos.excluded:
        terminal.remark(f"excluded, as the library remembers: {' '.join(photos.excluded)}")
    with terminal.progress("indexing") as advance:
        counts = photos.index(
            prompt,
            gate_scale=gate_scale,
            view=view_name(view),
            batch_size=batch_size,
            progress=advance,
            regions=regions,
            exclude=[pattern for pattern in exclude if pattern] if exclude else None,
            limits=limits_of(limit),
        )
    settings.remember_library(photos.place)
    weights_remark(photos)
    terminal.counts(counts)


@app.command()
def query(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The photo to search with.")],
    focus: Annotated[
        list[str],
        typer.Option(
            metavar="TEXT[:WEIGHT]",
            callback=focuses,
            help="What to look at: any words; those that were indexed are answered exactly. Several, each with its own "
            "--focus, are weighed; a weight below 0 leads away. A text that ends in a colon and a number needs a "
            "weight behind it.",
        ),
    ],
    k: Annotated[int, typer.Option("-k", metavar="K", min=1, help="How many hits.")] = 10,
    folder: InFolder = None,
    after: After = None,
    before: Before = None,
    where: Where = None,
    collapse: Collapse = False,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="Compare every photo, however many there are and however long it takes."
        ),
    ] = False,
    budget: Budget = None,
    library: Place = None,
    gate_scale: OneScale = None,
    model: OneModel = None,
    view: OneView = None,
    as_json: Json = False,
    paths: Paths = False,
    print0: Print0 = False,
    html: Page = None,
    limit: PhotoLimits = None,
) -> None:
    """Search a library with a photo, looking at the focus.

    \b
    Example:
      steersearch query img.jpg --focus bookshelf -k 5
      steersearch query img.jpg --focus sofa --focus cushion:0.5 --focus cat:-1
    """
    from steersearch.indexer.filters import Filters

    form = form_of_hits(as_json=as_json, paths=paths, print0=print0)
    exact_or_budget(exact, budget)
    filters = Filters.of(folder, after, before, where)
    photos = _open_library(library, photo=image)
    resolved = photos.resolve(focus, model=model, gate_scale=gate_scale, view=view_name(view))
    with terminal.progress("steering") as advance:
        hits = photos.query_indexes(
            image,
            resolved,
            k,
            filters=filters,
            exact=exact,
            collapse=collapse,
            limits=limits_of(limit),
            budget_s=budget,
            progress=advance,
        )
    if html is not None and hits.searched.is_guess:
        terminal.remark(
            "no page: it would show where the focus was found, and no photo was compared under it"
        )
    elif html is not None:
        from steersearch.views import page

        page.write_page(html, photos, image, [hits], limits=limits_of(limit))
        terminal.remark(f"page: {terminal.readable(html)}")
    terminal.hits(hits, form)
    if after or before:
        terminal.dates_remark(hits)
    terminal.hits_remark(hits, k, photos.command(resolved[0].index))


app.command("find")(find.find_photos)
app.command("explain")(explain.explain_photo)


@app.command()
def info(
    library: Place = None,
    skipped: Annotated[bool, typer.Option("--skipped", help="List the skipped files and why.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a library holds: its photos and the prompts that can be searched.

    \b
    Example:
      steersearch info --skipped
    """
    photos = _open_library(library)
    if skipped:
        terminal.skipped(photos.skipped(), as_json=as_json)
    else:
        terminal.info(photos.info(), photos.unfinished(), as_json=as_json)


for command in library.COMMANDS:
    app.command()(command)


@app.command()
def demo(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="[FOLDER]", parser=local_folder, help="Where the demo lives.", show_default=True
        ),
    ] = Path("steersearch-demo"),
) -> None:
    """Draw a small photo folder, index it, query it twice and write a page of the results.

    \b
    Example:
      steersearch demo
    """
    from steersearch.demo import run_demo

    run_demo(folder)


def main() -> None:
    """The command `steersearch`. Always ends in SystemExit."""
    with safe_streams() as results:
        code = _exit_code()
        sys.stdout.flush()
        if results.loss is not None:
            terminal.remark(f"error: standard output cannot be written ({results.loss}); results are lost")
            code = code or 1
    sys.exit(code)


def _exit_code() -> int:
    try:
        app(prog_name="steersearch")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        terminal.remark(f"error: {type(error).__name__}: {error}")
        terminal.remark(f"a fault of steersearch: please report it, with what {TRACEBACK_VARIABLE}=1 adds")
    return 1
