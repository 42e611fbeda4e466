"""Translate failures of the machine during training into errors for the user."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from steersearch.core import errors
from steersearch.core.errors import RunError, SteerSearchError
from steersearch.training import checkpoint

_DISK = re.compile(r"PytorchStreamWriter|No space left|unexpected pos", re.IGNORECASE)
_LOCKS = re.compile(r"not appear to support flock")  # filelock's message for a file system without locks
_IN_WORKER = re.compile(r"Caught (\w+) in DataLoader worker process")

_SYSTEM = ("OSError", "PermissionError", "FileNotFoundError", "MemoryError")

_LESS = "set a smaller optimiser.batch, fewer data.workers, or end other programs that use it"


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Translate errors of disk, memory and worker processes in a run in `folder` into RunError."""
    try:
        yield
    except SteerSearchError:
        raise
    except Exception as error:
        place = getattr(error, "filename", None) or folder
        reason = _reason(error)
        if reason is None:
            raise
        kept = (folder / checkpoint.FOLDER).is_dir()
        way_out = "; checkpoints are kept; --resume continues from the last" if kept else ""
        raise RunError(place, f"{reason}{way_out}") from error


def _reason(error: Exception) -> str | None:
    """What failed in the machine; None for a bug."""
    said = str(error).strip() or type(error).__name__
    refused = errors.refusal(error)
    if refused in errors.SCARCE:
        return f"{refused}; {_LESS}"
    if refused is not None:
        return refused
    if found := _IN_WORKER.match(said):  # the worker's error is the last line
        last = said.splitlines()[-1].rpartition(f"{found[1]}: ")[2]
        return last if hasattr(errors, found[1]) or found[1] in _SYSTEM else None
    if _LOCKS.search(said):
        return said
    if isinstance(error, SafetensorError) or _DISK.search(said):
        return f"cannot be written ({said.splitlines()[0]})"
    return None
