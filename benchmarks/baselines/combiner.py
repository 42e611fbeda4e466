"""GeneCIS's specialised model (arXiv 2306.07969): a fine-tuned CLIP and a small network that combines picture and text.

Only the query is combined with the text; the gallery is embedded without a prompt. Our own code for the published
weights, whose names it keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from steersearch.benchmarks.baselines.base import DTYPE, Baseline, Outputs, Wanted, chosen_device
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
from steersearch.core.errors import BenchmarkError
from steersearch.core.files import remembered_sha256
from steersearch.core.preprocess import Preprocess

BACKBONE, HEAD = "vitb16_backbone.pt", "vitb16_combiner_head.pt"
PROJECTED, HIDDEN = 2560, 5120  # widths inside the published head


def load(card: Card, weights: Path | None, device: str) -> Combiner:
    """weights: the folder with both files. Raises BenchmarkError without it: no hub has them at a pinned revision."""
    files = [] if weights is None else [weights / BACKBONE, weights / HEAD]
    if not files or not all(file.is_file() for file in files):
        raise BenchmarkError(
            f"{card.name}: download {card.url}{BACKBONE} and {card.url}{HEAD} to one folder "
            f"({card.licence}), and give it: {card.name}=FOLDER"
        )
    clip = clip_model(card, VIT_B_16, quick_gelu=True)
    fill(clip, read_weights(files[0]), files[0])
    head = CombinerHead(VIT_B_16["embed_dim"], PROJECTED, HIDDEN)
    fill(head, read_weights(files[1]), files[1])
    place = chosen_device(device)
    source = "+".join(remembered_sha256(file) for file in files)
    return Combiner(card, clip.to(place, DTYPE), head.to(place, DTYPE), source, place)


class CombinerHead(nn.Module):
    """(B, D) embeddings of pictures and of texts -> (B, D) of unit length.

    A learned correction plus a mixture of both with a learned share. Without dropout, which matters in training only
    but shows in the weights' names.
    """

    def __init__(self, dim: int, projected: int, hidden: int) -> None:
        super().__init__()
        self.text_projection_layer = nn.Linear(dim, projected)
        self.image_projection_layer = nn.Linear(dim, projected)
        self.combiner_layer = nn.Linear(2 * projected, hidden)
        self.output_layer = nn.Linear(hidden, dim)
        self.dynamic_scalar = nn.ModuleDict(
            {"0": nn.Linear(2 * projected, hidden), "3": nn.Linear(hidden, 1)}
        )

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        both = torch.cat(
            [F.relu(self.text_projection_layer(text)), F.relu(self.image_projection_layer(image))], dim=-1
        )
        share = self.dynamic_scalar["3"](F.relu(self.dynamic_scalar["0"](both))).sigmoid()
        correction = self.output_layer(F.relu(self.combiner_layer(both)))
        return F.normalize(correction + share * text + (1 - share) * image, dim=-1)


class Combiner(Baseline):
    """With a prompt the combined embedding, for queries; without one the picture's, for the gallery."""

    def __init__(self, card: Card, clip: Any, head: CombinerHead, source: str, device: torch.device) -> None:
        self.head = head.eval().requires_grad_(False)
        self.preprocess = Preprocess(size=int(clip.visual.image_size[0]), mean=MEAN, std=STD)
        super().__init__(card, clip, source, device, 16, preprocess=self.preprocess.to_dict())

    def _see(self, pictures: Sequence[Image.Image], prompt: str | None, wanted: Wanted) -> Outputs:
        pixels = torch.from_numpy(np.stack([self.preprocess(picture) for picture in pictures]))
        vectors = self.model.encode_image(pixels.to(self.device, self.dtype))
        if prompt is not None:
            text = self.model.encode_text(
                tokenize(self.card, [prompt], self.model.context_length).to(self.device)
            )
            vectors = self.head(vectors, text.expand(len(vectors), -1))
        return Outputs(vectors=vectors)
