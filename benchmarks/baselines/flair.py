"""FLAIR (arXiv 2412.03561): the text embedding attends to the local image tokens in one layer.

Our own code for the published weights, whose names it keeps: a CLIP in OpenCLIP's layout with its two projections moved
to `image_post` and `text_post`, and the pooling layer `visual_proj`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from steersearch.benchmarks.baselines.base import (
    DTYPE,
    Baseline,
    Outputs,
    Wanted,
    chosen_device,
    on_grid,
)
from steersearch.benchmarks.baselines.cards import Card
from steersearch.benchmarks.baselines.open_clip_models import (
    MEAN,
    STD,
    VIT_B_16,
    clip_model,
    fill,
    read_weights,
    tokenize,
)
from steersearch.benchmarks.baselines.weights_file import weights_file
from steersearch.core.preprocess import Preprocess

POOLING_HEADS = 8


def load(card: Card, weights: Path | None, device: str) -> Flair:
    """weights: a .pt file as published, instead of the hub's."""
    model = FlairModel(card, VIT_B_16)  # before any download: open_clip may be missing
    path, source = weights_file(card, weights)
    fill(model, read_weights(path), path)
    place = chosen_device(device)
    return Flair(card, model.to(place, DTYPE), source, place)


class FlairModel(nn.Module):
    """The layers of FLAIR under the names of its published weights. D is the width of the common space, 512."""

    def __init__(self, card: Card, shape: Mapping[str, Any]) -> None:
        super().__init__()
        vision = {**shape["vision_cfg"], "output_tokens": True}
        clip = clip_model(card, {**shape, "vision_cfg": vision}, init_logit_bias=-10.0)
        dim = int(shape["embed_dim"])
        self.visual = clip.visual
        self.visual.proj = None  # replaced by `image_post`, after the final norm
        self.token_embedding, self.transformer = clip.token_embedding, clip.transformer
        self.positional_embedding, self.ln_final = clip.positional_embedding, clip.ln_final
        self.register_buffer("attn_mask", clip.attn_mask, persistent=False)
        self.logit_scale, self.logit_bias = clip.logit_scale, clip.logit_bias
        self.image_post = _Projection(int(vision["width"]), dim)
        self.text_post = _Projection(int(shape["text_cfg"]["width"]), dim)
        self.visual_proj = _AttentionPooling(dim, POOLING_HEADS)

    def image(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> the global token (B, D) and the local ones (B, N, D)."""
        pooled, tokens = self.visual(pixels)
        return self.image_post(pooled), self.image_post(tokens)

    def text(self, ids: Tensor) -> Tensor:
        """(P, L) token ids -> (P, D), from the end-of-text token, which has the highest id."""
        x = self.token_embedding(ids) + self.positional_embedding
        x = self.ln_final(self.transformer(x, attn_mask=self.attn_mask))
        ends: Tensor = x[torch.arange(len(ids), device=ids.device), ids.argmax(dim=-1)]
        found: Tensor = self.text_post(ends)
        return found


class _Projection(nn.Module):
    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Parameter(torch.randn(width, dim) * width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.proj


class _AttentionPooling(nn.Module):
    """A query (B, D) attends to tokens (B, N, D): (B, D). A token of zeros lets it attend to nothing."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True, add_zero_attn=True)
        self.ln_q, self.ln_k, self.ln_v = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        found: Tensor = self.attn(
            self.ln_q(query)[:, None], self.ln_k(tokens), self.ln_v(tokens), need_weights=False
        )[0]
        return found[:, 0]


class Flair(Baseline):
    """Text-conditioned pooling of the local tokens; no prompt: the global token. Patches, which no text changes."""

    def __init__(self, card: Card, model: FlairModel, source: str, device: torch.device) -> None:
        side = int(model.visual.image_size[0])
        self.preprocess = Preprocess(size=side, mean=MEAN, std=STD)
        super().__init__(card, model, source, device, 16, preprocess=self.preprocess.to_dict())

    def _see(self, pictures: Sequence[Image.Image], prompt: str | None, wanted: Wanted) -> Outputs:
        pixels = torch.from_numpy(np.stack([self.preprocess(picture) for picture in pictures]))
        vectors, tokens = self.model.image(pixels.to(self.device, self.dtype))
        if prompt is not None:
            ids = tokenize(self.card, [prompt], len(self.model.positional_embedding)).to(self.device)
            vectors = self.model.visual_proj(self.model.text(ids).expand(len(tokens), -1), tokens)
        height, width = self.model.visual.grid_size
        return Outputs(vectors=vectors, patches=on_grid(tokens, (height, width)) if wanted.patches else None)
