"""`steersearch bench build`: make the data of a benchmark from published data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steersearch.benchmarks.paper import core_build
from steersearch.benchmarks.paper.mosaic_data import read_voc, write_mosaics
from steersearch.cli.lazy import group
from steersearch.cli.options import local_folder
from steersearch.config import Device
from steersearch.core.errors import OutputError
from steersearch.views import terminal

command = group(
    {
        "mosaic": (
            "steersearch.cli.bench.build:mosaic",
            "Stitch VOC2012's photos by fours, with class maps.",
        ),
        "core": ("steersearch.cli.bench.build:core", "Edit photos of scenes, one object at a time."),
        "learned-map": (
            "steersearch.cli.bench.learned_map",
            "Fit the map of the baseline learned-map.",
        ),
    },
    help="Make a benchmark's data from published data, or what a baseline needs.",
)


def mosaic(
    voc: Annotated[Path, typer.Argument(metavar="VOC2012", help="PASCAL VOC2012 as it is published.")],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="FOLDER", parser=local_folder, help="Where to write the composites."
        ),
    ],
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N.")] = None,
) -> None:
    """Stitch VOC2012's photos (segmentation val) by fours: 363 composites with the class of each pixel.

    FOLDER gets NNN.png, NNN-labels.png (0 background, classes from 1, 255 void) and mosaic.json, written last;
    a build that was stopped continues. `bench mosaic --data FOLDER` measures on it.

    \b
    Example:
      steersearch bench build mosaic VOCdevkit/VOC2012 -o mosaics
    """
    data = read_voc(voc, limit)
    try:
        with terminal.progress("mosaic") as report:
            listed = write_mosaics(data, output, report)
    except OSError as error:
        raise OutputError(output, error.strerror or str(error)) from error
    terminal.remark(f"{data.n:,} composites: {terminal.readable(listed)}")


def core(
    scenes: Annotated[
        Path,
        typer.Argument(metavar="SCENES", help="Photos in folders named after their scenes, such as SUN397."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="FOLDER", parser=local_folder, help="Where to write the data set."
        ),
    ],
    pipeline: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="A pipeline of diffusers that edits pictures: a hub id or a folder."
        ),
    ] = "black-forest-labs/FLUX.2-dev",
    objects: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON {scene: {object: prompt}}.  [default: the paper's thirty]"),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Photos per scene.")] = 100,
    side: Annotated[
        int, typer.Option(metavar="PX", min=16, help="Longer side of the pictures; multiples of 16 are kept.")
    ] = 512,
    steps: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Denoising steps.  [default: the pipeline's own]")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of all random choices.")] = 0,
    device: Annotated[Device, typer.Option(help="Where the pipeline runs.")] = "auto",
) -> None:
    """Edit photos of scenes, one object at a time, into a data set that `bench core --data FOLDER` reads.

    As CORE was made: five edits of each photo, with FLUX.2 [dev] by default (its licence forbids commercial use).
    Inpainting pipelines repaint a box, others get the object as an instruction. FOLDER gets a picture for each
    edit, review.html, and data/test-00000-of-00001.parquet. A stopped build continues; pictures listed in
    FOLDER/rejected.txt are left out when you run the command again. Needs the extra build.

    \b
    Example:
      steersearch bench build core SUN397 -o core --pipeline diffusers/stable-diffusion-xl-1.0-inpainting-0.1
    """
    asked = core_build.OBJECTS if objects is None else core_build.read_objects(objects)
    edits = core_build.plan(scenes, asked, limit)
    editor = core_build.load_editor(pipeline, device, steps)
    try:
        with terminal.progress("core") as report:
            made = core_build.build(edits, output, editor, side, seed, report)
    except OSError as error:
        raise OutputError(output, error.strerror or str(error)) from error
    left_out = len(core_build.rejected(output))
    terminal.remark(
        f"{len(edits):,} edits, {left_out:,} rejected: {terminal.readable(made)}; see review.html"
    )
