"""SAM3: the patches of a picture after its fusion encoder, under a prompt.

A hook captures the encoder's output, which the model does not return.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from steersearch.benchmarks.baselines.base import Outputs, Wanted, on_grid
from steersearch.benchmarks.baselines.cards import Card
from steersearch.benchmarks.baselines.hooks import heard
from steersearch.benchmarks.baselines.pretrained import PretrainedBaseline, pixels_of, pretrained


def load(card: Card, weights: Path | None, device: str) -> Sam3:
    return Sam3(card, pretrained(card, weights, device, "Sam3Model"))


class Sam3(PretrainedBaseline):
    """Mean patch output, patch outputs, and the semantic segmentation logits as heatmap."""

    def _see(self, pictures: Sequence[Image.Image], prompt: str | None, wanted: Wanted) -> Outputs:
        # Its processor pads to it, but does not truncate.
        longest = self.model.config.text_config.max_position_embeddings
        text = self.processor.tokenizer(
            [prompt] * len(pictures),
            padding="max_length",
            truncation=True,
            max_length=longest,
            return_tensors="pt",
        )
        with heard(self.model.detr_encoder) as calls:
            found = self.model(
                pixel_values=pixels_of(self, pictures),
                input_ids=text["input_ids"].to(self.device),
                attention_mask=text["attention_mask"].to(self.device),
            )
        fused = calls[0][1]
        tokens = fused.last_hidden_state.float()  # (B, N, D), row by row
        (grid,) = [(int(height), int(width)) for height, width in fused.spatial_shapes]
        return Outputs(
            vectors=tokens.mean(dim=1),
            patches=on_grid(tokens, grid) if wanted.patches else None,
            maps=found.semantic_seg[:, 0] if wanted.maps else None,
        )
