"""TIPSv2: a ViT-B trained so that patches agree with texts. Its own heatmap pools its patches; nothing is steered.

It shows how far aligning patches with texts goes alone. Without a prompt: the image embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from steersearch.benchmarks.baselines.base import RESOLUTION, Outputs, Wanted, on_grid
from steersearch.benchmarks.baselines.cards import Card
from steersearch.benchmarks.baselines.pretrained import Pretrained, PretrainedBaseline, pixels_of, pretrained
from steersearch.core.errors import BenchmarkError


def load(card: Card, weights: Path | None, device: str) -> Tipsv2:
    return Tipsv2(card, pretrained(card, weights, device, "AutoModel"), RESOLUTION)


class Tipsv2(PretrainedBaseline):
    """Heatmap: cosine of patch and prompt over the model's temperature; global feature: its softmax over patches."""

    pictures_at_once = 16

    def __init__(self, card: Card, loaded: Pretrained, side: int | None = None) -> None:
        """side: of the pictures in pixels; None: as the processor makes them."""
        super().__init__(card, loaded, side=side)
        self.side = side

    def _see(self, pictures: Sequence[Image.Image], prompt: str | None, wanted: Wanted) -> Outputs:
        if wanted.maps and prompt is None:
            raise BenchmarkError(f"{self.name} has no heatmap without a prompt")
        seen = self.model.get_image_features(pixels_of(self, pictures, self.side))
        first = 1 + self.model.config.vision_config.num_register_tokens
        patches = seen.last_hidden_state[:, first:].float()  # (B, N, D)
        side = math.isqrt(patches.shape[1])
        vectors, logits = seen.pooler_output.float(), None
        if prompt is not None:
            cosines = F.normalize(patches, dim=-1) @ F.normalize(self._text(prompt), dim=-1)
            logits = cosines / self.model.config.temperature_init_value
            vectors = (logits.softmax(dim=1)[..., None] * patches).sum(dim=1)
        return Outputs(
            vectors=vectors,
            patches=on_grid(patches, (side, side)) if wanted.patches else None,
            maps=None if logits is None or not wanted.maps else on_grid(logits, (side, side)),
        )

    def _text(self, prompt: str) -> Tensor:
        """(D,) as the model compares it with pictures."""
        longest = self.model.config.text_config.max_position_embeddings
        tokens = self.processor.tokenizer(
            [prompt.strip().lower()],
            padding="max_length",
            truncation=True,
            max_length=longest,
            return_tensors="pt",
        ).to(self.device)
        found = self.model.get_text_features(tokens["input_ids"], attention_mask=tokens["attention_mask"])
        text: Tensor = found.pooler_output[0].float()
        return text
