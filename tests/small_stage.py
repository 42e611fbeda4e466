"""A stage of a training run in small: a trunk learns which patches of drawn pictures lie on a thing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steersearch.core.vit import ViT, ViTConfig
from steersearch.training.pictures import Pictures
from steersearch.training.stage import Stage, StageConfig
from steersearch.training.world.corpus import Corpus

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
TRUNK = ViTConfig(image_size=32, patch_size=8, stem_channels=(8, 8), dim=32, depth=2, num_heads=2)
NAME = "distillation"  # as a section of the recipe is called: errors name its settings


def train_trunk(
    corpus: Corpus,
    config: StageConfig,
    folder: Path,
    *,
    resume: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> ViT:
    """A stage with checkpoints in `folder`; raises as `Stage.train`."""
    torch.manual_seed(config.seed)
    trunk, head = ViT(TRUNK), nn.Linear(TRUNK.dim, 1)
    settings = {"world": asdict(corpus.config)}
    stage = Stage(
        NAME, config, folder, {"trunk": trunk, "head": head}, lambda name: ".blocks." in name, settings
    )
    pictures = Pictures(corpus.images, torch.device("cpu"), MEAN, STD)

    def losses(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        rng = np.random.default_rng([config.seed, step])
        rows = np.sort(rng.choice(len(pictures), config.batch, replace=False))
        shown = torch.from_numpy(corpus.cover[rows]).float().flatten(2).sum(dim=1) / 255
        found = head(trunk(pictures(rows, np.zeros(len(rows), bool)))[:, 1:]).squeeze(-1)
        loss = F.binary_cross_entropy_with_logits(found, shown.clamp(0, 1))
        return loss, {"loss": loss}

    trunk.train()
    stage.train(losses, resume=resume, say=say, summary=lambda found: f"{found['loss'].item():.2f}")
    return trunk.eval()
