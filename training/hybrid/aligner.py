"""Alignment of words and patches: a stage before the steering, and then a term of the steering's loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from steersearch.core.backbone import Trunk
from steersearch.core.steervit import SteerViT
from steersearch.training.frozen_tokens import FrozenTokens
from steersearch.training.hybrid.alignment import (
    Truth,
    Words,
    alignment_losses,
    begin_values,
    content_scores,
    steered_blocks,
)
from steersearch.training.hybrid.distillation import draw_patches, on_things
from steersearch.training.hybrid.word_bank import Drawn, WordBank
from steersearch.training.recipe import AlignmentSettings
from steersearch.training.stage import Stage, Terms, weighted
from steersearch.training.text_store import TextStore
from steersearch.training.world.corpus import Corpus

Classes = Callable[[npt.NDArray[np.int64]], Tensor]  # rows (B,) -> (B, N, C): probabilities at each patch
WEIGHTS = {"where": 0.5, "which": 1.0, "whether": 0.5}
FIRST_WORDS = 1500  # that the initial values are fitted to


class Aligner:
    """The losses of a step, a function of (corpus, seed, step).

    classes: of the backbone's network at each patch.  alone (K, C): for each thing alone
    store: holds every text of `bank`
    """

    def __init__(
        self,
        model: SteerViT,
        corpus: Corpus,
        tokens: FrozenTokens,
        classes: Classes,
        alone: Tensor,
        bank: WordBank,
        store: TextStore,
        config: AlignmentSettings,
    ) -> None:
        self.model, self.config = model, config
        self._corpus, self._tokens, self._classes = corpus, tokens, classes
        self._rows = np.arange(len(tokens))
        self._alone, self._bank, self._store = alone, bank, store
        self._layers = steered_blocks(model)
        self._blocks = list(self._layers)
        self._trunk = cast(Trunk, model.trunk)

    def __call__(self, seed: int, step: int, pictures: int) -> dict[str, Tensor]:
        """where, which, whether: () each, for one of the steered blocks in turn, on unsteered input."""
        rng = np.random.default_rng([seed, 11, step])
        rows = np.sort(rng.choice(self._rows, pictures, replace=False))
        block = self._blocks[step % len(self._blocks)]
        picked, classes, things = self._patches(rng, rows)
        config = self.config
        drawn = self._bank.draw(
            rng, classes, things, narrow=config.classes, wide=config.wide, names=config.names
        )
        seen = self._before(self._tokens(rows), block)
        rest = seen[:, self._trunk.num_prefix_tokens :]
        shown = rest[torch.arange(len(rows))[:, None], picked].flatten(0, 1)
        words, device = self._words(drawn), self.model.device
        scores = content_scores(self._layers[block], shown, self.model.connector(words.tokens), words)
        truth = drawn.truth
        moved = Truth(truth.shown.to(device), truth.narrow, truth.names, truth.on_thing.to(device))
        return alignment_losses(scores, moved)

    def narrow(self, corpus: Corpus, rows: npt.NDArray[np.int64]) -> None:
        """From now on use only the pictures `rows` (R,) of `corpus`, the same corpus with fewer things."""
        self._corpus, self._rows = corpus, rows

    def begin(self) -> None:
        """Initialise the values from the alignment."""
        rng = np.random.default_rng([self.config.seed, 12])
        texts = [text for text in self._bank.texts if text.startswith("the ")]
        chosen = [texts[i] for i in sorted(rng.permutation(len(texts))[:FIRST_WORDS])]
        features = self._store.features(chosen)
        has_article = torch.ones(len(chosen), dtype=torch.bool)
        words = self._on_device(Words(features.tokens.float(), features.mask, has_article))
        rows = np.sort(rng.choice(len(self._tokens), min(64, len(self._tokens)), replace=False))
        prefix = self._trunk.num_prefix_tokens
        tokens = {
            block: self._before(self._tokens(rows), block)[:, prefix:].flatten(0, 1) for block in self._blocks
        }
        begin_values(self.model, words, tokens, self.config.strength, self.config.head)

    @torch.no_grad()
    def _before(self, tokens: Tensor, block: int) -> Tensor:
        """Unsteered tokens before `block`, from those before the first steered block."""
        for each in self._trunk.blocks[self._blocks[0] : block]:
            tokens = each(tokens)
        return tokens

    def _patches(
        self, rng: np.random.Generator, rows: npt.NDArray[np.int64]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Patches drawn from each picture, preferably on things and never on an edge: their numbers (B, n), their
        classes (B·n, C), and the things under them (B·n,), -1 for none."""
        cover = torch.from_numpy(self._corpus.cover[rows]).float().flatten(2) / 255
        things = torch.from_numpy(self._corpus.things[rows].astype(np.int64))
        thing, shows, edge = on_things(cover, things)
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        picked = draw_patches(shows, edge, self.config.patches, generator)
        one = torch.where(shows, thing, -1).gather(1, picked).flatten()
        at = torch.arange(len(rows))[:, None]
        classes = torch.where(
            (one >= 0)[:, None], self._alone[one], self._classes(rows)[at, picked].flatten(0, 1)
        )
        return picked, classes, one

    def _words(self, drawn: Drawn) -> Words:
        features = self._store.features(drawn.texts)
        return self._on_device(Words(features.tokens.float(), features.mask, drawn.has_article))

    def _on_device(self, words: Words) -> Words:
        device = self.model.device
        return Words(words.tokens.to(device), words.mask.to(device), words.has_article.to(device))


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """() the weighted sum of an `Aligner`'s losses."""
    return torch.stack([WEIGHTS[name] * loss for name, loss in losses.items()]).sum()


class Alignment(Stage):
    """Trains queries, keys and connector of the aligner's model. made_of: what else determines the result"""

    name = "alignment"
    rates = "alignment.lr and alignment.matrix_lr"

    def __init__(self, aligner: Aligner, made_of: Mapping[str, object]) -> None:
        model, self._aligner = aligner.model, aligner
        self.optimiser = aligner.config.optimiser
        self.modules = {"connector": model.connector, "cross_attention": model.cross_attention}
        self.settings = {self.name: aligner.config.learnt(), **made_of}

    def losses(self, start: int, stop: int) -> Iterator[Terms]:
        config = self._aligner.config
        for step in range(start, stop):
            yield weighted(self._aligner(config.seed, step, config.batch), WEIGHTS)
