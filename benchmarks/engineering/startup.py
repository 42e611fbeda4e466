"""Start-up time: `--help`, a cold query and the whole demo, each in a fresh process.

python -m steersearch.benchmarks.engineering.startup
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from steersearch.benchmarks.engineering.speed import bundled_hash
from steersearch.benchmarks.harness.record import Record, run_script


def run(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall and processor seconds of a steersearch process in `folder`. Raises CalledProcessError if it fails."""
    own_folders = dict.fromkeys(("XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"), str(folder))
    environment = {**os.environ, **own_folders}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as for users, whose Python keeps compiled modules
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "steersearch", *command],
        cwd=folder, env=environment, check=True, capture_output=True,
    )  # fmt: skip
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(repeats: int) -> Record:
    """The record of all three."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        metrics = timings(Path(folder), repeats)
    seconds = time.monotonic() - began
    return Record.make(
        "startup", "mini", {"repeats": repeats}, metrics, seconds, weights_hash=bundled_hash("mini")
    )


def timings(folder: Path, repeats: int) -> dict[str, float]:
    """Median seconds of `--help` and of a cold query on the demo's library; seconds and MiB of the demo."""
    demo_wall, demo_processor = run(["demo"], folder)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    photo = str(next((folder / "steersearch-demo" / "photos").glob("*.jpg")))
    query = ["query", photo, "--focus", "bookshelf", "--paths"]
    results = {"demo_seconds": demo_wall, "demo_processor_seconds": demo_processor, "demo_peak_mib": peak}
    for name, command in (("help", ["--help"]), ("query", query)):
        run(command, folder)  # the first run may compile modules
        walls, processor = zip(*(run(command, folder) for _ in range(repeats)), strict=True)
        results[f"{name}_seconds"] = sorted(walls)[repeats // 2]
        results[f"{name}_processor_seconds"] = sorted(processor)[repeats // 2]
    return {name: round(value, 3) for name, value in results.items()}


def main() -> None:
    """Measure, print the record and, with --save, keep it."""
    parser = argparse.ArgumentParser(description="Seconds of --help, a cold query and the demo.")
    parser.add_argument("--repeats", type=int, default=5)
    run_script(parser, measure)


if __name__ == "__main__":
    main()
