"""A stage of a training run in small: a backbone learns which patches of drawn pictures lie on a thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from steersearch.core.vit import ViT, ViTConfig
from steersearch.training.pictures import Pictures
from steersearch.training.recipe import RunSettings, StageSettings
from steersearch.training.stage import Stage, Terms, weighted
from steersearch.training.trainer import Trainer
from steersearch.training.world.corpus import Corpus

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
TRUNK = ViTConfig(image_size=32, patch_size=8, stem_channels=(8, 8), dim=32, depth=2, num_heads=2)


class Patches(Stage):
    """Whether a patch lies on a thing."""

    name = "distillation"
    rates = "distillation.lr"

    def __init__(self, corpus: Corpus, config: StageSettings) -> None:
        torch.manual_seed(config.seed)
        self.trunk, self._head = ViT(TRUNK), nn.Linear(TRUNK.dim, 1)
        self._corpus, self._config = corpus, config
        self.optimiser = config.optimiser
        self.modules = {"trunk": self.trunk, "head": self._head}
        self.settings = {self.name: config.learnt(), "world": asdict(corpus.config)}

    def is_matrix(self, name: str) -> bool:
        return ".blocks." in name

    def losses(self, start: int, stop: int) -> Iterator[Terms]:
        pictures = Pictures(self._corpus.images, torch.device("cpu"), MEAN, STD)
        for step in range(start, stop):
            rng = np.random.default_rng([self._config.seed, step])
            rows = np.sort(rng.choice(len(pictures), self._config.batch, replace=False))
            shown = torch.from_numpy(self._corpus.cover[rows]).float().flatten(2).sum(dim=1) / 255
            found = self._head(self.trunk(pictures(rows, np.zeros(len(rows), bool)))[:, 1:]).squeeze(-1)
            loss = F.binary_cross_entropy_with_logits(found, shown.clamp(0, 1))
            yield weighted({"patches": loss}, {"patches": 1.0})


def train_trunk(
    corpus: Corpus,
    config: StageSettings,
    folder: Path,
    *,
    resume: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> ViT:
    """The trained backbone; checkpoints go to `folder`. Raises as `Trainer.train`."""
    stage = Patches(corpus, config)
    run = RunSettings(save_every=config.save_every, tensorboard=False)
    Trainer(stage, folder, run, say).train(resume=resume)
    return stage.trunk.eval()
