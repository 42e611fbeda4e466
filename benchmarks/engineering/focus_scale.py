"""A focus that nobody indexed in a large library: seconds to the first answer and to the end of the budget, by this
process alone and by a fleet of two workers, and what of it is the choice of candidates.

python -m steersearch.benchmarks.engineering.focus_scale --photos 1000000 --save

The library is written, not indexed: mini sees DRAWN small pictures, and every photo is a file of its own content (by a
comment in the JPEG) that shows one of them and has its features; tables and snapshot are those that an `index` run
leaves, but for thumbnails. The two workers have a core each, so that on two cores they share them with the process that
searches. Each way searches in a fresh process, with a new focus each time, which the text encoder has not read either:
once to open what it needs, then RUNS times.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from steersearch.benchmarks.engineering.fresh_process import call_fresh, peak_memory
from steersearch.benchmarks.engineering.photo_gallery import photo_gallery
from steersearch.benchmarks.engineering.speed import bundled_hash
from steersearch.benchmarks.harness.record import Record, run_script
from steersearch.core.images.pillow import opened
from steersearch.core.predictor import Predictor
from steersearch.indexer.embedder import Embedder, LazyEmbedder
from steersearch.indexer.folders import PhotoFolder
from steersearch.indexer.library import Library
from steersearch.indexer.manifest import (
    LibraryManifest,
    new_unsteered_index,
    write_unsteered_index,
)
from steersearch.indexer.manifest import write_library as write_manifest
from steersearch.indexer.ray_fleet import Fleet
from steersearch.indexer.regions import pack_regions, refresh_region_snapshot, regions_of
from steersearch.indexer.schema import FileRecord
from steersearch.indexer.store import Store, UnsteeredVector
from steersearch.indexer.work import Candidate, Finished, Job, LocalEngine, Steering

DRAWN, SIDE = 40, 96  # pictures, and pixels of their longer side
FIRST_S, BUDGET_S, RUNS = 0.001, 5.0, 3  # the first answer steers as little as an answer takes
_FOLDER, _COMMIT = 1000, 20_000  # files; rows
_COLOURS = ("red", "blue", "green", "small", "large", "old", "new", "wet")


def write_library(folder: Path, place: Path, photos: int) -> None:
    """A library of so many photos below `folder`."""
    drawn = [_jpeg(one.path) for one in photo_gallery(folder / "drawn", "gallery", DRAWN)]
    gallery, embedder = folder / "photos", Predictor.from_pretrained("mini")
    pixels = np.stack([embedder.preprocess(_shown(content)) for content in drawn])
    frozen, _ = embedder.embed_with_unsteered(pixels, [embedder.encode_prompt("the picture").tokens], 1.0)
    packed = [pack_regions(regions_of(patches)) for patches in frozen.patches.astype(np.float32)]
    index = new_unsteered_index(
        model_id=embedder.model_id,
        weights_hash=embedder.weights_hash,
        preprocessing=embedder.preprocessing,
        dim=embedder.dim,
    )
    ids = _write_photos(gallery, drawn, photos)
    write_manifest(place, LibraryManifest(folders=(PhotoFolder(path=os.path.realpath(gallery)),)))
    store = Store(place)
    store.ensure_images()
    store.ensure_unsteered_table(index.key, index.dim)
    for start in range(0, photos, _COMMIT):
        some = range(start, min(start + _COMMIT, photos))
        store.write_images([FileRecord(_name(i), ids[i], 1, 1, SIDE, SIDE) for i in some])
        store.write_unsteered(
            index.key,
            [UnsteeredVector(ids[i], frozen.embeddings[i % DRAWN], packed[i % DRAWN]) for i in some],
        )
    write_unsteered_index(place, index)
    refresh_region_snapshot(place, index.key)


def _jpeg(drawn: Path) -> bytes:
    content = io.BytesIO()
    with opened(drawn) as image:
        small = image.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        small.save(content, "jpeg", quality=80)
    return content.getvalue()


def _shown(jpeg: bytes) -> Image.Image:
    with opened(io.BytesIO(jpeg), ["JPEG"]) as image:
        return image.convert("RGB")


def _with_comment(jpeg: bytes, number: int) -> bytes:
    text = f"{number:08}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]


def _name(number: int) -> str:
    return f"{number // _FOLDER:05}/{number:07}.jpg"


def _write_photos(gallery: Path, drawn: list[bytes], photos: int) -> list[str]:
    """Returns their content hashes."""
    ids = []
    for number in range(photos):
        if number % _FOLDER == 0:
            (gallery / _name(number)).parent.mkdir(parents=True)
        content = _with_comment(drawn[number % DRAWN], number)
        (gallery / _name(number)).write_bytes(content)
        ids.append(hashlib.sha256(content).hexdigest()[:32])
    return ids


# ---------------------------------------------------------------------------------------------------------- searches


class Timed:
    """Notes when another steering begins and ends, and what it steers."""

    def __init__(self, steering: Steering) -> None:
        self._steering = steering

    def load(self, embedder: Embedder) -> None:
        self._steering.load(embedder)

    def steer(
        self, job: Job, embedder: Embedder, candidates: Iterable[Candidate], deadline: float
    ) -> Generator[Finished, None, None]:
        self.began, self.photos, self.alone = time.monotonic(), 0, 0
        try:
            for finished in self._steering.steer(job, embedder, candidates, deadline):
                photos = len(finished.results)
                self.photos, self.alone = self.photos + photos, self.alone + photos * bool(finished.remarks)
                yield finished
        finally:
            self.ended = time.monotonic()


def searches(place: str, photo: str, address: str | None) -> dict[str, Any]:
    """The figures of one way. address: of the cluster; None: this process alone."""
    things = ("mug", "book") if address is None else ("bicycle", "lamp")  # what was steered is kept
    focuses = (f"the {colour} {thing}" for colour in _COLOURS for thing in things)
    with _steering(address) as steering:
        embedder = LazyEmbedder(partial(Predictor.from_pretrained, "mini"))
        library = Library.open(place, embedder)
        library.steering = timed = Timed(steering)
        timed.load(embedder)
        if isinstance(steering, Fleet):
            _wait_for(steering)
        found: dict[str, Any] = {"opening": _search(library, photo, next(focuses), FIRST_S, timed)}
        for name, budget in (("first", FIRST_S), ("budget", BUDGET_S)):
            runs = [_search(library, photo, next(focuses), budget, timed) for _ in range(RUNS)]
            found[name] = {key: round(median(run[key] for run in runs), 2) for key in runs[0]}
    return found | {"peak_mib": round(peak_memory() / 2**20)}


@contextmanager
def _steering(address: str | None) -> Iterator[Steering]:
    if address is None:
        yield LocalEngine()
    else:
        with Fleet(address) as fleet:
            yield fleet


def _wait_for(fleet: Fleet) -> None:
    import ray

    ray.get([answer for member in fleet.members for answer in member.loading.values()])


def _search(library: Library, photo: str, focus: str, budget_s: float, timed: Timed) -> dict[str, float]:
    """Seconds of a query and of its parts, and the photos that were steered, some of them by this process alone."""
    began = time.monotonic()
    library.query(photo, focus, budget_s=budget_s)
    ended = time.monotonic()
    return {
        "seconds": round(ended - began, 2),
        "choice_seconds": round(timed.began - began, 2),
        "steering_seconds": round(timed.ended - timed.began, 2),
        "answer_seconds": round(ended - timed.ended, 2),
        "photos": timed.photos,
        "photos_alone": timed.alone,
    }


@contextmanager
def _two_nodes() -> Iterator[str]:
    """The address of a cluster of two nodes on this machine, of one core each."""
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


def measure(photos: int, place: str | None) -> Record:
    """The record."""
    began, before = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(place or name)
        library = folder / "library"
        if not library.exists():
            folder.mkdir(exist_ok=True)
            write_library(folder, library, photos)
        written = time.monotonic() - began
        photo = photo_gallery(folder / "drawn", "query", 1)[0].path
        own = {"place": str(library), "photo": str(photo)}
        with _two_nodes() as address:
            metrics = {"fleet_of_two": call_fresh(searches, address=address, **own)}
        metrics["this_process"] = call_fresh(searches, address=None, **own)
        metrics |= {
            "written_seconds": round(written),
            "snapshot_bytes": sum(file.stat().st_size for file in (library / "snapshots").rglob("*.npy")),
            "load": [round(before, 1), round(os.getloadavg()[0], 1)],
        }
    settings = {"photos": photos, "drawn": DRAWN, "side": SIDE, "budget_s": BUDGET_S, "runs": RUNS}
    return Record.make(
        f"focus-scale/{photos}",
        "mini",
        settings,
        metrics,
        time.monotonic() - began,
        weights_hash=bundled_hash("mini"),
    )


def main() -> None:
    """Measure, print the record and, with --save, keep it."""
    parser = argparse.ArgumentParser(description="A focus that nobody indexed in a large library.")
    parser.add_argument("--photos", type=int, default=1_000_000)
    parser.add_argument("--place", help="folder that keeps the library for another run; none: do not keep it")
    run_script(parser, measure)


if __name__ == "__main__":
    main()
