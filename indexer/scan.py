"""Find the photos below a folder by name, size and time, without opening files; and exclude patterns."""

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
from steersearch.core.objects import ObjectPath, ObjectStatus, ObjectStoreError
from steersearch.indexer.file_lists import FoundFile, FoundFiles
from steersearch.indexer.place import checked, read_json, write_json
from steersearch.indexer.schema import normal_form

# Folders of operating systems, file servers, archivers and package managers, without anyone's photos.
SYSTEM_FOLDERS = frozenset(
    "$recycle.bin|recycler|system volume information|lost+found|__macosx"
    "|@eadir|#recycle|#snapshot|@recycle|@recently-snapshot"
    "|node_modules|bower_components|site-packages|__pycache__".split("|")
)
# Folders of imported photos in a photo library of macOS, which is a folder; all others contain copies.
_PHOTO_LIBRARIES = (".photoslibrary", ".photolibrary", ".migratedphotolibrary", ".aplibrary")
_ORIGINALS = ("originals", "masters")

_LATEST = 2**63 - 1


@dataclass(frozen=True)
class Skip:
    """A skipped file or folder, with the reason. path: relative to the folder."""

    path: str
    reason: str


@dataclass(frozen=True)
class Scan:
    """files and skips are sorted by path; unlisted: relative paths of folders that could not be listed.

    root_ids: distinguish each folder from one in its place, such as the empty mount point of an unmounted disk.
    """

    root_ids: tuple[tuple[Path, tuple[int, int]], ...]
    files: FoundFiles
    skips: tuple[Skip, ...]
    unlisted: tuple[str, ...]

    @property
    def replaced(self) -> Path | None:
        """A folder in whose place there is another by now."""
        return next((root for root, identity in self.root_ids if root_id(root) != identity), None)


def scan_folder(root: Path, excludes: Excludes = lambda path, is_folder: False) -> Scan:
    """All photos under `root`, at any depth.

    Ignores names that start with a dot (hidden, AppleDouble), SYSTEM_FOLDERS, copies within a photo library of macOS,
    files of other kinds, and relative paths that `excludes` matches. Follows links to folders, but visits no folder
    twice, so loops end, and a photo is found once, by its path without links if it has one. Never raises for anything
    below `root`; unusable files are in `skips`.
    """
    identity = root_id(root)
    skips, unlisted = [], []

    def files() -> Iterator[FoundFile]:
        for found in _below(root, excludes):
            if isinstance(found, FoundFile):
                yield found
            elif isinstance(found, Skip):
                skips.append(found)
            else:
                unlisted.append(found.path)
                skips.append(Skip(found.path, f"the folder cannot be listed ({found.reason})"))

    listed = FoundFiles.of(files())
    skips.sort(key=lambda skip: skip.path)
    return Scan(((root, identity),), listed, tuple(skips), tuple(unlisted))


def root_id(root: Path) -> tuple[int, int]:
    """Device and inode of a folder; zeros if it does not exist, and of one in a bucket."""
    if isinstance(root, ObjectPath):
        return 0, 0
    try:
        status = os.stat(root)
    except OSError:
        return 0, 0
    return status.st_dev, status.st_ino


def holds_an_image(root: Path) -> bool:
    """Whether anything under `root` has an image's suffix, readable or not; stops at the first."""
    return any(not isinstance(found, _Unlisted) for found in _below(root, lambda path, is_folder: False))


@dataclass(frozen=True)
class _Unlisted:
    path: str
    reason: str


def _below(root: Path, excludes: Excludes) -> Iterator[FoundFile | Skip | _Unlisted]:
    return _objects(root, excludes) if isinstance(root, ObjectPath) else _walk(root, excludes)


def _objects(root: ObjectPath, excludes: Excludes) -> Iterator[FoundFile | Skip | _Unlisted]:
    """The photos whose names begin with that of `root`, by the rules of `_walk`. Raises ObjectStoreError."""
    for path, status in _listed(root):
        parts = path.parts[len(root.parts) :]
        folders = parts if isinstance(status, str) else parts[:-1]
        if any(part.startswith(".") for part in parts) or any(p.lower() in SYSTEM_FOLDERS for p in folders):
            continue
        if any(excludes("/".join(parts[:number]), True) for number in range(1, len(folders) + 1)):
            continue
        relative = "/".join(parts)
        if isinstance(status, str):
            yield _Unlisted(relative, status)
        elif _is_image(path.name) and not excludes(relative, False):
            yield FoundFile(relative, status.st_size, status.st_mtime_ns)


def _listed(root: ObjectPath) -> Iterator[tuple[ObjectPath, ObjectStatus | str]]:
    """All objects below; of folders that cannot be listed, because an object in them has a name that is no path, the
    reason.

    obstore lists 1,000 objects at a time, and none of them where one has such a name: then each folder is listed alone.
    """
    last = ""
    try:
        for path, status in root.below():
            last = path.object_name
            yield path, status
    except ObjectStoreError as error:
        if not error.is_of_a_name:
            raise
        for path, found in _listed_by_folder(root):
            if path == root:
                raise
            if isinstance(found, str) or path.object_name.encode() > last.encode():  # as stores order them
                yield path, found


def _listed_by_folder(folder: ObjectPath) -> Iterator[tuple[ObjectPath, ObjectStatus | str]]:
    try:
        folders, objects = folder.listed()
    except ObjectStoreError as error:
        if not error.is_of_a_name:
            raise
        yield folder, str(error.strerror)
        return
    yield from objects
    for one in folders:
        yield from _listed_by_folder(one)


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
            holds_originals = relative.lower().endswith(_PHOTO_LIBRARIES)
            below = []
            with os.scandir(full) as listing:
                for entry in listing:
                    if entry.name.startswith("."):
                        continue
                    path = f"{relative}/{entry.name}" if relative else entry.name
                    if _is_folder(entry):
                        name = entry.name.lower()
                        is_wanted = name in _ORIGINALS if holds_originals else name not in SYSTEM_FOLDERS
                        if is_wanted and not excludes(path, True):
                            below.append((path, entry.is_symlink()))
                    elif _is_image(entry.name) and not holds_originals and not excludes(path, False):
                        yield _file(entry, path)
        except OSError as error:
            yield _Unlisted(relative or ".", error.strerror or type(error).__name__)
            continue
        for path, is_link in sorted(below):
            (linked if is_link else folders).append(path)


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circular link
        return False


def _file(entry: os.DirEntry[str], path: str) -> FoundFile | Skip:
    try:
        status = entry.stat()
    except OSError as error:
        broken = "a broken link" if entry.is_symlink() else error.strerror
        return Skip(path, broken or type(error).__name__)
    if not stat.S_ISREG(status.st_mode):
        return Skip(path, "not a regular file")
    return FoundFile(path, status.st_size, changed_at(status))


def changed_at(status: os.stat_result | ObjectStatus) -> int:
    """A file's modification time in ns since 1970, clipped to 64 bits, as file systems allow years before 1678 and
    after 2262."""
    return max(-_LATEST, min(status.st_mtime_ns, _LATEST))


# ---------------------------------------------------------------------------------------- patterns of what is left out

PATTERNS_FILE = "exclude.json"
_ESCAPED = re.compile(r"\\[\\*?!# \[]")
_LONE_BYTES = {0xDC00 + byte: 0xF700 + byte for byte in range(0x80, 0x100)}

# (path relative to the photo folder, is it a folder) -> is it left out.
Excludes = Callable[[str, bool], bool]


def excluder(patterns: Sequence[str]) -> Excludes:
    """A test for patterns by the rules of a .gitignore; nothing below an excluded folder is tested.

    `*` and `?` match characters except "/", `[...]` one of a set, `**` any number of folders. A pattern without "/" is
    a name at any depth, one with "/" starts at the photo folder, and a final "/" is for folders only. The last matching
    pattern decides; "!" re-includes. Case matters; composed and decomposed letters are equal. "#" starts no comment.
    RE2 bounds the time by the lengths of path and pattern.
    Raises ArgumentError for an invalid pattern.
    """
    compiled = [_compiled(pattern) for pattern in reversed(patterns)]

    def is_excluded(path: str, is_folder: bool) -> bool:
        path = _comparable(path)
        return next((pattern.excludes for pattern in compiled if pattern.fits(path, is_folder)), False)

    return is_excluded


def read_patterns(place: Path) -> tuple[str, ...]:
    """The stored patterns of the library at `place`. Raises LibraryDamagedError, LibraryUnreadableError."""
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
    """Store these patterns in the library, replacing older ones."""
    if tuple(patterns) != read_patterns(place):
        write_json(place, place / PATTERNS_FILE, {"patterns": list(patterns)})


@dataclass(frozen=True)
class _Pattern:
    """One pattern. excludes: False after "!";  is_name: it is compared with the last part only."""

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
        raise ArgumentError("exclude", pattern, 'is empty; give a pattern such as "*.png" or "drafts/"')
    if "\\" in _ESCAPED.sub("", body) or {".", ".."} & set(body.split("/")):
        reason = 'is compared with paths relative to the photo folder, with "/" between their parts'
        raise ArgumentError("exclude", pattern, reason)
    options = re2.Options()
    options.dot_nl, options.log_errors = True, False
    try:
        expression, _ = GitIgnoreSpecPattern.pattern_to_regex(_spelt_out(body))
        if expression is not None:
            expression = expression.replace("[^", "[^/")  # "[!a]" does not match "/"
            return _Pattern(re2.compile(expression, options), excludes, folders_only, "/" not in body)
        reason = 'has a "[" without a "]"; write "[[]" for the character'
    except (ValueError, re2.error):
        reason = "is not a valid pattern"
    raise ArgumentError("exclude", pattern, reason)


def _spelt_out(body: str) -> str:
    """The pattern in a form that pathspec turns into an expression of the whole path, without a final "/"."""
    body = re.sub(r"^(?=[#!])", r"\\", body)
    return re.sub(r"(^|/)\*$", r"\1?*", re.sub(r"(^|/)\*\*$", r"\1**/*", body))


def _comparable(text: str) -> str:
    """Normalised text that RE2 accepts: bytes that are not UTF-8 become private-use characters."""
    return normal_form(text).translate(_LONE_BYTES)
