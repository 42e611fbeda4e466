"""Files that are whole or not there: written beside their place under a name that nobody can foresee, then moved."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from steersearch.core.errors import OutputError

DRAFT = ".writing-"  # how the names of unfinished files begin


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a new file, which then takes the place of `path`.

    Whenever the process is killed, the file at `path` is the old one or the new one, and on the disk.
    A link at `path` is replaced, not followed. Raises OSError, also for a device or a pipe, and what `write` raises.
    """
    with drafted(path) as draft, draft.open("r+b") as file:
        write(file)


def write_output(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """`write_atomically` to a file that the user named. Raises OutputError with the reason."""
    try:
        write_atomically(path, write)
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """As `write_atomically`, for a writer that wants a name: yields that of a new, empty file, which it may replace."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "is no regular file, and nothing else is replaced", str(path))
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
