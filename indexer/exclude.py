"""Patterns of what is left out of a library, as in a .gitignore file, and where a library remembers them.

pathspec turns a pattern into an expression, and RE2 compares it, in a time that no pattern can blow up. Which pattern
decides is ours: pathspec's own matcher left other files than git under 21 of 300 random lists of patterns ("!*" before
"d" took "d/" back, "x[!a]y" left out "x/y"), and photos would be missing in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steersearch.core.errors import ArgumentError, LibraryDamagedError
from steersearch.indexer.json_file import checked, read_json, write_json
from steersearch.indexer.stored_path import normal_form

PATTERNS_FILE = "exclude.json"
_ESCAPED = re.compile(r"\\[\\*?!# \[]")
_LONE_BYTES = {0xDC00 + byte: 0xF700 + byte for byte in range(0x80, 0x100)}

Excludes = Callable[
    [str, bool], bool
]  # (path relative to the photo folder, is it a folder) -> is it left out


def excluder(patterns: Sequence[str]) -> Excludes:
    """What these patterns leave out by the rules of a .gitignore; nothing below a folder that is left out is asked.

    `*` and `?` stand for any letters but "/", `[...]` for one of some letters, `**` for any number of folders. A
    pattern without "/" is a name at any depth, one with "/" begins at the photo folder, and with a "/" at its end it
    is for folders only. The last pattern that fits decides; one that begins with "!" takes back what others leave
    out. Upper and lower case differ, composed and decomposed letters do not. "#" begins no comment here.
    The time for a path grows with the lengths of path and pattern only, whatever the pattern (RE2).
    Raises ArgumentError for a pattern that cannot be meant.
    """
    compiled = [_compiled(pattern) for pattern in reversed(patterns)]

    def is_excluded(path: str, is_folder: bool) -> bool:
        path = _comparable(path)
        return next((pattern.excludes for pattern in compiled if pattern.fits(path, is_folder)), False)

    return is_excluded


def read_patterns(place: Path) -> tuple[str, ...]:
    """The patterns that the library at `place` remembers. Raises LibraryDamagedError, LibraryUnreadableError."""
    path = place / PATTERNS_FILE
    try:
        patterns = read_json(path)
    except FileNotFoundError:
        return ()
    except LibraryDamagedError as error:
        raise LibraryDamagedError(path, f"not a list of patterns, {error.reason}") from error
    if isinstance(patterns, dict):
        fields = checked(path, patterns)
        patterns = fields["patterns"] if set(fields) == {"patterns"} else None
    if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
        raise LibraryDamagedError(path, "not a list of patterns")
    return tuple(patterns)


def write_patterns(place: Path, patterns: Sequence[str]) -> None:
    """Let the library remember these patterns instead of those it has."""
    if tuple(patterns) != read_patterns(place):
        write_json(place, place / PATTERNS_FILE, {"patterns": list(patterns)})


@dataclass(frozen=True)
class _Pattern:
    """One pattern. excludes: False for one that begins with "!"; is_name: it is compared with the last part only."""

    expression: Any
    excludes: bool
    folders_only: bool
    is_name: bool

    def fits(self, path: str, is_folder: bool) -> bool:
        if self.folders_only and not is_folder:
            return False
        return self.expression.fullmatch(path.rpartition("/")[2] if self.is_name else path) is not None


def _compiled(pattern: str) -> _Pattern:
    import re2
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    body = _comparable(pattern)
    body = body if body.endswith("\\ ") else body.rstrip()
    excludes, body = not body.startswith("!"), body.removeprefix("!")
    folders_only, body = body.endswith("/"), body.rstrip("/")
    if not body.strip():
        raise ArgumentError("exclude", pattern, 'names nothing; give a pattern such as "*.png" or "drafts/"')
    if "\\" in _ESCAPED.sub("", body) or {".", ".."} & set(body.split("/")):
        reason = 'is compared with paths relative to the photo folder, with "/" between their parts'
        raise ArgumentError("exclude", pattern, reason)
    options = re2.Options()
    options.dot_nl, options.log_errors = True, False
    try:
        expression, _ = GitIgnoreSpecPattern.pattern_to_regex(_spelt_out(body))
        if expression is not None:
            expression = expression.replace("[^", "[^/")  # "[!a]" does not stand for a "/"
            return _Pattern(re2.compile(expression, options), excludes, folders_only, "/" not in body)
        reason = 'has a "[" without a "]"; write "[[]" for the letter'
    except (ValueError, re2.error):
        reason = "cannot be understood"
    raise ArgumentError("exclude", pattern, reason)


def _spelt_out(body: str) -> str:
    """The pattern in terms that pathspec turns into an expression of the whole path, without a "/" at its end."""
    body = re.sub(r"^(?=[#!])", r"\\", body)
    return re.sub(r"(^|/)\*$", r"\1?*", re.sub(r"(^|/)\*\*$", r"\1**/*", body))


def _comparable(text: str) -> str:
    """Text of which equal letters are equal, and that RE2 takes: bytes that are no UTF-8 become private letters."""
    return normal_form(text).translate(_LONE_BYTES)
