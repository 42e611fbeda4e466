"""`index --engine ray` beside the local engine on the same cores: throughput, equality, and the driver's memory.

python -m steersearch.benchmarks.engineering.ray_engine --save

Both engines take turns to index new folders of small photos under one prompt. The cluster, on this machine, is started
before; its workers start in each turn, which `work` leaves out: it counts from the first finished shard on, as does
its counterpart of the local engine. Processor time is that of this process and of all processes of the cluster.
With --paths, fresh processes index that many paths and a tenth of them, hard links to a few tiny files, by an embedder
that takes no time, and report their peak memory: their own, without the files that they map.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from steersearch.benchmarks.engineering.fresh_process import (
    call_fresh,
    own_memory,
    peak_memory,
    peak_own_memory,
)
from steersearch.benchmarks.engineering.pipeline import PROMPT, SIZES, encoded_scenes, write_photos
from steersearch.benchmarks.engineering.speed import Settings, bundled_hash, named_model
from steersearch.benchmarks.harness.record import Record, run_script
from steersearch.core.images.picture import Picture
from steersearch.core.predictor import Predictor
from steersearch.core.prompts import EncodedPrompt
from steersearch.core.vectors import Embedded, Floats, Unsteered
from steersearch.indexer.build import Counts
from steersearch.indexer.database import Database
from steersearch.indexer.embedder import LazyEmbedder
from steersearch.indexer.library import Library
from steersearch.indexer.progress import ProgressEvent
from steersearch.indexer.ray_cluster import connected
from steersearch.indexer.ray_engine import RayEngine
from steersearch.indexer.store import table_names
from steersearch.indexer.work import Engine

_TICKS = os.sysconf("SC_CLK_TCK")
_FILES = 1000  # tiny, of different contents
_OF_A_FOLDER = 50  # of these
_DIM = 8


@dataclass(frozen=True)
class Turn:
    """One engine's turn. seconds: wall;  processor: seconds of it;  rate: photos/s from the first finished ones on."""

    seconds: float
    processor: float
    rate: float


class Watched:
    """When the first photos were finished, how many, and the processor time when all are: Ray's processes end then."""

    def __init__(self) -> None:
        self.began, self.first, self.processor = 0.0, 0, 0.0

    def __call__(self, event: ProgressEvent) -> None:
        if event.done and not self.first:
            self.began, self.first = time.monotonic(), event.done
        if event.done == event.total:
            self.processor = processor_seconds()


def processor_seconds() -> float:
    """Of this process and all that it started, directly or not, and that run."""
    children: dict[int, list[int]] = defaultdict(list)
    used: dict[int, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(folder.name)
        children[int(fields[1])].append(pid)
        used[pid] = sum(map(int, fields[11:15])) / _TICKS  # with children that have ended
    total, waiting = 0.0, [os.getpid()]
    while waiting:
        pid = waiting.pop()
        total += used.get(pid, 0.0)
        waiting += children[pid]
    return total


def _mini() -> Predictor:
    return Predictor(named_model(Settings(model="mini")))


def turn(embedder: LazyEmbedder, photos: Path, place: Path, engine: Engine | None) -> Turn:
    """Index a folder into a new library."""
    watched, began, processor = Watched(), time.monotonic(), processor_seconds()
    counts = Library.create(photos, embedder, place).index([PROMPT], engine=engine, progress=watched)
    assert counts.added == counts.files, counts
    rate = (counts.added - watched.first) / (time.monotonic() - watched.began)
    return Turn(time.monotonic() - began, watched.processor - processor, rate)


def least_cosine(a: Path, b: Path) -> tuple[int, float]:
    """Rows of two libraries of the same photos that differ, and the least cosine between their vectors.

    Raises AssertionError if they hold different photos.
    """
    differing, least = 0, 1.0
    assert table_names(a) == table_names(b)
    for name in table_names(a):
        key = "path" if name == "images" else "image_id"
        one, other = (Database(place).read(name, lambda t: t.to_arrow()).sort_by(key) for place in (a, b))
        assert one.column(key).equals(other.column(key))
        rows = zip(one.to_pylist(), other.to_pylist(), strict=True)
        differing += sum(x != y for x, y in rows)
        if "embedding" in one.column_names:
            vectors = [np.array(table.column("embedding").to_pylist(), np.float64) for table in (one, other)]
            lengths = [np.linalg.norm(v, axis=1) for v in vectors]
            least = min(least, float(((vectors[0] * vectors[1]).sum(1) / (lengths[0] * lengths[1])).min()))
    return differing, least


# ------------------------------------------------------------------------------------------------- the driver's memory


class InstantEmbedder:
    """Takes no time: each vector is the same."""

    model_id, weights_hash, dim, batch_size = "instant", "0" * 64, _DIM, 64

    def __init__(self) -> None:
        self.preprocessing: dict[str, Any] = {"size": 4}

    def preprocess(self, picture: Picture | Image.Image) -> Floats:
        return np.zeros((3, 4, 4), np.float32)

    def encode_prompt(self, prompt: str) -> EncodedPrompt:
        return EncodedPrompt(np.ones((1, 3), np.float32))

    def embed_pixels(self, pixels: Floats, prompt_features: Any, gate_scale: float) -> list[Embedded]:
        count = len(pixels)
        vectors = np.full((count, _DIM), _DIM**-0.5, np.float32)
        maps, presence = np.full((count, 2, 2), 0.25, np.float32), np.zeros(count, np.float32)
        return [Embedded(vectors, maps, presence) for _ in prompt_features]

    def embed_with_unsteered(
        self, pixels: Floats, prompt_features: Any, gate_scale: float
    ) -> tuple[Unsteered, list[Embedded]]:
        embedded = self.embed_pixels(pixels, prompt_features, gate_scale)
        vectors = np.full((len(pixels), _DIM), _DIM**-0.5, np.float32)
        patches = np.full((len(pixels), 2, 2, _DIM), _DIM**-0.5, np.float32)
        return Unsteered(vectors, patches), embedded


def index_paths(folder: str, place: str, engine: str) -> dict[str, float]:
    """Memory in bytes without mapped files before the photos are read, its peak, and that with mapped files."""
    library = Library.create(folder, InstantEmbedder(), place)
    listed: list[int] = []

    def progress(event: ProgressEvent) -> None:
        if not listed:
            listed.append(own_memory())

    began = time.monotonic()
    with peak_own_memory() as peak:
        counts: Counts = library.index(
            ["x"], regions=False, progress=progress, engine=RayEngine() if engine == "ray" else None
        )
        own = peak()
    return {
        "files": counts.files,
        "listed": listed[0],
        "own": own,
        "resident": peak_memory(),
        "seconds": round(time.monotonic() - began, 1),
    }


def write_paths(folder: Path, count: int) -> None:
    """Hard links to a thousand tiny photos, a thousand in a folder, to fifty of them, so that few are decoded."""
    originals = folder / "0"
    originals.mkdir(parents=True)
    for i in range(min(_FILES, count)):
        Image.new("RGB", (4, 4), (i % 256, i // 256, 7)).save(originals / f"{i}.bmp")
    for number in range(1, count // _FILES):
        (folder / str(number)).mkdir()
        for i in range(_FILES):
            original = (number * _OF_A_FOLDER + i % _OF_A_FOLDER) % _FILES
            os.link(originals / f"{original}.bmp", folder / str(number) / f"{i}.bmp")


def memory_rows(paths: int) -> list[dict[str, Any]]:
    """Of a tenth of these paths, and of all."""
    rows = []
    for count in (paths // 10, paths):
        with tempfile.TemporaryDirectory() as work:
            write_paths(Path(work) / "photos", count)
            for engine in ("local", "ray"):
                place = f"{work}/library-{engine}"
                found = call_fresh(index_paths, folder=f"{work}/photos", place=place, engine=engine)
                rows.append({"engine": engine, **found})
    return rows


# ---------------------------------------------------------------------------------------------------------- the record


def measure(photos: int, rounds: int, paths: int) -> Record:
    """The record of `photos` small JPEGs in `rounds` turns of each engine, or of memory for `paths`."""
    return measure_memory(paths) if paths else measure_speed(photos, rounds)


def measure_speed(photos: int, rounds: int) -> Record:
    """The record of `photos` small JPEGs in `rounds` turns of each engine."""
    began, before = time.monotonic(), os.getloadavg()[0]
    embedder = LazyEmbedder(_mini)
    _ = embedder.dim  # loads it
    contents = encoded_scenes(SIZES["0.2 MP"])
    each = max(1, photos // rounds)
    turns: dict[str, list[Turn]] = {"local": [], "ray": []}
    differing, least = 0, 1.0
    with connected(None):
        for number in range(rounds):
            with tempfile.TemporaryDirectory() as work:
                folder = Path(work) / "photos"
                write_photos(folder, contents, each, f"{number}")
                order = ("local", "ray") if number % 2 == 0 else ("ray", "local")
                for name in order:
                    engine = RayEngine() if name == "ray" else None
                    turns[name].append(turn(embedder, folder, Path(work) / name, engine))
                found = least_cosine(Path(work) / "local", Path(work) / "ray")
                differing, least = differing + found[0], min(least, found[1])
    pairs = list(zip(turns["local"], turns["ray"], strict=True))
    metrics: dict[str, Any] = {
        "ray / local": _median([local.seconds / ray.seconds for local, ray in pairs]),
        "ray / local, once its workers run": _median([ray.rate / local.rate for local, ray in pairs]),
        "ray / local, processor": _median([local.processor / ray.processor for local, ray in pairs]),
        "rows that differ": differing,
        "least cosine": round(least, 7),
        "load_before": round(before, 2),
    }
    rows: list[dict[str, Any]] = [
        {"engine": name, **{k: round(v, 2) for k, v in asdict(one).items()}}
        for name, ones in turns.items()
        for one in ones
    ]
    settings = {"photos": each * rounds, "rounds": rounds, "prompts": 1, "size": SIZES["0.2 MP"]}
    seconds, weights = time.monotonic() - began, bundled_hash("mini")
    return Record.make("ray-engine", "mini", settings, metrics, seconds, weights_hash=weights, rows=rows)


def measure_memory(paths: int) -> Record:
    """The record of the peak of a process's own memory for `paths`, and for a tenth of them."""
    began, before = time.monotonic(), os.getloadavg()[0]
    rows = memory_rows(paths)
    metrics: dict[str, Any] = {"load_before": round(before, 2)}
    for name in ("local", "ray"):
        few, many = (row for row in rows if row["engine"] == name)
        more = many["files"] - few["files"]
        metrics[f"{name}: bytes per path"] = round((many["own"] - few["own"]) / more)
        metrics[f"{name}: bytes per path, of these for the list"] = round(
            (many["listed"] - few["listed"]) / more
        )
    return Record.make(
        "ray-memory",
        "instant",
        {"paths": paths},
        metrics,
        time.monotonic() - began,
        weights_hash=None,
        rows=rows,
    )


def _median(values: list[float]) -> float:
    return round(float(np.median(values)), 3)


def main() -> None:
    """Measure, print the record and, with --save, keep it."""
    parser = argparse.ArgumentParser(description="Indexing on a local Ray cluster beside the local engine.")
    parser.add_argument("--photos", type=int, default=5000, help="of all rounds; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--paths", type=int, default=0, help="measure memory instead, with this many paths")
    run_script(parser, measure)


if __name__ == "__main__":
    main()
