"""What the machine refuses while training: the one place where it becomes an error with words for the user."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from steersearch.core import errors
from steersearch.core.errors import SteerSearchError, TrainingStoppedError
from steersearch.training import run_state

# How torch's RuntimeErrors say so. Others are faults of ours, and keep their traceback.
_MEMORY = re.compile(r"allocate memory|not enough memory|out of memory", re.IGNORECASE)
_WORKERS = re.compile(r"DataLoader worker \(pid|can't start new thread", re.IGNORECASE)
_DISK = re.compile(r"PytorchStreamWriter|No space left|unexpected pos", re.IGNORECASE)
_IN_WORKER = re.compile(r"Caught (\w+) in DataLoader worker process")

_SYSTEM = ("OSError", "PermissionError", "FileNotFoundError", "MemoryError")

_LESS = "set a smaller optimiser.batch, fewer data.workers, or end what else uses it"


@contextmanager
def told_plainly(folder: Path) -> Iterator[None]:
    """Around a run in `folder`: errors of the disk, of memory and of worker processes become TrainingStoppedError."""
    try:
        yield
    except SteerSearchError:
        raise
    except Exception as error:
        place = getattr(error, "filename", None) or folder
        reason = _reason(error)
        if reason is None:
            raise
        kept = (folder / run_state.FOLDER).is_dir()
        way_out = "; what was saved is kept, --resume goes on from there" if kept else ""
        raise TrainingStoppedError(place, f"{reason}{way_out}") from error


def _reason(error: Exception) -> str | None:
    """What the machine refused, in plain words; None for a fault of ours."""
    said = str(error).strip() or type(error).__name__
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or _MEMORY.search(said):
        whose = "GPU" if isinstance(error, torch.OutOfMemoryError) else "machine"
        return f"the memory of this {whose} does not suffice; {_LESS}"
    if isinstance(error, BrokenProcessPool) or _WORKERS.search(said):
        return f"a worker process was killed or could not start, as for want of memory; {_LESS}"
    if found := _IN_WORKER.match(said):  # what it raised there is the last line
        last = said.splitlines()[-1].rpartition(f"{found[1]}: ")[2]
        return last if hasattr(errors, found[1]) or found[1] in _SYSTEM else None
    if isinstance(
        error, OSError | NotImplementedError
    ):  # the latter of locks, where the file system has none
        return getattr(error, "strerror", None) or said
    if isinstance(error, SafetensorError) or _DISK.search(said):
        return f"cannot be written ({said.splitlines()[0]})"
    return None
