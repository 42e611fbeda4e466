"""Regular files, opened without waiting: a pipe, a device or a folder is refused, whatever it was when it was found."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: str | Path) -> io.BufferedReader:
    """The regular file `path`, open for reading; a link to one is followed.

    A FIFO is never waited for: the kind of file is checked after opening, so no exchange in between goes unseen.
    Raises OSError, whose `strerror` says what is wrong: "a pipe, not a regular file".
    """
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
    """`path` itself, if it is a regular file: for readers that want a name. Raises OSError as `open_regular`."""
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

    The bound holds for what is read, not only for the size that is announced: files in /proc announce none.
    """
    with open_regular(path) as file:
        content = file.read(at_most + 1)
    if len(content) > at_most:
        raise OSError(errno.EFBIG, f"larger than the {at_most:,} bytes that are read", str(path))
    return content
