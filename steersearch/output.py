"""Files that the user asked for: written whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from steersearch.core.errors import OutputError


def refuse_impossible(path: Path) -> None:
    """Raise OutputError if nothing can be written to `path`: to be known before the work is done."""
    if not path.parent.is_dir():
        raise OutputError(path, f"there is no folder {path.parent}")
    if path.is_dir():
        raise OutputError(path, "it is a folder")


def write_output(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whose folder must exist. Raises OutputError with the reason."""
    refuse_impossible(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
