"""The first answer of `query` and `find` under a new focus, with and without a running `serve`.

python -m steersearch.benchmarks.engineering.served_commands --save

Each command is a process of its own and each focus is new, to the text encoder too. The two ways take turns. The
library has many small photos: drawn ones, each in several files of different content, whose rows are written straight
into the tables with the features of the first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa

from steersearch.benchmarks.engineering.photo_gallery import photo_gallery
from steersearch.benchmarks.engineering.server_process import processor_seconds, serving
from steersearch.benchmarks.engineering.speed import bundled_hash
from steersearch.benchmarks.harness.record import Record, run_script
from steersearch.core.images.pillow import opened
from steersearch.core.predictor import Predictor
from steersearch.indexer.library import Library
from steersearch.indexer.loader import content_hash
from steersearch.indexer.schema import FileRecord
from steersearch.indexer.store import Store, UnsteeredVector
from steersearch.training.world.kinds import KINDS

DRAWN = 100
FIRST = "1ms"  # of a budget: as little is steered as an answer takes
WAYS = {"here": "off", "served": ""}  # and STEERSEARCH_SERVER


def write_library(folder: Path, place: Path, photos: int) -> Path:
    """A library of this many photos in `folder`; returns a photo that it does not have."""
    drawn = [one.path for one in photo_gallery(folder / "drawn", "gallery", DRAWN)]
    gallery = folder / "photos"
    gallery.mkdir()
    files = [gallery / f"{number:06d}.jpg" for number in range(photos)]
    for number, file in enumerate(files[:DRAWN]):
        _write(drawn[number], file, number)
    library = Library.create(gallery, Predictor.from_pretrained("mini"), place)
    library.index()
    key, store = library.unsteered_index().key, Store(place)
    known, parts = store.with_unsteered(
        key, lambda found: (pa.concat_tables(found.photos()), list(found.parts()))
    )
    row_of = dict[str, int](zip(*(known.column(name).to_pylist() for name in ("path", "row")), strict=True))
    embeddings = np.concatenate([part.embeddings for part in parts])
    regions = [packed for part in parts for packed in part.regions]
    kept = store.thumbnails(store.thumbnail_ids())
    drawn_ids = [content_hash(file) for file in files[:DRAWN]]
    records, vectors, thumbnails = [], [], {}
    for number, file in enumerate(files[DRAWN:]):
        like = number % DRAWN
        _write(drawn[like], file, DRAWN + number)
        row, state = row_of[files[like].name], file.stat()
        id = content_hash(file)
        with opened(file) as image:
            width, height = image.size
        records.append(
            FileRecord(
                file.name,
                id,
                state.st_size,
                state.st_mtime_ns,
                width=width,
                height=height,
            )
        )
        thumbnails[id] = kept[drawn_ids[like]]
        vectors.append(UnsteeredVector(id, embeddings[row], regions[row]))
    store.write_thumbnails(thumbnails)
    store.write_images(records)
    store.write_unsteered(key, vectors)
    library.optimize()
    return photo_gallery(folder / "drawn", "query", 1)[0].path


def _write(drawn: Path, file: Path, number: int) -> None:
    """The picture as a file that no other is equal to."""
    with opened(drawn) as image:
        image.convert("RGB").save(file, "jpeg", comment=f"{number}")


def run(command: list[str], environment: dict[str, str]) -> tuple[float, float, list[dict[str, object]]]:
    """Wall and processor seconds of a command, and its rows."""
    before, began = os.times(), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "steersearch", *command, "--json"],
        env=environment,
        check=True,
        capture_output=True,
    )
    wall, after = time.monotonic() - began, os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, spent, [json.loads(line) for line in done.stdout.splitlines()]


def first_answers(place: Path, photo: Path, environment: dict[str, str], runs: int) -> dict[str, float]:
    """Medians, in seconds."""
    focuses = (f"the {colour} {kind}" for colour in ("red", "blue") for kind in KINDS)
    searches = {"query": ["query", str(photo), "--focus"], "find": ["find"]}
    spent: dict[str, list[float]] = {}
    with serving(place, environment) as (_, pid):
        for turn in range(runs + 1):
            for name, search in searches.items():
                for way, server in WAYS.items():
                    command = [*search, next(focuses), "--library", str(place), "--budget", FIRST]
                    before = processor_seconds(pid)
                    wall, processor, rows = run(command, environment | {"STEERSEARCH_SERVER": server})
                    is_served = bool(rows[0].get("served"))
                    if turn == 0:
                        continue  # the first may compile modules, and finds the server loading its model
                    if is_served is not (way == "served"):
                        raise RuntimeError(f"{command} was {'' if is_served else 'not '}served")
                    spent.setdefault(f"{name}_{way}_seconds", []).append(wall)
                    spent.setdefault(f"{name}_{way}_processor_seconds", []).append(processor)
                    if is_served:
                        more = processor_seconds(pid) - before
                        spent.setdefault(f"{name}_of_server_processor_seconds", []).append(more)
    return {name: round(median(values), 2) for name, values in spent.items()}


def measure(photos: int, runs: int) -> Record:
    """The record."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder, place = Path(name), Path(name) / "library"
        own = dict.fromkeys(("XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), name)
        photo = write_library(folder, place, photos)
        metrics = first_answers(place, photo, dict(os.environ) | own, runs)
    return Record.make(
        "served-commands",
        "mini",
        {"photos": photos, "drawn": DRAWN, "runs": runs, "budget": FIRST},
        metrics,
        time.monotonic() - began,
        weights_hash=bundled_hash("mini"),
    )


def main() -> None:
    """Measure, print the record and, with --save, keep it."""
    parser = argparse.ArgumentParser(description="Seconds of query and find, with and without a server.")
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    run_script(parser, measure)


if __name__ == "__main__":
    main()
