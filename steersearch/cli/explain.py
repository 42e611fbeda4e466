"""`steersearch explain`: where in a photo the model sees a focus, and what it attends to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from steersearch import settings
from steersearch.api import AUTO, Library
from steersearch.cli.options import Device
from steersearch.cli.search_options import PhotoLimits, SeenAs, all_words, finite, limits_of
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
            help="A name of `models list`, a file or a hub id; auto: that of the photo's library, else the best "
            "available.",
        ),
    ] = "auto",
    view: SeenAs = None,
    device: Annotated[Device, typer.Option(help="Where the model runs.")] = "auto",
    limit: PhotoLimits = None,
) -> None:
    """Draw where in a photo the model sees a focus, as a heatmap over it.

    Several focuses, gate scales or kinds of map make a sheet of small maps on one colour scale, with a legend.

    \b
    Example:
      steersearch explain img.jpg --focus bookshelf -o overlay.png
      steersearch explain img.jpg --focus bookshelf --focus cat --gate-scale 0 --gate-scale 1 --map both -o sheet.png
    """
    seen_as = view
    if model == "auto":
        model, seen_as = _of_the_library(image, seen_as)
    done = explain(
        image,
        focus,
        output,
        model=model,
        gate_scale=gate_scale,
        maps=KINDS[kind],
        view=seen_as,
        device=device,
        limits=limits_of(limit),
    )
    for remark in _remarks(done):
        terminal.remark(remark)
    terminal.line(terminal.readable(done.output))


def _of_the_library(image: Path, view: View | None) -> tuple[str, View | None]:
    """Model and view last used in the photo's library, if there is one; a given view takes precedence."""
    found = settings.library_of(image)
    if found is None:
        return AUTO, view
    library = Library.open(found.place)
    return library.model, view or library.view


def _remarks(done: Explanation) -> list[str]:
    """The maps in words, and which parts of the focuses and the photo they leave out."""
    remarks = [f"model: {done.model}", *(str(found) for found in done.maps)]
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
