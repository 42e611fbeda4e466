"""A second `index` of an unchanged folder: seconds and memory, in a fresh process.

python -m steersearch.benchmarks.engineering.rescan --save

The files are tiny, since an unchanged file is not opened. The library's rows, with the vectors of one prompt and
thumbnails of the usual size, are written straight into the tables.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from steersearch.benchmarks.engineering.fresh_process import call_fresh, peak_memory
from steersearch.benchmarks.harness.record import Record, run_script
from steersearch.indexer.embedder import LazyEmbedder
from steersearch.indexer.folders import PhotoFolder
from steersearch.indexer.library import Library
from steersearch.indexer.manifest import (
    LibraryManifest,
    new_prompt_index,
    write_library,
    write_prompt_index,
)
from steersearch.indexer.prompt_features import write_features
from steersearch.indexer.schema import FileRecord, date_columns
from steersearch.indexer.snapshot import refresh_snapshot
from steersearch.indexer.store import Store, Vector

MODEL = "none"
PROMPT, WEIGHTS, DIM = "bookshelf", "0" * 64, 384
_PREPROCESSING = {"size": 128}
_PER_FOLDER, _PER_COMMIT = 500, 10_000
_THUMBNAIL = bytes(8_000)


def write_photos(folder: Path, number: int) -> None:
    """Write `number` files with an image's suffix, 500 to a folder, with an old mtime."""
    long_ago = (time.time_ns() - 10**15,) * 2
    for i in range(number):
        path = folder / f"{i // _PER_FOLDER:04}" / f"IMG_{i:06}.jpg"
        if i % _PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(b"%d" % i)
        os.utime(path, ns=long_ago)


def write_rows(folder: Path, place: Path) -> None:
    """Write the library that an `index` run would have left, were these files photos."""
    write_library(place, LibraryManifest(folders=(PhotoFolder(path=os.path.realpath(folder)),)))
    index = new_prompt_index(
        PROMPT, 1.0, model_id=MODEL, weights_hash=WEIGHTS, preprocessing=_PREPROCESSING, dim=DIM
    )
    store = Store(place)
    store.ensure_images()
    store.ensure_prompt_table(index.key, DIM)
    rng = np.random.default_rng(0)
    paths = sorted(folder.rglob("*.jpg"))
    for start in range(0, len(paths), _PER_COMMIT):
        some = paths[start : start + _PER_COMMIT]
        ids = [f"{start + i:032x}" for i in range(len(some))]
        vectors = rng.normal(size=(len(some), DIM)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        heatmap = np.full((8, 8), 1 / 64, np.float32)
        store.write_vectors(
            index.key, [Vector(i, v, heatmap, 0.0) for i, v in zip(ids, vectors, strict=True)]
        )
        records = []
        for image_id, path in zip(ids, some, strict=True):
            status, name = path.stat(), path.relative_to(folder).as_posix()
            size, changed = status.st_size, status.st_mtime_ns
            date = date_columns(None)
            records.append(FileRecord(name, image_id, size, changed, 64, 48, **date))
        store.write_thumbnails(dict.fromkeys(ids, _THUMBNAIL))
        store.write_images(records)
    write_features(place, index.key, np.zeros((1, 1), np.float32))
    write_prompt_index(place, index)
    refresh_snapshot(place, index.key)


def rescan(folder: str, place: str) -> dict[str, Any]:
    """`steersearch index FOLDER` in this process: seconds without and with the imports, peak memory."""

    def never() -> Any:
        raise AssertionError("an unchanged folder needs no model")

    embedder = LazyEmbedder(never, model_id=MODEL, weights_hash=WEIGHTS, preprocessing=_PREPROCESSING)
    began = time.monotonic()
    Store(Path(place))  # imports LanceDB
    imported, processor = time.monotonic(), time.process_time()
    library = Library.create(folder, embedder, place)
    counts = library.index([PROMPT], regions=False)
    return {
        "seconds": time.monotonic() - began,
        "seconds_without_import": time.monotonic() - imported,
        "processor_seconds_without_import": time.process_time() - processor,
        "peak_bytes": peak_memory(),
        "reused": counts.reused,
        "files": counts.files,
    }


def measure(files: int, repeats: int) -> Record:
    """Median and range of `repeats` rescans of `files` files."""
    with tempfile.TemporaryDirectory() as work:
        return _measure(files, repeats, Path(work))


def _measure(number: int, repeats: int, work: Path) -> Record:
    began, before = time.monotonic(), os.getloadavg()[0]
    folder, place = work / "photos", work / "library"
    write_photos(folder, number)
    write_rows(folder, place)
    runs = [call_fresh(rescan, folder=str(folder), place=str(place)) for _ in range(repeats)]
    for run in runs:
        assert run["reused"] == run["files"] == number, run
    metrics: dict[str, Any] = {"peak_gib": round(max(run["peak_bytes"] for run in runs) / 2**30, 3)}
    for name in ("seconds", "seconds_without_import", "processor_seconds_without_import"):
        values = sorted(run[name] for run in runs)
        metrics[name] = round(values[len(values) // 2], 2)
        metrics[f"{name}_range"] = [round(values[0], 2), round(values[-1], 2)]
    metrics["load_before"] = round(before, 2)
    settings = {"files": number, "repeats": repeats, "dim": DIM, "thumbnail_bytes": len(_THUMBNAIL)}
    return Record.make("rescan", MODEL, settings, metrics, time.monotonic() - began, weights_hash=None)


def main() -> None:
    """Measure, print the record and, with --save, keep it."""
    parser = argparse.ArgumentParser(description="Seconds and memory of a rescan of unchanged files.")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    run_script(parser, measure)


if __name__ == "__main__":
    main()
