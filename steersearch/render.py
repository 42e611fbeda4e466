"""All that the command line writes: results to stdout, and only results; progress and remarks to stderr."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import sys
import time
import unicodedata
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from steersearch.indexer.library import (
        Aim,
        Counts,
        Hit,
        Hits,
        LibraryInfo,
        ProgressEvent,
        PromptIndex,
        Skip,
    )

SECONDS_BETWEEN_LINES = 15.0  # of progress, where stderr is a file and a bar would be noise
SKIPS_SHOWN = 10
HEADER_LETTERS = 20  # of a focus above its column


# ------------------------------------------------------------------------------------------------ stderr


def prepare_streams() -> None:
    """Nothing that is printed fails for its letters; remarks of our own packages appear on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    show_remarks()


def remark(text: str) -> None:
    """One plain line on stderr."""
    print(text, file=sys.stderr, flush=True)


class _PlainLine(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        remark(record.getMessage())


def show_remarks() -> None:
    """Let our own log lines and warnings appear as plain lines on stderr; other packages' stay out."""
    logger = logging.getLogger("steersearch")
    logger.handlers = [_PlainLine()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    warnings.simplefilter("ignore")
    warnings.filterwarnings("always", module=r"steersearch(\.|$)")
    warnings.showwarning = lambda message, *_args, **_kwargs: remark(str(message))


Report: TypeAlias = Callable[["ProgressEvent"], None]


@contextmanager
def progress(what: str) -> Iterator[Report]:
    """A bar with speed and time left on stderr; where that is not a terminal, a line now and then."""
    if not sys.stderr.isatty():
        yield _progress_lines(what)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    speed = TextColumn("{task.fields[images_per_s]:,.1f} images/s")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        speed,
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, images_per_s=0.0)
        yield lambda event: bar.update(
            task, completed=event.done, total=event.total, images_per_s=event.images_per_s
        )


def _progress_lines(what: str) -> Report:
    last = time.monotonic()

    def report(event: ProgressEvent) -> None:
        nonlocal last
        if event.done == 0 or time.monotonic() - last < SECONDS_BETWEEN_LINES:
            return
        last = time.monotonic()
        speed = event.images_per_s
        left = f", about {(event.total - event.done) / speed:,.0f} s left" if speed > 0 else ""
        remark(f"{what}: {event.done:,} of {event.total:,}, {speed:,.1f} images/s{left}")

    return report


# ------------------------------------------------------------------------------------------------ stdout


class Form(Enum):
    """How hits are printed."""

    table = "table"
    json = "json"
    paths = "paths"
    print0 = "print0"


def line(text: str = "") -> None:
    """One line of a result for people."""
    print(text)


def json_line(data: Mapping[str, Any]) -> None:
    """One JSON object on one line; ASCII, so that any file name survives any locale."""
    print(json.dumps(data))


def path_line(path: Path, end: bytes = b"\n") -> None:
    """A path as the bytes that the file system has, which a pipe can hand on whatever they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(path) + end)


def readable(path: Path | str) -> str:
    """A path for people: relative to the current folder if below it, unprintable characters escaped."""
    path = Path(path)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return escaped(str(path))


def escaped(text: str) -> str:
    """A text with its unprintable characters escaped, such as the bytes of a file name that are no UTF-8."""
    return "".join(
        c if _is_printable(c) else c.encode("unicode_escape", "backslashreplace").decode() for c in text
    )


def _is_printable(character: str) -> bool:
    return not unicodedata.category(character).startswith("C")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str] = ()) -> None:
    """Columns aligned by spaces; those named in `right` hold numbers and are aligned to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        cells = (
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(header, row, widths, strict=True)
        )
        line("  ".join(cells).rstrip())


def hits(found: Sequence[Hit], form: Form) -> None:
    """Hits, best first; on stderr whether their paths lead anywhere."""
    _paths_remark(found, form)
    if form is Form.table:
        _hits_table(found)
        return
    for hit in found:
        if form is not Form.json:
            _hit_path(hit, form)
        else:
            names = ("score", "z", "relevant", "rank", "exact", "prompt")
            parts = [
                {"prompt": part.prompt, "weight": part.weight, "score": part.score} for part in hit.parts
            ]
            more: dict[str, Any] = {"focuses": parts} if len(parts) > 1 else {}
            named = {name: getattr(hit, name) for name in names}
            named["z"] = None if math.isnan(hit.z) else hit.z  # of a guess it is not known
            json_line({"path": os.fspath(hit.path), **named, **more, **_also(hit)})


def _hits_table(found: Sequence[Hit]) -> None:
    """Of several focuses each has a column with its own score, headed by its text."""
    several = found[0].parts if found and len(found[0].parts) > 1 else ()
    texts = [_short(readable(part.prompt)) for part in several]
    header = ("rank", "score", "z", *texts, "photo")
    rows = [
        (
            str(hit.rank),
            f"{hit.score:.4f}",
            "" if math.isnan(hit.z) else f"{hit.z:.1f}",
            *(f"{part.score:.4f}" for part in hit.parts if several),
            readable(hit.path) + _beside(hit),
        )
        for hit in found
    ]
    table(header, rows, right=("rank", "score", "z", *texts))


def _hit_path(hit: Hit, form: Form) -> None:
    path_line(hit.path, b"\0" if form is Form.print0 else b"\n")


def _beside(hit: Hit) -> str:
    """What a table says of a hit behind its path."""
    count = len(hit.copies)
    copies = f" (and {count} {'copy' if count == 1 else 'copies'})" if count else ""
    return copies + (" (gone)" if hit.is_gone else "")


def _also(hit: Hit) -> dict[str, Any]:
    """What JSON says of a hit only where it is so."""
    copies = {"copies": [os.fspath(path) for path in hit.copies]} if hit.copies else {}
    return {**copies, **({"gone": True} if hit.is_gone else {})}


def _paths_remark(found: Sequence[Hit], form: Form) -> None:
    if gone := sum(hit.is_gone for hit in found):
        remark(f"{gone:,} of these {len(found):,} photos are gone since they were indexed")
    if form is Form.paths and any("\n" in os.fspath(hit.path) for hit in found):
        remark("a file name here holds a line break: --print0 keeps the paths apart")


def _short(text: str) -> str:
    return text if len(text) <= HEADER_LETTERS else f"{text[: HEADER_LETTERS - 1]}…"


def hits_remark(
    found: Hits[Any], aims: Sequence[Aim], k: int, update: str, *, only_relevant: bool = False
) -> None:
    """How the hits were found, and why there may be fewer or others than expected.

    update: the command that brings the prompt index up to date
    """
    searched = found.searched
    by = "; ".join(f"{'' if aim.weight == 1 else f'{aim.weight:g} × '}{aim.index}" for aim in aims)
    remark(f"{searched}, by {by}")
    if searched.is_guess:
        remark("not one photo can be read; is a disk not mounted? The order may be far from the true one")
    elif searched.missing:
        if not searched.by_regions:
            remark(
                "the likeliest are not known: this library keeps no regions yet, the next index makes them"
            )
        remark(
            f"{searched.missing:,} photos have no vector yet; --exact compares all, and goes on like: {update}"
        )
    standing = sum(hit.relevant for hit in found)
    if only_relevant:
        remark(f"{standing:,} photos stand out" + (f", or more than these {k}" if standing == k else ""))
    elif searched.photos < k:
        remark(f"the gallery has no more than {searched.photos:,} photos")


def found(hits: Sequence[Hit], form: Form) -> None:
    """Hits of a find, best first; on stderr whether their paths lead anywhere."""
    _paths_remark(hits, form)
    if form is Form.table:
        rows = [
            (
                str(hit.rank),
                f"{hit.score:.2f}",
                f"{hit.parts[0].score:.2f}",
                readable(hit.path) + _beside(hit),
            )
            for hit in hits
        ]
        table(("rank", "score", "presence", "photo"), rows, right=("rank", "score", "presence"))
        return
    for hit in hits:
        if form is not Form.json:
            _hit_path(hit, form)
        else:
            names = ("score", "rank", "exact", "prompt")
            named = {name: getattr(hit, name) for name in names}
            presence = {"presence": hit.parts[0].score}
            json_line({"path": os.fspath(hit.path), **named, **presence, **_also(hit)})


def found_remark(
    hits: Hits[Any], index: PromptIndex, k: int, update: str, *, without_presence: int = 0
) -> None:
    """How the hits of a find were found.

    update: the command that brings the prompt index up to date.  without_presence: photos that have a vector of an
    older version.
    """
    searched = hits.searched
    remark(f"{searched}, by {index}")
    missing = searched.missing - without_presence
    if missing and not searched.by_regions:
        remark(
            "these were taken at random: which are likely is learned from the first few dozen, and from regions"
        )
    if missing:
        remark(f"{missing:,} photos have no vector yet; --exact looks at all, and goes on like: {update}")
    if without_presence:
        remark(
            f"{without_presence:,} photos were indexed by an older version and cannot be found: "
            f"steersearch remove the prompt, then {update}"
        )
    if searched.photos < k:
        remark(f"the gallery has no more than {searched.photos:,} photos")


def counts(done: Counts) -> None:
    """What an `index` run did; the numbers of the first part add up to the files."""
    parts = (f"{getattr(done, name):,} {name}" for name in ("added", "reused", "moved", "skipped"))
    line(f"{done.files:,} files: {', '.join(parts)}; {done.removed:,} removed")
    if done.forward_passes == 0:
        line(f"nothing to compute, no forward pass; {done.seconds:.1f} s")
    else:
        line(
            f"{done.forward_passes:,} forward passes; read {done.read_seconds:.1f} s, "
            f"embed {done.embed_seconds:.1f} s, write {done.write_seconds:.1f} s, in all {done.seconds:.1f} s"
        )
    for skip in done.skips[:SKIPS_SHOWN]:
        remark(f"skipped {readable(skip.path)}: {skip.reason}")
    if len(done.skips) > SKIPS_SHOWN:
        remark(f"and {len(done.skips) - SKIPS_SHOWN:,} more; all of them: steersearch info --skipped")


def info(library: LibraryInfo, *, as_json: bool) -> None:
    """What a library holds."""
    if as_json:
        prompts = [
            {
                "prompt": coverage.index.prompt,
                "gate_scale": coverage.index.gate_scale,
                "view": coverage.index.view,
                "model": coverage.index.model_id,
                "weights_hash": coverage.index.weights_hash,
                "photos": coverage.photos,
                "missing": coverage.missing,
                "created_at": coverage.index.created_at,
            }
            for coverage in library.prompts
        ]
        place, folder = os.fspath(library.place), os.fspath(library.folder)
        numbers = {name: getattr(library, name) for name in ("photos", "skipped", "bytes_on_disk")}
        json_line({"place": place, "folder": folder, **numbers, "prompts": prompts})
        return
    line(f"library  {readable(library.place)}  ({library.bytes_on_disk / 1e6:,.1f} MB)")
    line(f"folder   {readable(library.folder)}")
    line(f"photos   {library.photos:,}" + (f"  ({library.skipped:,} skipped)" if library.skipped else ""))
    line()
    rows = [
        (
            f'"{readable(coverage.index.prompt)}"',
            f"{coverage.photos:,}",
            f"{coverage.index.gate_scale:g}",
            coverage.index.view or "",
            readable(coverage.index.model_id),
            coverage.index.created_at[:16].replace("T", " "),
        )
        for coverage in library.prompts
    ]
    header = ("prompt", "photos", "gate scale", "view", "model", "made (UTC)")
    table(header, rows, right=("photos", "gate scale"))


def skipped(skips: Sequence[Skip], *, as_json: bool) -> None:
    """The files that could not be used."""
    for skip in skips:
        if as_json:
            json_line({"path": skip.path, "reason": skip.reason})
        else:
            line(f"{readable(skip.path)}: {skip.reason}")
