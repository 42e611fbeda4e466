"""CORE (the paper, section 4.1): retrieval by one small object among photos that otherwise show the same.

Reads the data set as it is published, JonaRuthardt/CORE: parquet files with the columns image, scene, object,
image_id and prompt. Figures are comparable with the paper's; `core_world` is the stand-in without a download.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from steersearch.benchmarks.metrics import core_precision
from steersearch.benchmarks.record import Record
from steersearch.core.errors import BenchmarkError
from steersearch.core.steervit import Aggregation, SteerViT

REPO = "JonaRuthardt/CORE"
COLUMNS = ("scene", "object", "image_id", "prompt")
ROWS_AT_ONCE = 64  # pictures decoded at a time
PAPER = {"dinov2-base-research": 96.0}  # macro accuracy in percent, Figure 5


@dataclass(frozen=True)
class Row:
    """One picture: `object` was added to the photo `image_id` of `scene`; `prompt` names it."""

    scene: str
    object: str
    image_id: str
    prompt: str


def fetch_core() -> Path:
    """The folder of the published data set, downloaded from the model hub if need be (some gigabytes)."""
    import huggingface_hub

    return Path(huggingface_hub.snapshot_download(REPO, repo_type="dataset", allow_patterns="*.parquet"))


def parquet_files(folder: Path) -> list[Path]:
    """The files of the split "test" in a copy of the data set, in order. Raises BenchmarkError if there are none."""
    files = sorted(folder.rglob("*.parquet"))
    test = [path for path in files if re.search(r"(^|/)test[-./]", path.relative_to(folder).as_posix())]
    if not test:
        raise BenchmarkError(
            f'{folder}: holds no parquet file of the split "test"; it has {len(files)} others'
        )
    return test


def read_rows(files: list[Path]) -> list[Row]:
    """All pictures but their pixels. Raises BenchmarkError for files without the published columns."""
    import pyarrow.parquet as parquet

    rows = []
    for path in files:
        names = parquet.read_schema(path).names
        lacking = [name for name in ("image", *COLUMNS) if name not in names]
        if lacking:
            raise BenchmarkError(f"{path}: lacks the columns {', '.join(lacking)}; it has {', '.join(names)}")
        read = parquet.read_table(path, columns=list(COLUMNS)).to_pydict()
        rows += [Row(*map(str, values)) for values in zip(*(read[name] for name in COLUMNS), strict=True)]
    return rows


def read_images(files: list[Path]) -> Iterator[Image.Image]:
    """The pictures, in the order of `read_rows`."""
    import pyarrow.parquet as parquet

    for path in files:
        with parquet.ParquetFile(path) as opened:
            for batch in opened.iter_batches(ROWS_AT_ONCE, columns=["image"]):
                for image in batch.column("image").to_pylist():
                    yield Image.open(io.BytesIO(image["bytes"])).convert("RGB")


def prompts_of(rows: list[Row]) -> dict[str, dict[str, str]]:
    """scene -> object -> its prompt. Raises BenchmarkError if an object of a scene has two."""
    prompts: dict[str, dict[str, str]] = {}
    for row in rows:
        known = prompts.setdefault(row.scene, {}).setdefault(row.object, row.prompt)
        if known != row.prompt:
            raise BenchmarkError(f'{row.scene}, {row.object}: two prompts, "{known}" and "{row.prompt}"')
    return prompts


def evaluate(model: SteerViT, folder: Path, aggregation: Aggregation | None = None) -> dict[str, Any]:
    """Accuracy (precision at 1) in percent, over all pictures of each scene as queries and gallery.

    right: query and gallery under the prompt of the object that is looked for; wrong: under that of another object of
    the scene, mean over all others.  macro: mean over scenes, as in the paper's tables; micro: over queries, as in
    the authors' script; scenes: each scene's accuracy.
    """
    files = parquet_files(folder)
    rows = read_rows(files)
    prompts = prompts_of(rows)
    embeddings = _embed_all(model, files, rows, prompts, aggregation)
    right: dict[str, list[float]] = {}
    wrong: dict[str, list[float]] = {}
    for scene, by_object in prompts.items():
        gallery = [row for row in rows if row.scene == scene]
        objects, ids = [row.object for row in gallery], [row.image_id for row in gallery]
        for target in by_object:
            for steered in by_object:
                found = core_precision(embeddings[scene, steered], objects, ids, target)
                (right if steered == target else wrong).setdefault(scene, []).extend(found)
    return {
        "pictures": len(rows),
        "scenes": {scene: _percent(values) for scene, values in right.items()},
        "right/macro": _percent([float(np.mean(values)) for values in right.values()]),
        "right/micro": _percent([value for values in right.values() for value in values]),
        "wrong/macro": _percent([float(np.mean(values)) for values in wrong.values()]),
    }


def _embed_all(
    model: SteerViT,
    files: list[Path],
    rows: list[Row],
    prompts: Mapping[str, Mapping[str, str]],
    aggregation: Aggregation | None,
) -> dict[tuple[str, str], npt.NDArray[np.float32]]:
    """(scene, object) -> (G, D): the scene's pictures under the prompt of that object. Each is decoded once."""
    found: dict[tuple[str, str], list[npt.NDArray[np.float32]]] = {}
    images = read_images(files)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = [(row, next(images)) for row in rows[start : start + ROWS_AT_ONCE]]
        for scene in dict.fromkeys(row.scene for row, _ in part):
            pictures = [image for row, image in part if row.scene == scene]
            for name, prompt in prompts[scene].items():
                vectors = model.embed(pictures, prompt, aggregation=aggregation)
                found.setdefault((scene, name), []).append(vectors.numpy())
    return {key: np.concatenate(vectors) for key, vectors in found.items()}


def _percent(values: list[float]) -> float:
    return round(100 * float(np.mean(values)), 2)


def main() -> None:
    """Measure one model and print the record as a JSON object."""
    parser = argparse.ArgumentParser(description="CORE on its published data.")
    parser.add_argument("--model", default="dinov2-base-research", help="a model's name or file")
    parser.add_argument("--folder", type=Path, help="a copy of the data set; else it is downloaded")
    parser.add_argument("--save", action="store_true", help="keep the record in benchmarks/results")
    arguments = parser.parse_args()
    began = time.monotonic()
    model = SteerViT.from_pretrained(arguments.model)
    metrics = evaluate(model, arguments.folder or fetch_core())
    metrics["paper"] = PAPER.get(arguments.model)
    settings = {"aggregation": model.config.aggregation, "weights": model.weights_hash}
    record = Record.make("core", arguments.model, settings, metrics, time.monotonic() - began)
    print(json.dumps(record.flat()))
    if arguments.save:
        record.save()


if __name__ == "__main__":
    main()
