"""A whole run from its recipe: checks, preparation, training, report."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from steersearch.core.checkpoints import write_safetensors
from steersearch.core.errors import (
    ConfigError,
    MissingExtraError,
    RunError,
)
from steersearch.core.preprocess import Preprocess
from steersearch.core.steervit import SteerViT
from steersearch.training import checkpoint
from steersearch.training.batch import Feed
from steersearch.training.corpus_feed import CorpusFeed
from steersearch.training.failures import translated
from steersearch.training.hybrid.preparation import TRUNK, WORDS
from steersearch.training.journal import FILE as METRICS
from steersearch.training.journal import read_journal
from steersearch.training.model import finished
from steersearch.training.photographs.folder import missing_for_folder
from steersearch.training.photographs.needs import Missing, require
from steersearch.training.preparation import Preparation, photographs_to_make
from steersearch.training.recipe import Recipe
from steersearch.training.report import Example, write_report
from steersearch.training.steering import Steered, Steering
from steersearch.training.trainer import Say, Trainer
from steersearch.training.world.emoji import EMOJI_FONT
from steersearch.training.world.stamps import STAMPS_FOLDER

EXAMPLES = 12


def train_recipe(recipe: Recipe, folder: Path, *, resume: bool, device: str, say: Say) -> Path:
    """Train as `recipe` says in `folder`; returns the file of the final model.

    resume: continue from the last checkpoint.  device: auto, cpu or cuda.  say: called with a line for each event
    Raises NeedsMissingError before any work; KeyboardInterrupt when stopped, after saving; RunError if the machine
    fails it; errors of its parts.
    """
    require("this run", missing_for_run(recipe, folder))
    accelerator = _accelerator(recipe, device)
    if not accelerator.is_main_process:
        say = _silent
    with translated(folder), _denormals_flushed():
        folder.mkdir(parents=True, exist_ok=True)
        if checkpoint.latest(folder) is not None and not resume:
            raise RunError.exists(folder)
        feed, model, objective = Preparation(recipe, folder, accelerator, say, resume).prepare()
        stage = Steering(recipe, model, feed, objective, accelerator)
        Trainer(stage, folder, recipe.run, say, accelerator).train(resume=resume)
        final = folder / "model.safetensors"
        if accelerator.is_main_process:
            write_safetensors(finished(model, recipe.model), final)
            _report(recipe, folder, model, feed, say)
    accelerator.wait_for_everyone()
    return final


def _silent(line: str) -> None:
    """Discard a line, in all processes except the main one."""


def missing_for_run(recipe: Recipe, folder: Path) -> list[Missing]:
    """What the run in `folder` needs and this machine lacks, with the commands that install it."""
    made = photographs_to_make(recipe, folder)
    missing = [] if made is None else missing_for_folder(made)
    for setting, package, extra in (
        (recipe.run.tensorboard, "tensorboard", "train"),
        (recipe.run.wandb, "wandb", "wandb"),
    ):
        if setting and find_spec(package) is None:
            missing.append(Missing(package, f'pip install "steersearch[{extra}]"'))
    if "world" in recipe.data.train:
        if recipe.world.stamps and not STAMPS_FOLDER.is_dir():
            way_out = "apt-get install tuxpaint-stamps-default, or world.stamps=false"
            missing.append(Missing("stamps", way_out))
        if recipe.world.emoji and not EMOJI_FONT.is_file():
            way_out = "apt-get install fonts-noto-color-emoji, or world.emoji=false"
            missing.append(Missing("emoji", way_out))
    return missing


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Treat subnormal numbers as zero: a CPU takes a hundred times as long for them."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _accelerator(recipe: Recipe, device: str) -> Any:
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from accelerate.utils import InitProcessGroupKwargs
    except ImportError:
        raise MissingExtraError("accelerate", "train", "training") from None
    is_cpu = device == "cpu" or not torch.cuda.is_available()
    if device == "cuda" and is_cpu:
        raise ConfigError("device", device, "torch sees no GPU here; use --device cpu")
    precision = recipe.run.precision
    if precision == "auto":
        precision = "float32" if is_cpu or not torch.cuda.is_bf16_supported() else "bfloat16"
    if os.environ.get("WORLD_SIZE", "1") == "1":
        # an earlier run in this process may have used another device or precision
        AcceleratorState._reset_state(reset_partial_state=True)
    # While the main process makes data and backbone.
    waiting = InitProcessGroupKwargs(timeout=timedelta(days=1))
    accelerator = Accelerator(
        cpu=is_cpu, mixed_precision="bf16" if precision == "bfloat16" else "no", kwargs_handlers=[waiting]
    )
    if recipe.optimiser.batch % accelerator.num_processes:
        raise ConfigError(
            "optimiser.batch",
            recipe.optimiser.batch,
            f"must be a multiple of {accelerator.num_processes} processes",
        )
    return accelerator


@torch.no_grad()
def _report(recipe: Recipe, folder: Path, model: SteerViT, feed: Feed, say: Say) -> None:
    batch = next(iter(feed.validation())).to(model.device)
    model.eval()
    heatmaps = Steered(model)(batch.pixels, batch.prompts).heatmap().cpu()
    preprocess, grid = model.config.preprocess, model.grid
    examples = []
    for i in range(min(EXAMPLES, len(batch))):
        picture = (
            feed.held_pictures[i] if isinstance(feed, CorpusFeed) else _shown(batch.pixels[i], preprocess)
        )
        cover = batch.cover[i].reshape(grid).cpu().numpy() > 0.5
        side = preprocess.size // grid[0]
        mask = cover.repeat(side, axis=0).repeat(side, axis=1)
        examples.append(Example(picture, batch.texts[i], mask, heatmaps[i].numpy()))
    lines = read_journal(folder)
    summary = next(line["values"] for line in reversed(lines) if line["kind"] == "validation")
    stages = {
        name: read_journal(folder / place)
        for name, place in (("Trunk", TRUNK), ("Words", WORDS))
        if (folder / place / METRICS).is_file()
    }
    path = write_report(folder, asdict(recipe), lines, examples, summary, stages)
    say(f"report: {path}")


def _shown(pixels: Tensor, preprocess: Preprocess) -> Image.Image:
    """The picture of normalised pixels (3, S, S)."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    bytes_ = ((pixels.float().cpu() * std + mean) * 255).clamp(0, 255).byte()
    return Image.fromarray(bytes_.permute(1, 2, 0).numpy())
