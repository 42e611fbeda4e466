"""Measurements in a fresh process: peak memory means nothing in a process that did other work before."""

from __future__ import annotations

import importlib
import json
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steersearch.core.errors import BenchmarkError


def call_fresh(
    function: Callable[..., Any], environment: Mapping[str, str] | None = None, /, **arguments: Any
) -> Any:
    """Run `function(**arguments)`, a function of a module, in a fresh Python; arguments and answer go through JSON.

    environment: of the new process; None: this process's. Raises BenchmarkError with its last line if it fails.
    """
    home = sys.modules[function.__module__].__spec__  # has the module's name even if it runs as __main__
    assert home is not None
    call = {"module": home.name, "function": function.__name__, "arguments": arguments}
    done = subprocess.run(
        [sys.executable, "-m", "steersearch.benchmarks.engineering.fresh_process"],
        input=json.dumps(call), env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode < 0:
        reason = f"was stopped by signal {-done.returncode}, most likely out of memory"
        raise BenchmarkError(f"{function.__name__} in a fresh process {reason}")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise BenchmarkError(f"{function.__name__} in a fresh process failed: {lines[-1]}")
    return json.loads(done.stdout)


def peak_memory() -> int:
    """Peak resident memory of this process in bytes.

    From /proc if there is one: on Linux, getrusage's figure starts at that of the parent process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def own_memory() -> int:
    """Resident memory of this process in bytes, without files that it maps. Linux only."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


@contextmanager
def peak_own_memory() -> Iterator[Callable[[], int]]:
    """Gives the peak of `own_memory` so far, which is looked at a hundred times a second."""
    peak, ended = own_memory(), threading.Event()

    def look() -> None:
        nonlocal peak
        while not ended.wait(0.01):
            peak = max(peak, own_memory())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield lambda: peak
    finally:
        ended.set()
        looking.join()


def _answer() -> None:
    call = json.loads(sys.stdin.read())
    function = getattr(importlib.import_module(call["module"]), call["function"])
    print(json.dumps(function(**call["arguments"])))


if __name__ == "__main__":
    _answer()
