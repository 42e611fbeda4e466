"""Search with a marked region: how often the first hit is right by box, by words and by both, and what it costs.

CORE's protocol on generated photos (`paper.core_world`): the photos of a scene are indexed under the prompt of each
object, each is the query once, and the first hit from another source photo should hold the same object. The box is the
bounding box of the object's mask; the words are its prompt.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from steersearch.benchmarks.engineering.any_focus import synthetic
from steersearch.benchmarks.harness.record import Record, run_script
from steersearch.benchmarks.paper import core_world
from steersearch.benchmarks.paper.core_data import CoreData, Scene
from steersearch.core.predictor import Predictor
from steersearch.core.preprocess import open_image
from steersearch.indexer.hits import Hits
from steersearch.indexer.library import Library
from steersearch.indexer.ranking import rank_scores
from steersearch.indexer.region import Region
from steersearch.indexer.regions import RegionArrays, open_region_snapshot
from steersearch.indexer.shortlist import matches
from steersearch.training.data.mask_file import read_mask_file

BASES = 8
SIZES, ROUNDS = (10_000, 100_000), 5
MARKED = 4  # vectors of a region: the most that `QueryPhoto.marked` gives for an outside photo


def box_around(mask: Path) -> Region:
    """The box around an object, in pixels."""
    rows, columns = read_mask_file(mask).nonzero()
    return Region(float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))


def answers_of(scene: Scene, embedder: Predictor, folder: Path) -> Iterator[dict[str, bool]]:
    """For each photo of a scene, whether the first hit is right by each kind of query."""
    library = Library.create(scene.gallery.folder, embedder, place=folder / "library")
    library.index(list(scene.prompts.values()))
    row_of = dict(zip(scene.gallery.files, scene.rows, strict=True))
    most = len(scene.prompts) + 1  # photos of one source, and the first of another

    def is_right(name: str, hits: Hits) -> bool:
        others = (row_of[hit.path.name] for hit in hits)
        found = next(row for row in others if row.image_id != row_of[name].image_id)
        return found.object == row_of[name].object

    for name, mask in zip(scene.gallery.files, scene.masks, strict=True):
        photo, words, box = scene.gallery.folder / name, row_of[name].prompt, box_around(mask)
        outside = folder / "outside.bmp"  # another file with the same pixels, which needs a forward pass
        open_image(photo).save(outside)
        asked: dict[str, tuple[Path, dict[str, Any]]] = {
            "neither": (photo, {}),
            "words": (photo, {"focus": words}),
            "box": (photo, {"region": box}),
            "both": (photo, {"focus": words, "region": box}),
            "box, outside photo": (outside, {"region": box}),
        }
        yield {
            how: is_right(name, library.query(path, k=most, include_query=True, **options))
            for how, (path, options) in asked.items()
        }


def milliseconds(search: Callable[[], object]) -> dict[str, float]:
    """Median wall seconds of a search, and median processor seconds, which other work disturbs less."""
    wall, processor = [], []
    for _ in range(ROUNDS):
        began, spent = time.monotonic(), time.process_time()
        search()
        wall.append(1e3 * (time.monotonic() - began))
        processor.append(1e3 * (time.process_time() - spent))
    return {"ms": round(float(np.median(wall)), 1), "processor_ms": round(float(np.median(processor)), 1)}


def costs(arrays: RegionArrays) -> dict[str, dict[str, float]]:
    """Times of a region search in galleries of SIZES photos, drawn from those of `arrays`."""
    found = {}
    for count in SIZES:
        large, rows = synthetic(count, arrays), np.arange(count)
        vectors = large.unit_vectors(rows[:1])[0, :MARKED]
        shares = np.full(MARKED, 1 / MARKED, dtype=np.float32)
        found[f"{count:,}"] = milliseconds(lambda: rank_scores(matches(large, rows, vectors, shares), 10))  # noqa: B023
    return found


def measure(model: str, source: str, bases: int) -> Record:
    """The record of one model on one source of objects, see `core_world`."""
    began = time.monotonic()
    embedder = Predictor.from_pretrained(model)
    data: CoreData = core_world.dataset(source, bases)
    right: dict[str, list[bool]] = {}
    for scene in data.scenes:
        with tempfile.TemporaryDirectory() as folder:
            for answers in answers_of(scene, embedder, Path(folder)):
                for how, is_right in answers.items():
                    right.setdefault(how, []).append(is_right)
            (key,) = (path.stem for path in Path(folder, "library", "unsteered").glob("*.json"))
            arrays = open_region_snapshot(Path(folder, "library"), key).arrays
    assert arrays is not None
    metrics = {
        "right_first_hit": {how: round(float(np.mean(values)), 4) for how, values in right.items()},
        "standard_error": {
            how: round(float(np.std(values) / len(values) ** 0.5), 4) for how, values in right.items()
        },
        "queries": len(right["words"]),
        "search": costs(arrays),
        "regions": arrays.vectors.shape[1],
    }
    settings = {"source": source, "bases": bases, "version": core_world.VERSION, "sizes": SIZES}
    seconds = time.monotonic() - began
    name = f"region-query-world-{source}"
    return Record.make(name, model, settings, metrics, seconds, weights_hash=embedder.weights_hash)


def main() -> None:
    """Measure one model and print the record as a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini", help="a model's name or file")
    parser.add_argument(
        "--source", default="drawn", help="of the objects, see core_world; default: %(default)s"
    )
    parser.add_argument(
        "--bases", type=int, default=BASES, help="source photos of a scene; default: %(default)s"
    )
    run_script(parser, measure)


if __name__ == "__main__":
    main()
