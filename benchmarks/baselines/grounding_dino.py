"""GroundingDINO: the output of its feature enhancer for a picture under a prompt, before any box is predicted.

Its scales follow one another in one sequence; each is resampled to one grid, and their mean is the dense feature.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from steersearch.benchmarks.baselines.base import RESOLUTION, Outputs, Wanted
from steersearch.benchmarks.baselines.cards import Card
from steersearch.benchmarks.baselines.hooks import heard
from steersearch.benchmarks.baselines.pretrained import Pretrained, PretrainedBaseline, pretrained

GRID = (24, 24)  # as many patches as DINOv2 at 336 px; the paper does not state it


def load(card: Card, weights: Path | None, device: str) -> GroundingDino:
    loaded = pretrained(card, weights, device, "GroundingDinoForObjectDetection")
    return GroundingDino(card, loaded, RESOLUTION)


class GroundingDino(PretrainedBaseline):
    """Dense features on `GRID`, and their mean.

    Only pictures of one size form a batch: beside a larger one a picture would be padded, and its features would depend
    on the other.
    """

    def __init__(self, card: Card, loaded: Pretrained, side: int | None = None) -> None:
        """side: in pixels, of squares to which pictures are squashed; None: as the processor makes them."""
        super().__init__(card, loaded, grid=GRID, side=side)
        self._size = {} if side is None else {"size": {"height": side, "width": side}}

    def _see(self, pictures: Sequence[Image.Image], prompt: str | None, wanted: Wanted) -> Outputs:
        assert prompt is not None
        dense: dict[int, Tensor] = {}
        for members in _equally_large(pictures):
            found = self._dense([pictures[i] for i in members], prompt)
            dense.update(zip(members, found, strict=True))
        patches = torch.stack([dense[i] for i in range(len(pictures))])
        return Outputs(vectors=patches.mean(dim=(1, 2)), patches=patches if wanted.patches else None)

    def _dense(self, pictures: Sequence[Image.Image], prompt: str) -> Tensor:
        """(B, *GRID, D) float32."""
        given = self.processor(
            images=list(pictures),
            text=[sentence(prompt)] * len(pictures),
            truncation=True,
            max_length=self.model.config.max_text_len,
            return_tensors="pt",
            **self._size,
        ).to(self.device)
        given["pixel_values"] = given["pixel_values"].to(self.dtype)
        with heard(self.model.model.encoder) as calls:
            self.model(**given)
        arguments, out = calls[0]
        tokens = out.last_hidden_state_vision.float()  # (B, sum of H·W, D)
        shapes = [(int(height), int(width)) for height, width in arguments["spatial_shapes_list"]]
        return mean_of_scales(tokens, shapes, GRID)


def mean_of_scales(tokens: Tensor, shapes: Sequence[tuple[int, int]], grid: tuple[int, int]) -> Tensor:
    """(B, sum of H·W, D) features of all scales, one after another -> (B, *grid, D).

    Resampling is bilinear, and antialiased where a scale is finer than the grid.
    """
    total = tokens.new_zeros(len(tokens), tokens.shape[-1], *grid)
    sizes = [height * width for height, width in shapes]
    for scale, shape in zip(torch.split(tokens, sizes, dim=1), shapes, strict=True):
        maps = scale.transpose(1, 2).reshape(len(tokens), -1, *shape)
        total += F.interpolate(maps, size=grid, mode="bilinear", antialias=True)
    return (total / len(shapes)).permute(0, 2, 3, 1)


def sentence(prompt: str) -> str:
    """As in the model's training: lower case, with a full stop."""
    return f"{prompt.strip().lower().rstrip('.')}."


def _equally_large(pictures: Sequence[Image.Image]) -> Iterator[list[int]]:
    """Numbers of the pictures, grouped by size."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, picture in enumerate(pictures):
        groups[picture.size].append(i)
    yield from groups.values()
