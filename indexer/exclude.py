"""Patterns of what is left out of a library, as in a .gitignore file, and where a library remembers them."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from steersearch.core.errors import ArgumentError, LibraryDamagedError
from steersearch.indexer.manifest import write_atomically

_FILE = "exclude.json"

Excludes = Callable[
    [str, bool], bool
]  # (path relative to the photo folder, is it a folder) -> is it left out


def excluder(patterns: Sequence[str]) -> Excludes:
    """What these patterns leave out; of a folder that is left out nothing is looked at.

    `*` and `?` stand for any letters but "/", `[...]` for one of some letters, `**` for any number of folders. A
    pattern without "/" is a name at any depth, one with "/" begins at the photo folder, and with a "/" at its end it
    means folders only. Upper and lower case differ, composed and decomposed letters do not.
    Raises ArgumentError for a pattern that cannot be meant.
    """
    expressions = [(_expression(pattern), pattern.endswith("/")) for pattern in patterns]

    def is_excluded(path: str, is_folder: bool) -> bool:
        path = unicodedata.normalize("NFC", path)
        return any(
            expression.fullmatch(path) is not None
            for expression, folders_only in expressions
            if is_folder or not folders_only
        )

    return is_excluded if expressions else lambda path, is_folder: False


def read_patterns(place: Path) -> tuple[str, ...]:
    """The patterns that the library at `place` remembers. Raises LibraryDamagedError."""
    path = place / _FILE
    try:
        patterns = json.loads(path.read_bytes())
    except FileNotFoundError:
        return ()
    except ValueError as error:
        raise LibraryDamagedError(path, f"not a list of patterns ({error})") from error
    if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
        raise LibraryDamagedError(path, "not a list of patterns")
    return tuple(patterns)


def write_patterns(place: Path, patterns: Sequence[str]) -> None:
    """Let the library remember these patterns instead of those it has."""
    if tuple(patterns) != read_patterns(place):
        text = json.dumps(list(patterns), indent=1).encode()
        write_atomically(place / _FILE, lambda file: file.write(text))


def _expression(pattern: str) -> re.Pattern[str]:
    """What a whole path, without a "/" at its end, has to match."""
    body = unicodedata.normalize("NFC", pattern).strip("/")
    if not body.strip():
        raise ArgumentError("exclude", pattern, 'names nothing; give a pattern such as "*.png" or "drafts/"')
    if body.startswith("!"):
        reason = (
            'cannot include again what another pattern excludes; write "[!]" for a name that begins with "!"'
        )
        raise ArgumentError("exclude", pattern, reason)
    if "\\" in body or {".", ".."} & set(body.split("/")):
        reason = 'is compared with paths relative to the photo folder, with "/" between their parts'
        raise ArgumentError("exclude", pattern, reason)
    anywhere = "" if "/" in pattern.rstrip("/") else "(?:.*/)?"
    try:
        return re.compile(anywhere + _TOKEN.sub(_translated, body), re.DOTALL)
    except re.error as error:
        raise ArgumentError("exclude", pattern, f"cannot be understood ({error})") from error


_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[[!^]?\]?[^]]*\]|.", re.DOTALL)


def _translated(found: re.Match[str]) -> str:
    """One token of a pattern as a regular expression."""
    token = found[0]
    wildcards = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    if token in wildcards:
        return wildcards[token]
    if len(token) == 1:
        return re.escape(token)
    letters, is_negated = token[1:-1], token[1] in "!^" and len(token) > 3
    escaped = re.sub(r"([\[\]^&~|])", r"\\\1", letters[1:] if is_negated else letters)
    return f"(?!/)[{'^' if is_negated else ''}{escaped}]"
