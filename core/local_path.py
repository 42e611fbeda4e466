"""Paths on this machine: what may be given for one, and where the user's cache is."""

from __future__ import annotations

import os
import re
from pathlib import Path

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


def cache_folder() -> Path:
    """The folder that $STEERSEARCH_CACHE names, or else the user's cache folder for steersearch.

    All in it may be deleted at any time. Raises ArgumentError for a variable that names no folder on this machine.
    """
    from platformdirs import user_cache_path

    given = os.environ.get(CACHE_VARIABLE)
    if not given:
        return user_cache_path("steersearch")
    reason = why_not_local(given)
    if reason is not None:
        raise ArgumentError(CACHE_VARIABLE, given, reason)
    return Path(given)
