"""Detect, crop, embed: a detector finds a box of what the prompt names, and the crop is embedded without text.

The obvious way to look at a part of a picture with a frozen encoder. The detector is GroundingDINO before DINOv2, or
our own heatmap before the same model unsteered. Without a prompt the whole picture is embedded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from steersearch.benchmarks.baselines import trunks
from steersearch.benchmarks.baselines.base import DTYPE, RESOLUTION, Baseline, Outputs, Wanted
from steersearch.benchmarks.baselines.cards import CARDS, Card
from steersearch.benchmarks.baselines.grounding_dino import sentence
from steersearch.benchmarks.baselines.pretrained import Pretrained, pretrained
from steersearch.benchmarks.harness.method import Floats
from steersearch.core.predictor import Predictor
from steersearch.core.vectors import Aggregation

Box = tuple[float, float, float, float]  # left, top, right, bottom, as shares of a picture's sides
Detector = Callable[[Sequence[Image.Image], str], Sequence[Box]]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
MARGIN = 0.1  # of a box's sides, on each side
LEAST = 0.05  # of a picture's sides: a smaller box is widened
NEAR = 0.5  # share of the strongest patch's heat from which on a patch belongs to the thing


def load(card: Card, weights: Path | None, device: str) -> DetectCrop:
    """weights: a folder with GroundingDINO and, as dinov2.safetensors, DINOv2; for heatmap-crop a model's file."""
    if card.settings["detector"] == "heatmap":
        predictor = Predictor.from_pretrained(weights or "mini", device=device, dtype=DTYPE)
        return heatmap_crop(card, predictor)
    loaded = pretrained(card, weights, device, "GroundingDinoForObjectDetection")
    file = None if weights is None else weights / "dinov2.safetensors"
    dinov2 = trunks.load(CARDS["dinov2"], file, device)
    return DetectCrop(
        card,
        nn.ModuleList([loaded.model, dinov2.model]),
        f"{loaded.source}+{dinov2.weights_hash}",
        grounding_dino_boxes(loaded, RESOLUTION),
        lambda pictures: dinov2.see(pictures, None).vectors,
        loaded.device,
        dinov2.batch_size,
    )


def heatmap_crop(card: Card, model: Predictor) -> DetectCrop:
    """Our own heatmap as the detector, and the unsteered backbone's CLS, or mean patch, of the crop."""
    kind: Aggregation = "cls" if model.model.num_prefix_tokens else "mean"
    whole = model.with_view("squash")  # so that the map covers all of a picture
    return DetectCrop(
        card,
        model.model,
        model.weights_hash,
        lambda pictures, prompt: [box_of(heat) for heat in whole.heatmaps(pictures, prompt).numpy()],
        lambda pictures: model.embed(pictures, aggregation=kind).numpy(),
        model.device,
        model.batch_size,
    )


class DetectCrop(Baseline):
    """The crop of the most confident box with `MARGIN` around it; `embed` gives the vectors of pictures."""

    def __init__(
        self,
        card: Card,
        model: nn.Module,
        source: str,
        detect: Detector,
        embed: Callable[[Sequence[Image.Image]], Floats],
        device: torch.device,
        batch_size: int,
    ) -> None:
        super().__init__(card, model, source, device, batch_size, margin=MARGIN, near=NEAR, **card.settings)
        self._detect, self._embed = detect, embed

    def _see(self, pictures: Sequence[Image.Image], prompt: str | None, wanted: Wanted) -> Outputs:
        boxes = [WHOLE] * len(pictures) if prompt is None else self._detect(pictures, prompt)
        crops = [cropped(picture, box) for picture, box in zip(pictures, boxes, strict=True)]
        return Outputs(vectors=torch.from_numpy(self._embed(crops)))


def cropped(picture: Image.Image, box: Box) -> Image.Image:
    """The box with its margin, and at least LEAST of each side, cut to the picture."""
    edges = []
    for low, high, side in ((box[0], box[2], picture.width), (box[1], box[3], picture.height)):
        middle, half = (low + high) / 2, max((high - low) * (0.5 + MARGIN), LEAST / 2)
        start = min(max(round((middle - half) * side), 0), side - 1)
        edges.append((start, min(max(round((middle + half) * side), start + 1), side)))
    (left, right), (top, bottom) = edges
    return picture if box == WHOLE else picture.crop((left, top, right, bottom))


def box_of(heat: Floats) -> Box:
    """The box of the patches (Hp, Wp) around the strongest that have at least `NEAR` of its heat, side by side."""
    near, seen = heat >= NEAR * heat.max(), np.zeros(heat.shape, bool)
    start = np.unravel_index(int(heat.argmax()), heat.shape)
    waiting = [(int(start[0]), int(start[1]))]
    while waiting:
        row, column = waiting.pop()
        inside = 0 <= row < heat.shape[0] and 0 <= column < heat.shape[1]
        if inside and near[row, column] and not seen[row, column]:
            seen[row, column] = True
            waiting += [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    height, width = heat.shape
    return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height


def grounding_dino_boxes(loaded: Pretrained, side: int) -> Detector:
    """The box that the prompt fits best; pictures are squashed to `side` pixels, so none is padded."""

    def detect(pictures: Sequence[Image.Image], prompt: str) -> Sequence[Box]:
        squares = [picture.resize((side, side), Image.Resampling.BICUBIC) for picture in pictures]
        given: Any = loaded.processor(
            images=squares,
            text=[sentence(prompt)] * len(squares),
            size={"height": side, "width": side},
            return_tensors="pt",
        ).to(loaded.device)
        found = loaded.model(**given)
        best = found.logits.sigmoid().amax(dim=-1).argmax(dim=1)  # (B, queries, tokens) -> (B,)
        boxes = found.pred_boxes[torch.arange(len(best)), best].float().cpu()  # centre and size
        corners = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], dim=1)
        return [(a, b, c, d) for a, b, c, d in corners.clamp(0, 1).tolist()]

    return detect
