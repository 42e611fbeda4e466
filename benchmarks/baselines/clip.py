"""CLIP, SigLIP and SigLIP 2: the picture's embedding, alone or with the prompt's added.

The paper adds them elementwise and does not say whether they are normalised. Here they are, for equal
weights. Pictures and texts go through the model's own processor, at the paper's 336 pixels: if a model was trained at
another size, its positions are interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from steersearch.benchmarks.baselines.base import RESOLUTION, Outputs, Wanted, on_grid
from steersearch.benchmarks.baselines.cards import Card
from steersearch.benchmarks.baselines.pretrained import Pretrained, PretrainedBaseline, pixels_of, pretrained


def load(card: Card, weights: Path | None, device: str) -> Clip:
    return Clip(card, pretrained(card, weights, device, "AutoModel"), RESOLUTION)


class Clip(PretrainedBaseline):
    """`settings["add_text"]`: add the prompt's embedding, and to patches too. A prompt of None adds nothing.

    Patches are the last layer's after the final norm. To have the width of a text embedding, CLIP's go through its
    projection; SigLIP has none and the same width.
    """

    pictures_at_once = 16

    def __init__(self, card: Card, loaded: Pretrained, side: int | None = None) -> None:
        """side: of the pictures in pixels; None: as the processor makes them."""
        super().__init__(card, loaded, side=side, **card.settings)
        self.side = side
        self.adds_text = bool(card.settings["add_text"])

    def _see(self, pictures: Sequence[Image.Image], prompt: str | None, wanted: Wanted) -> Outputs:
        pixels = pixels_of(self, pictures, self.side)
        seen = self.model.get_image_features(pixels, interpolate_pos_encoding=True)  # pooler_output: (B, D)
        vectors, patches = seen.pooler_output.float(), None
        if wanted.patches:
            patches = self._patches(seen.last_hidden_state).float()
        if prompt is not None:
            text = F.normalize(text_embedding(self, prompt), dim=-1)  # (1, D)
            vectors = F.normalize(vectors, dim=-1) + text
            patches = None if patches is None else F.normalize(patches, dim=-1) + text
        return Outputs(vectors=vectors, patches=patches)

    def _patches(self, tokens: Tensor) -> Tensor:
        """(B, T, D') tokens of the last layer -> (B, Hp, Wp, D')."""
        vision = self.model.vision_model
        if hasattr(self.model, "visual_projection"):  # CLIP: CLS first, and only CLS has been normed
            tokens = vision.post_layernorm(tokens[:, 1:])
            if self.adds_text:
                tokens = self.model.visual_projection(tokens)
        side = math.isqrt(tokens.shape[1])
        return on_grid(tokens, (side, side))


def text_embedding(method: Any, prompt: str) -> Tensor:
    """(1, D) float32, as the model compares it with pictures. SigLIP reads padded texts, as in training."""
    tokenizer, longest = method.processor.tokenizer, method.model.config.text_config.max_position_embeddings
    padding = "longest" if hasattr(method.model, "visual_projection") else "max_length"
    tokens = tokenizer([prompt], padding=padding, truncation=True, max_length=longest, return_tensors="pt")
    given = {
        name: tokens[name].to(method.device) for name in ("input_ids", "attention_mask") if name in tokens
    }
    if padding == "max_length":
        given.pop("attention_mask", None)  # SigLIP attends to its padding
    found: Tensor = method.model.get_text_features(**given).pooler_output.float()
    return found
