"""A whole run from its recipe: data, trunk, prompts, steering, report. Each stage stays in the run's folder."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

from steersearch.core.checkpoints import write_safetensors
from steersearch.core.errors import (
    ConfigError,
    MissingExtraError,
    RunError,
    SampleError,
    SplitMissingError,
)
from steersearch.core.files import as_path
from steersearch.core.preprocess import Preprocess
from steersearch.core.steervit import SteerViT
from steersearch.training import checkpoint
from steersearch.training.alone import kept_thing_keys
from steersearch.training.batch import Feed
from steersearch.training.corpus_feed import CorpusFeed, Described
from steersearch.training.data.samples import Reading, Skip, Source
from steersearch.training.data.sources import open_source
from steersearch.training.failures import told_plainly
from steersearch.training.frozen_tokens import FrozenTokens, kept_tokens
from steersearch.training.hybrid.aligner import Aligner
from steersearch.training.hybrid.preparation import TRUNK, WORDS, HybridRun
from steersearch.training.journal import FILE as METRICS
from steersearch.training.journal import read_journal
from steersearch.training.model import build_model, finished, text_width
from steersearch.training.objective import Objective, aggregations
from steersearch.training.photographs.folder import is_whole, make_folder, missing_for_folder
from steersearch.training.photographs.needs import Missing, require
from steersearch.training.pictures import Pictures
from steersearch.training.recipe import HYBRID, Recipe
from steersearch.training.report import Example, write_report
from steersearch.training.source_feed import SourceFeed, held_back
from steersearch.training.steering import Steered, Steering
from steersearch.training.text_store import TextStore
from steersearch.training.trainer import Say, Trainer
from steersearch.training.world.corpus import Corpus, make_corpus
from steersearch.training.world.emoji import EMOJI_FONT
from steersearch.training.world.expressions import draw_expressions
from steersearch.training.world.source import SourceConfig, WorldSource
from steersearch.training.world.stamps import STAMPS_FOLDER
from steersearch.training.world.world import WorldConfig

HELD_SEED = 50_000  # added to the world's seed for validation: other plates, drawings and placements
EXAMPLES = 12
SKIPS_TOLD = 10


def train_recipe(recipe: Recipe, folder: Path, *, resume: bool, device: str, say: Say) -> Path:
    """Train as `recipe` says in `folder`; returns the file of the final model.

    resume: go on from the last checkpoint.  device: auto, cpu or cuda.  say: told what happens, a line at a time
    Raises NeedsMissingError before anything begins; KeyboardInterrupt after a stop that was asked for, when everything
    is saved; RunError where the machine does not let it go on; errors of its parts.
    """
    require("this run", missing_for_run(recipe, folder))
    accelerator = _accelerator(recipe, device)
    told: Say = say if accelerator.is_main_process else lambda line: None
    with told_plainly(folder), _denormals_flushed():
        folder.mkdir(parents=True, exist_ok=True)
        if checkpoint.latest(folder) is not None and not resume:
            raise RunError.exists(folder)
        feed, model, objective = _prepared(recipe, folder, accelerator, told, resume)
        stage = Steering(recipe, model, feed, objective, accelerator)
        Trainer(stage, folder, recipe.run, told, accelerator).train(resume=resume)
        final = folder / "model.safetensors"
        if accelerator.is_main_process:
            write_safetensors(finished(model, recipe.model), final)
            _report(recipe, folder, model, feed, told)
    accelerator.wait_for_everyone()
    return final


def photographs_to_make(recipe: Recipe, folder: Path) -> Path | None:
    """The folder of photographs that the run in `folder` makes first; None where it needs none or is given one."""
    if recipe.model.trunk != HYBRID or recipe.world.photographs or not _is_cached_world(recipe):
        return None
    return _cache(recipe, folder).absolute() / "photographs"


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


def _cache(recipe: Recipe, folder: Path) -> Path:
    """Where the run keeps what it prepares once."""
    return as_path(recipe.data.cache) if recipe.data.cache else folder / "data"


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Numbers next to zero count as zero: a processor takes a hundred times as long over them."""
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
        # an earlier run in this process had perhaps another device or precision
        AcceleratorState._reset_state(reset_partial_state=True)
    waiting = InitProcessGroupKwargs(timeout=timedelta(days=1))  # while the main process makes data and trunk
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


def _prepared(
    recipe: Recipe, folder: Path, accelerator: Any, say: Say, resume: bool
) -> tuple[Feed, SteerViT, Objective]:
    """Feed, model and objective, whose costly parts the main process makes and the others then read."""
    rank, ranks = accelerator.process_index, accelerator.num_processes
    cache = _cache(recipe, folder)
    if recipe.model.trunk == HYBRID and not _is_cached_world(recipe):
        way_out = "a hybrid trunk is trained on the world: data.train=world and data.cache_pictures=true"
        raise ConfigError("model.trunk", recipe.model.trunk, way_out)
    corpora: tuple[Corpus, Corpus] | None = None
    sources: tuple[list[Source], list[Source]] = ([], [])
    hybrid: HybridRun | None = None
    aligner: Aligner | None = None
    with accelerator.main_process_first():
        width = text_width(recipe.model.text_encoder)  # before hours of work: it may be out of reach
        if _is_cached_world(recipe):
            corpora = _corpora(_with_photographs(recipe, folder, say), cache, say)
        else:
            sources = _sources(recipe, say)  # before anything is fetched: a path may be wrong
        store = TextStore.open(
            cache / "text", recipe.model.text_encoder, recipe.model.text_layers, recipe.data.text_tokens
        )
        store.require_width(width)
        if recipe.model.trunk == HYBRID and corpora is not None:
            hybrid = HybridRun(recipe, corpora, folder, cache, store, say, _occasionally(say))
        trunk = hybrid.trunk(resume, accelerator.device) if hybrid is not None else None
        model = build_model(recipe.model, recipe.run.seed, trunk).to(accelerator.device)
        tokens = _kept_tokens(model, corpora, cache, say) if corpora is not None else None
        if hybrid is not None and tokens is not None:
            aligner = hybrid.aligned(model, tokens[0], resume)
        feed: Feed = (
            _world_feed(recipe, corpora, model, cache, store, accelerator, say, tokens)
            if corpora is not None
            else _source_feed(recipe, sources, model, cache, store, rank, ranks, say)
        )
    kinds = list(aggregations(recipe.objective))
    keys = None
    if corpora is not None and kinds:
        with accelerator.main_process_first():
            keys = kept_thing_keys(
                model, corpora[0].stock, kinds, recipe.objective.views, recipe.world.seed, cache, say
            )
    return feed, model, Objective(recipe.objective, model, keys, accelerator.gather, rank, aligner)


def _is_cached_world(recipe: Recipe) -> bool:
    return recipe.data.train == ("world",) and recipe.data.cache_pictures


def _with_photographs(recipe: Recipe, folder: Path, say: Say) -> Recipe:
    """`recipe` with the folder of photographs that the run makes, which its own recipe never names."""
    made = photographs_to_make(recipe, folder)
    if made is None:
        return recipe
    if not is_whole(made):
        say(f"photographs: making {made}, which takes up to an hour")
    make_folder(made, say, partial(_occasionally(say), "photographs"))
    return replace(recipe, world=replace(recipe.world, photographs=str(made)))


def _corpora(recipe: Recipe, folder: Path, say: Say) -> tuple[Corpus, Corpus]:
    """The pictures to train on, and others to validate on."""
    rows = recipe.data.validation_rows
    held = replace(
        recipe.world,
        photos=rows,
        drawn_per_kind=max(2, rows // 100),
        plates=max(4, rows // 50),
        seed=recipe.world.seed + HELD_SEED,
    )
    say(f"world: composing {recipe.world.photos:,} pictures, and {rows:,} to validate on")
    return _corpus(recipe.world, folder), _corpus(held, folder)


def _corpus(config: WorldConfig, folder: Path) -> Corpus:
    name = hashlib.sha256(json.dumps(vars(config), sort_keys=True).encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"world-{name}.lock"):  # several runs may share the folder
        return make_corpus(config, folder / f"world-{name}")


def _kept_tokens(
    model: SteerViT, corpora: tuple[Corpus, Corpus], cache: Path, say: Say
) -> tuple[FrozenTokens, FrozenTokens] | None:
    """Both corpora as the first steered block gets them, for a trunk whose network takes most of a step's time."""
    if not (model.config.vit and model.config.vit.cnn):
        return None
    train, held = (
        FrozenTokens(kept_tokens(model, part.images, repr(asdict(part.config)), cache, say), model.device)
        for part in corpora
    )
    return train, held


def _world_feed(
    recipe: Recipe,
    corpora: tuple[Corpus, Corpus],
    model: SteerViT,
    cache: Path,
    store: TextStore,
    accelerator: Any,
    say: Say,
    tokens: tuple[FrozenTokens, FrozenTokens] | None,
) -> CorpusFeed:
    mean, std = model.config.preprocess.mean, model.config.preprocess.std
    pictures: Sequence[Pictures | FrozenTokens] = tokens or [
        Pictures(part.images, accelerator.device, mean, std) for part in corpora
    ]
    absent = (recipe.objective.absent, 0.0)
    train, held = (
        Described(part, seen, draw_expressions(part, recipe.world.seed, share, cache))
        for part, seen, share in zip(corpora, pictures, absent, strict=True)
    )
    texts = [*train.expressions.texts, *held.expressions.texts]
    say(f"expressions: {len(texts):,} different ones to encode with {store.text_encoder}")
    store.add(texts)
    return CorpusFeed(
        train,
        held,
        store,
        batch=recipe.optimiser.batch,
        seed=recipe.run.seed,
        keyed=bool(aggregations(recipe.objective)),
        rank=accelerator.process_index,
        ranks=accelerator.num_processes,
    )


def _source_feed(
    recipe: Recipe,
    sources: tuple[list[Source], list[Source]],
    model: SteerViT,
    cache: Path,
    store: TextStore,
    rank: int,
    ranks: int,
    say: Say,
) -> SourceFeed:
    data = recipe.data
    training, validation = sources
    feed = SourceFeed(
        training,
        validation,
        store,
        model.config.preprocess,
        model.config.resolution // model.grid[0],
        batch=recipe.optimiser.batch,
        seed=recipe.run.seed,
        augment=data.augment,
        alone=bool(aggregations(recipe.objective)),
        validation_rows=data.validation_rows,
        workers=data.workers,
        cache=cache / "pictures" if data.cache_pictures else None,
        strict=data.strict,
        rank=rank,
        ranks=ranks,
        report=lambda skip: say(f"skipped {skip}"),
    )
    for source in training:
        say(f"{source.name}: {len(source):,} rows, {len(source.skips):,} could not be used")
        _tell(source.skips, data.strict, say)
    for source in validation:
        counted = min(len(source), data.validation_rows or len(source))
        say(f"{source.name}: validates on {counted:,} of {len(source):,} rows")
    feed.prepare(_occasionally(say))
    return feed


def _tell(skips: Sequence[Skip], strict: bool, say: Say) -> None:
    """What was found to be unusable while a source was indexed, the first few. Raises SampleError if it is strict."""
    if skips and strict:
        raise SampleError(skips[0].path, skips[0].row, skips[0].reason)
    for skip in skips[:SKIPS_TOLD]:
        say(f"skipped {skip}")
    if len(skips) > SKIPS_TOLD:
        say("skipped others too; all of them: steersearch train check DATA --json")


def _sources(recipe: Recipe, say: Say) -> tuple[list[Source], list[Source]]:
    """The sets to train on and those to validate on; without any of these, parts of the first are held back."""
    data = recipe.data
    given = [_open(path, recipe, data.split) for path in data.train]
    if data.validation:
        return given, [_open(path, recipe, data.validation_split) for path in data.validation]
    held: list[Source] = []
    for i, path in enumerate(data.train):
        try:
            held.append(_open(path, recipe, data.validation_split))
        except SplitMissingError as error:
            given[i], part = held_back(given[i])
            held.append(part)
            kept = f"{len(part):,} of its rows are held back to validate on, and not trained on"
            say(f'{path} has no split "{error.split}": {kept}')
    return given, held


def _open(path: str, recipe: Recipe, split: str) -> Source:
    """A data set; "world" alone is the generated one as the recipe has it, in the model's resolution."""
    data, world = recipe.data, recipe.world
    if path == "world":
        part: Literal["train", "val"] = "val" if split == data.validation_split else "train"
        return WorldSource(
            SourceConfig(
                photos=world.photos,
                size=recipe.model.resolution,
                seed=world.seed,
                absent=recipe.objective.absent if part == "train" else 0.0,
                drawn_per_kind=world.drawn_per_kind,
                plates=world.plates,
                stamps=world.stamps,
                emoji=world.emoji,
                backgrounds=world.backgrounds,
                split=part,
            )
        )
    images, masks = (Path(folder) if folder else None for folder in (data.images, data.masks))
    reading = Reading(data.frame, keep_empty=data.empty_masks == "keep")
    return open_source(
        Path(path), data.format, images=images, split=split or None, masks=masks, reading=reading
    )


def _occasionally(say: Say) -> Callable[[str, int, int], None]:
    """Tells `say` of progress every 15 seconds."""
    last = time.monotonic()

    def told(what: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 15:
            last = time.monotonic()
            say(f"{what}: {done:,} of {total:,}")

    return told


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
    """The picture that normalised pixels (3, S, S) are of."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    bytes_ = ((pixels.float().cpu() * std + mean) * 255).clamp(0, 255).byte()
    return Image.fromarray(bytes_.permute(1, 2, 0).numpy())
