"""SQL conditions on photos, looked through before LanceDB reads them, and what it says of them in plain words.

DataFusion, which evaluates them, ends the process on a long chain of operators (no more stack) and fills any memory
where a function repeats a text. So only what a condition on photos needs is let through, and no more of it than fits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from steersearch.core.errors import FilterError

MOST_LETTERS = 20_000
MOST_OPERATORS = 200  # a chain of 400 is evaluated, one of 1,000 is not
MOST_NESTED = 16  # parentheses; its parser gives up at some 50
MOST_WILDCARDS = 20  # in one text: each is a state of the automaton that reads all paths

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
    """Raise FilterError for a condition that is too long or too deep, or calls for more than photos need.

    Whether it makes sense is for DataFusion to say.
    """
    reason = _too_much(condition) or next(_refusals(condition, {column.lower() for column in columns}), None)
    if reason is not None:
        raise FilterError(_shortened(condition), reason, columns)


def explained(message: str) -> str:
    """What LanceDB or DataFusion says of a condition, in words for whoever wrote it."""
    message = re.sub(r",? /\S+\.rs:\d+(:\d+)?\)?", "", message).partition("\n")[0]  # a place in their sources
    for pattern, said in _SAID:
        if found := re.search(pattern, message, re.IGNORECASE):
            return said(*map(_typed, found.groups()))
    return f"cannot be evaluated ({_typed(_WHOSE.sub('', message).strip(' ,.'))[:200]})"


def _wrong_literal(value: str, kind: str) -> str:
    if kind == "date":
        return f"taken_at is compared with {value}; {_DATES}"
    way_out = "; texts stand in single quotes" if kind == "text" else ""
    return f"a {kind} is compared with {value}{way_out}"


def _wrong_cast(value: str, kind: str) -> str:
    return f"'{value}' is no {kind}; {_DATES}" if kind == "date" else f"'{value}' is no {kind}"


def _typed(words: str) -> str:
    """With the names of types that people have for them."""
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
# What a message says, and what that means; the groups are given to the second.
_SAID: tuple[tuple[str, Callable[..., str]], ...] = (
    (r"Received literal \w+\((.*?)\) and could not convert to literal of type '(.*)'", _wrong_literal),
    (r"Error parsing (?:timestamp|date) from '([^']*)'", lambda value: _wrong_cast(value, "date")),
    (r"Cannot cast string '([^']*)' to value of (.*?) type", _wrong_cast),
    (
        r"does not return a boolean",
        lambda: "is no condition: it is neither true nor false, as width > 1000 is",
    ),
    (r"No field named [`\"]?([^`\".]*)", "there is no column {}".format),
    (
        r"Expected: \), found: (.+?)\)?(?: at Line|$)",
        "ends before {}; AND and OR join conditions".format,
    ),
    (r"Expected: (.*?), found: (?:EOF|\))", "ends too early; {} is expected".format),
    (r"Expected: (.*?), found: (.*?)(?: at Line|\)|$)", "has {1} where {0} is expected".format),
    (r"Expression '(.*)' is not supported", "{} is nothing that is read here".format),
    (r"Unterminated string literal", lambda: "a text lacks its closing quotation mark"),
    (r"Divide by zero", lambda: "divides by zero"),
    (r"overflow", lambda: "a number becomes too large"),
    (r"coerce .* LIKE expression", lambda: "LIKE compares texts"),
    (
        r"(?:comparison operation|arithmetic expression) (.*?)(?: to valid types)?$",
        "{} makes no sense".format,
    ),
    (r"Function '(\w+)' failed to match", "{} does not take what it is given".format),
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
    ):  # bytes of a command line that are no UTF-8
        return "is not valid Unicode; type it again"
    if len(condition) > MOST_LETTERS:
        return f"is {len(condition):,} letters long, at most {MOST_LETTERS:,} are read"
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
        return (
            f"has {operators:,} operators, at most {MOST_OPERATORS} are read; IN takes a list of any length"
        )
    return None


def _refusals(condition: str, columns: set[str]) -> Iterator[str]:
    for kind, token in _tokens(condition):
        if kind == "word" and (name := token.strip('"`').lower()) not in columns | _WORDS:
            yield f"{name} is no column, and no word or function that is read here ({', '.join(FUNCTIONS)})"
        if kind.startswith("refused"):
            yield f"{token} cannot stand in a condition"
        if kind == "text" and token.count("%") > MOST_WILDCARDS:
            yield f"has a text with more than {MOST_WILDCARDS} %"


def _tokens(condition: str) -> Iterator[tuple[str, str]]:
    """Kind and text of each part but blanks."""
    for found in _TOKEN.finditer(condition):
        if found.lastgroup is not None and found.lastgroup != "blank":
            yield found.lastgroup, found[0]


def _shortened(condition: str) -> str:
    return condition if len(condition) <= 200 else f"{condition[:200]}…"
