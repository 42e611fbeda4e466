"""CLIPSeg: mask logits of a prompt, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from steersearch.benchmarks.baselines.base import Outputs, Wanted
from steersearch.benchmarks.baselines.cards import Card
from steersearch.benchmarks.baselines.pretrained import PretrainedBaseline, pretrained


def load(card: Card, weights: Path | None, device: str) -> ClipSeg:
    return ClipSeg(card, pretrained(card, weights, device, "CLIPSegForImageSegmentation"))


class ClipSeg(PretrainedBaseline):
    """Heatmap: the logits at the model's own size, before any sigmoid."""

    pictures_at_once = 8

    def _see(self, pictures: Sequence[Image.Image], prompt: str | None, wanted: Wanted) -> Outputs:
        given = self.processor(
            text=[prompt] * len(pictures), images=list(pictures), truncation=True, return_tensors="pt"
        ).to(self.device)
        given["pixel_values"] = given["pixel_values"].to(self.dtype)
        logits = self.model(**given).logits  # (B, H, W), of one picture (H, W)
        return Outputs(maps=logits if logits.ndim == 3 else logits[None])
