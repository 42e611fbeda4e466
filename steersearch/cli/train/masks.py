"""`steersearch train masks`: masks from boxes, with SAM 2."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steersearch.cli.options import local_folder
from steersearch.cli.train.options import Data, Format, Images, Split, progress, skipped
from steersearch.config import Device
from steersearch.training.data.sources import open_source
from steersearch.views import terminal


def command(
    data: Data,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="FOLDER", parser=local_folder, help="Where to write the masks."
        ),
    ],
    format_name: Format = "auto",
    images: Images = None,
    split: Split = None,
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="A SAM 2 model: a hub id, or a folder that holds it.")
    ] = "facebook/sam2.1-hiera-large",
    batch_size: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Pictures per forward pass.  [default: by device]"),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where the model runs.")] = "auto",
) -> None:
    """Make masks from boxes with SAM 2, as a data set for training.

    A stopped run continues with the same command.

    \b
    Example:
      steersearch train masks ./final_mixed_train.json --images ./visual_genome -o ./visual_genome_masks
    """
    # Both load torch, which help does without.
    from steersearch.training.data.masks import make_masks
    from steersearch.training.data.sam2 import Segmenter

    source = open_source(data, format_name, images=images, split=split)
    segmenter = Segmenter(model, device)
    licence = segmenter.licence or "unknown, see their source"
    terminal.remark(
        f"model: {terminal.readable(model)}, on {segmenter.device}; licence of its weights: {licence}"
    )
    try:
        made = make_masks(
            source, output, segmenter, batch_size=batch_size, progress=progress("made masks of", "pictures")
        )
    except KeyboardInterrupt:
        terminal.remark()
        terminal.remark("stopped; finished pictures are kept, the same command continues from there")
        raise
    kept = f"; {made.kept:,} pictures were already done" if made.kept else ""
    terminal.line(f"{terminal.readable(output)}: {made.masks:,} masks of {made.pictures:,} pictures{kept}")
    skipped([*source.skips, *made.skips], "steersearch train check DATA --json lists those of the data set")
