"""sha256 of files, remembered: a file of a gigabyte is read through once, and again only if it changed."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from steersearch.core.atomic import write_atomically
from steersearch.core.local_path import cache_folder
from steersearch.core.regular_file import open_regular

WORTH_REMEMBERING = 32 * 2**20  # bytes; less is hashed in some ten milliseconds


def file_sha256(path: Path) -> str:
    """sha256 of a regular file, in hexadecimal; reads it through. Raises OSError."""
    with open_regular(path) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def remembered_sha256(path: Path) -> str:
    """`file_sha256`, from memory if the file is large and the one that was hashed last time.

    The memory is one small file per path in the user's cache folder, with the file's size, inode, and times of
    last change of content and of status: whoever writes to a file changes these. Where it cannot be kept, the
    file is hashed each time. Raises OSError if `path` cannot be read.
    """
    state = _state(path)
    if state[0] < WORTH_REMEMBERING:
        return file_sha256(path)
    try:
        noted = json.loads(_note(path).read_text())
        if noted["state"] == state:
            return str(noted["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing noted yet, or nothing legible
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
