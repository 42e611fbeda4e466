"""`steersearch bench build`: data sets of benchmarks from the published ones that they are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

build = typer.Typer(
    help="Make the data of a benchmark from what it is published to be made of.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@build.callback()
def group() -> None:
    pass  # with a callback, a single command still needs its name


@build.command("mosaic")
def mosaic(
    voc: Annotated[Path, typer.Argument(metavar="VOC2012", help="PASCAL VOC2012 as it is published.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where the composites go.")
    ],
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first so many.")] = None,
) -> None:
    """Stitch the photos of VOC2012's segmentation val by fours: 363 composites with the class of each pixel.

    FOLDER gets NNN.png, NNN-labels.png (0 background, classes from 1, 255 void) and mosaic.json, written last;
    a build that was stopped goes on where it was. `bench mosaic --data FOLDER` measures on it.

    \b
    Example:
      steersearch bench build mosaic VOCdevkit/VOC2012 -o mosaics
    """
    from steersearch import render
    from steersearch.benchmarks.mosaic import read_voc, write_mosaics
    from steersearch.core.errors import OutputError

    data = read_voc(voc, limit)
    try:
        with render.progress("mosaic") as report:
            listed = write_mosaics(data, output, report)
    except OSError as error:
        raise OutputError(output, error.strerror or str(error)) from error
    render.remark(f"{data.n:,} composites: {render.readable(listed)}")
