"""The Unix sockets by which commands find the servers of the same user: one for each `steersearch serve` that runs.

They lie in a folder that only this user may enter. Whoever connects checks owner and permissions of both, and who
listens.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from platformdirs import user_state_path

from steersearch.core.files import user_folder

_SUFFIX = ".socket"


def sockets() -> list[Path]:
    """Those that are there, the newest first; some may be left over from servers that were killed."""
    folder = _folder()
    if folder is None or not _is_private(folder, stat.S_ISDIR):
        return []
    found = [path for path in folder.glob(f"*{_SUFFIX}") if _is_private(path, stat.S_ISSOCK)]
    return sorted(found, key=_changed_at, reverse=True)


def connected(path: Path, timeout_s: float) -> socket.socket:
    """A connection to the server that listens there. Raises OSError where none does, or that of another user."""
    made = socket.socket(socket.AF_UNIX)
    try:
        made.settimeout(timeout_s)
        made.connect(os.fspath(path))
        if _peer(made) not in (None, os.getuid()):
            raise PermissionError(f"{path}: the server is another user's")
    except OSError:
        made.close()
        raise
    return made


@contextmanager
def listening() -> Iterator[socket.socket]:
    """A socket of this process that listens, and is removed afterwards. Raises OSError where there can be none."""
    folder = _folder()
    if folder is None:
        raise OSError("there is no home folder")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if not _is_private(folder, stat.S_ISDIR):
        raise PermissionError(f"{folder} is another user's")
    _sweep(folder)
    path = folder / f"{os.getpid()}{_SUFFIX}"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.fspath(path))
        path.chmod(0o600)
        made.listen()
        try:
            yield made
        finally:
            path.unlink(missing_ok=True)


def _folder() -> Path | None:
    folder = user_folder(user_state_path)
    return None if folder is None else folder / "servers"


def _is_private(path: Path, is_kind: Callable[[int], bool]) -> bool:
    """Whether it is of this kind, no link, this user's, and closed to all others."""
    try:
        state = path.lstat()
    except OSError:
        return False
    return is_kind(state.st_mode) and state.st_uid == os.getuid() and not state.st_mode & 0o077


def _changed_at(path: Path) -> float:
    with suppress(OSError):
        return path.lstat().st_mtime
    return 0.0


def _peer(made: socket.socket) -> int | None:
    """The user who listens; None where the system does not say."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    _, user, _ = struct.unpack("3i", made.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    return int(user)


def _sweep(folder: Path) -> None:
    """Delete what killed servers left: no such process here, and nobody listens, as in another container."""
    for path in folder.glob(f"*{_SUFFIX}"):
        with suppress(OSError, ValueError):
            try:
                os.kill(int(path.stem), 0)
            except ProcessLookupError:
                try:
                    connected(path, 1.0).close()
                except ConnectionRefusedError:
                    path.unlink()
