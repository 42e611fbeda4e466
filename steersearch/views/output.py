"""Output files, written atomically."""

from __future__ import annotations

from pathlib import Path

from steersearch.core import files
from steersearch.core.errors import OutputError


def refuse_impossible(path: Path) -> None:
    """Raise OutputError if nothing can be written to `path`; call this before the work."""
    reason = files.why_no_folder(path)
    if reason is not None:
        raise OutputError(path, reason)
    if path.is_dir():
        raise OutputError(path, "it is a folder")


def write_output(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whose folder must exist. Raises OutputError with the reason."""
    refuse_impossible(path)
    files.write_output(path, lambda file: file.write(content))
