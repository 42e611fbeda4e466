"""What a photo costs this machine: milliseconds of the model, with and without more prompts, and of reading.

python -m steersearch.benchmarks.engineering.pace --save
python -m steersearch.benchmarks.engineering.pace --against 5000 --save    # also index 5,000 photos, and compare

`plan` reckons with these figures, see cost.py. Models other than the mini have random weights: speed does not depend on
them. The variants take turns; each figure is the median of the rounds. On a CPU it is processor time over the number of
cores, which other programs disturb less than the clock.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from steersearch.benchmarks.engineering.cost import Hardware, Job, Pace, Reading, cost_of
from steersearch.benchmarks.engineering.pipeline import (
    MODELS,
    SIZES,
    ShapedEmbedder,
    encoded_scenes,
    reading_cost,
    write_photos,
)
from steersearch.benchmarks.engineering.speed import Settings, bundled_hash, named_model
from steersearch.benchmarks.harness.record import Record, run_script
from steersearch.core.predictor import Predictor
from steersearch.core.vectors import Floats
from steersearch.indexer.library import Library
from steersearch.indexer.regions import pack_regions, regions_of

WORD = "the red mug"
MORE = 4  # prompts, whose time beyond one prompt is that of MORE - 1


def predictor_of(model: str) -> Predictor:
    """The mini, or random weights in the shape of another named model."""
    return (Predictor if model == "mini" else ShapedEmbedder)(named_model(Settings(model=model)))


def pace_of(predictor: Predictor, rounds: int = 5) -> Pace:
    """What a photo takes in the model."""
    on_gpu = predictor.device.type == "cuda"
    clock, cores = (time.perf_counter, 1) if on_gpu else (time.process_time, os.cpu_count() or 1)
    features = predictor.encode_prompt(WORD).tokens
    side = predictor.preprocess(_grey()).shape
    pixels = np.random.default_rng(0).normal(0, 1, (predictor.batch_size, *side)).astype(np.float32)
    turns: dict[str, Callable[[], object]] = {
        "one": lambda: predictor.embed_pixels(pixels, [features], 1.0),
        "more": lambda: predictor.embed_pixels(pixels, [features] * MORE, 1.0),
        "unsteered": lambda: predictor.embed_with_unsteered(pixels, [features], 1.0),
    }
    taken: dict[str, list[float]] = {name: [] for name in turns}
    for turn in range(rounds + 1):
        for name, run in turns.items():
            began = clock()
            run()
            if turn:  # the first one warms up
                taken[name].append((clock() - began) / cores)
    one, more, unsteered = (1e3 * float(np.median(taken[name])) / len(pixels) for name in turns)
    prompt = (more - one) / (MORE - 1)
    return Pace(
        shared=max(0.0, one - prompt),
        prompt=prompt,
        unsteered=max(0.0, unsteered - one),
        regions=_regions_ms(predictor, pixels, features),
    )


def _regions_ms(predictor: Predictor, pixels: Floats, features: Floats) -> float:
    unsteered, _ = predictor.embed_with_unsteered(pixels, [features], 1.0)
    began = time.thread_time()
    for patches in unsteered.patches:
        pack_regions(regions_of(patches))
    return 1e3 * (time.thread_time() - began) / len(pixels)


def _grey() -> Image.Image:
    return Image.new("RGB", (640, 480), (128, 128, 128))


def reading_of(predictor: Predictor) -> Reading:
    """From JPEGs of two sizes."""
    large, small = (
        (width * height / 1e6, reading_cost(predictor, encoded_scenes((width, height))))
        for width, height in (SIZES["12 MP"], SIZES["0.2 MP"])
    )
    slope = (large[1] - small[1]) / (large[0] - small[0])
    return Reading(fixed=max(0.0, small[1] - slope * small[0]), per_megapixel=slope)


def this_machine(model: str, predictor: Predictor | None = None, rounds: int = 5) -> Hardware:
    """What this machine takes for `model`, measured in half a minute. Raises as `named_model` does."""
    predictor = predictor or predictor_of(model)
    pace = pace_of(predictor, rounds)
    return Hardware(
        name="here",
        cores=os.cpu_count() or 1,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpus=1 if predictor.device.type == "cuda" else 0,
        paces={model: pace},
        reading=reading_of(predictor),
        source="measured now",
    )


def indexed(predictor: Predictor, photos: int, prompts: int) -> tuple[float, float, int]:
    """Wall and processor seconds of an index run over new photos of 0.2 MP, and the bytes of the library's data."""
    with tempfile.TemporaryDirectory() as work:
        folder, place = Path(work) / "photos", Path(work) / "library"
        write_photos(folder, encoded_scenes(SIZES["0.2 MP"]), photos, "pace")
        library = Library.create(folder, predictor, place)
        began, processor = time.monotonic(), time.process_time()
        library.index([f"{WORD} {i}" for i in range(prompts)])
        return time.monotonic() - began, time.process_time() - processor, library.info().bytes_on_disk


def compared(
    hardware: Hardware, model: str, predictor: Predictor, photos: int, prompts: int
) -> dict[str, float]:
    """What `plan` says of an index run, and what the run took. Processor seconds are those of all cores."""
    width, height = SIZES["0.2 MP"]
    job = Job(photos=photos, prompts=prompts, megapixels=width * height / 1e6)
    cost = cost_of(job, model, hardware)
    wall, processor, taken = indexed(predictor, photos, prompts)
    planned = cost.model_seconds * hardware.cores + cost.reading_seconds
    return {
        "planned_seconds": round(cost.seconds, 1),
        "seconds": round(wall, 1),
        "planned_processor_seconds": round(planned, 1),
        "processor_seconds": round(processor, 1),
        "planned_over_processor": round(planned / processor, 3),
        "planned_bytes": cost.bytes,
        "bytes": taken,
    }


def measure(model: str, rounds: int, against: int, prompts: int) -> Record:
    """The record of one model on this machine; against: index this many photos, under `prompts` prompts."""
    began, before = time.monotonic(), os.getloadavg()[0]
    predictor = predictor_of(model)
    hardware = this_machine(model, predictor, rounds)
    pace, reading = hardware.paces[model], hardware.reading
    metrics = {
        "load_before": round(before, 2),
        "shared_ms": round(pace.shared, 2),
        "prompt_ms": round(pace.prompt, 2),
        "unsteered_ms": round(pace.unsteered, 2),
        "reading_fixed_core_ms": round(reading.fixed, 2),
        "reading_core_ms_per_megapixel": round(reading.per_megapixel, 2),
        "regions_core_ms": round(pace.regions, 2),
    }
    if against:
        metrics |= compared(hardware, model, predictor, against, prompts)
    settings = {
        "against": [against, prompts],
        "rounds": rounds,
        "batch": predictor.batch_size,
        "prompts": [1, MORE],
        "device": predictor.device.type,
    }
    seconds = time.monotonic() - began
    return Record.make("pace", model, settings, metrics, seconds, weights_hash=bundled_hash(model))


def main() -> None:
    """Measure, print the record and, with --save, keep it."""
    parser = argparse.ArgumentParser(description="What a photo costs this machine.")
    parser.add_argument("--model", choices=MODELS, default="mini", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--against", type=int, default=0, help="index this many photos, and compare")
    parser.add_argument("--prompts", type=int, default=2, help="of --against")
    run_script(parser, measure)


if __name__ == "__main__":
    main()
