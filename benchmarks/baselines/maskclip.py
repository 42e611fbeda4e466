"""MaskCLIP: CLIP's patches in the space of its texts, without training.

The last layer skips attention: a patch becomes its own value, through the output projection, the final norm and CLIP's
projection. Our own code after the paper (arXiv 2112.01071), without its refinements.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from steersearch.benchmarks.baselines.base import Outputs, Wanted, on_grid
from steersearch.benchmarks.baselines.cards import Card
from steersearch.benchmarks.baselines.clip import text_embedding
from steersearch.benchmarks.baselines.pretrained import PretrainedBaseline, pixels_of, pretrained


def load(card: Card, weights: Path | None, device: str) -> MaskClip:
    return MaskClip(card, pretrained(card, weights, device, "CLIPModel"))


class MaskClip(PretrainedBaseline):
    """Heatmap: cosine of patch and prompt times CLIP's learned scale, a logit."""

    pictures_at_once = 16

    def _see(self, pictures: Sequence[Image.Image], prompt: str | None, wanted: Wanted) -> Outputs:
        assert prompt is not None
        patches = F.normalize(self._patches(pixels_of(self, pictures)).float(), dim=-1)
        text = F.normalize(text_embedding(self, prompt), dim=-1)[0]
        config = self.model.config.vision_config
        side = config.image_size // config.patch_size
        return Outputs(maps=on_grid(patches @ text * self.model.logit_scale.exp().float(), (side, side)))

    def _patches(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, D) in the space of texts."""
        vision, last = self.model.vision_model, self.model.vision_model.encoder.layers[-1]
        # Input of the last layer.
        before = vision(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
        values = last.self_attn.out_proj(last.self_attn.v_proj(last.layer_norm1(before[:, 1:])))
        patches: Tensor = self.model.visual_projection(vision.post_layernorm(values))
        return patches
