"""What the machine refuses (the disk, memory, processes, handles, permissions), in words for the user."""

from __future__ import annotations

import errno
import os
import re
from concurrent.futures import BrokenExecutor

from steersearch.core.errors import SteerSearchError

# How RuntimeErrors of torch, FAISS and Python say so, and ImportErrors of large libraries. Others are faults of ours.
_MEMORY = re.compile(
    r"allocat\w* memory|not enough memory|out of memory|bad_alloc|bad allocation|failed to map segment",
    re.IGNORECASE,
)
_GPU = re.compile(r"CUDA|HIP|MPS|\bGPU\b")
_HOME = re.compile(r"could not determine.*home", re.IGNORECASE)
_WORKERS = re.compile(
    r"DataLoader worker \(pid|can't start new thread|Resource temporarily unavailable", re.IGNORECASE
)

_MACHINE, _CARD = (f"the memory of this {what} does not suffice" for what in ("machine", "GPU"))
_PROCESSES = "a worker process or thread was killed or could not start, as for want of memory or by a limit"
SCARCE = (_MACHINE, _CARD, _PROCESSES)
_LESS = "end what else uses it, raise the limits that `ulimit -a` shows, or try a smaller batch or model"

_WAYS_OUT = {
    errno.EMFILE: "more files are open at once than `ulimit -n` allows; raise it",
    errno.ENFILE: "this machine has too many files open; end what else runs",
}


def refusal(error: BaseException) -> str | None:
    """One of SCARCE, what the system says of a file, or None where the machine refused nothing."""
    said = str(error)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | ImportError) and _MEMORY.search(said)
    ):
        return _CARD if _GPU.search(said) else _MACHINE
    if isinstance(error, BrokenExecutor) or (
        isinstance(error, RuntimeError | OSError) and _WORKERS.search(said)
    ):
        return _PROCESSES
    if isinstance(error, RuntimeError) and _HOME.search(said):
        return "there is no home folder; set HOME"
    if isinstance(error, OSError):
        if error.errno == errno.ENOMEM:
            return _MACHINE
        return _WAYS_OUT.get(error.errno or 0) or error.strerror or said.strip() or type(error).__name__
    return None


def in_words(error: BaseException) -> str | None:
    """What a command says of an error: the message of one of ours, or what the machine refused, with the file if there
    is one; None for a fault of ours."""
    if isinstance(error, SteerSearchError):
        return str(error)
    reason = refusal(error)
    if reason is None:
        return None
    if reason in SCARCE:
        reason += f"; {_LESS}"
    file = getattr(error, "filename", None)
    return reason if file is None else f"{os.fsdecode(file) if isinstance(file, bytes) else file}: {reason}"
