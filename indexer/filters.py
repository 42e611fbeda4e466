"""Filters of a query: by folder, by date, by SQL."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steersearch.core.errors import ArgumentError, FilterError
from steersearch.core.images.dates import are_plausible
from steersearch.core.objects import as_place, is_uri, real_path
from steersearch.indexer.database import selected_rows
from steersearch.indexer.folders import Folders
from steersearch.indexer.schema import (
    PHOTO_COLUMNS,
    comparable_paths,
    mask_of,
    normal_form,
    numbers,
    paths_in,
    to_stored,
)

Mask = npt.NDArray[np.bool_]
_SHOWN = 8  # folders in an error
_NO_TIME = int(np.datetime64("NaT", "s").astype(np.int64))


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Conditions that a photo must all meet.

    folder: it lies in or below this folder, a path that is absolute or relative to the photo folder.
    after, before: it may have been taken at `after` or later and before `before` (local time, no zone); if only the
        month is known, any overlap counts. A photo without a date has its file's time, unless that is implausible.
    where: an SQL condition, see `rows_where` and `check_condition`.
    """

    folder: str | None = None
    after: datetime | None = None
    before: datetime | None = None
    where: str | None = None

    @classmethod
    def of(
        cls,
        folder: str | os.PathLike[str] | None = None,
        after: str | date | None = None,
        before: str | date | None = None,
        where: str | None = None,
    ) -> Filters:
        """Filters from text; dates: see `parse_date`. Raises ArgumentError, FilterError."""
        return cls(
            folder=None if folder is None else os.fsdecode(folder),
            after=None if after is None else parse_date("after", after),
            before=None if before is None else parse_date("before", before),
            where=where,
        )

    def __post_init__(self) -> None:
        if self.folder is not None and not self.folder.strip():
            raise ArgumentError("folder", self.folder, 'is empty; "." is the whole library')
        if self.where is not None:
            check_condition(self.where, PHOTO_COLUMNS)

    def __bool__(self) -> bool:
        return any(value is not None for value in (self.folder, self.after, self.before, self.where))

    def passing(self, photos: Any, folders: Folders) -> Mask | None:
        """Which of `photos` pass, (n,) bool; None: all, since there is no condition.

        photos: table with the columns `schema.PHOTO_COLUMNS`.  folders: of the library. Raises ArgumentError for a
        folder without photos, FilterError.
        """
        if not self:
            return None
        passing = np.ones(photos.num_rows, dtype=bool)
        if self.folder is not None:
            passing &= _is_below(photos.column("path"), _stored(self.folder, folders), self.folder)
        if self.after is not None or self.before is not None:
            passing &= _is_between(photos, self.after, self.before)
        if self.where is not None:
            fulfilling = rows_where(photos, self.where)
            passing &= np.isin(np.arange(photos.num_rows), fulfilling)
        return passing

    def num_undated(self, photos: Any) -> int:
        """How many of `photos` fail for want of a plausible date."""
        if self.after is None and self.before is None:
            return 0
        return int((_by_file(photos) & ~are_plausible(numbers(photos.column("mtime_ns"), np.int64))).sum())


def rows_where(photos: Any, condition: str) -> npt.NDArray[np.int64]:
    """The rows of a table of photos that meet an SQL condition on PHOTO_COLUMNS.

    Composed and decomposed letters are equal. Raises FilterError, which lists the columns.
    """
    columns = photos.select(PHOTO_COLUMNS).replace_schema_metadata(None)
    columns = columns.set_column(0, "path", comparable_paths(photos.column("path")))
    try:
        return selected_rows(columns, normal_form(condition))
    except Exception as error:  # LanceDB raises many types
        raise FilterError(condition, explained(str(error)), PHOTO_COLUMNS) from error


def parse_date(name: str, value: str | date) -> datetime:
    """The start of a year, month, day or minute: "2024", "2024-05", "2024-05-17", "2024-05-17 18:30".

    name: of the option. Raises ArgumentError, also for a time zone, since cameras write none.
    """
    try:
        if isinstance(value, str):
            text = value.strip()
            if re.fullmatch(r"\d{4}(-\d\d)?", text):
                text = f"{text}-01-01"[:10]
            found = datetime.fromisoformat(text)
        elif isinstance(value, datetime):
            found = value
        else:
            found = datetime(value.year, value.month, value.day)
        found.timestamp()  # raises for a year out of range
    except (AttributeError, ValueError, OverflowError, OSError):
        raise ArgumentError(
            name, value, 'is not a date; write it like "2024", "2024-05", "2024-05-17" or "2024-05-17 18:30"'
        ) from None
    if found.tzinfo is not None:
        raise ArgumentError(name, value, "has a time zone; photos have local time only, leave it out")
    return found


def _stored(folder: str, folders: Folders) -> str | None:
    """A folder as paths in the tables name it, in normal form: "" the first photo folder, None all of them."""
    path = as_place(folder) if is_uri(folder) else Path(os.path.normpath(folder))
    if path == Path("."):
        return None
    if not (path.is_absolute() or is_uri(folder)):
        below = next((root / path for root in folders.paths if os.path.isdir(root / path)), None)
        if below is None and not os.path.isdir(path):  # of a folder that is away, or as the tables name it
            return normal_form(path.as_posix())
        path = below or path  # else named from the current folder
    real = as_place(normal_form(os.fspath(real_path(path))))
    for one in folders.all:
        home = as_place(normal_form(os.fspath(real_path(one.path))))
        if real.is_relative_to(home):
            relative = real.relative_to(home).as_posix()
            return normal_form(one.prefix.removesuffix("/") if relative == "." else one.prefix + relative)
    listed = " and ".join(map(str, folders.paths))
    raise ArgumentError("folder", folder, f"lies outside the photo folder {listed}")


def _is_below(paths: Any, relative: str | None, folder: str) -> Mask:
    import pyarrow.compute as compute

    if relative is None:
        return np.ones(len(paths), dtype=bool)
    if not relative:
        return mask_of(compute.invert(compute.starts_with(paths, pattern=".")))
    start = f"{to_stored(relative)}/"
    below = mask_of(compute.starts_with(comparable_paths(paths), pattern=start))
    if not below.any():
        have = sorted({path.split("/", 1)[0] for path in paths_in(paths) if "/" in path})
        more = ", …" if len(have) > _SHOWN else ""
        listed = f"; its folders: {', '.join(have[:_SHOWN])}{more}" if have else "; it has no folders"
        raise ArgumentError("folder", folder, f"contains no photo of the library{listed}")
    return below


def _is_between(photos: Any, after: datetime | None, before: datetime | None) -> Mask:
    """Which photos may be of this time; a photo without a date has its file's time."""
    import pyarrow.compute as compute

    seconds = photos.column("taken_at").cast(pa.int64())
    begins = numbers(seconds, np.int64, _NO_TIME).view("datetime64[s]").astype("datetime64[us]")
    ends = begins + np.timedelta64(1, "s")
    for name, unit in (("minute", "m"), ("day", "D"), ("month", "M"), ("year", "Y")):
        vague = mask_of(compute.match_substring_regex(photos.column("taken_at_precision"), f"^{name}$"))
        ends[vague] = begins[vague].astype(f"datetime64[{unit}]") + 1
    by_file, mtimes = _by_file(photos), numbers(photos.column("mtime_ns"), np.int64)
    passing: Mask = ~by_file | are_plausible(mtimes)
    if after is not None:
        is_later = mtimes >= round(after.timestamp() * 1e9)
        passing &= np.where(by_file, is_later, ends > np.datetime64(after, "us"))
    if before is not None:
        is_earlier = mtimes < round(before.timestamp() * 1e9)
        passing &= np.where(by_file, is_earlier, begins < np.datetime64(before, "us"))
    return passing


def _by_file(photos: Any) -> Mask:
    """Which photos have no date of their own."""
    return mask_of(photos.column("taken_at").is_null())


def is_in(column: Any, values: Any) -> Mask:
    """Which texts of a column are in another one."""
    import pyarrow.compute as compute

    return mask_of(compute.is_in(column, value_set=values))


def places_in(column: Any, values: Any) -> npt.NDArray[np.int64]:
    """For each text of a column its first place in another one, -1 where it has none."""
    import pyarrow.compute as compute

    return numbers(compute.index_in(column, value_set=values), np.int32, -1).astype(np.int64)


# ------------------------------------------------------------------------------------------------------ SQL conditions

MOST_LETTERS = 20_000
MOST_OPERATORS = 200  # DataFusion evaluates a chain of 400, and fails at 1,000
MOST_NESTED = 16  # parentheses; its parser fails at about 50
MOST_WILDCARDS = 20  # in one pattern: each is a state of the automaton that reads all paths

FUNCTIONS = (
    "abs coalesce contains date_part date_trunc ends_with length lower round starts_with upper"
).split()
_OPERATORS = {"and", "or", "not", "in", "like", "ilike", "between", "is"}
_WORDS = {
    *_OPERATORS, *FUNCTIONS, "null", "true", "false", "cast", "as",
    *"timestamp date int integer bigint float double".split(),  # of cast, and before texts
}  # fmt: skip
_TOKEN = re.compile(
    r"""(?P<blank>\s+)
    | (?P<text>'(?:[^']|'')*')
    | (?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)
    | (?P<word>[^\W\d]\w*|"[^"]*"|`[^`]*`)
    | (?P<refused>--|/\*)
    | (?P<operator><=|>=|<>|!=|==|[<>=+\-*/%])
    | (?P<mark>[(),])
    | (?P<refused_mark>.)""",
    re.VERBOSE | re.DOTALL,
)


def check_condition(condition: str, columns: Sequence[str]) -> None:
    """Raise FilterError for a condition that is too long, too deep, or uses words outside of a short list.

    DataFusion checks the rest.
    """
    reason = _too_much(condition) or next(_refusals(condition, {column.lower() for column in columns}), None)
    if reason is not None:
        raise FilterError(_shortened(condition), reason, columns)


def explained(message: str) -> str:
    """Translate a message of LanceDB or DataFusion about a condition for its author."""
    message = re.sub(r",? /\S+\.rs:\d+(:\d+)?\)?", "", message).partition("\n")[0]  # a place in their sources
    for pattern, said in _SAID:
        if found := re.search(pattern, message, re.IGNORECASE):
            return said(*map(_typed, found.groups()))
    return f"cannot be evaluated ({_typed(_WHOSE.sub('', message).strip(' ,.'))[:200]})"


def _wrong_literal(value: str, kind: str) -> str:
    if kind == "date":
        return f"taken_at is compared with {value}; {_DATES}"
    way_out = "; put texts in single quotes" if kind == "text" else ""
    return f"a {kind} is compared with {value}{way_out}"


def _wrong_cast(value: str, kind: str) -> str:
    return f"'{value}' is not a {kind}; {_DATES}" if kind == "date" else f"'{value}' is not a {kind}"


def _typed(words: str) -> str:
    """Replace Arrow's type names by plain words."""
    for pattern, name in _TYPES.items():
        words = re.sub(pattern, name, words)
    return words


_DATES = "write dates like date '2024-05-17' or timestamp '2024-05-17 18:30:00'"
_TYPES = {
    r"\bTimestamp\([^()]*(\([^()]*\))?[^()]*\)|\bDate(32|64)\b": "date",
    r"\b(Large)?Utf8(View)?\b|\bString\b": "text",
    r"\bU?Int(8|16|32|64)\b|\bFloat(16|32|64)\b|\bNumeric\b|\bDecimal\d*(\([^()]*\))?": "number",
    r"\bBoolean\b": "truth",
    r"\bDuration\([^()]*\)|\bInterval(\([^()]*\))?": "duration",
}
_WHOSE = re.compile(
    r"Invalid( user)? input,? ?:?|lance error:|Error (during|optimizing|resolving|parsing|applying)[^:]*:"
    r"|(LanceError|Query Execution|Execution|Internal|Arrow|Schema|Parser|External) ?(error|\(\w+\))?:| in lance\b",
    re.IGNORECASE,
)
# Patterns of messages, and their translation, which gets the groups.
_SAID: tuple[tuple[str, Callable[..., str]], ...] = (
    (r"Received literal \w+\((.*?)\) and could not convert to literal of type '(.*)'", _wrong_literal),
    (r"Error parsing (?:timestamp|date) from '([^']*)'", lambda value: _wrong_cast(value, "date")),
    (r"Cannot cast string '([^']*)' to value of (.*?) type", _wrong_cast),
    (
        r"does not return a boolean",
        lambda: "is not a condition: it must be true or false, like width > 1000",
    ),
    (r"No field named [`\"]?([^`\".]*)", "there is no column {}".format),
    (
        r"Expected: \), found: (.+?)\)?(?: at Line|$)",
        "ends before {}; AND and OR join conditions".format,
    ),
    (r"Expected: (.*?), found: (?:EOF|\))", "ends too early; {} is expected".format),
    (r"Expected: (.*?), found: (.*?)(?: at Line|\)|$)", "has {1} where {0} is expected".format),
    (r"Expression '(.*)' is not supported", "{} is not supported here".format),
    (r"Unterminated string literal", lambda: "a text lacks its closing quotation mark"),
    (r"Divide by zero", lambda: "divides by zero"),
    (r"overflow", lambda: "a number becomes too large"),
    (r"coerce .* LIKE expression", lambda: "LIKE compares texts"),
    (
        r"(?:comparison operation|arithmetic expression) (.*?)(?: to valid types)?$",
        "{} makes no sense".format,
    ),
    (r"Function '(\w+)' failed to match", "{} does not accept these arguments".format),
    (
        r"Function '(\w+)' requires (\w+), but received (\S+)",
        "{} takes a {}, not a {}".format,
    ),
    (r"Function '(\w+)' expects (\w+ argument\w*)", "{} takes {}".format),
    (
        r"Function '(\w+)' expects (\w+) but received (\w+)",
        "{} takes a {}, not a {}".format,
    ),
    (r"Date part '([^']*)' not supported", "a date has no part '{}'".format),
    (r"Unsupported data type: (\w+)", "there is no type {} here".format),
    (r"internal error|panicked", lambda: "cannot be evaluated"),
)


def _too_much(condition: str) -> str | None:
    if any(
        "\ud800" <= letter <= "\udfff" for letter in condition
    ):  # bytes of a command line that are not UTF-8
        return "is not valid Unicode; type it again"
    if len(condition) > MOST_LETTERS:
        return f"has {len(condition):,} characters, more than {MOST_LETTERS:,}"
    depth, operators = 0, 0
    for kind, token in _tokens(condition):
        operators += kind == "operator" or token.lower() in _OPERATORS
        depth += {"(": 1, ")": -1}.get(token, 0) if kind == "mark" else 0
        if depth < 0:
            return 'has a ")" without its "("'
        if depth > MOST_NESTED:
            return f"is nested more than {MOST_NESTED} parentheses deep"
    if depth:
        return 'has a "(" without its ")"'
    if operators > MOST_OPERATORS:
        return f"has {operators:,} operators, more than {MOST_OPERATORS}; IN takes a list of any length"
    return None


def _refusals(condition: str, columns: set[str]) -> Iterator[str]:
    for kind, token in _tokens(condition):
        if kind == "word" and (name := token.strip('"`').lower()) not in columns | _WORDS:
            yield f"{name} is not a column, a keyword or one of the functions ({', '.join(FUNCTIONS)})"
        if kind.startswith("refused"):
            yield f"{token} is not allowed in a condition"
        if kind == "text" and token.count("%") > MOST_WILDCARDS:
            yield f"has a text with more than {MOST_WILDCARDS} %"


def _tokens(condition: str) -> Iterator[tuple[str, str]]:
    """Kind and text of each token except blanks."""
    for found in _TOKEN.finditer(condition):
        if found.lastgroup is not None and found.lastgroup != "blank":
            yield found.lastgroup, found[0]


def _shortened(condition: str) -> str:
    return condition if len(condition) <= 200 else f"{condition[:200]}…"
