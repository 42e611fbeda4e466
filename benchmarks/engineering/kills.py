"""`index` runs killed (SIGKILL) at random moments and resumed; and four concurrent runs on one library.

python -m steersearch.benchmarks.engineering.kills

Each run is a process that calls `Library.index` on small generated photos with a minimal embedder, since the storage is
tested. The moments come from a seeded generator, uniform over the duration of an undisturbed run; the stages that they
hit depend on the machine and are recorded. After the resume, every row of every table is compared with the undisturbed
run's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from steersearch.benchmarks.harness.record import Record, run_script
from steersearch.core.errors import BenchmarkError
from steersearch.core.images.picture import Picture, image_of
from steersearch.core.prompts import EncodedPrompt
from steersearch.core.vectors import Embedded, Floats, Unsteered
from steersearch.indexer.care.tables import Tables
from steersearch.indexer.library import Library
from steersearch.indexer.manifest import PROMPTS
from steersearch.indexer.store import Store, num_versions, table_names

SIDE, DIM = 8, 16  # pixels, numbers
PROMPTS_OF_KILLS = ("red", "green", "blue")
PROMPTS_OF_FOUR = (("red", "green"), ("green", "blue"), ("blue", "white"), ("white", "red"))
COMMIT_SECONDS = 0.15  # so that a run over 1,000 photos commits ten times or more
_LATE = 1.05  # share of an undisturbed run's duration from which moments are drawn


class ColourEmbedder:
    """Vectors from a picture's pixels and a prompt's letters: fast, and bit-identical in any batch.

    A resumed run forms other batches. On some processors a BLAS product rounds differently for another number of rows:
    so these are plain sums.
    """

    model_id, dim, batch_size = "colours", DIM, 16
    weights_hash = hashlib.sha256(b"colours").hexdigest()
    preprocessing = {"side": SIDE}  # noqa: RUF012, the protocol has a property

    def preprocess(self, picture: Picture | Image.Image) -> Floats:
        pixels = np.asarray(image_of(picture).convert("RGB").resize((SIDE, SIDE)), dtype=np.float32) / 255
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def encode_prompt(self, prompt: str) -> EncodedPrompt:
        seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big")
        return EncodedPrompt(np.random.default_rng(seed).normal(size=(3 * SIDE, DIM)).astype(np.float32))

    def embed_pixels(
        self, pixels: Floats, prompt_features: Sequence[Floats | None], gate_scale: float
    ) -> list[Embedded]:
        columns = pixels.mean(axis=3).reshape(len(pixels), 3 * SIDE)
        heatmaps = pixels.mean(axis=1) + 1e-3
        heatmaps /= heatmaps.sum(axis=(1, 2), keepdims=True)
        plain = np.ones((3 * SIDE, DIM), np.float32)
        sums = [(columns[:, :, None] * (plain if f is None else f)).sum(axis=1) for f in prompt_features]
        vectors = [s + 1e-3 for s in sums]
        unit = [(v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32) for v in vectors]
        return [Embedded(v, heatmaps, v[:, 0]) for v in unit]

    def embed_with_unsteered(
        self, pixels: Floats, prompt_features: Sequence[Floats], gate_scale: float
    ) -> tuple[Unsteered, list[Embedded]]:
        embedded = self.embed_pixels(pixels, prompt_features, gate_scale)
        patches = pixels.reshape(len(pixels), 3, 2, SIDE // 2, 2, SIDE // 2).transpose(0, 2, 4, 1, 3, 5)
        patches = np.ascontiguousarray(patches.reshape(len(pixels), 2, 2, -1)[..., :DIM])
        (whole,) = self.embed_pixels(pixels, [None], 0.0)
        return Unsteered(whole.embeddings, patches), embedded


def draw_photos(folder: Path, number: int, seed: int = 0, name: str = "") -> Path:
    """`number` small JPEGs of noise, no two alike, in ten folders; the last two are not photos.

    Their mtime is an hour ago: an index notes the time of a file that was just written otherwise (see `FileRecord`), so
    runs at different moments would not agree.
    """
    rng, an_hour_ago = np.random.default_rng(seed), time.time() - 3600
    for i in range(number):
        path = folder / f"{i % 10}" / f"{name}{i:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i >= number - 2:
            path.write_bytes(b"\xff\xd8 not so")
        else:
            Image.fromarray(rng.integers(0, 256, (12, 16, 3), "uint8")).resize((48, 36)).save(path)
        os.utime(path, (an_hour_ago, an_hour_ago))
    return folder


class Run:
    """`Library.index` in another process."""

    def __init__(
        self, folder: Path, place: Path, prompts: Sequence[str], commit_seconds: float = COMMIT_SECONDS
    ) -> None:
        self._begun, begun = _SERVER.Pipe(duplex=False)
        self._process = _SERVER.Process(target=_index, args=(folder, place, prompts, commit_seconds, begun))
        self._process.start()
        begun.close()

    def wait_until_begun(self) -> None:
        """Wait until the imports are done and the run begins to index."""
        with suppress(EOFError):  # it has failed, which `finish` reports
            self._begun.recv()

    def kill(self, moment: float) -> bool:
        """Send SIGKILL `moment` seconds after it began; whether it still ran. Raises BenchmarkError if it failed."""
        self.wait_until_begun()
        self._process.join(moment)
        self._process.kill()
        self._process.join()
        if self._process.exitcode not in (0, -signal.SIGKILL):
            raise BenchmarkError(f"a run failed before it was killed, exit code {self._process.exitcode}")
        return self._process.exitcode != 0

    def finish(self) -> None:
        """Wait for the run to end. Raises BenchmarkError if it failed."""
        self._process.join(600)
        if self._process.exitcode != 0:
            raise BenchmarkError(f"a run of index failed, exit code {self._process.exitcode}")


def _index(
    folder: Path, place: Path, prompts: Sequence[str], commit_seconds: float, begun: Connection
) -> None:
    library = Library.create(folder, ColourEmbedder(), place)
    begun.send(None)
    library.index(prompts, commit_seconds=commit_seconds)


def _server() -> ForkServerContext:
    """Forks processes from one that has only done the imports: milliseconds instead of seconds.

    LanceDB starts afresh in each; it warns that a fork amid its own work may hang.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["lancedb", "pyarrow.ipc", "steersearch.indexer.library"])
    os.environ.setdefault("PYTHONWARNINGS", "ignore:lancedb fork support:RuntimeWarning")
    return server


_SERVER = _server()


def all_rows(place: Path) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, sorted by its key, and the manifests without their dates."""
    tables = {}
    for name in table_names(place):
        rows = Tables(place).inspect(
            name, None, lambda batches: [row for b in batches for row in b.to_pylist()]
        )
        tables[name] = sorted(rows, key=lambda row: row["path" if "path" in row else "image_id"])
    manifests = [json.loads(path.read_bytes()) for path in sorted(place.glob(f"{PROMPTS}/*/manifest.json"))]
    tables["manifests"] = [{**manifest, "created_at": "", "checksum": 0} for manifest in manifests]
    return tables


def searchable(place: Path) -> dict[str, list[tuple[str, str, bytes, bytes, float]]]:
    """What a query reads under each prompt: paths, contents, vectors, heatmaps, presence."""
    library, store = Library.open(place), Store(place)
    found = {}
    for prompt_index in library.prompts():
        gallery = store.gallery(prompt_index.key)
        vectors = [vector.tobytes() for vector in gallery.embeddings]
        columns = (gallery.paths, gallery.image_ids, vectors, gallery.heatmaps, gallery.presence.tolist())
        found[prompt_index.key] = list(zip(*columns, strict=True))
    return found


@dataclass(frozen=True)
class Death:
    """Progress of a killed run. stage: the part of the library that existed; images: rows written."""

    stage: str
    images: int


def killed_and_resumed(
    folder: Path, place: Path, moment: float, *, commit_seconds: float = COMMIT_SECONDS
) -> Death | None:
    """Kill a run `moment` seconds after it began, look at the library, resume; None if the run was faster.

    Raises BenchmarkError if the library that is left cannot be read or resumed.
    """
    if not Run(folder, place, PROMPTS_OF_KILLS, commit_seconds).kill(moment):
        return None
    death = _look(place)
    Run(folder, place, PROMPTS_OF_KILLS, commit_seconds).finish()
    return death


def _look(place: Path) -> Death:
    """Read everything that a killed run left, as a user would."""
    if not (place / "library.json").exists():
        return Death("no library", 0)
    library = Library.open(place)
    info = library.info()
    problems = [finding for finding in library.verify() if finding.is_problem]
    if problems:
        raise BenchmarkError(f"a killed run leaves {problems[0].subject}: {problems[0].what}")
    whole = len(library.prompts())
    stage = (
        f"{whole} of {len(PROMPTS_OF_KILLS)} manifests"
        if whole
        else "some photos"
        if info.photos
        else "no photo"
    )
    return Death(stage, info.photos + info.skipped)


def kill_many(
    photos: Path, scratch: Path, undisturbed: Path, seconds: float, kills: int, seed: int, workers: int
) -> list[Death]:
    """`kills` runs killed and resumed, `workers` at a time. Raises BenchmarkError at the first difference."""
    expected = all_rows(undisturbed)
    moments, lock = random.Random(seed), threading.Lock()

    def attempt(number: int) -> Death | None:
        place = scratch / f"killed-{number}"
        with lock:
            moment = moments.uniform(0, _LATE * seconds)
        death = killed_and_resumed(photos, place, moment)
        if all_rows(place) != expected:
            raise BenchmarkError(f"the tables differ after a kill {moment:.3f} s into the run ({death})")
        shutil.rmtree(place)
        return death

    deaths: list[Death] = []
    with ThreadPoolExecutor(workers) as pool:
        number = 0
        while len(deaths) < kills:  # a run that ended before the kill does not count
            numbers = range(number, number := number + kills - len(deaths))
            deaths += [death for death in pool.map(attempt, numbers) if death is not None]
    return deaths


def four_at_once(photos: Path, scratch: Path) -> dict[str, int]:
    """Four concurrent runs with overlapping prompts on one library while photos come, move and go; then a final one.

    The result is compared with an undisturbed run over the final folder. Raises BenchmarkError at a difference.
    """
    place = scratch / "four"
    runs = [Run(photos, place, prompts) for prompts in PROMPTS_OF_FOUR]
    for run in runs:
        run.wait_until_begun()
    _disturb(photos)
    for run in runs:
        run.finish()
    prompts = sorted({prompt for pair in PROMPTS_OF_FOUR for prompt in pair})
    Run(photos, place, prompts).finish()
    Run(photos, scratch / "one", prompts).finish()
    if searchable(place) != searchable(scratch / "one"):
        raise BenchmarkError("four runs at once give another library than one")
    problems = [finding for finding in Library.open(place).verify() if finding.is_problem]
    if problems:
        raise BenchmarkError(f"four runs at once leave {problems[0].subject}: {problems[0].what}")
    rows = {name: len(found) for name, found in all_rows(place).items()}
    twice = [name for name, found in all_rows(place).items() if len(_keys(name, found)) != rows[name]]
    if twice:
        raise BenchmarkError(f"four runs at once wrote rows twice: {', '.join(twice)}")
    return {"photos": rows["images"], "prompts": len(prompts), "versions": num_versions(place)}


def _keys(name: str, rows: list[dict[str, Any]]) -> set[str]:
    key = {"images": "path", "manifests": "key"}.get(name, "image_id")
    return {row[key] for row in rows}


def _disturb(photos: Path) -> None:
    """Rename a folder and a photo, copy one, add some, remove some, while others read them."""
    names = sorted(photos.rglob("*.jpg"))
    (photos / "1").rename(photos / "renamed")
    names[0].rename(names[0].with_name("moved.jpg"))
    shutil.copy(names[2], photos / "copy.jpg")
    draw_photos(photos, 20, seed=1, name="late-")
    for name in names[-4:]:
        name.unlink()


def measure(kills: int = 100, photos: int = 1000, seed: int = 0, workers: int = 2) -> Record:
    """The record of `kills` killed and resumed runs over `photos` photos, and of four runs at once."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = draw_photos(scratch / "photos", photos)
        run = Run(folder, scratch / "undisturbed", PROMPTS_OF_KILLS)
        run.wait_until_begun()
        begun = time.monotonic()
        run.finish()
        seconds = time.monotonic() - begun
        deaths = kill_many(folder, scratch, scratch / "undisturbed", seconds, kills, seed, workers)
        rows = {name: len(found) for name, found in all_rows(scratch / "undisturbed").items()}
        four = four_at_once(folder, scratch)
    written = sorted(death.images for death in deaths)
    metrics = {
        "kills": len(deaths),
        "differences": 0,  # a difference raises
        "rows_compared_per_kill": sum(rows.values()),
        "stages_at_death": dict(sorted(Counter(death.stage for death in deaths).items())),
        "rows_of_images_at_death": {
            "least": written[0],
            "median": written[len(written) // 2],
            "most": written[-1],
        },
        "undisturbed_seconds": round(seconds, 2),
        "four_at_once": four,
    }
    settings = {"photos": photos, "prompts": len(PROMPTS_OF_KILLS), "seed": seed, "workers": workers}
    return Record.make(
        "kills", ColourEmbedder.model_id, settings, metrics, time.monotonic() - began, weights_hash=None
    )


def main() -> None:
    """Measure, print the record and, with --save, keep it."""
    parser = argparse.ArgumentParser(
        description="Killed and concurrent runs of index against undisturbed ones."
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time")
    run_script(parser, measure)


if __name__ == "__main__":
    main()
