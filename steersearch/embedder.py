"""SteerViT as the indexer sees a model: numbers in, numbers out, and who it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from steersearch.core.steervit import SteerViT
from steersearch.core.text import PromptFeatures
from steersearch.identity import preprocessing_of
from steersearch.indexer.embedder import Embedded

Floats = npt.NDArray[np.float32]


class SteerViTEmbedder:
    """An `indexer.embedder.Embedder` around a SteerViT; `model` is the SteerViT itself."""

    def __init__(self, model: SteerViT) -> None:
        self.model = model
        self.model_id = model.model_id
        self.weights_hash = model.weights_hash
        self.dim = model.dim
        self.preprocessing: dict[str, Any] = preprocessing_of(
            model.config.preprocess.to_dict(), model.config.aggregation
        )

    def preprocess(self, image: Image.Image) -> Floats:
        """An RGB picture -> (3, H, W) float32."""
        return self.model.preprocess(image)

    def encode_prompt(self, prompt: str) -> Floats:
        """Text tokens of one prompt (L, Dt) float32; loads the text encoder the first time."""
        return self.model.encode_prompts([prompt]).numpy()[0]

    @torch.inference_mode()
    def embed(
        self, pixels: Floats, prompt_features: Sequence[Floats | None], gate_scale: float
    ) -> list[Embedded]:
        """(B, 3, H, W) float32 under each prompt (None: the frozen trunk), one `Embedded` per prompt."""
        batch = torch.from_numpy(pixels).to(self.model.device)
        return [self._embed(batch, features, gate_scale) for features in prompt_features]

    def _embed(self, batch: torch.Tensor, features: Floats | None, gate_scale: float) -> Embedded:
        prompt = None if features is None else PromptFeatures.from_numpy([features])
        found = self.model(batch, prompt, gate_scale)
        return Embedded(
            embeddings=found.embedding(self.model.config.aggregation).float().cpu().numpy(),
            heatmaps=found.heatmap().float().cpu().numpy(),
        )
