"""`steersearch bench build learned-map`: fit the baseline learned-map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steersearch.config import Device
from steersearch.indexer.progress import ProgressEvent
from steersearch.views import terminal
from steersearch.views.output import refuse_impossible


def command(
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="Where to write the map, a .safetensors file."),
    ],
    photos: Annotated[int, typer.Option(metavar="N", min=1, help="Photos to draw.")] = 1200,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Steps of training.")] = 2000,
    device: Annotated[Device, typer.Option(help="Where the model runs.")] = "auto",
) -> None:
    """Fit the map of the baseline learned-map on drawn photos: vectors of the bundled model, and what they show.

    Nothing is downloaded. A map belongs to the weights on whose vectors it was fitted; with others it is refused.

    \b
    Example:
      steersearch bench build learned-map -o map.safetensors
      steersearch bench core --world --method learned-map=map.safetensors
    """
    # All load torch, which help does without.
    from steersearch.benchmarks.baselines.learned_map import fit
    from steersearch.benchmarks.baselines.learned_map_data import drawn_groups
    from steersearch.core.predictor import Predictor

    if output.suffix != ".safetensors":
        raise typer.BadParameter(f"{output}: must end in .safetensors", param_hint="-o")
    refuse_impossible(output)
    model = Predictor.from_pretrained("mini", device=device)
    with terminal.progress("learned-map") as report:
        groups = drawn_groups(model, photos, lambda done: report(ProgressEvent(done, photos, 0.0)))
    fit(groups, steps).save(output, model.weights_hash)
    terminal.remark(f"{len(groups):,} names in {photos:,} photos: {terminal.readable(output)}")
