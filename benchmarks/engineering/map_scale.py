"""The page's map of a large library in headless Chromium: seconds to the first paint, frames a second under gestures,
and what each frame takes of the page's thread.

python -m steersearch.benchmarks.engineering.map_scale --save

The rows of the library, vectors in clusters, are written straight into its tables; there are no photos behind them, and
every thumbnail is the same. Headless Chromium has no graphics processor and composes by software, on the same cores;
processor time is what carries over to a machine that is not busy.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from steersearch.benchmarks.engineering.server_process import processor_seconds, resident_mib, serving
from steersearch.benchmarks.harness.record import Record, run_script
from steersearch.core.vectors import Floats
from steersearch.indexer.folders import PhotoFolder
from steersearch.indexer.manifest import (
    LibraryManifest,
    UnsteeredIndex,
    new_prompt_index,
    write_library,
    write_prompt_index,
    write_unsteered_index,
)
from steersearch.indexer.prompt_features import write_features
from steersearch.indexer.regions import Regions, pack_regions, refresh_region_snapshot
from steersearch.indexer.schema import FileRecord, date_columns
from steersearch.indexer.snapshot import refresh_snapshot
from steersearch.indexer.store import Store, UnsteeredVector, Vector

PROMPTS = ("the cat", "the remote control")
DIM, CLUSTERS = 384, 40
CHROMIUM = ("/usr/bin/chromium", "/usr/bin/google-chrome")
SECONDS = 3.0  # of each gesture
_PER_COMMIT = 10_000
_HEATMAP = np.full((8, 8), 1 / 64, np.float32)

# Drives the map from frame to frame for some seconds, and counts the frames.
_GESTURE = """
async ([kind, seconds]) => {
  const canvas = document.getElementById("map"), box = canvas.getBoundingClientRect();
  const began = performance.now();
  let count = 0, now = began;
  while (now - began < 1000 * seconds) {
    const across = 0.5 + 0.3 * Math.cos(count / 15), down = 0.5 + 0.3 * Math.sin(count / 15);
    const place = { clientX: box.left + box.width * across, clientY: box.top + box.height * down };
    const at = { ...place, bubbles: true, cancelable: true, pointerId: 1 };
    if (kind === "wheel") canvas.dispatchEvent(new WheelEvent("wheel", { ...at, deltaY: count % 60 < 30 ? -40 : 40 }));
    if (kind === "pointer") canvas.dispatchEvent(new PointerEvent("pointermove", at));
    now = await new Promise((resolve) => requestAnimationFrame(resolve));
    count += 1;
  }
  return { count, seconds: (now - began) / 1000 };
}
"""


def write_rows(folder: Path, place: Path, number: int) -> None:
    """Write the library that an `index` run over this many photos would leave."""
    write_library(place, LibraryManifest(folders=(PhotoFolder(path=os.path.realpath(folder)),)))
    indexes = [
        new_prompt_index(
            prompt, 1.0, model_id="dinov2-small", weights_hash="0" * 64, preprocessing={"size": 336}, dim=DIM
        )
        for prompt in PROMPTS
    ]
    unsteered = UnsteeredIndex.beside(indexes[0])
    store = Store(place)
    store.ensure_images()
    store.ensure_unsteered_table(unsteered.key, DIM)
    for index in indexes:
        store.ensure_prompt_table(index.key, DIM)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(len(PROMPTS) + 1, CLUSTERS, DIM)).astype(np.float32)
    thumbnail = _thumbnail()
    for start in range(0, number, _PER_COMMIT):
        count = min(_PER_COMMIT, number - start)
        ids = [f"{start + i:032x}" for i in range(count)]
        cluster = rng.integers(0, CLUSTERS, count)
        plain, *steered = (_unit(own[cluster] + _noise(rng, count)) for own in centres)
        regions = [pack_regions(Regions(vector[None], np.zeros((8, 8), dtype=np.uint8))) for vector in plain]
        store.write_unsteered(
            unsteered.key, [UnsteeredVector(*row) for row in zip(ids, plain, regions, strict=True)]
        )
        for index, vectors in zip(indexes, steered, strict=True):
            rows = zip(ids, vectors, strict=True)
            store.write_vectors(index.key, [Vector(id, vector, _HEATMAP, 0.0) for id, vector in rows])
        date = date_columns(None)
        names = (f"{i // 500:04}/IMG_{i:06}.jpg" for i in range(start, start + count))
        records = [
            FileRecord(name, id, len(thumbnail), 1, 256, 192, **date)
            for name, id in zip(names, ids, strict=True)
        ]
        store.write_thumbnails(dict.fromkeys(ids, thumbnail))
        store.write_images(records)
    for index in indexes:
        write_features(place, index.key, np.zeros((1, 1), np.float32))
        write_prompt_index(place, index)
        refresh_snapshot(place, index.key)
    write_unsteered_index(place, unsteered)
    refresh_region_snapshot(place, unsteered.key)


def _noise(rng: np.random.Generator, count: int) -> Floats:
    return rng.normal(scale=1.5, size=(count, DIM)).astype(np.float32)


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def _thumbnail() -> bytes:
    encoded = io.BytesIO()
    Image.linear_gradient("L").resize((256, 192)).convert("RGB").save(encoded, "jpeg")
    return encoded.getvalue()


def painted(page: Page) -> float:
    """Seconds from the beginning of the navigation until the map was painted."""
    while True:
        found = page.evaluate("performance.getEntriesByName('map painted').map((one) => one.startTime)")
        if found:
            return float(found[0]) / 1000
        page.wait_for_timeout(20)


class Gestures:
    """Gestures on the map of a page, and what they cost."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self._client = page.context.new_cdp_session(page)
        self._client.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy_ms(self) -> float:
        """Processor time of the page's own thread so far."""
        found = self._client.send("Performance.getMetrics")["metrics"]
        return float(next(1000 * one["value"] for one in found if one["name"] == "TaskDuration"))

    def moves(self, name: str, kind: str, seconds: float = SECONDS) -> dict[str, float]:
        """Frames a second, and what one takes of the page's thread; kind: "pointer", "wheel" or "" for none."""
        before = self.busy_ms()
        run = self.page.evaluate(_GESTURE, [kind, seconds])
        spent = (self.busy_ms() - before) / run["count"]
        return {
            f"{name}_frames_per_s": round(run["count"] / run["seconds"], 1),
            f"{name}_processor_ms": round(spent, 2),
        }


def first_paint(browser: Browser, address: str) -> float:
    """Seconds to the painted map of a page that is opened anew."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(f"{address}?view=map", wait_until="commit")
    found = painted(page)
    page.close()
    return found


def in_the_browser(browser: Browser, address: str) -> dict[str, float]:
    """Frames during each gesture."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(f"{address}?view=map", wait_until="commit")
    painted(page)
    page.wait_for_timeout(1000)
    box = page.locator("#map").bounding_box()
    assert box is not None
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    gestures = Gestures(page)
    page.mouse.move(*middle)
    found = gestures.moves("still", "") | gestures.moves("hover", "pointer") | gestures.moves("zoom", "wheel")
    page.mouse.down()
    found |= gestures.moves("pan", "pointer")
    page.mouse.up()
    page.click("#lasso")
    page.mouse.move(*middle)
    page.mouse.down()
    found |= gestures.moves("lasso", "pointer")
    before = gestures.busy_ms()
    page.mouse.up()
    page.wait_for_selector("#like-more:visible")
    found["lasso_end_processor_ms"] = round(gestures.busy_ms() - before, 1)
    found |= prompts(gestures)
    page.close()
    return found


def prompts(gestures: Gestures) -> dict[str, float]:
    """Seconds until the points begin to move to another prompt, and how the slower move runs."""
    waits, moves = [], []
    for prompt in PROMPTS:
        gestures.page.evaluate("performance.clearMarks()")
        began = time.monotonic()
        gestures.page.select_option("#map-focus", prompt)
        painted(gestures.page)
        waits.append(time.monotonic() - began)
        moves.append(gestures.moves("move", "", 0.8))
    slower = min(moves, key=lambda run: run["move_frames_per_s"])
    return {"prompt_s": round(max(waits), 2), **slower}


def measure(photos: int, place: str | None) -> Record:
    """The record of a library of this many photos."""
    began, before = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as work, sync_playwright() as started:
        folder = Path(work, "photos")
        folder.mkdir()
        library = Path(place) if place else Path(work, "library")
        if not library.exists():
            write_rows(folder, library, photos)
        executable = next(path for path in CHROMIUM if Path(path).exists())
        browser = started.chromium.launch(executable_path=executable)
        with serving(library) as (address, pid):
            started_with = processor_seconds(pid)
            metrics: dict[str, Any] = {"first_paint_cold_s": round(first_paint(browser, address), 2)}
            metrics["first_paint_cold_server_processor_s"] = round(processor_seconds(pid) - started_with, 2)
            warm = sorted(first_paint(browser, address) for _ in range(5))
            metrics["first_paint_warm_s"] = round(warm[2], 2)
            metrics |= in_the_browser(browser, address)
            id = json.load(urllib.request.urlopen(f"{address}api/v1/libraries"))[0]["id"]
            with urllib.request.urlopen(f"{address}api/v1/libraries/{id}/map") as response:
                metrics["map_bytes"] = len(response.read())
            metrics["server_mib"] = round(resident_mib(pid))
        browser.close()
    metrics["load_before"] = round(before, 2)
    settings = {"photos": photos, "dim": DIM, "clusters": CLUSTERS, "viewport": [1280, 800]}
    return Record.make("map-scale", "none", settings, metrics, time.monotonic() - began, weights_hash=None)


def main() -> None:
    """Measure, print the record and, with --save, keep it."""
    parser = argparse.ArgumentParser(description="The map of a large library in the browser.")
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--place", help="folder that keeps the library for another run; none: do not keep it")
    run_script(parser, measure)


if __name__ == "__main__":
    main()
