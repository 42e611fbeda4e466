"""Preparation of a run before the steering is trained: data, backbone, model, expressions, keys."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock
from torch import Tensor

from steersearch.core.errors import ConfigError, SampleError, SplitMissingError
from steersearch.core.files import as_path
from steersearch.core.steervit import SteerViT
from steersearch.core.vectors import Aggregation
from steersearch.core.vit import ViT
from steersearch.training.alone import kept_thing_keys
from steersearch.training.batch import Feed
from steersearch.training.corpus_feed import CorpusFeed, Described
from steersearch.training.data.samples import Reading, Skip, Source
from steersearch.training.data.sources import open_source
from steersearch.training.frozen_tokens import FrozenTokens, kept_tokens
from steersearch.training.hybrid.aligner import Aligner
from steersearch.training.hybrid.preparation import HybridRun
from steersearch.training.model import build_model, text_width
from steersearch.training.objective import Objective, aggregations
from steersearch.training.photographs.folder import is_whole, make_folder
from steersearch.training.pictures import Pictures
from steersearch.training.recipe import HYBRID, Recipe
from steersearch.training.source_feed import SourceFeed, held_back
from steersearch.training.text_store import TextStore
from steersearch.training.trainer import Say
from steersearch.training.world.corpus import Corpus, make_corpus
from steersearch.training.world.expressions import draw_expressions
from steersearch.training.world.ingredients import left_over
from steersearch.training.world.source import SourceConfig, WorldSource
from steersearch.training.world.world import WorldConfig

HELD_SEED = 50_000  # added to the world's seed for validation: other plates, drawings and placements
SKIPS_SHOWN = 10
SECONDS_BETWEEN_LINES = 15.0


class Preparation:
    """Makes feed, model and objective. The main process does the costly work; the others read its results.

    accelerator: of Hugging Face Accelerate.  resume: refuse checkpoints of earlier stages with other settings
    """

    def __init__(self, recipe: Recipe, folder: Path, accelerator: Any, say: Say, resume: bool) -> None:
        self.recipe, self.folder, self.resume = recipe, folder, resume
        self.cache = cache_folder(recipe, folder)
        self._accelerator, self._say = accelerator, say
        self._rank, self._ranks = accelerator.process_index, accelerator.num_processes
        self._last_line = time.monotonic()

    def prepare(self) -> tuple[Feed, SteerViT, Objective]:
        """Raises ConfigError for settings that do not fit together, and errors of its parts."""
        if composes_world(self.recipe):
            return self._on_composed_world()
        if self.recipe.model.trunk == HYBRID:
            way_out = (
                "a hybrid backbone is trained on the world: data.train=world and data.cache_pictures=true"
            )
            raise ConfigError("model.trunk", self.recipe.model.trunk, way_out)
        return self._on_data_sets()

    def _on_data_sets(self) -> tuple[Feed, SteerViT, Objective]:
        with self._accelerator.main_process_first():
            width = text_width(self.recipe.model.text_encoder)
            sources = open_sources(self.recipe, self._say)  # before any download, as a path may be wrong
            store = self._store(width)
            model = self._model()
            feed = self._source_feed(*sources, model, store)
        return feed, model, self._objective(model)

    def _on_composed_world(self) -> tuple[Feed, SteerViT, Objective]:
        recipe = self.recipe
        with self._accelerator.main_process_first():
            # Before hours of work, as the encoder may be missing.
            width = text_width(recipe.model.text_encoder)
            corpora = self._corpora()
            store = self._store(width)
            aligner: Aligner | None = None
            tokens: tuple[FrozenTokens, FrozenTokens] | None = None
            if recipe.model.trunk == HYBRID:
                hybrid = HybridRun(recipe, corpora, self.folder, self.cache, store, self._say, self._progress)
                model = self._model(hybrid.trunk(self.resume, self._accelerator.device))
                tokens = self._tokens(model, corpora)
                aligner = hybrid.aligned(model, tokens[0], self.resume)
            else:
                model = self._model()
                if model.config.vit and model.config.vit.cnn:
                    tokens = self._tokens(model, corpora)
            described = self._described(corpora, model, store, tokens)
            if aligner is not None:
                aligner.narrow(described[0].corpus, described[0].rows)
            feed = self._corpus_feed(*described, store)
        keys = None
        if kinds := list(aggregations(recipe.objective)):
            views, seed = recipe.objective.views, recipe.world.seed
            with self._accelerator.main_process_first():
                keys = kept_thing_keys(model, corpora[0].stock, kinds, views, seed, self.cache, self._say)
        return feed, model, self._objective(model, keys, aligner)

    # ------------------------------------------------------------------------------------------- for both

    def _store(self, width: int) -> TextStore:
        model = self.recipe.model
        store = TextStore.open(
            self.cache / "text", model.text_encoder, model.text_layers, self.recipe.data.text_tokens
        )
        store.require_width(width)
        return store

    def _model(self, trunk: ViT | None = None) -> SteerViT:
        return build_model(self.recipe.model, self.recipe.run.seed, trunk).to(self._accelerator.device)

    def _objective(
        self,
        model: SteerViT,
        keys: dict[Aggregation, Tensor] | None = None,
        aligner: Aligner | None = None,
    ) -> Objective:
        return Objective(self.recipe.objective, model, keys, self._accelerator.gather, self._rank, aligner)

    def _progress(self, what: str, done: int, total: int) -> None:
        """Report progress, at most every 15 seconds."""
        if time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._say(f"{what}: {done:,} of {total:,}")

    # ------------------------------------------------------------------------------------------ data sets

    def _source_feed(
        self, training: list[Source], validation: list[Source], model: SteerViT, store: TextStore
    ) -> SourceFeed:
        data = self.recipe.data
        feed = SourceFeed(
            training,
            validation,
            store,
            model.config.preprocess,
            model.config.resolution // model.grid[0],
            batch=self.recipe.optimiser.batch,
            seed=self.recipe.run.seed,
            augment=data.augment,
            alone=bool(aggregations(self.recipe.objective)),
            validation_rows=data.validation_rows,
            workers=data.workers,
            cache=self.cache / "pictures" if data.cache_pictures else None,
            strict=data.strict,
            rank=self._rank,
            ranks=self._ranks,
            report=lambda skip: self._say(f"skipped {skip}"),
        )
        for source in training:
            self._say(f"{source.name}: {len(source):,} rows, {len(source.skips):,} unusable")
            _show(source.skips, data.strict, self._say)
        for source in validation:
            counted = min(len(source), data.validation_rows or len(source))
            self._say(f"{source.name}: validates on {counted:,} of {len(source):,} rows")
        for remark in feed.prepare(self._progress):
            self._say(remark)
        return feed

    # ------------------------------------------------------------------------------------ the composed world

    def _corpora(self) -> tuple[Corpus, Corpus]:
        """The corpora for training and validation."""
        world, rows = self._world(), self.recipe.data.validation_rows
        held = replace(
            world,
            photos=rows,
            drawn_per_kind=max(2, rows // 100),
            plates=max(4, rows // 50),
            seed=world.seed + HELD_SEED,
        )
        self._say(f"world: composing {world.photos:,} pictures, and {rows:,} to validate on")
        return self._corpus(world), self._corpus(held)

    def _world(self) -> WorldConfig:
        """The recipe's world, with the folder of photographs if the run makes its own: the recipe does not name it."""
        made = photographs_to_make(self.recipe, self.folder)
        if made is None:
            return self.recipe.world
        if not is_whole(made):
            self._say(f"photographs: making {made}, which takes up to an hour")
        make_folder(made, self._say, partial(self._progress, "photographs"))
        return replace(self.recipe.world, photographs=str(made))

    def _corpus(self, config: WorldConfig) -> Corpus:
        name = hashlib.sha256(json.dumps(vars(config), sort_keys=True).encode()).hexdigest()[:12]
        self.cache.mkdir(parents=True, exist_ok=True)
        with FileLock(self.cache / f"world-{name}.lock"):  # several runs may share the folder
            return make_corpus(config, self.cache / f"world-{name}")

    def _tokens(self, model: SteerViT, corpora: tuple[Corpus, Corpus]) -> tuple[FrozenTokens, FrozenTokens]:
        """The input of the first steered block for both corpora: a hybrid backbone takes most of a step's time."""
        train, held = (
            FrozenTokens(
                kept_tokens(model, part.images, repr(asdict(part.config)), self.cache, self._say),
                model.device,
            )
            for part in corpora
        )
        return train, held

    def _described(
        self,
        corpora: tuple[Corpus, Corpus],
        model: SteerViT,
        store: TextStore,
        tokens: tuple[FrozenTokens, FrozenTokens] | None,
    ) -> tuple[Described, Described]:
        """Both corpora with their expressions, which the store encodes; the first without the parts to be left out."""
        recipe, preprocess = self.recipe, model.config.preprocess
        pictures: Sequence[Pictures | FrozenTokens] = tokens or [
            Pictures(part.images, self._accelerator.device, preprocess.mean, preprocess.std)
            for part in corpora
        ]
        shares = (recipe.objective.absent, 0.0)
        said = [
            draw_expressions(part, recipe.world.seed, absent, self.cache)
            for part, absent in zip(corpora, shares, strict=True)
        ]
        texts = [text for part in said for text in part.texts]
        self._say(f"expressions: {len(texts):,} different ones to encode with {store.text_encoder}")
        store.add(texts)
        corpus, rows, expressions = left_over(corpora[0], said[0], recipe.data.without)
        return (
            Described(corpus, pictures[0], expressions, rows),
            Described(corpora[1], pictures[1], said[1], np.arange(len(pictures[1]))),
        )

    def _corpus_feed(self, train: Described, held: Described, store: TextStore) -> CorpusFeed:
        recipe = self.recipe
        return CorpusFeed(
            train,
            held,
            store,
            batch=recipe.optimiser.batch,
            seed=recipe.run.seed,
            keyed=bool(aggregations(recipe.objective)),
            rank=self._rank,
            ranks=self._ranks,
        )


def cache_folder(recipe: Recipe, folder: Path) -> Path:
    """The folder for data that a run prepares once."""
    return as_path(recipe.data.cache) if recipe.data.cache else folder / "data"


def composes_world(recipe: Recipe) -> bool:
    """Whether all pictures are composed in advance."""
    return recipe.data.train == ("world",) and recipe.data.cache_pictures


def photographs_to_make(recipe: Recipe, folder: Path) -> Path | None:
    """The folder of photographs that the run in `folder` makes first; None if it needs none or names one."""
    if recipe.model.trunk != HYBRID or recipe.world.photographs or not composes_world(recipe):
        return None
    return cache_folder(recipe, folder).absolute() / "photographs"


# ------------------------------------------------------------------------------------------------- data sets


def _show(skips: Sequence[Skip], strict: bool, say: Say) -> None:
    """Report the first few unusable rows. Raises SampleError if `strict`."""
    if skips and strict:
        raise SampleError(skips[0].path, skips[0].row, skips[0].reason)
    for skip in skips[:SKIPS_SHOWN]:
        say(f"skipped {skip}")
    if len(skips) > SKIPS_SHOWN:
        say("skipped others too; list all: steersearch train check DATA --json")


def open_sources(recipe: Recipe, say: Say) -> tuple[list[Source], list[Source]]:
    """The data sets for training and for validation; without the latter, held-back parts of the former."""
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
    """A data set; "world" is the generated one with the recipe's settings, at the model's resolution."""
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
