"""DINOv2 and MAE: the frozen backbones alone, preprocessed as timm evaluates them, at 336 px. They take no text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from steersearch.benchmarks.baselines.base import (
    DTYPE,
    RESOLUTION,
    Baseline,
    Outputs,
    Wanted,
    chosen_device,
    on_grid,
)
from steersearch.benchmarks.baselines.cards import Card
from steersearch.benchmarks.baselines.weights_file import weights_file
from steersearch.core.backbone import Trunk, build_trunk, timm_preprocess
from steersearch.core.preprocess import Preprocess
from steersearch.core.registry import trunk_file


def load(card: Card, weights: Path | None, device: str) -> PlainTrunk:
    """weights: timm's model.safetensors, instead of the hub's."""
    name = card.settings["trunk"]
    path, source = weights_file(card, weights, replace(trunk_file(name), revision=card.revision))
    trunk = build_trunk(name, RESOLUTION, pretrained=True, weights=path)
    place = chosen_device(device)
    return PlainTrunk(
        card,
        trunk.to(place, DTYPE),
        timm_preprocess(name, RESOLUTION),
        source,
        place,
    )


class PlainTrunk(Baseline):
    """CLS or the mean patch token of a backbone, its patch tokens, and what CLS attends to in its last block."""

    def __init__(
        self, card: Card, trunk: nn.Module, preprocess: Preprocess, source: str, device: torch.device
    ) -> None:
        super().__init__(card, trunk, source, device, 32, preprocess=preprocess.to_dict(), **card.settings)
        self.preprocess = preprocess

    @property
    def part_of_square(self) -> tuple[float, float, float, float]:
        """See `Preprocess.part_of_square`."""
        return self.preprocess.part_of_square

    def _see(self, pictures: Sequence[Image.Image], prompt: str | None, wanted: Wanted) -> Outputs:
        trunk: Trunk = self.model
        pixels = torch.from_numpy(np.stack([self.preprocess(picture) for picture in pictures]))
        x = trunk.tokens(pixels.to(self.device, self.dtype))
        for block in trunk.blocks[:-1]:
            x = block(x)
        prefix = trunk.num_prefix_tokens
        attention = trunk.cls_attention(x)[:, :, prefix:].float().mean(dim=1) if wanted.attention else None
        tokens = trunk.norm(trunk.blocks[-1](x)).float()
        patches = tokens[:, prefix:]
        return Outputs(
            vectors=tokens[:, 0] if self.card.settings["aggregation"] == "cls" else patches.mean(dim=1),
            patches=on_grid(patches, trunk.grid) if wanted.patches else None,
            attention=None if attention is None else on_grid(attention, trunk.grid),
        )
