"""Comparison of a heatmap with the mask of the thing that the prompt names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from steersearch.benchmarks.harness.steervit_method import SteerViTMethod
from steersearch.core.predictor import Predictor
from steersearch.training.data.mask_codec import Mask
from steersearch.training.data.mask_file import read_mask_file
from steersearch.training.losses import pmass, pointing

if TYPE_CHECKING:
    from steersearch.benchmarks.paper.core_data import Scene

Found = tuple[list[float], list[float]]


def points(
    method: SteerViTMethod, pictures: Sequence[Image.Image], prompt: str, masks: Sequence[Mask]
) -> Found:
    """For each picture, whether its strongest patch lies on the mask (H, W), and the share of the heatmap there, see
    `pointing` and `pmass` in `training.losses`."""
    maps = method.see(pictures, prompt, maps=True).maps
    assert maps is not None
    logits = torch.from_numpy(maps).flatten(1)
    cover = torch.stack([patch_cover(mask, method.model) for mask in masks])
    return pointing(logits, cover).float().tolist(), pmass(logits, cover).tolist()


def pointing_of(method: SteerViTMethod, scenes: Iterable[Scene]) -> dict[str, float]:
    """`pointing` and `pmass` in percent, mean over all pictures, each under its own object's prompt."""
    hits: list[float] = []
    mass: list[float] = []
    for scene in scenes:
        for prompt in dict.fromkeys(row.prompt for row in scene.rows):
            rows = [i for i, row in enumerate(scene.rows) if row.prompt == prompt]
            for start in range(0, len(rows), method.batch_size):
                batch = rows[start : start + method.batch_size]
                masks = [read_mask_file(scene.masks[i]) for i in batch]
                found = points(method, [scene.gallery.read(i) for i in batch], prompt, masks)
                hits += found[0]
                mass += found[1]
    return {"pointing": round(100 * float(np.mean(hits)), 2), "pmass": round(100 * float(np.mean(mass)), 2)}


def patch_cover(mask: Mask, model: Predictor) -> torch.Tensor:
    """(H, W) mask of a picture -> (N,) covered share of each patch, through the model's own preprocessing."""
    preprocess = model.preprocess
    white = Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB")
    seen = preprocess(white)[0] * preprocess.std[0] + preprocess.mean[0]
    grid = model.grid
    cells = seen.reshape(grid[0], seen.shape[0] // grid[0], grid[1], seen.shape[1] // grid[1])
    return torch.from_numpy(np.clip(cells.mean(axis=(1, 3)), 0, 1).flatten())
