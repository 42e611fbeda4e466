"""Options of indexing and searching that several commands share, with their checks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from steersearch.cli.options import local_folder
from steersearch.config import read_settings, seconds_of
from steersearch.core.errors import ArgumentError, PromptError
from steersearch.core.images.limits import Limits, parse_limits
from steersearch.core.preprocess import View
from steersearch.core.prompts import checked_prompt
from steersearch.indexer.filters import parse_date
from steersearch.indexer.query_terms import Sort, as_focuses, parse_focus
from steersearch.indexer.region import Area, as_region
from steersearch.views import terminal
from steersearch.views.hits_file import SUFFIXES
from steersearch.views.terminal import Form

VIEWS = (
    "How the model sees a photo. crop: its central square; squash: all of it; tile: all of it, as four tiles, "
    "which finds smaller things and takes four times as long."
)


def words(text: str) -> str:
    """A valid prompt, in stored form."""
    try:
        return checked_prompt(text)
    except PromptError as error:
        raise typer.BadParameter(str(error)) from error


def all_words(texts: list[str]) -> list[str]:
    """Valid prompts."""
    return [words(text) for text in texts]


def form_of_hits(*, as_json: bool, paths: bool, print0: bool, preview: bool) -> Form:
    """How hits are printed."""
    if as_json + paths + print0 + preview > 1:
        raise typer.BadParameter("exclude each other", param_hint="--json / --paths / --print0 / --preview")
    if preview and not sys.stdout.isatty():
        raise typer.BadParameter("draws in a terminal; standard output is none", param_hint="--preview")
    if preview and terminal.can_preview():
        return Form.preview
    return Form.json if as_json else Form.paths if paths else Form.print0 if print0 else Form.table


def focuses(texts: list[str]) -> list[Any]:
    """Each TEXT[:WEIGHT] as an `indexer.query_terms.Focus`; one text, one weight."""
    try:
        return as_focuses([parse_focus(words(text)) for text in texts])
    except ArgumentError as error:
        raise typer.BadParameter(str(error)) from error


def has_known_suffix(file: Path | None) -> Path | None:
    """A file whose suffix chooses the format of hits."""
    if file is not None and file.suffix.lower() not in SUFFIXES:
        raise typer.BadParameter(f"{file}: its suffix must be one of {', '.join(SUFFIXES)}")
    return file


def region_of(text: str) -> Area:
    """A box in the query photo."""
    try:
        return as_region(text)
    except ArgumentError as error:
        raise typer.BadParameter(str(error)) from error


def exact_or_budget(exact: bool, budget: float | None) -> None:
    """Refuse both at once."""
    if exact and budget is not None:
        raise typer.BadParameter("exclude each other", param_hint="--exact / --budget")


def without_focus(options: dict[str, Any]) -> None:
    """Refuse options about steering if there is no focus."""
    for name, value in options.items():
        if value is not None:
            raise typer.BadParameter("needs --focus: without one nothing is steered", param_hint=name)


def is_date(name: str) -> Callable[[str | None], str | None]:
    """A check that a value is a date, for the option of this name."""

    def checked(text: str | None) -> str | None:
        if text is not None:
            try:
                parse_date(name, text)
            except ArgumentError as error:
                raise typer.BadParameter(str(error)) from error
        return text

    return checked


def finite(number: float | None) -> float | None:
    """A finite number, at least 0, or None."""
    if number is not None and not 0 <= number < float("inf"):
        raise typer.BadParameter(f"{number} must be at least 0 (no steering); 1 is as trained")
    return number


def limits_of(texts: list[str] | None) -> Limits:
    """Limits on reading a photo, from each NAME=VALUE."""
    try:
        return parse_limits(texts or ())
    except ArgumentError as error:
        raise typer.BadParameter(str(error)) from error


def seconds(text: str) -> float:
    """See `seconds_of`."""
    try:
        return seconds_of(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def budget_of(budget: float | None, *, exact: bool, is_steered: bool = True) -> float | None:
    """The time to steer photos: from the command line, else from the settings; None: no limit."""
    return budget if budget is not None or exact or not is_steered else read_settings().budget_s


Focus = Annotated[str, typer.Option(metavar="TEXT", callback=words, help="The indexed prompt.")]
GateScale = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        callback=finite,
        help="Steering strength of the prompts given: 0 none, 1 as trained.  [default: 1]",
        show_default=False,
    ),
]
SeenAs = Annotated[
    View | None, typer.Option("--view", help=f"{VIEWS}  [default: the model's own]", show_default=False)
]
PhotoLimits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=VALUE",
        callback=lambda texts: texts if limits_of(texts) else None,
        help="Limit on reading one photo; repeatable.  [default: file=2GB, memory=1GB, seconds=20]",
        show_default=False,
    ),
]
Budget = Annotated[
    float | None,
    typer.Option(
        metavar="TIME",
        parser=seconds,
        help="Time to spend on a focus that is not indexed, likeliest photos first: 500ms, 5s, 2m. "
        "The vectors are kept.  [default: the setting budget, 5s]",
        show_default=False,
    ),
]
Collapse = Annotated[
    bool,
    typer.Option("--collapse", help="Collapse copies of a photo (the same image, saved again) into one hit."),
]
SortBy = Annotated[
    Sort,
    typer.Option(
        "--sort",
        help="Order of the K best: by score, by date (the oldest first) or by -date (the newest first), "
        "which the page groups by month.",
    ),
]
InFolder = Annotated[
    str | None,
    typer.Option(
        "--folder",
        "--in",
        metavar="FOLDER",
        help="Only photos in or below this folder.",
    ),
]
After = Annotated[
    str | None,
    typer.Option(
        metavar="DATE",
        callback=is_date("after"),
        help="Only photos taken on this date or later: 2024, 2024-05, 2024-05-17, 2024-05-17T18:30. "
        "A photo without a date counts by its file time.",
    ),
]
Before = Annotated[
    str | None,
    typer.Option(metavar="DATE", callback=is_date("before"), help="Only photos taken before this date."),
]
Where = Annotated[
    str | None,
    typer.Option(
        metavar="SQL",
        help='Only photos that meet this condition, such as "width > height AND path LIKE \'trip/%\'" or "taken_at >= '
        "date '2024-05-17'\"; columns: "
        "path, size, mtime_ns, width, height, taken_at, taken_at_precision, taken_at_source, image_id.",
    ),
]
OneScale = Annotated[
    float | None,
    typer.Option(
        "--gate-scale", metavar="NUMBER", callback=finite, help="Use the index with this gate scale."
    ),
]
OneModel = Annotated[
    str | None, typer.Option("--model", metavar="MODEL", help="Use the index made by this model.")
]
OneView = Annotated[View | None, typer.Option("--view", help="Use the index made in this view.")]
Paths = Annotated[bool, typer.Option("--paths", help="Print one path per line, for pipes.")]
Print0 = Annotated[
    bool, typer.Option("--print0", help="Print paths, each ended by a null byte, for `xargs -0`.")
]
Preview = Annotated[
    bool,
    typer.Option(
        "--preview",
        help="Show each hit's thumbnail with its heatmap, in a terminal that shows pictures: Kitty, or one with Sixel, "
        "such as iTerm2. Needs the extra preview.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        "--html",
        metavar="FILE",
        callback=has_known_suffix,
        help="Also write the hits to a file: .html, a page with their heatmaps; .json, .csv or .parquet.",
    ),
]
Open = Annotated[bool, typer.Option("--open", help="Open the page of hits in the browser.")]
CopyTo = Annotated[
    Path | None,
    typer.Option(
        "--copy-to",
        metavar="FOLDER",
        parser=local_folder,
        help="Copy the photos into a folder; nothing in it is overwritten.",
    ),
]
LinkTo = Annotated[
    Path | None,
    typer.Option(
        "--link-to", metavar="FOLDER", parser=local_folder, help="Link to the photos from a folder, likewise."
    ),
]
