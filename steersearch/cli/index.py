"""`steersearch index`: index a folder of photos, or update its index."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from steersearch import settings
from steersearch.api import AUTO, Library
from steersearch.cli.library import create_library, weights_remark
from steersearch.cli.options import OneDevice, Place, RayAddress, folder_or_uri, refuse_address
from steersearch.cli.search_options import VIEWS, GateScale, PhotoLimits, all_words, limits_of
from steersearch.config import read_settings
from steersearch.core.errors import FolderError, LibraryBusyError, LibraryMissingError, LibraryPlaceError
from steersearch.core.images.limits import Limits
from steersearch.core.preprocess import View
from steersearch.indexer.build import Counts
from steersearch.indexer.ray_engine import RayEngine
from steersearch.indexer.watch import changes
from steersearch.views import terminal


def command(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FOLDER",
            parser=folder_or_uri,
            help="Photo folders, or s3://bucket/name, with everything below them. A new folder is added "
            "to the library. Without any, update the library of the current folder, or the one that --library names.",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            callback=lambda texts: all_words(texts or []),
            help="What to look at; repeatable, and the photos are read once for all prompts. "
            "Without it, update all prompts that the library has for this model and view; if there are none, "
            "prepare the photos for any focus.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A name of `models list`, a file or a hub id; auto: the library's own, else the best available.  "
            "[default: the library's own, else the setting model, auto]",
            show_default=False,
        ),
    ] = None,
    gate_scale: GateScale = None,
    view: Annotated[
        View | None,
        typer.Option(
            help=f"{VIEWS}  [default: the library's last, else the model's own]", show_default=False
        ),
    ] = None,
    library: Place = None,
    device: OneDevice = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Photos per forward pass; a CPU may split a batch.  [default: by device]",
        ),
    ] = None,
    regions: Annotated[
        bool,
        typer.Option(
            "--regions/--no-regions",
            help="Also store region vectors, so that any focus can be answered at once; costs about as much as one "
            "more prompt, the first time.",
        ),
    ] = True,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help='Leave out what this .gitignore pattern matches, such as "*.png" or "drafts/"; repeatable, and a '
            'later "!keep.png" re-includes. The library keeps the patterns until "" clears them.',
        ),
    ] = None,
    limit: PhotoLimits = None,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            help="Where photos are read and embedded: in this process, or by the workers of a Ray cluster."
        ),
    ] = "local",
    ray_address: RayAddress = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Keep running and index changes, until Ctrl-C or SIGTERM."),
    ] = False,
) -> None:
    """Prepare photos for searches with any focus; searches with an indexed prompt are answered at once.

    A second run computes only what is new or has changed, in all folders of the library.

    \b
    Example:
      steersearch index ./photos
      steersearch index ./photos --prompt "the remote control" --prompt bookshelf
      steersearch index ./photos ./scans --watch
    """
    if gate_scale is not None and not prompt:
        reason = "needs --prompt; without one, each index keeps its own"
        raise typer.BadParameter(reason, param_hint="--gate-scale")
    refuse_address(engine, ray_address)
    where = RayEngine(ray_address, uses_gpu=device != "cpu") if engine == "ray" else None
    chosen = read_settings()
    if folders:
        photos = create_library(folders, model=model, place=settings.place_given(library), device=device)
    else:
        found = settings.find_library(library, for_changes=True)
        photos = Library.open(found.place, model or AUTO, device or chosen.device, chosen.precision)
    for added in photos.added:
        terminal.remark(f"added to the library: {terminal.readable(added)}")
    if view is None and photos.view == "tile":
        terminal.remark("view: tile, as in the last run; --view chooses another")
    if not exclude and photos.excluded:
        terminal.remark(f"excluded, as in the last run: {' '.join(photos.excluded)}")
    elif exclude is None and chosen.exclude:
        exclude = list(chosen.exclude)
        terminal.remark(f"excluded, by the settings: {' '.join(exclude)}")
    with _ended_by_sigterm() if watch else nullcontext(), terminal.progress("indexing") as advance:
        counts = photos.index(
            prompt,
            gate_scale=gate_scale,
            view=view,
            batch_size=batch_size,
            progress=advance,
            regions=regions,
            exclude=[pattern for pattern in exclude if pattern] if exclude else None,
            limits=limits_of(limit),
            engine=where,
        )
    settings.remember_library(photos.place)
    weights_remark(photos)
    terminal.counts(counts)
    if watch:
        with _ended_by_sigterm():
            _watch(photos, counts, limits_of(limit), where, regions=regions, batch_size=batch_size)


def _watch(
    photos: Library,
    last: Counts,
    limits: Limits,
    engine: RayEngine | None,
    *,
    regions: bool,
    batch_size: int | None,
) -> None:
    """Take in changes until interrupted; print a line for each update with changes, and each refusal once."""
    terminal.remark(f"watching {terminal.counted(len(photos.folders), 'folder')}; Ctrl-C ends it")
    refused = ""
    for _ in _until_interrupted(changes(photos)):
        if not photos.exists:
            raise LibraryMissingError(photos.place)
        try:
            counts = photos.index(regions=regions, batch_size=batch_size, limits=limits, engine=engine)
        except (FolderError, LibraryBusyError, LibraryPlaceError) as error:
            if str(error) != refused:
                terminal.remark(str(error))
            refused = str(error)
            continue
        terminal.changed_counts(counts, last)
        last, refused = counts, ""
    terminal.remark("stopped; the library is up to date")


def _until_interrupted(waiting: Iterator[None]) -> Iterator[None]:
    """These, up to an interruption while the next one is waited for."""
    while True:
        try:
            next(waiting)
        except KeyboardInterrupt:
            return
        yield


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """A context in which SIGTERM interrupts like Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
