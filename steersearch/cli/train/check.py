"""`steersearch train check`: read a whole data set, and list what is broken."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from steersearch.cli.options import Json
from steersearch.cli.train.options import SKIPS_SHOWN, Data, Format, Images, Split, progress, skipped
from steersearch.core.errors import ImageError
from steersearch.training.data.check import NEARLY_ALL, Report, Spread, check_source
from steersearch.training.data.samples import Boxed, Sample, Skip, Source
from steersearch.training.data.sources import open_source
from steersearch.views import output, terminal
from steersearch.views.sample_sheet import draw_samples

SAMPLES_SHOWN = 24
LARGE_SHOWN = 6  # at most this many of them with a mask that covers nearly all
TRIES = 20  # attempts to find a sample for each place of the sheet


def command(
    data: Data,
    format_name: Format = "auto",
    images: Images = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="For Visual Genome: the masks that `train masks` made of its boxes."
        ),
    ] = None,
    split: Split = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Read only N rows, evenly spaced.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Also draw random samples with their masks, as a .png."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Read a whole data set, count what is in it and list what is broken.

    With --json, the first line is the report; the others are unusable rows with the reason, and rows whose mask
    covers nearly all of its picture.

    \b
    Example:
      steersearch train check ./refcoco --images ./coco -o samples.png
    """
    if picture is not None:
        output.refuse_impossible(picture)
    source = open_source(data, format_name, images=images, split=split, masks=masks)
    report = check_source(source, limit=limit, progress=progress("checked"))
    if picture is not None:
        _draw(source, picture, [one.index for one in report.large])
    if as_json:
        _json(report)
    else:
        _table(report)
    if not report.samples and not report.boxes:
        terminal.error("no row can be used")
        raise typer.Exit(1)


def _table(report: Report) -> None:
    terminal.line(
        f"{report.name}: {terminal.counted(report.samples, 'sample')} of {terminal.counted(report.images, 'picture')}"
    )
    if report.boxes:
        terminal.line(
            f"{terminal.counted(report.boxes, 'row')} {'has' if report.boxes == 1 else 'have'} boxes but no mask"
        )
    if report.absent:
        terminal.line(f"{report.absent:,} expressions fit nothing in their picture")
    if report.read < report.rows:
        terminal.line(
            f"{report.read:,} of {terminal.counted(report.rows, 'row')} {'was' if report.read == 1 else 'were'} read"
        )
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
    skipped(report.skips, "all of them: --json")
    if report.boxes:
        terminal.remark("masks from boxes: steersearch train masks DATA -o FOLDER")


def _spread(spread: Spread, form: str) -> str:
    numbers = [form.format(value) for value in asdict(spread).values()]
    return "{} to {}, median {}, 90 % within {} to {}".format(*(numbers[i] for i in (0, 4, 2, 1, 3)))


def _json(report: Report) -> None:
    found: dict[str, Any] = asdict(report)
    rows = [*found.pop("skips"), *found.pop("large")]
    terminal.json_line({**found, "large": len(report.large)})
    for row in rows:
        terminal.json_line({**row, "path": str(row["path"])})


def _draw(source: Source, picture: Path, large: Sequence[int]) -> None:
    """Samples drawn at random, the same each time, after some of the rows `large`; written as a PNG."""
    chosen = _random_samples(source, large[:LARGE_SHOWN])
    if not chosen:
        terminal.remark(f"{terminal.readable(picture)} was not drawn: no usable row")
        return
    png = io.BytesIO()
    pictures = (source.picture(index) for index in chosen)
    draw_samples(list(chosen.values()), pictures).save(png, "PNG")
    output.write_output(picture, png.getvalue())
    terminal.remark(f"picture: {terminal.readable(picture)}")


def _random_samples(source: Source, first: Sequence[int]) -> dict[int, Sample | Boxed]:
    """By the number of their row; rows `first` come first."""
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
