"""Paths on this machine: what may be given for one, and where the user's cache is."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path

from steersearch.core.errors import ArgumentError

CACHE_VARIABLE = "STEERSEARCH_CACHE"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # `Path` makes one slash of two


def why_not_local(given: str | os.PathLike[str]) -> str | None:
    """Why `given` cannot be a path on this machine; None if it can. A URL would become a folder of that name."""
    text = os.fspath(given)
    if _URL.match(text):
        return "is a URL; give the path of a folder on this machine"
    if not text.strip():
        return "is empty; give the path of a folder"
    return "holds a NUL character" if "\0" in text else None


def as_path(name: str | os.PathLike[str]) -> Path:
    """`name` as a path, with the home folder for "~"; one of nobody's home stays as it is."""
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
    """A new folder of our own, deleted when the process ends."""
    folder = tempfile.mkdtemp(prefix="steersearch-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def cache_folder() -> Path:
    """The folder that $STEERSEARCH_CACHE names, or else the user's cache folder for steersearch.

    All in it may be deleted at any time: for a user without a home folder, when this process ends. Raises
    ArgumentError for a variable that names no folder on this machine.
    """
    given = os.environ.get(CACHE_VARIABLE)
    if not given:
        return user_folder(user_cache_path) or _of_this_process()
    reason = why_not_local(given)
    if reason is not None:
        raise ArgumentError(CACHE_VARIABLE, given, reason)
    return Path(given)
