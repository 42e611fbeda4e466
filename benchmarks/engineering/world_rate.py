"""Photos of the generated world composed per second, by one process and on all cores.

python -m steersearch.benchmarks.engineering.world_rate

A photo is composed, squashed to its size and masked for four expressions, as a training feed needs it. Its parts are
drawn beforehand and not counted. CPU seconds per photo say what an idle machine would do.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor

from steersearch.benchmarks.harness.record import Record, run_script
from steersearch.training.world import emoji, stamps
from steersearch.training.world.source import SourceConfig, WorldSource

MODEL = "world"
STEP_RATE = 1000  # pictures per second of a GPU step to be fed


def compose(source: WorldSource, start: int, stop: int) -> tuple[int, float]:
    """Photos start..stop-1 with all their rows: how many, and the CPU seconds they took."""
    began = time.process_time()
    each = source.config.expressions
    for photo in range(start, stop):
        source.picture(photo * each)
        for index in range(photo * each, (photo + 1) * each):
            source.read(index)
    return stop - start, time.process_time() - began


_shared: list[WorldSource] = []


def _part(bounds: tuple[int, int]) -> tuple[int, float]:
    return compose(_shared[0], *bounds)


def rates(source: WorldSource, processes: int, photos: int, chunk: int = 20) -> dict[str, float]:
    """Photos per wall second and per CPU second, `photos` in all, with this many processes."""
    _shared[:] = [source]
    starts = range(0, photos, chunk)
    tasks = [(start, min(start + chunk, photos)) for start in starts]
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("fork")) as pool:
        list(pool.map(_part, tasks[:processes]))  # started and warm
        began = time.monotonic()
        parts = list(pool.map(_part, tasks))
        seconds = time.monotonic() - began
    done, busy = sum(count for count, _ in parts), sum(cpu for _, cpu in parts)
    return {"photos_per_second": round(done / seconds, 1), "photos_per_cpu_second": round(done / busy, 1)}


def measure(size: int = 128, photos: int = 600, drawn_per_kind: int = 6, plates: int = 10) -> Record:
    """The record of one size of photos, with stamps and emoji if they are installed."""
    began = time.monotonic()
    config = SourceConfig(
        size=size,
        drawn_per_kind=drawn_per_kind,
        plates=plates,
        stamps=stamps.STAMPS_FOLDER.is_dir(),
        emoji=emoji.EMOJI_FONT.is_file(),
    )
    source = WorldSource(config)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    before = os.getloadavg()[0]
    one, several = rates(source, 1, photos), rates(source, cores, photos)
    metrics = {
        "one_process": one,
        "all_cores": several | {"processes": cores},
        "cores_for_1000_pictures_per_second": math.ceil(STEP_RATE / one["photos_per_cpu_second"]),
        "load_before": round(before, 2),
        "busy": before > 0.5,
    }
    used = ("size", "expressions", "drawn_per_kind", "plates", "stamps", "emoji")
    settings = {"photos": photos} | {name: getattr(config, name) for name in used}
    return Record.make(
        f"world-rate/{size}px", MODEL, settings, metrics, time.monotonic() - began, weights_hash=None
    )


def main() -> None:
    """Measure, print the record and, with --save, keep it."""
    parser = argparse.ArgumentParser(description="Photos of the generated world composed per second.")
    parser.add_argument("--size", type=int, default=128, help="side of the photos in pixels")
    parser.add_argument("--photos", type=int, default=600)
    run_script(parser, measure)


if __name__ == "__main__":
    main()
