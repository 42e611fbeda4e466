"""Throughput of `index` against that of the model alone on decoded photos, for large and small JPEGs.

python -m steersearch.benchmarks.engineering.pipeline --save

The two take turns in this process: a folder of new photos is indexed into a new library with a prompt, regions or both;
then the model gets as many decoded and preprocessed pictures in batches of the same size. The photos are a few drawn
scenes with grain; a comment makes each file's content unique. Wall and processor time are compared. On a CPU the model
shares the cores with the threads that read; `ratio_bound` is the ratio that this leaves.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from steersearch.benchmarks.engineering.speed import Settings, blank_prompt, bundled_hash, named_model
from steersearch.benchmarks.harness.record import Record, run_script
from steersearch.core.images.pillow import opened
from steersearch.core.predictor import Predictor
from steersearch.core.preprocess import least_side
from steersearch.core.prompts import EncodedPrompt
from steersearch.core.vectors import Floats
from steersearch.indexer.library import Library
from steersearch.indexer.loader import PhotoReader
from steersearch.training.world.scenes import FAMILIES, draw_scene

MODELS = ("mini", "dinov2-small", "dinov2-base")  # all but the mini with random weights
PROMPT = "the red mug"
CASES = (((PROMPT,), False), ((PROMPT,), True), ((), True))  # prompts, and whether with regions
SIZES = {"12 MP": (4000, 3000), "0.2 MP": (512, 384)}
_SCENES = 6


@dataclass(frozen=True)
class Round:
    """One turn: wall and processor seconds, and the stages of `index` (see `Counts`)."""

    index_seconds: float
    model_seconds: float
    index_processor: float
    model_processor: float
    waited_for_photos: float
    in_model: float
    writing: float


def encoded_scenes(size: tuple[int, int]) -> list[bytes]:
    """JPEGs of drawn scenes with a camera's grain; size: (width, height) in pixels."""
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 4, (size[1], size[0], 1)).astype(np.float32)
    contents = []
    for i in range(_SCENES):
        scene = draw_scene(FAMILIES[i % len(FAMILIES)], rng, (960, 720)).image.resize(size)
        noisy = np.asarray(scene, np.float32) + np.roll(grain, 37 * i, axis=1)
        content = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(content, "JPEG", quality=90)
        contents.append(content.getvalue())
    return contents


def write_photos(folder: Path, contents: list[bytes], number: int, salt: str) -> None:
    """Write `number` files of different content."""
    folder.mkdir()
    for i in range(number):
        content, comment = contents[i % len(contents)], f"{salt} {i}".encode()
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        (folder / f"IMG_{i:05}.jpg").write_bytes(content[:2] + segment + content[2:])


def _decoded(content: bytes) -> Image.Image:
    with opened(io.BytesIO(content)) as image:
        return image.convert("RGB")


def run_model(
    embedder: Predictor, pictures: Floats, number: int, features: Sequence[Floats], unsteered: bool
) -> None:
    """Run `number` pictures through the model, in its own batches."""
    for start in range(0, number, embedder.batch_size):
        chosen = np.arange(start, min(start + embedder.batch_size, number)) % len(pictures)
        if unsteered:
            embedder.embed_with_unsteered(pictures[chosen], features, 1.0)
        else:
            embedder.embed_pixels(pictures[chosen], features, 1.0)


def one_round(
    embedder: Predictor,
    contents: list[bytes],
    pictures: Floats,
    number: int,
    salt: str,
    *,
    prompts: Sequence[str],
    regions: bool,
) -> Round:
    """Index `number` new photos, then give the model as many decoded ones."""
    features = [embedder.encode_prompt(prompt).tokens for prompt in prompts]
    with tempfile.TemporaryDirectory() as work:
        write_photos(Path(work) / "photos", contents, number, salt)
        library = Library.create(Path(work) / "photos", embedder, Path(work) / "library")
        began, processor = time.monotonic(), time.process_time()
        counts = library.index(prompts, regions=regions)
        index_seconds, index_processor = time.monotonic() - began, time.process_time() - processor
        assert counts.added == number, counts
    began, processor = time.monotonic(), time.process_time()
    run_model(embedder, pictures, number, features, regions)
    return Round(
        index_seconds,
        time.monotonic() - began,
        index_processor,
        time.process_time() - processor,
        counts.read_seconds,
        counts.embed_seconds,
        counts.write_seconds,
    )


def reading_cost(embedder: Predictor, contents: list[bytes]) -> float:
    """Processor milliseconds to read, hash, decode and preprocess a photo, its thumbnail included."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "photos"
        write_photos(folder, contents, 3 * len(contents), "cost")
        reader = PhotoReader(
            folder,
            is_known=lambda _: False,
            bad_reason=lambda _: None,
            needs_pixels=lambda _: True,
            preprocess=embedder.preprocess,
            at_least=least_side(embedder.preprocessing),
        )
        names = sorted(path.name for path in folder.iterdir())
        reader(names[0])
        began = time.thread_time()
        for name in names:
            reader(name)
        return 1000 * (time.thread_time() - began) / len(names)


class ShapedEmbedder(Predictor):
    """Random weights in the shape of a released model, and meaningless prompts of five tokens."""

    def encode_prompt(self, prompt: str) -> EncodedPrompt:
        return EncodedPrompt(blank_prompt(5, self.model).numpy()[0])


def measure(
    model: str, photos: int, rounds: int, size: str | None = None, precision: str = "float32"
) -> Record:
    """The record of `photos` JPEGs of each size, or of one `size`, in `rounds` turns. precision: of the model."""
    began, before = time.monotonic(), os.getloadavg()[0]
    kind = Predictor if model == "mini" else ShapedEmbedder
    embedder = kind(named_model(Settings(model=model)).to(getattr(torch, precision)))
    metrics: dict[str, Any] = {"load_before": round(before, 2)}
    rows = []
    each = max(1, photos // rounds)
    for name in [size] if size else SIZES:
        contents = encoded_scenes(SIZES[name])
        images = [_decoded(content) for content in contents]
        pictures = np.stack([embedder.preprocess(image) for image in images])
        cost = round(reading_cost(embedder, contents), 2)
        for prompts, regions in CASES:
            run = partial(one_round, embedder, contents, pictures, prompts=prompts, regions=regions)
            run(min(each, 16), "warm")
            turns = [run(each, f"{turn}") for turn in range(rounds)]
            case = {"photos": name, "prompts": len(prompts), "regions": regions}
            rows.append(case | _row(each, turns, cost))
    for row in rows:
        if not row["regions"]:
            metrics[f"{row['photos']}: index / model"] = row["ratio"]
            metrics[f"{row['photos']}: index / model, processor"] = row["ratio_processor"]
    settings = {
        "photos": each * rounds,
        "rounds": rounds,
        "view": embedder.preprocess.mode,
        "pictures": f"{_SCENES} drawn scenes with grain, JPEG quality 90",
        "sizes": SIZES,
    }
    return Record.make(
        "pipeline" if precision == "float32" else f"pipeline-{precision}",
        model,
        settings,
        metrics,
        time.monotonic() - began,
        weights_hash=bundled_hash(model),
        rows=rows,
    )


def _row(each: int, turns: list[Round], reading: float) -> dict[str, Any]:
    """Throughput of index over that of the model, its range over the turns, and the stages in ms per photo.

    reading: processor milliseconds a photo on an idle machine.  ratio_bound: the ratio with all cores busy, if only the
    model and reading took any time.  busy: how busy the cores were.
    """
    clock = sorted(turn.model_seconds / turn.index_seconds for turn in turns)
    processor = sorted(turn.model_processor / turn.index_processor for turn in turns)
    stages = {
        stage: round(1000 * float(np.median([asdict(turn)[stage] for turn in turns])) / each, 2)
        for stage in Round.__dataclass_fields__
    }
    return {
        "ratio": round(clock[len(clock) // 2], 3),
        "ratio_range": [round(clock[0], 3), round(clock[-1], 3)],
        "ratio_processor": round(processor[len(processor) // 2], 3),
        "ratio_processor_range": [round(processor[0], 3), round(processor[-1], 3)],
        "ratio_bound": round(stages["model_processor"] / (stages["model_processor"] + reading), 3),
        "busy": round(stages["index_processor"] / stages["index_seconds"] / (os.cpu_count() or 1), 3),
        "photos_per_second": round(1000 / stages["index_seconds"], 1),
        "ms_per_photo": stages,
        "reading_processor_ms_per_photo": reading,
    }


def main() -> None:
    """Measure, print the record and, with --save, keep it."""
    parser = argparse.ArgumentParser(description="Throughput of index against that of the model alone.")
    parser.add_argument("--model", choices=MODELS, default="mini", help="default: %(default)s")
    parser.add_argument("--photos", type=int, default=2000, help="of each size")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--size", choices=sorted(SIZES), help="one size only")
    run_script(parser, measure)


if __name__ == "__main__":
    main()
