"""Peak memory of embedding photos under a cached prompt, stage by stage, in a fresh process.

python -m steersearch.benchmarks.engineering.memory

Loads a model from random weights in the released layout, as after a download: the authors' .pth and timm's
.safetensors in a cache of the model hub, the prompt in the prompt cache.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from steersearch.benchmarks.engineering.fresh_process import call_fresh, peak_memory
from steersearch.benchmarks.harness.record import Record, run_script
from steersearch.core.errors import BenchmarkError

if TYPE_CHECKING:
    import numpy as np

    from steersearch.core.registry import HubFile

PROMPT, PROMPT_TOKENS = "the remote control", 5
TRUNK_RESOLUTION = 518  # of the position embeddings in DINOv2's files


def embed_in_stages(model: str, photos: list[str], batch_size: int) -> dict[str, int]:
    """Peak memory so far in bytes after each stage of embedding `photos`, imports included."""
    peaks = {"python": peak_memory()}
    import torch  # noqa: F401

    peaks["torch"] = peak_memory()
    from steersearch.core.predictor import Predictor

    steered = Predictor.from_pretrained(model, device="cpu")
    peaks["model"] = peak_memory()
    steered.encode_prompts([PROMPT])
    peaks["prompt"] = peak_memory()
    for start in range(0, len(photos), batch_size):
        steered.embed(photos[start : start + batch_size], PROMPT)
        peaks.setdefault("first_batch", peak_memory())
    peaks["all_batches"] = peak_memory()
    if "transformers" in sys.modules:
        raise BenchmarkError("the text encoder was loaded although the prompt is kept on disk")
    return peaks


def fill_caches(model: str, photos: str, number: int, width: int) -> list[str]:
    """Fill the caches that the environment names with the files of `model`, and draw photos; return their paths.

    Each file's sha256 is marked as checked, like a released file's after its first use.
    """
    import numpy as np
    from safetensors.torch import save_file

    from steersearch.core.backbone import build_trunk, timm_preprocess
    from steersearch.core.checkpoints import write_released_pth
    from steersearch.core.hub import text_encoder_identity
    from steersearch.core.prompt_cache import PromptCache
    from steersearch.core.prompts import EncodedPrompt
    from steersearch.core.registry import MODELS, HubFile
    from steersearch.core.steervit import SteerViT, SteerViTConfig

    card = MODELS[model]
    assert card.trunk is not None
    assert isinstance(card.weights, HubFile)
    trunk = build_trunk(card.trunk.name, TRUNK_RESOLUTION, pretrained=False)
    config = SteerViTConfig(
        trunk=card.trunk.name,
        resolution=card.resolution,
        preprocess=timm_preprocess(card.trunk.name, card.resolution),
    )
    steered = SteerViT(config, trunk=trunk)
    for gate in (p for name, p in steered.named_parameters() if name.endswith("attn_gate")):
        gate.data.fill_(0.5)
    weights = {name.removeprefix("vit."): value for name, value in trunk.state_dict().items()}
    _place(card.trunk.weights, lambda path: save_file(weights, path, {"format": "pt"}))
    _place(card.weights, lambda path: write_released_pth(steered, path))
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((PROMPT_TOKENS, config.text_dim), np.float32)
    PromptCache().put(text_encoder_identity(config.text_encoder), {PROMPT: EncodedPrompt(tokens)})
    return [_draw(Path(photos) / f"{i:02}.jpg", width, rng) for i in range(number)]


def _place(file: HubFile, write: Callable[[Path], None]) -> None:
    """Write `file` into the hub client's cache, and mark its published hash as checked."""
    from steersearch.core import files, hub

    repository = hub.cache_folder() / f"models--{file.repo.replace('/', '--')}"
    commit = file.revision
    if commit == "main":
        commit = "0" * 40
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
    path = repository / "snapshots" / commit / file.file
    path.parent.mkdir(parents=True)
    write(path)
    assert file.sha256 is not None
    files.remember(path, file.sha256)


def _draw(path: Path, width: int, rng: np.random.Generator) -> str:
    from PIL import Image

    blotches = Image.fromarray(rng.integers(0, 256, (30, 40, 3), "uint8"))
    blotches.resize((width, width * 3 // 4), Image.Resampling.BICUBIC).save(path, quality=90)
    return str(path)


def measure(model: str = "dinov2-base", batch_size: int = 8, photos: int = 16, width: int = 4000) -> Record:
    """The record of one run: peak memory in bytes up to each stage, and in all.

    batch_size: photos in one call of `embed`, which sizes its forward passes itself.  width: of a photo in pixels;
    4000 makes the 12 megapixels of a phone.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = {"HF_HUB_CACHE": str(folder / "hub"), "STEERSEARCH_CACHE": str(folder / "cache")}
        environment = {**os.environ, **own, "HF_HUB_OFFLINE": "1"}
        paths = call_fresh(fill_caches, environment, model=model, photos=name, number=photos, width=width)
        peaks = call_fresh(embed_in_stages, environment, model=model, photos=paths, batch_size=batch_size)
    metrics = {"peak_memory_bytes": peaks["all_batches"], "peak_memory_bytes_after": peaks}
    settings = {
        "batch_size": batch_size,
        "photos": photos,
        "photo_size": [width, width * 3 // 4],
        "device": "cpu",
    }
    name = f"memory/cpu-{width}px-b{batch_size}"
    return Record.make(name, model, settings, metrics, time.monotonic() - began, weights_hash=None)


def main() -> None:
    """Measure, print the record and, with --save, keep it."""
    parser = argparse.ArgumentParser(
        description="Peak memory of embedding photos under a prompt seen before."
    )
    parser.add_argument(
        "--model", default="dinov2-base", choices=["dinov2-small", "dinov2-base", "dinov2-large"]
    )
    parser.add_argument("--batch-size", type=int, default=8, help="photos in one call of embed")
    parser.add_argument("--photos", type=int, default=16)
    parser.add_argument(
        "--width", type=int, default=4000, help="width of a photo in pixels; 4000 makes 12 megapixels"
    )
    run_script(parser, measure)


if __name__ == "__main__":
    main()
