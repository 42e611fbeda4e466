"""A `steersearch serve` in a process of its own, and what that takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving(
    place: Path | None = None, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> Iterator[tuple[str, int]]:
    """The address of a new server, and its process id.

    place: of its library; None: the one used last.  environment, folder: of the process; None: this one's.
    """
    command = [sys.executable, "-m", "steersearch", "serve", "--port", "0"]
    command += [] if place is None else ["--library", str(place)]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().decode().strip(), process.pid
    finally:
        process.terminate()
        process.wait(60)


def processor_seconds(pid: int) -> float:
    """What a process has spent so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Memory of a process that is in RAM."""
    found = re.search(r"VmRSS:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024
