"""Additional preparation of a run with a hybrid backbone: feature maps, the backbone, the alignment of words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path

import torch

from steersearch.core.files import as_path
from steersearch.core.steervit import SteerViT
from steersearch.core.vit import ViT
from steersearch.training.frozen_tokens import FrozenTokens
from steersearch.training.hybrid.aligner import Aligner, Alignment
from steersearch.training.hybrid.cnn_maps import kept_maps, kept_things_alone
from steersearch.training.hybrid.pretraining import HYBRID_TRUNK, Distillation, Seen, class_vectors
from steersearch.training.hybrid.word_bank import WordBank
from steersearch.training.photographs.folder import FETCHED, folder_wordnet
from steersearch.training.photographs.published_cnn import load_network
from steersearch.training.photographs.wordnet import ClassWords, class_words
from steersearch.training.recipe import Recipe, StageSettings
from steersearch.training.stage import Stage
from steersearch.training.text_store import TextStore
from steersearch.training.trainer import Trainer
from steersearch.training.world.corpus import Corpus
from steersearch.training.world.vocabulary import Vocabulary

Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]  # stage, number done, number in all
CLASSES = 1000
TRUNK, WORDS = "trunk", "words"  # folders of the stages, in the run's


class HybridRun:
    """corpora: for training and validation, with photographs.  folder: of the run.  cache: shared by runs"""

    def __init__(
        self,
        recipe: Recipe,
        corpora: tuple[Corpus, Corpus],
        folder: Path,
        cache: Path,
        store: TextStore,
        say: Say,
        progress: Progress,
    ) -> None:
        self._recipe, self._corpora, self._say, self._progress = recipe, corpora, say, progress
        self._folder, self._cache, self._store = folder, cache, store
        self._photographs = as_path(corpora[0].config.photographs)
        self._settings = asdict(recipe.world)

    @cached_property
    def words(self) -> ClassWords:
        """ImageNet's classes in WordNet's words."""
        return class_words(folder_wordnet(self._photographs))

    @cached_property
    def seen(self) -> Seen:
        """The network's view of the training corpus."""
        network, classifier = load_network(self._photographs / FETCHED, self._say)
        corpus, folder = self._corpora[0], self._cache / "cnn"
        self._say(f"network: feature maps of {len(corpus.images):,} pictures")
        maps = kept_maps(corpus.images, network, folder, partial(self._progress, "feature maps"))
        size = corpus.config.size
        alone = kept_things_alone(corpus.stock, network, classifier, folder, size=size, say=self._say)
        return Seen(corpus, maps, alone, network, classifier)

    def trunk(self, resume: bool, device: torch.device) -> ViT:
        """The blocks above the network, trained before anything else; on the CPU."""
        self._say("backbone: training the blocks above EfficientNet-Lite2")
        stage = Distillation(
            self.seen,
            class_vectors(self.words, self._store),
            self._recipe.distillation,
            replace(HYBRID_TRUNK, image_size=self._recipe.world.size),
            self._settings,
            device,
        )
        self._train(stage, TRUNK, self._recipe.distillation, resume)
        return stage.trunk.cpu().eval()

    def aligned(self, model: SteerViT, tokens: FrozenTokens, resume: bool) -> Aligner:
        """The aligner, after it has trained the model's queries and keys, unless alignment.steps is 0."""
        bank = WordBank(self.words.words, Vocabulary(self._corpora[0].stock), CLASSES)
        self._say(f"words: {len(bank.texts):,} to encode with {self._store.text_encoder}")
        self._store.add(bank.texts)
        aligner = Aligner(
            model,
            self._corpora[0],
            tokens,
            self.seen.classes,
            self.seen.alone.classes,
            bank,
            self._store,
            self._recipe.alignment,
        )
        if self._recipe.alignment.steps:
            made_of = {"world": self._settings, "distillation": asdict(self._recipe.distillation)}
            self._train(Alignment(aligner, made_of), WORDS, self._recipe.alignment, resume)
            aligner.begin()
        return aligner

    def _train(self, stage: Stage, folder: str, settings: StageSettings, resume: bool) -> None:
        """With a journal and checkpoints of its own, in `folder` of the run's."""
        run = replace(self._recipe.run, save_every=settings.save_every, wandb="")
        Trainer(stage, self._folder / folder, run, self._say).train(resume=resume)
