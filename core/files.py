"""Files and paths on this machine: written whole or not at all, read only if regular, hashed once."""

from __future__ import annotations

import atexit
import errno
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from platformdirs import user_cache_path

from steersearch.core.errors import ArgumentError, OutputError, SteerSearchError
from steersearch.core.objects import ObjectPath, opened_object

# ----------------------------------------------------------------------------------------- written whole or not at all

DRAFT = ".writing-"  # how the names of unfinished files begin


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a new file, which then takes the place of `path`.

    Whenever the process is killed, `path` is the old file or the new one, flushed to disk. A link there is replaced,
    not followed. Raises OSError, also for a device or a pipe, and what `write` raises.
    """
    if isinstance(path, ObjectPath):
        path.write(write)
        return
    with drafted(path) as draft, draft.open("r+b") as file:
        write(file)


def write_output(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """`write_atomically` to a file that the user named. Raises OutputError with the reason."""
    try:
        write_atomically(path, write)
    except SteerSearchError:  # of what `write` reads
        raise
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """As `write_atomically`, for writers that need a path: yields that of a new, empty file, which they may replace."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "is not a regular file, and nothing else is replaced", str(path))
    if path.is_symlink() and os.readlink(path).startswith("/proc/"):  # /dev/stdout, wherever it leads now
        raise OSError(
            errno.EINVAL, "leads to an open stream, which is never replaced; name a file", str(path)
        )
    draft = path.with_name(f"{DRAFT}{secrets.token_hex(8)}")
    draft.touch(exist_ok=False)
    try:
        mode = draft.stat().st_mode
        yield draft
        draft.chmod(mode)  # safetensors makes its files anew, for their owner alone
        _to_disk(draft)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ------------------------------------------------------------------------------------------------ read only if regular

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: str | Path) -> io.BufferedReader:
    """The regular file `path`, open for reading; a link to one is followed.

    Never waits for a FIFO: the kind of file is checked after opening, so an exchange in between is noticed.
    Of an object in a bucket, a copy. Raises OSError, whose `strerror` says what is wrong: "a pipe, not a regular file".
    """
    if isinstance(path, ObjectPath):
        return opened_object(path)
    descriptor = os.open(path, _FLAGS)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "a folder, not a file", str(path))
        if not stat.S_ISREG(mode):
            kind = _KINDS.get(stat.S_IFMT(mode), "of another kind")
            raise OSError(errno.EINVAL, f"{kind}, not a regular file", str(path))
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def require_regular(path: str | Path) -> Path:
    """`path` itself, if it is a regular file: for readers that need a path. Raises OSError as `open_regular`."""
    open_regular(path).close()
    return Path(path)


def never_a_link(path: str, flags: int) -> int:
    """An `opener` for `open`: a file that is written to in place is the one of this name, not where a link leads."""
    try:
        descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            reason = "a link" if error.errno == errno.ELOOP else "a pipe"
            raise OSError(error.errno, f"{reason}, to which nothing is written", path) from None
        raise
    return descriptor


def read_regular(path: str | Path, at_most: int) -> bytes:
    """The content of the regular file `path`, of `at_most` bytes. Raises OSError, also for a larger one.

    The limit holds for what is read, not for the announced size: files in /proc announce none.
    """
    if isinstance(path, ObjectPath):
        content = path.read_at_most(at_most + 1)
    else:
        with open_regular(path) as file:
            content = file.read(at_most + 1)
    if len(content) > at_most:
        raise OSError(errno.EFBIG, f"larger than the {at_most:,} bytes that are read", str(path))
    return content


# ---------------------------------------------------------------------------------------------------------------- JSON

MOST_BYTES = 2**28


def read_json(path: Path, at_most: int = MOST_BYTES) -> Any:
    """The value in a file. Raises OSError, and ValueError for invalid or too deeply nested JSON."""
    return parse_json(read_regular(path, at_most))


def parse_json(text: str | bytes) -> Any:
    """The value of a text. Raises ValueError, also for one that is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


# --------------------------------------------------------------------------------------------------------------- paths

CACHE_VARIABLE = "STEERSEARCH_CACHE"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # `Path` makes one slash of two


def why_no_folder(path: Path) -> str | None:
    """Why a new file `path` has no folder to go in; None if it has one."""
    if _URL.match(os.fspath(path)):
        return "it is a URL; give the path of a file on this machine"
    return None if path.parent.is_dir() else f"there is no folder {path.parent}"


def why_not_local(given: str | os.PathLike[str]) -> str | None:
    """Why `given` cannot be a local path; None if it can. A URL would become a folder of that name."""
    text = os.fspath(given)
    if _URL.match(text):
        return "is a URL; give the path of a folder on this machine"
    if not text.strip():
        return "is empty; give the path of a folder"
    return "contains a NUL character" if "\0" in text else None


def as_path(name: str | os.PathLike[str]) -> Path:
    """`name` as a path, with "~" expanded where that is possible."""
    return Path(os.path.expanduser(name))


def user_folder(kind: Callable[[str], Path]) -> Path | None:
    """The user's folder of this kind (a function of platformdirs) for steersearch; None for a user without a home
    folder, as in a container: HOME is not set, and the system's list of users has no such number."""
    try:
        folder = kind("steersearch")
    except RuntimeError:
        return None
    return folder if folder.is_absolute() else None


@cache
def _of_this_process() -> Path:
    """A new folder, deleted when the process ends."""
    folder = tempfile.mkdtemp(prefix="steersearch-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def cache_folder() -> Path:
    """The folder that $STEERSEARCH_CACHE names, or else the user's cache folder for steersearch.

    Everything in it may be deleted at any time; for a user without a home folder it is, when this process ends. Raises
    ArgumentError for a variable that is not a local path.
    """
    given = os.environ.get(CACHE_VARIABLE)
    if not given:
        return user_folder(user_cache_path) or _of_this_process()
    reason = why_not_local(given)
    if reason is not None:
        raise ArgumentError(CACHE_VARIABLE, given, reason)
    return Path(given)


# -------------------------------------------------------------------------------------------------- sha256, remembered

WORTH_REMEMBERING = 32 * 2**20  # bytes; less is hashed in some ten milliseconds


def file_sha256(path: Path) -> str:
    """sha256 of a regular file, in hexadecimal; reads it through. Raises OSError."""
    with open_regular(path) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def remembered_sha256(path: Path) -> str:
    """`file_sha256`, cached for large files until they change.

    The cache is one small file per path in the user's cache folder, with size, inode, mtime and ctime: any write to
    the file changes these. If it cannot be kept, the file is hashed each time. Raises OSError if `path` cannot be read.
    """
    state = _state(path)
    if state[0] < WORTH_REMEMBERING:
        return file_sha256(path)
    try:
        noted = json.loads(_note(path).read_text())
        if noted["state"] == state:
            return str(noted["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no note yet, or a damaged one
    found = file_sha256(path)
    if _state(path) == state:
        remember(path, found)
    return found


def remember(path: Path, sha256: str) -> None:
    """Note that the file `path`, as it is now, has this sha256."""
    note = _note(path)
    content = json.dumps({"path": str(path), "state": _state(path), "sha256": sha256}).encode()
    with suppress(OSError):  # a cache that cannot be written: the next process hashes again
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(note, lambda file: file.write(content))


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


def _note(path: Path) -> Path:
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    return cache_folder() / "sha256" / f"{name}.json"


_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.parquet")


def missing_shards(paths: Sequence[Path]) -> list[str]:
    """The names of files that are not among `paths`, though these are numbered as parts of a set with them."""
    numbers: dict[tuple[str, str], set[int]] = {}
    for path in paths:
        if found := _SHARD.fullmatch(path.name):
            numbers.setdefault((found[1], found[3]), set()).add(int(found[2]))
    return [
        f"{name}-{number:05d}-of-{count}.parquet"
        for (name, count), there in numbers.items()
        for number in sorted(set(range(int(count))) - there)
    ]
