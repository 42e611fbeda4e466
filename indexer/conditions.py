"""SQL conditions on photos, looked through before LanceDB reads them.

DataFusion, which evaluates them, ends the process on a long chain of operators (no more stack) and fills any memory
where a function repeats a text. So only what a condition on photos needs is let through, and no more of it than fits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

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


def _too_much(condition: str) -> str | None:
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
