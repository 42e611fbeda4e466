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


def read_regular(path: str | Path, at_most: int) -> bytes:
    """The content of the regular file `path`, of `at_most` bytes. Raises OSError, also for a larger one.

    The bound holds for what is read, not only for the size that is announced: files in /proc announce none.
    """
    with open_regular(path) as file:
        content = file.read(at_most + 1)
    if len(content) > at_most:
        raise OSError(errno.EFBIG, f"larger than the {at_most:,} bytes that are read", str(path))
    return content
