"""`steersearch explain`: where in a photo the model sees a focus, and what it attends to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from steersearch.api import AUTO
from steersearch.cli.library import open_library
from steersearch.cli.options import OneDevice, Place
from steersearch.cli.search_options import PhotoLimits, SeenAs, all_words, finite, limits_of
from steersearch.config import read_settings
from steersearch.core.errors import NotIndexedError
from steersearch.core.preprocess import View
from steersearch.explain import Explanation, explain
from steersearch.views import terminal
from steersearch.views.photo_map import MapKind

SEEN_WHOLE = 0.995  # of the photo's area; a rounded edge is not worth a remark
MapChoice = Literal["heatmap", "attention", "both"]
KINDS: dict[MapChoice, tuple[MapKind, ...]] = {
    "heatmap": ("heatmap",),
    "attention": ("attention",),
    "both": ("heatmap", "attention"),
}


def command(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The photo to look at.")],
    focus: Annotated[
        list[str],
        typer.Option(
            metavar="TEXT", callback=all_words, help="What to look at; repeatable, for maps side by side."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="The picture to write, .png, .jpg or .webp."),
    ],
    gate_scale: Annotated[
        list[float],
        typer.Option(
            metavar="NUMBER",
            callback=lambda numbers: [finite(number) for number in numbers],
            help="Steering strength: 0 none, 1 as trained; repeatable, for maps side by side.",
        ),
    ] = [1.0],  # noqa: B006, typer copies it
    kind: Annotated[
        MapChoice,
        typer.Option(
            "--map",
            help="heatmap: where the focus is; attention: what the CLS token looks at in the last block.",
        ),
    ] = "heatmap",
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="A name of `models list`, a file or a hub id; auto: the library's, and without any library the best "
            "available.",
        ),
    ] = "auto",
    library: Place = None,
    view: SeenAs = None,
    device: OneDevice = None,
    limit: PhotoLimits = None,
) -> None:
    """Draw where in a photo the model sees a focus, as a heatmap over it.

    Several focuses, gate scales or kinds of map make a sheet of small maps on one colour scale, with a legend.

    \b
    Example:
      steersearch explain img.jpg --focus bookshelf -o overlay.png
      steersearch explain img.jpg --focus bookshelf --focus cat --gate-scale 0 --gate-scale 1 --map both -o sheet.png
    """
    seen_as, of = view, ""
    if model == AUTO:
        model, seen_as, of = _of_the_library(image, library, view)
    elif library is not None:
        raise typer.BadParameter("exclude each other", param_hint="--model / --library")
    chosen = read_settings()
    done = explain(
        image,
        focus,
        output,
        model=model,
        gate_scale=gate_scale,
        maps=KINDS[kind],
        view=seen_as,
        device=device or chosen.device,
        precision=chosen.precision,
        limits=limits_of(limit),
    )
    for remark in (f"model: {done.model}{of}", *_remarks(done)):
        terminal.remark(remark)
    terminal.line(terminal.readable(done.output))


def _of_the_library(image: Path, option: str | None, view: View | None) -> tuple[str, View | None, str]:
    """The model and view that a search with the photo would use, and whose they are; a given view takes precedence."""
    try:
        library = open_library(option, photo=image)
    except NotIndexedError:  # there is no library at all
        return read_settings().model, view, ""
    return library.model, view or library.view, f", of the library of {terminal.readable(library.folder)}"


def _remarks(done: Explanation) -> list[str]:
    """The maps in words, and the parts of focuses and photo that they leave out."""
    remarks = [str(found) for found in done.maps]
    for title, reading in {found.title: found.reading for found in done.maps}.items():
        remarks += [f"{title}: {said}" for said in reading.remarks()]
    if any(found.sinks for found in done.maps):
        said = (
            "sinks, lone patches that draw attention, are removed; on a coarse grid one may be a small object"
        )
        remarks.append(f"{said} (in Python, suppress_sinks=False keeps them)")
    if done.seen < SEEN_WHOLE:
        remarks.append(f"the model sees {done.seen:.0%} of this photo, its middle; the rest is shown pale")
    return remarks
