"""`steersearch serve` under load: a warm query beside the model's own forward pass, and a minute of 8 clients.

python -m steersearch.benchmarks.engineering.serve_load
python -m steersearch.benchmarks.engineering.serve_load --model dinov2-small --seconds 0

Each query has a photo that the server has not seen; all use one connection, as a browser does. After each forward pass
the threads that it used, which spin for a while, are given time to sleep. All weights but the mini's are random, in the
shape of the named model, with the mini's text encoder: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from steersearch.benchmarks.engineering.server_process import processor_seconds, resident_mib, serving
from steersearch.benchmarks.engineering.speed import Settings, bundled_hash, named_model
from steersearch.benchmarks.harness.record import Record, run_script
from steersearch.core.checkpoints import load_model
from steersearch.core.images.reader import read_picture
from steersearch.core.predictor import Predictor
from steersearch.core.registry import MODELS

FOCUS = "the remote control"
CLIENTS = 8
DEMO_PHOTOS = "steersearch-demo/photos"
REST_S = 0.1  # libgomp's threads spin for some 15 ms after their work


@contextmanager
def serving_the_demo(folder: Path, model: Path | None) -> Iterator[tuple[str, int]]:
    """The address of a server over the demo's photos, which are made in `folder`, and its process id.

    model: a file, by which they are indexed; None: the bundled mini.
    """
    environment = os.environ | dict.fromkeys(
        ("XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"), str(folder / "kept")
    )

    def run(*command: str) -> None:
        line = [sys.executable, "-m", "steersearch", *command]
        subprocess.run(line, cwd=folder, env=environment, check=True, capture_output=True)

    run("demo")
    if model is not None:
        index = ["index", DEMO_PHOTOS, "--model", str(model), "--prompt", FOCUS, "--library", "library"]
        run(*index)
    place = None if model is None else folder / "library"
    with serving(place, environment=environment, folder=folder) as started:
        yield started


def random_model(name: str, folder: Path) -> Path:
    """The file of a model of this shape, with its backbone, which reads prompts as the mini does."""
    mini = load_model("mini", device="cpu").config
    shape = named_model(Settings(model=name), text_encoder=mini.text_encoder, text_dim=mini.text_dim)
    file = folder / f"{name}.safetensors"
    Predictor(shape).save(file)
    with safe_open(file, "pt") as saved:
        described = saved.metadata()
    trunk = {f"trunk.{key}": value.contiguous() for key, value in shape.trunk.state_dict().items()}
    save_file(load_file(file) | trunk, file, described)
    return file


def upload(address: str, photo: Path) -> str:
    """Upload a photo; return its id."""
    request = urllib.request.Request(f"{address}api/v1/uploads", photo.read_bytes(), method="POST")
    with urllib.request.urlopen(request) as response:
        id: str = json.load(response)["id"]
    return id


def get(address: str) -> tuple[int, bytes]:
    """Status and body."""
    try:
        with urllib.request.urlopen(address) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def outside_photos(folder: Path, model: Predictor, number: int) -> list[Path]:
    """JPEGs that the library does not have, of the model's own resolution; those that they are turned copies of are
    among the hits, so that the pixels of some are compared."""
    size, made = model.preprocess.size, []
    for photo in sorted((folder / DEMO_PHOTOS).rglob("*.jpg"))[:number]:
        made.append(folder / f"outside-{photo.stem}.jpg")
        read_picture(photo).image.resize((size, size)).rotate(180).save(made[-1], quality=90)
    return made


def warm_queries(
    search: str, uploads: Sequence[str], pid: int, model: Predictor, photo: Path
) -> dict[str, float]:
    """Milliseconds of a query by an outside photo under an indexed focus, and of the forward pass alone, in turns:
    medians, and means of processor time, of the query that of the server."""
    prompt, repeats = model.encode_prompt(FOCUS).tokens, len(uploads) - 2
    pixels = model.preprocess(read_picture(photo))[None]
    forward, query, spent = [], [], {"forward": 0.0, "query": 0.0}
    address = urllib.parse.urlsplit(search)
    connection = http.client.HTTPConnection(address.netloc)
    for turn, id in enumerate(uploads):
        time.sleep(REST_S)
        began, before = time.perf_counter(), time.process_time()
        model.embed_pixels(pixels, [prompt], 1.0)
        forward.append(time.perf_counter() - began)
        spent["forward"] += (time.process_time() - before) * (turn > 1)
        time.sleep(REST_S)
        began, before = time.perf_counter(), processor_seconds(pid)
        connection.request("GET", f"{address.path}?{address.query}&upload={id}")
        answer = connection.getresponse()
        body = answer.read()
        query.append(time.perf_counter() - began)
        spent["query"] += (processor_seconds(pid) - before) * (turn > 1)
        assert answer.status == 200, body
    forward_ms, query_ms = (1000 * median(times[2:]) for times in (forward, query))
    forward_processor_ms, query_processor_ms = (1000 * total / repeats for total in spent.values())
    return {
        "forward_ms": forward_ms,
        "query_ms": query_ms,
        "allowed_ms": 1.15 * forward_ms + 20,
        "forward_processor_ms": forward_processor_ms,
        "query_processor_ms": query_processor_ms,
        "allowed_processor_ms": 1.15 * forward_processor_ms + 20,
    }


def minute(searches: Sequence[str], pid: int, seconds: float) -> dict[str, float]:
    """Answers by status of 8 clients that ask without a pause, and how much the server's memory grew."""
    statuses: Counter[int] = Counter()
    ends = time.monotonic() + seconds
    lock = threading.Lock()

    def client(number: int) -> None:
        asked = number
        while time.monotonic() < ends:
            status, _ = get(searches[asked % len(searches)])
            asked += 1
            with lock:
                statuses[status] += 1

    for search in searches:
        get(search)
    before = resident_mib(pid)
    clients = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    after = resident_mib(pid)
    return {
        "answers": statuses[200],
        "busy": statuses[503],
        "other_errors": statuses.total() - statuses[200] - statuses[503],
        "before_mib": before,
        "after_mib": after,
        "growth_percent": 100 * (after / before - 1),
    }


def measure(model: str, repeats: int, seconds: float) -> Record:
    """The record of both."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = None if model == "mini" else random_model(model, folder)
        predictor = Predictor.from_pretrained(file or "mini", "cpu")
        with serving_the_demo(folder, file) as (address, pid):
            library = json.loads(get(f"{address}api/v1/libraries")[1])[0]["id"]
            base = f"{address}api/v1/libraries/{library}/search?" + urllib.parse.urlencode({"focus": FOCUS})
            photos = outside_photos(folder, predictor, repeats + 2)
            ids = [upload(address, photo) for photo in photos]
            metrics = warm_queries(base, ids, pid, predictor, photos[0])
            listed = json.loads(get(f"{address}api/v1/libraries/{library}/photos?limit=20")[1])["photos"]
            searches = [f"{base}&image={row['image_id']}" for row in listed]
            if seconds:
                metrics |= minute([*searches, f"{base}&upload={ids[-1]}", base], pid, seconds)
    return Record.make(
        "serve-load",
        model,
        {"repeats": repeats, "clients": CLIENTS, "client_seconds": seconds, "k": 24},
        {name: round(value, 2) for name, value in metrics.items()},
        time.monotonic() - began,
        weights_hash=bundled_hash(model),
    )


def main() -> None:
    """Measure, print the record and, with --save, keep it."""
    parser = argparse.ArgumentParser(description="The cost of a warm query, and a minute of 8 clients.")
    parser.add_argument("--model", default="mini", choices=list(MODELS), help="its shape")
    parser.add_argument("--repeats", type=int, default=30, help="at most 60")
    parser.add_argument("--seconds", type=float, default=60.0, help="0: no clients")
    run_script(parser, measure)


if __name__ == "__main__":
    main()
