"""Output of the command line: results on stdout, progress and remarks on stderr."""

from __future__ import annotations

import json
import logging
import math
import os
import shlex
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

from steersearch.core.errors import OutputError, in_digits
from steersearch.core.files import never_a_link
from steersearch.core.objects import as_place
from steersearch.views.streams import drawn_on, escaped, on_one_line

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

    from steersearch.core.prompts import Reading
    from steersearch.indexer.build import Counts
    from steersearch.indexer.folders import FileState
    from steersearch.indexer.hits import Hit, Hits, Searched
    from steersearch.indexer.library_info import Coverage, LibraryInfo
    from steersearch.indexer.manifest import PromptIndex
    from steersearch.indexer.progress import ProgressEvent
    from steersearch.indexer.query_terms import Focus
    from steersearch.indexer.scan import Skip

SECONDS_BETWEEN_LINES = 15.0  # of progress, where stderr is a file and a bar would be noise
SKIPS_SHOWN = 10
_KEPT = "\n\t"  # of control characters, in the log
HEADER_LETTERS = 20  # of a focus above its column


# ------------------------------------------------------------------------------------------------ stderr


class _Loudness:
    """Settings of what goes to stderr besides errors."""

    remarks = True
    tracebacks = False
    log: TextIO | None = None  # a file that also gets all of it, quiet or not


def remark(text: str = "") -> None:
    """One line on stderr, unless quiet."""
    _log(text)
    if _Loudness.remarks:
        _print_error(text)


def detail(text: str) -> None:
    """One line on stderr, if verbose."""
    _log(text)
    if _Loudness.tracebacks:
        _print_error(text)


def error(text: str) -> None:
    """An error on stderr."""
    _log(f"error: {text}")
    _print_error(f"error: {text}")


def _print_error(text: str) -> None:
    print(escaped(text) if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


def confirmed(question: str) -> bool:
    """Ask on stderr; no answer means no."""
    print(f"{escaped(question)} [y/N]: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def log_to(file: Path) -> None:
    """Also append what goes to stderr, and tracebacks, to this file. Raises OutputError."""
    try:
        _Loudness.log = open(  # noqa: SIM115, open until the process ends
            file, "a", encoding="utf-8", errors="backslashreplace", buffering=1, opener=never_a_link
        )
    except OSError as error:
        raise OutputError(file, f"no log can be written ({error.strerror})") from error
    _log(f"steersearch {' '.join(map(shlex.quote, sys.argv[1:]))}")


def is_logging() -> bool:
    return _Loudness.log is not None


def _log(text: str) -> None:
    if _Loudness.log is None or not text:
        return
    try:
        _Loudness.log.write(
            f"{time.strftime('%Y-%m-%d %H:%M:%S')} [{os.getpid()}] {escaped(text, keep=_KEPT)}\n"
        )
    except OSError as error:
        _Loudness.log = None
        _print_error(f"the log ends here: {error.strerror}")


def quiet() -> None:
    """Print neither remarks nor progress."""
    _Loudness.remarks = False


def verbose() -> None:
    """Show other packages' log lines and warnings too, and tracebacks."""
    _Loudness.tracebacks = True
    root = logging.getLogger()
    root.handlers = [_PlainLine()]
    root.setLevel(logging.INFO)
    warnings.simplefilter("always")


def show_traceback() -> None:
    """Print the traceback of the current exception, if verbose; log it."""
    _log(traceback.format_exc())
    if _Loudness.tracebacks:
        _print_error(traceback.format_exc())


class _PlainLine(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            remark(record.getMessage())
        except Exception:  # an unwritable stderr does not fail the work, as in logging's own handlers
            self.handleError(record)


def show_remarks() -> None:
    """Show our own log lines and warnings as plain lines on stderr, and hide other packages'."""
    _Loudness.remarks, _Loudness.tracebacks, _Loudness.log = True, False, None
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
    """A progress bar on stderr; if that is not a terminal, a line now and then."""
    if not (_Loudness.remarks and sys.stderr.isatty()):
        yield _progress_lines(what)
        return
    from rich.progress import MofNCompleteColumn, TextColumn

    speed = TextColumn("{task.fields[speed]}{task.fields[left]}")
    with progress_bar(MofNCompleteColumn(), speed) as bar:
        task = bar.add_task(what, total=None, speed="", left="")
        yield lambda event: bar.update(
            task,
            completed=event.done,
            total=event.total,
            speed=_speed(event),
            left=_time_left(event),
        )


@contextmanager
def progress_bar(*columns: ProgressColumn) -> Iterator[Progress]:
    """A bar on stderr's terminal, between its description and `columns`; remarks appear above it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    about = TextColumn("{task.description}", markup=False)  # "[red]" in a name is no colour
    with (
        drawn_on(sys.stderr) as terminal,
        Progress(
            about,
            BarColumn(),
            *columns,
            console=Console(file=terminal),
            transient=True,
            redirect_stdout=False,
        ) as bar,
    ):
        yield bar


def _speed(event: ProgressEvent, before: str = "") -> str:
    """Images a second, or seconds an image if that is more telling; empty before either is known."""
    if event.images_per_s <= 0:
        return ""
    if event.images_per_s < 1:
        return f"{before}{1 / event.images_per_s:,.1f} s an image"
    return f"{before}{event.images_per_s:,.1f} images/s"


def _time_left(event: ProgressEvent) -> str:
    return "" if math.isinf(event.seconds_left) else f", about {event.seconds_left:,.0f} s left"


def _progress_lines(what: str) -> Report:
    last = time.monotonic()

    def report(event: ProgressEvent) -> None:
        nonlocal last
        if event.done == 0 or time.monotonic() - last < SECONDS_BETWEEN_LINES:
            return
        last = time.monotonic()
        remark(f"{what}: {event.done:,} of {event.total:,}{_speed(event, ', ')}{_time_left(event)}")

    return report


# ------------------------------------------------------------------------------------------------ stdout


class Form(Enum):
    """How hits are printed."""

    table = "table"
    json = "json"
    paths = "paths"
    print0 = "print0"
    preview = "preview"


def can_preview() -> bool:
    """Whether this terminal shows pictures; if not, a remark names some that do. Raises MissingExtraError."""
    from steersearch.views import previews

    if previews.drawing() is not None:
        return True
    remark(
        "no previews: this terminal did not answer that it shows pictures, or standard input is not the terminal. "
        "Kitty, iTerm2, WezTerm, foot, Windows Terminal and others with Sixel do; --open shows a page"
    )
    return False


def line(text: str = "") -> None:
    """One line of a result for people."""
    print(escaped(text) if sys.stdout.isatty() else text)


def json_line(data: Mapping[str, Any]) -> None:
    """One JSON object on one line; ASCII, so that any file name survives any locale."""
    print(json.dumps(data))


def path_line(path: Path, end: str = "\n") -> None:
    """A path in the file system's own bytes, for pipes."""
    if sys.stdout.isatty():
        print(escaped(str(path)), end=end)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(path) + end.encode())


def readable(path: Path | str) -> str:
    """A path for people: relative to the current folder if below it."""
    path = as_place(path)
    try:
        here = Path.cwd()
    except OSError:  # it was deleted
        return str(path)
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 photo", "2,000 photos", "3 forward passes"."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}{'es' if noun.endswith('s') else 's'}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str] = ()) -> None:
    """Columns aligned by spaces; those named in `right` hold numbers and are aligned to the right.

    Each row is one line, whatever its cells contain.
    """
    shown = escaped if sys.stdout.isatty() else on_one_line
    lines = [[shown(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for row in lines:
        cells = (
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(header, row, widths, strict=True)
        )
        line("  ".join(cells).rstrip())


# In the form that `table` takes.
_Columns: TypeAlias = tuple[Sequence[str], Sequence[Sequence[str]], Collection[str]]


def hits(found: Hits, form: Form) -> None:
    """Hits, best first; missing files are reported on stderr."""
    _print_hits(found, form, _hits_columns)


def found(hits: Hits, form: Form) -> None:
    """The hits of a find."""
    _print_hits(hits, form, _found_columns)


def _print_hits(
    found: Hits,
    form: Form,
    columns: Callable[[Sequence[Hit]], _Columns],
) -> None:
    _paths_remark(found, form)
    if form is Form.json:
        for row in json_rows(found):
            json_line(row)
    elif form in (Form.paths, Form.print0):
        for hit in found:
            path_line(hit.path, "\0" if form is Form.print0 else "\n")
    elif found and form is Form.preview:
        from steersearch.views import previews

        previews.draw(*columns(found), found)
    elif found:
        table(*columns(found))


def json_rows(found: Hits) -> list[dict[str, Any]]:
    """A row per hit; if too few photos were compared to rank them, a single row that says so."""
    if found.searched.is_too_little:
        return [{"enough": False, **_searched_fields(found.searched)}]
    fields = _find_fields if found.query is None else _query_fields
    return [
        {
            "path": os.fspath(hit.path),
            "rank": hit.rank,
            **fields(hit),
            **_searched_fields(hit.searched),
            **_also(hit),
        }
        for hit in found
    ]


def _query_fields(hit: Hit) -> dict[str, Any]:
    z = None if math.isnan(hit.z) else hit.z  # unknown for a guess
    fields = {"score": hit.score, "z": z}
    if len(hit.parts) <= 1:
        return fields
    parts = [
        {"prompt": part.prompt, "weight": part.weight, "score": part.score, **_index_fields(part.focus)}
        for part in hit.parts
    ]
    return {**fields, "focuses": parts}


def _find_fields(hit: Hit) -> dict[str, Any]:
    return {"score": hit.score, "presence": hit.parts[0].score}


def _searched_fields(searched: Searched) -> dict[str, Any]:
    """The fields about the search in each row; with several focuses, each names its index beside its score."""
    fields: dict[str, Any] = {
        "exact": searched.is_exact,
        "compared": searched.compared,
        "of": searched.of,
        **({"undated": searched.undated} if searched.undated else {}),
        **({"unreadable": searched.unreadable} if searched.unreadable else {}),
        **({} if searched.is_kept else {"kept": False}),
        **({"served": True} if searched.is_served else {}),
        **({"remarks": list(searched.remarks)} if searched.remarks else {}),
        **({"left_out": [os.fspath(path) for path in searched.left_out]} if searched.left_out else {}),
        **({"doubt": str(searched.doubt)} if searched.doubt else {}),
    }
    if searched.num_query_photos > 1:
        fields |= {"query_photos": searched.num_query_photos, "by": "any" if searched.any_of else "mean"}
    if searched.region is not None:
        fields["region"] = str(searched.region)
    if (index := searched.unsteered) is not None:
        return fields | {"prompt": None, "unsteered": True, "model": index.model_id, "view": index.view}
    fields["prompt"] = searched.prompt
    return fields | _index_fields(searched.focuses[0]) if len(searched.focuses) == 1 else fields


def _index_fields(focus: Focus) -> dict[str, Any]:
    """The prompt index used, the alternatives, and what the model cannot read of the prompt."""
    others = {"other_indexes": [_settings(other) for other in focus.others]} if focus.others else {}
    return {**_settings(focus.index), **others, **reading_fields(focus.reading)}


def reading_fields(reading: Reading | None) -> dict[str, Any]:
    return {} if reading is None else reading.to_dict()


def _settings(index: PromptIndex) -> dict[str, Any]:
    return {"model": index.model_id, "gate_scale": index.gate_scale, "view": index.view}


def _hits_columns(found: Sequence[Hit]) -> _Columns:
    """A table of hits; several focuses have a column each, with their scores."""
    several = found[0].parts if found and len(found[0].parts) > 1 else ()
    texts = [_short(part.prompt) for part in several]
    header = ("rank", "score", "z", *texts, "date", "photo")
    rows = [
        (
            str(hit.rank),
            f"{hit.score:.4f}",
            "" if math.isnan(hit.z) else f"{hit.z:.1f}",
            *(f"{part.score:.4f}" for part in hit.parts if several),
            _day(hit),
        )
        for hit in found
    ]
    return header, _with_paths(rows, found), ("rank", "score", "z", *texts)


def dates_remark(found: Sequence[Hit]) -> None:
    """Count the hits that passed a date filter without a capture date."""
    if silent := sum(hit.date is not None and hit.date.is_change for hit in found):
        said = f"{silent:,} of these {counted(len(found), 'photo')} {'has' if silent == 1 else 'have'} no capture date"
        remark(f"{said}; the date of the last change was used (taken_at_source in --json)")


def _found_columns(found: Sequence[Hit]) -> _Columns:
    rows = [(str(hit.rank), f"{hit.score:.2f}", f"{hit.parts[0].score:.2f}", _day(hit)) for hit in found]
    header = ("rank", "score", "presence", "date", "photo")
    return header, _with_paths(rows, found), ("rank", "score", "presence")


def _day(hit: Hit) -> str:
    return "" if hit.date is None else hit.date.day


def _with_paths(rows: Sequence[tuple[str, ...]], found: Sequence[Hit]) -> list[tuple[str, ...]]:
    """Rows with the paths of their hits, and below each the copies folded into it."""
    whole = []
    for row, hit in zip(rows, found, strict=True):
        whole.append((*row, _with_state(readable(hit.path), hit.state)))
        copies = (_with_state(f"= {readable(path)}", hit.state_of_copy(path)) for path in hit.copies)
        whole += [(*("" for _ in row), copy) for copy in copies]
    return whole


def _with_state(path: str, state: FileState) -> str:
    return f"{path} ({state})" if state else path


def _also(hit: Hit) -> dict[str, Any]:
    """The date and its source; copies, and which are gone, only where there are some; `away`, `gone` and `changed` only
    if true."""
    date = {"taken_at": hit.date and hit.date.iso, "taken_at_source": hit.taken_at_source}
    copies = {"copies": hit.copies, "copies_gone": [path for path in hit.copies if hit.state_of_copy(path)]}
    named = {key: list(map(os.fspath, paths)) for key, paths in copies.items() if paths}
    state = dict.fromkeys({"away": ("gone", "away"), "": ()}.get(hit.state, (hit.state,)), True)
    return {**date, **named, **state}


def _paths_remark(found: Sequence[Hit], form: Form) -> None:
    these = f"of these {counted(len(found), 'photo')}"
    states = Counter(hit.state for hit in found)
    if away := states["away"]:
        remark(f"{away:,} {these} {'is' if away == 1 else 'are'} in a folder that is away")
    if gone := states["gone"]:
        remark(f"{gone:,} {these} no longer {'exists' if gone == 1 else 'exist'}")
    if changed := states["changed"]:
        has = "has" if changed == 1 else "have"
        remark(
            f"{changed:,} {these} {has} changed since the last index; steersearch index brings it up to date"
        )
    if form in (Form.paths, Form.print0) and (folded := sum(len(hit.copies) for hit in found)):
        remark(f"{folded:,} {'copy' if folded == 1 else 'copies'} folded into these; --json lists them")
    if form is Form.paths and any("\n" in os.fspath(hit.path) for hit in found):
        remark("a file name contains a line break: use --print0")


def _short(text: str) -> str:
    return text if len(text) <= HEADER_LETTERS else f"{text[: HEADER_LETTERS - 1]}…"


def hits_remark(found: Hits, k: int, update: str) -> None:
    """How the hits were found, and why there may be fewer than expected.

    update: the command that brings the prompt index up to date
    """
    searched = found.searched
    _searched_remark(searched)
    if searched.is_guess:
        remark("no photo could be read (is a disk not mounted?); this order is a guess")
    elif searched.missing:
        _missing_remark(searched, searched.missing, update)
    _gallery_remark(searched, k)


def found_remark(hits: Hits, k: int, update: str, *, without_presence: int = 0) -> None:
    """How the hits of a find were found.

    update: the command that brings the prompt index up to date.  without_presence: photos that have a vector of an
    older version.
    """
    searched = hits.searched
    _searched_remark(searched)
    missing = searched.missing - without_presence
    if missing > 0:
        _missing_remark(searched, missing, update)
    if without_presence:
        remark(
            f"{counted(without_presence, 'photo')} indexed by an older version cannot be found: "
            f"remove the prompt with `steersearch remove`, then {update}"
        )
    _gallery_remark(searched, k)


def _searched_remark(searched: Searched) -> None:
    """What was compared, in which prompt indexes, and the alternatives."""
    by = "; ".join(
        f"{'' if focus.weight == 1 else f'{focus.weight:g} × '}{focus.index}" for focus in searched.focuses
    )
    remark(f"{searched}, by {searched.unsteered or by}")
    if searched.doubt:
        remark(str(searched.doubt))
    for focus in searched.focuses:
        focus_remarks(focus)


def focus_remarks(focus: Focus) -> None:
    """How the model reads the prompt, and which other indexes it has."""
    for said in focus.remarks:
        remark(said)
    if focus.others:
        others = ", ".join(map(str, focus.others))
        remark(
            f'"{focus.index.prompt}" has {len(focus.others) + 1} indexes; the others: {others}; '
            "choose with --gate-scale, --model or --view"
        )


def _missing_remark(searched: Searched, missing: int, update: str) -> None:
    lacking = f"{counted(missing, 'photo')} {'has' if missing == 1 else 'have'}"
    if searched.unsteered is not None:
        remark(f"{lacking} no unsteered vector yet; to compare all, run: {update}")
        return
    if searched.is_too_little:
        continues = "the same command continues from here; " if searched.is_kept else ""
        remark(f"{continues}a larger --budget gives it more time")
    elif not searched.by_regions:
        remark("photos were sampled from all folders; after a few dozen, the likeliest come first")
    remark(f"{lacking} no vector yet; to compare all, add --exact or run: {update}")


def _gallery_remark(searched: Searched, k: int) -> None:
    if searched.of == 0:
        remark("no photo passes the filters" if searched.is_filtered else "the library has no photo")
    elif searched.of - len(searched.left_out) < k:
        remark(f"the gallery has only {counted(searched.of, 'photo')}")
    elif searched.compared - len(searched.left_out) < k and not searched.is_too_little:
        remark(
            f"only {counted(searched.compared, 'photo')} {'was' if searched.compared == 1 else 'were'} compared"
        )


def counts_in_words(done: Counts) -> str:
    """The outcome of the files."""
    parts = [f"{getattr(done, name):,} {name}" for name in ("added", "reused", "moved")]
    parts += [counted(done.copies, "duplicate")] if done.copies else []
    return f"{counted(done.files, 'file')}: {', '.join(parts)}, {done.skipped:,} skipped; {done.removed:,} removed"


def counts(done: Counts) -> None:
    """The outcome of an `index` run; added, reused, moved, duplicates and skipped add up to the files."""
    line(counts_in_words(done))
    if done.forward_passes == 0:
        line(f"nothing to compute, no forward pass; {done.seconds:.1f} s")
    else:
        line(
            f"{counted(done.forward_passes, 'forward pass')}; read {done.read_seconds:.1f} s, "
            f"embed {done.embed_seconds:.1f} s, write {done.write_seconds:.1f} s, total {done.seconds:.1f} s"
        )
    for prompt, reading in done.readings.items():
        for said in [] if reading is None else reading.remarks():
            remark(f'prompt "{prompt}": {said}')
    for folder in done.away:
        remark(f"{readable(folder.path)}: {folder.reason}")
    for skip in done.skips[:SKIPS_SHOWN]:
        remark(f"skipped {readable(skip.path)}: {skip.reason}")
    if len(done.skips) > SKIPS_SHOWN:
        remark(f"and {len(done.skips) - SKIPS_SHOWN:,} more; list all: steersearch info --skipped")


def changed_counts(done: Counts, before: Counts) -> None:
    """The outcome of a run that a change started; nothing if nothing came of it."""
    numbers = {name: getattr(done, name) for name in ("added", "moved", "removed")}
    said = [f"{number:,} {name}" for name, number in numbers.items() if number]
    said += [counted(done.copies, "duplicate")] if done.copies else []
    if said:
        line(f"{time.strftime('%H:%M:%S')}  {', '.join(said)}; {counted(done.files, 'file')}")
        sys.stdout.flush()
    for skip in set(done.skips) - set(before.skips):
        remark(f"skipped {readable(skip.path)}: {skip.reason}")
    for folder in set(done.away) - set(before.away):
        remark(f"{readable(folder.path)}: {folder.reason}")


def info(library: LibraryInfo, unfinished: Sequence[str], *, as_json: bool) -> None:
    """What a library holds. Remarks: what the model cannot read of a prompt, and unfinished indexes."""
    if as_json:
        place, folders = os.fspath(library.place), list(map(os.fspath, library.folders))
        numbers = {
            name: getattr(library, name) for name in ("photos", "skipped", "bytes_on_disk", "is_unfinished")
        }
        prompts = [_coverage_fields(coverage) for coverage in library.prompts]
        json_line(
            {
                "place": place,
                "folders": folders,
                **numbers,
                "prompts": prompts,
                "unfinished": list(unfinished),
            }
        )
    else:
        line(f"library  {readable(library.place)}  ({library.bytes_on_disk / 1e6:,.1f} MB)")
        for folder in library.folders:
            line(f"folder   {readable(folder)}")
        skips = f"  ({library.skipped:,} skipped)" if library.skipped else ""
        line(f"photos   {library.photos:,}{skips}")
        line()
        rows = [
            (
                f'"{coverage.index.prompt}"',
                f"{coverage.photos:,} of {library.photos:,}",
                in_digits(coverage.index.gate_scale),
                coverage.index.view or "",
                coverage.index.model_id + _weights_if_alike(coverage.index, library),
                coverage.index.created_at[:16].replace("T", " "),
            )
            for coverage in library.prompts
        ]
        header = ("prompt", "photos", "gate scale", "view", "model", "created (UTC)")
        table(header, rows, right=("photos", "gate scale"))
    for coverage in library.prompts:
        for said in [] if coverage.reading is None else coverage.reading.remarks():
            remark(f'prompt "{coverage.index.prompt}": {said}')
        if coverage.why_exact:
            remark(f'prompt "{coverage.index.prompt}": {coverage.why_exact}')
    if library.is_unfinished:
        remark("the last index has not ended: photos may be missing")
    for key in unfinished:
        remark(f"unfinished: {key}; index its prompt to continue, or: steersearch remove {key}")


def _weights_if_alike(index: PromptIndex, library: LibraryInfo) -> str:
    """A label that distinguishes two indexes that differ only in the model's weights."""
    alike = sum(str(coverage.index) == str(index) for coverage in library.prompts)
    return f" ({index.weights})" if alike > 1 else ""


def _coverage_fields(coverage: Coverage) -> dict[str, Any]:
    index = coverage.index
    names = ("key", "prompt", "gate_scale", "view", "model_id", "weights_hash", "dim", "created_at")
    fields = {name.removesuffix("_id"): getattr(index, name) for name in names}
    counts = {"photos": coverage.photos, "missing": coverage.missing, "recall": coverage.recall}
    return {**fields, **counts, **reading_fields(coverage.reading)}


def skipped(skips: Sequence[Skip], *, as_json: bool) -> None:
    """The files that could not be used."""
    for skip in skips:
        if as_json:
            json_line({"path": skip.path, "reason": skip.reason})
        else:
            line(f"{readable(skip.path)}: {skip.reason}")
