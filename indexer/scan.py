"""The photos below a folder, by name, size and time; no file is opened. And which of them a library leaves out."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steersearch.core.errors import ArgumentError, LibraryDamagedError
from steersearch.core.images.reader import SUFFIXES
from steersearch.indexer.place import checked, read_json, write_json
from steersearch.indexer.schema import normal_form

# Folders of an operating system, a file server, an archiver or a package manager: no photos of anybody.
SYSTEM_FOLDERS = frozenset(
    "$recycle.bin|recycler|system volume information|lost+found|__macosx"
    "|@eadir|#recycle|#snapshot|@recycle|@recently-snapshot"
    "|node_modules|bower_components|site-packages|__pycache__".split("|")
)
# A photo library of macOS is a folder: the imported photos lie in these below it, everything else is a copy.
_PHOTO_LIBRARIES = (".photoslibrary", ".photolibrary", ".migratedphotolibrary", ".aplibrary")
_ORIGINALS = ("originals", "masters")

_LATEST = 2**63 - 1


@dataclass(frozen=True)
class FoundFile:
    """A file with an image's suffix. path: relative to the folder, "/" between its parts; size in bytes;
    mtime_ns: see `changed_at`.

    Bytes of a name that are no UTF-8 are lone surrogates in a path, as `os.fsdecode` gives them.
    """

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Skip:
    """A file, or a folder that cannot be listed, that is skipped, and why. path: relative to the folder."""

    path: str
    reason: str


@dataclass(frozen=True)
class Scan:
    """files and skips are sorted by path; unlisted: relative paths of folders that could not be listed.

    root_ids: distinguish each folder from one in its place, such as the empty mount point of an unmounted disk.
    """

    root_ids: tuple[tuple[Path, tuple[int, int]], ...]
    files: tuple[FoundFile, ...]
    skips: tuple[Skip, ...]
    unlisted: tuple[str, ...]

    @property
    def replaced(self) -> Path | None:
        """A folder in whose place there is another by now."""
        return next((root for root, identity in self.root_ids if root_id(root) != identity), None)


def scan_folder(root: Path, excludes: Excludes = lambda path, is_folder: False) -> Scan:
    """All photos under `root`, at any depth.

    Ignored: names that begin with a dot (hidden, AppleDouble), SYSTEM_FOLDERS, what a photo library of macOS holds
    beside the originals, files of other kinds, and the relative paths that `excludes` matches. Links to folders are
    followed, but no folder is visited twice: loops end, and a photo that is reached in two ways is found once, by its
    path without links if it has one. Never raises for what lies below `root`; what cannot be used is in `skips`.
    """
    identity = root_id(root)
    files, skips, unlisted = [], [], []
    for found in _walk(root, excludes):
        if isinstance(found, FoundFile):
            files.append(found)
        elif isinstance(found, Skip):
            skips.append(found)
        else:
            unlisted.append(found.path)
            skips.append(Skip(found.path, f"the folder cannot be listed ({found.reason})"))
    files.sort(key=lambda file: file.path)
    skips.sort(key=lambda skip: skip.path)
    return Scan(((root, identity),), tuple(files), tuple(skips), tuple(unlisted))


def root_id(root: Path) -> tuple[int, int]:
    """Device and inode of a folder; zeros if it is not there."""
    try:
        status = os.stat(root)
    except OSError:
        return 0, 0
    return status.st_dev, status.st_ino


def holds_an_image(root: Path) -> bool:
    """Whether anything under `root` has an image's suffix, readable or not; stops at the first."""
    return any(not isinstance(found, _Unlisted) for found in _walk(root, lambda path, is_folder: False))


@dataclass(frozen=True)
class _Unlisted:
    path: str
    reason: str


def _walk(root: Path, excludes: Excludes) -> Iterator[FoundFile | Skip | _Unlisted]:
    folders = [""]  # relative paths still to list
    linked: list[str] = []  # links to folders wait until all real folders are known
    visited: set[tuple[int, int]] = set()
    base = os.fspath(root)
    while folders or linked:
        relative = folders.pop() if folders else linked.pop(0)
        full = f"{base}/{relative}" if relative else base
        try:
            status = os.stat(full)
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(full) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            yield _Unlisted(relative or ".", error.strerror or type(error).__name__)
            continue
        holds_originals = relative.lower().endswith(_PHOTO_LIBRARIES)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = f"{relative}/{entry.name}" if relative else entry.name
            if _is_folder(entry):
                name = entry.name.lower()
                is_wanted = name in _ORIGINALS if holds_originals else name not in SYSTEM_FOLDERS
                if is_wanted and not excludes(path, True):
                    (linked if entry.is_symlink() else folders).append(path)
            elif entry.name.lower().endswith(SUFFIXES) and not holds_originals and not excludes(path, False):
                yield _file(entry, path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round in a circle
        return False


def _file(entry: os.DirEntry[str], path: str) -> FoundFile | Skip:
    try:
        status = entry.stat()
    except OSError as error:
        broken = "a link that leads nowhere" if entry.is_symlink() else error.strerror
        return Skip(path, broken or type(error).__name__)
    if not stat.S_ISREG(status.st_mode):
        return Skip(path, "not a regular file")
    return FoundFile(path, status.st_size, changed_at(status))


def changed_at(status: os.stat_result) -> int:
    """When a file was last changed, in ns since 1970, limited to 64 bits: file systems can hold years before 1678 and
    after 2262."""
    return max(-_LATEST, min(status.st_mtime_ns, _LATEST))


# ---------------------------------------------------------------------------------------- patterns of what is left out

PATTERNS_FILE = "exclude.json"
_ESCAPED = re.compile(r"\\[\\*?!# \[]")
_LONE_BYTES = {0xDC00 + byte: 0xF700 + byte for byte in range(0x80, 0x100)}

Excludes = Callable[
    [str, bool], bool
]  # (path relative to the photo folder, is it a folder) -> is it left out


def excluder(patterns: Sequence[str]) -> Excludes:
    """What these patterns leave out by the rules of a .gitignore; nothing below an excluded folder is tested.

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
