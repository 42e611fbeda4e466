"""WinCLIP without reference pictures (arXiv 2303.14814): windows of patches, each scored "normal" or "damaged".

Our own code after the paper. A window goes through CLIP as if it were the whole picture: CLS and its patches, with
their positions. Its score is the share of "damaged" in a softmax over two texts, each the mean of an ensemble of
sentences. A patch gets the harmonic mean over the windows that contain it; the map is the harmonic mean of both window
sizes and the whole picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from steersearch.benchmarks.baselines.base import DTYPE, Baseline, Outputs, Wanted, chosen_device
from steersearch.benchmarks.baselines.cards import Card
from steersearch.benchmarks.baselines.open_clip_models import (
    MEAN,
    STD,
    VIT_B_16_PLUS_240,
    clip_model,
    fill,
    read_weights,
    tokenize,
)
from steersearch.benchmarks.baselines.weights_file import weights_file
from steersearch.core.preprocess import Preprocess

WINDOWS = (2, 3)  # sides, in patches
TEMPERATURE = 0.07
TEXTS_AT_ONCE, WINDOWS_AT_ONCE = 64, 512

# As published: states of the object, in each of 22 sentences.
NORMAL = (
    "{}", "flawless {}", "perfect {}", "unblemished {}", "{} without flaw", "{} without defect", "{} without damage",
)  # fmt: skip
DAMAGED = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")
SENTENCES = tuple(
    sentence.replace("THE", article) + "."
    for sentence in (
        "a cropped photo of THE {}", "a close-up photo of THE {}", "a bright photo of THE {}", "a dark photo of THE {}",
        "a jpeg corrupted photo of THE {}", "a blurry photo of THE {}", "a photo of THE {}", "a photo of THE small {}",
        "a photo of THE large {}", "a photo of THE {} for visual inspection", "a photo of THE {} for anomaly detection",
    )
    for article in ("a", "the")
)  # fmt: skip


def load(card: Card, weights: Path | None, device: str) -> WinClip:
    """weights: the file of OpenCLIP's ViT-B-16-plus-240, instead of the hub's."""
    clip = clip_model(card, VIT_B_16_PLUS_240)  # before any download: open_clip may be missing
    path, source = weights_file(card, weights)
    fill(clip, read_weights(path), path)
    place = chosen_device(device)
    return WinClip(card, clip.to(place, DTYPE), source, place)


class WinClip(Baseline):
    """Heatmap of damage, 0 to 1 on the patch grid. The prompt is the object's name ("metal nut"), nothing else."""

    def __init__(self, card: Card, clip: Any, source: str, device: torch.device) -> None:
        self.preprocess = Preprocess(size=int(clip.visual.image_size[0]), mean=MEAN, std=STD, mode="squash")
        self._texts: dict[str, Tensor] = {}  # object -> (2, D), kept as long as the method
        super().__init__(card, clip, source, device, 4, preprocess=self.preprocess.to_dict(), windows=WINDOWS)

    def _see(self, pictures: Sequence[Image.Image], prompt: str | None, wanted: Wanted) -> Outputs:
        assert prompt is not None
        if prompt not in self._texts:
            self._texts[prompt] = torch.stack([self._text(states, prompt) for states in (NORMAL, DAMAGED)])
        texts = self._texts[prompt]
        pixels = torch.from_numpy(np.stack([self.preprocess(picture) for picture in pictures]))
        tokens = self._tokens(pixels.to(self.device, self.dtype))  # (B, 1 + N, W)
        grid = (int(self.model.visual.grid_size[0]), int(self.model.visual.grid_size[1]))
        whole = damage(self._embed(tokens), texts)  # (B,)
        maps = [whole[:, None, None].expand(-1, *grid)]
        for side in WINDOWS:
            windows = windows_of(grid, side).to(self.device)
            maps.append(patch_scores(self._window_scores(tokens, windows, texts), windows, grid))
        return Outputs(maps=harmonic_mean(torch.stack(maps), dim=0))

    def _tokens(self, pixels: Tensor) -> Tensor:
        """CLS and patches with their positions: the input of CLIP's first layer."""
        visual = self.model.visual
        patches = visual.conv1(pixels).flatten(2).transpose(1, 2)
        cls = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        tokens: Tensor = visual.ln_pre(torch.cat([cls, patches], dim=1) + visual.positional_embedding)
        return tokens

    def _embed(self, tokens: Tensor) -> Tensor:
        """(B, T, W) tokens, CLS first -> (B, D) float32 of unit length."""
        visual = self.model.visual
        found = visual.ln_post(visual.transformer(tokens))[:, 0] @ visual.proj
        return F.normalize(found.float(), dim=-1)

    def _window_scores(self, tokens: Tensor, windows: Tensor, texts: Tensor) -> Tensor:
        """(B, M) of each of M windows, given as (M, side²) numbers of patches."""
        # CLS, then the window's patches.
        kept = torch.cat([torch.zeros_like(windows[:, :1]), windows + 1], dim=1)
        of_windows = tokens[:, kept].flatten(0, 1)  # (B·M, 1 + side², W)
        scores = [damage(self._embed(part), texts) for part in torch.split(of_windows, WINDOWS_AT_ONCE)]
        return torch.cat(scores).reshape(len(tokens), -1)

    def _text(self, states: Sequence[str], name: str) -> Tensor:
        """(D,) float32: the mean of all sentences about an object in these states, at unit length."""
        sentences = [sentence.format(state.format(name)) for sentence in SENTENCES for state in states]
        ids = tokenize(self.card, sentences, self.model.context_length).to(self.device)
        parts = [self.model.encode_text(part).float() for part in torch.split(ids, TEXTS_AT_ONCE)]
        return F.normalize(F.normalize(torch.cat(parts), dim=-1).mean(dim=0), dim=-1)


def damage(embeddings: Tensor, texts: Tensor) -> Tensor:
    """(B, D) of unit length against texts (2, D), normal and damaged -> (B,): the share of "damaged", 0 to 1."""
    return (embeddings @ texts.T / TEMPERATURE).softmax(dim=-1)[:, 1]


def windows_of(grid: tuple[int, int], side: int) -> Tensor:
    """(M, side²): indices of the patches of each `side` × `side` window, at every position of the grid."""
    numbers = torch.arange(grid[0] * grid[1]).reshape(grid)
    return numbers.unfold(0, side, 1).unfold(1, side, 1).reshape(-1, side * side)


def patch_scores(scores: Tensor, windows: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, M) scores of windows -> (B, *grid): for each patch the harmonic mean over the windows that contain it."""
    members = windows.flatten()
    inverse = scores.reciprocal().repeat_interleave(windows.shape[1], dim=1)  # (B, M·side²)
    total = scores.new_zeros(len(scores), grid[0] * grid[1]).index_add_(1, members, inverse)
    count = members.bincount(minlength=grid[0] * grid[1])
    return (count / total).reshape(len(scores), *grid)


def harmonic_mean(values: Tensor, dim: int) -> Tensor:
    return values.shape[dim] / values.reciprocal().sum(dim=dim)
