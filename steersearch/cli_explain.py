"""`steersearch explain`: where in a photo the model sees a focus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steersearch.options import Focus, GateScale


def explain_photo(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The photo to look at.")],
    focus: Focus,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="The picture to write: .png, .jpg or .webp."),
    ],
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="A name of `models list`, a file or a hub id.")
    ] = "auto",
    gate_scale: GateScale = 1.0,
) -> None:
    """Draw where the model sees the focus, as a heatmap over the photo.

    \b
    Example:
      steersearch explain img.jpg --focus bookshelf -o overlay.png
    """
    from steersearch import render
    from steersearch.explain import explain

    render.line(render.readable(explain(image, focus, output, model=model, gate_scale=gate_scale)))
