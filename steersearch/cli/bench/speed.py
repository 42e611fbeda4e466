"""`steersearch bench speed`: what steering costs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from steersearch.benchmarks.harness.record import Record
from steersearch.cli.bench.options import AsJson, Save, finish
from steersearch.cli.options import Processor
from steersearch.cli.search_options import words
from steersearch.core.errors import ArgumentError, ConfigError
from steersearch.views import terminal

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


def command(
    model: Annotated[
        str,
        typer.Option(metavar="NAME", help="A name of `models list`; all but mini get random weights."),
    ] = "dinov2-small",
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Images per forward pass.")] = 8,
    dtype: Annotated[
        Dtype, typer.Option(help="Type of the weights; auto: bfloat16 on a GPU that has it, else float32.")
    ] = "auto",
    device: Annotated[Processor, typer.Option(help="Where the model runs.")] = "auto",
    resolution: Annotated[
        int | None,
        typer.Option(metavar="PX", min=1, help="Side of the images.  [default: the model's own]"),
    ] = None,
    prompt: Annotated[
        str, typer.Option(metavar="TEXT", callback=words, help="The prompt; its length matters.")
    ] = "the remote control",
    repeats: Annotated[
        int, typer.Option(metavar="R", min=1, help="Rounds; each measures every variant once.")
    ] = 7,
    threads: Annotated[
        int | None, typer.Option(metavar="T", min=1, help="CPU threads.  [default: one per core]")
    ] = None,
    as_json: AsJson = False,
    save: Save = False,
) -> None:
    """Measure what steering costs in images/s and memory.

    Compares the backbone alone, steered, and steered as in the released code: in float32, with the text encoder
    in every batch. Weights are random, so nothing is downloaded; speed does not depend on their values.

    \b
    Example:
      steersearch bench speed --model dinov2-base --batch-size 8
    """
    from steersearch.benchmarks.engineering.speed import Settings, measure

    try:
        settings = Settings(
            model=model,
            batch_size=batch_size,
            dtype=dtype,
            device=device,
            resolution=resolution,
            prompt=prompt,
            repeats=repeats,
            threads=threads,
        )
        record = measure(settings, terminal.remark)
    except (ArgumentError, ConfigError) as error:
        raise typer.BadParameter(str(error)) from error
    finish(record, as_json=as_json, save=save, show=_show_speed)


_TITLES = {
    "plain": "backbone alone",
    "folded": "steered",
    "unfolded": "as released, float32",
    "unfolded_same_dtype": "as released, {dtype}",
}


def _show_speed(record: Record) -> None:
    settings, metrics = record.settings, record.metrics
    terminal.line(
        f"{record.model}, {settings['resolution']} px, batch {settings['batch_size']}, {settings['dtype']}, "
        f"{record.machine['processor'] if settings['device'] == 'cpu' else record.machine['gpu']}"
    )
    rows = []
    for variant, title in _TITLES.items():
        name = f"{variant}_images_per_s"
        if name in metrics:
            memory = f"{metrics[f'{variant}_peak_memory_bytes'] / 1e6:,.0f} MB"
            ratios = (_spread(metrics, f"{variant}_over_{other}", 3) for other in ("plain", "folded"))
            rows.append((title.format(**settings), _spread(metrics, name, 2), *ratios, memory))
    header = ("", "images/s", "time / backbone alone", "time / steered", "peak memory")
    terminal.table(header, rows, right=header[1:])
    terminal.remark(
        f"medians of {settings['repeats']} rounds, with quartiles; load average "
        f"{metrics['load_average'][0]:g} before, {metrics['load_average'][1]:g} after; "
        f"steered and released tokens differ by at most {metrics['max_difference_folded_unfolded']:.1g}"
    )


def _spread(metrics: dict[str, Any], name: str, digits: int) -> str:
    """Median (lower quartile to upper), or nothing for a figure that is not among the metrics."""
    if name not in metrics:
        return ""
    low, high = metrics[f"{name}_quartiles"]
    return f"{metrics[name]:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"
