"""SteerViT as the indexer sees a model: numbers in, numbers out, and who it is."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from steersearch.core.presence import presence
from steersearch.core.steervit import NO_STEERING, Features, Steering, SteerViT
from steersearch.core.text import PromptFeatures
from steersearch.identity import preprocessing_of
from steersearch.indexer.embedder import Embedded, Frozen

Floats = npt.NDArray[np.float32]
_STEERINGS_KEPT = 64  # folded prompts; each is a few megabytes


class SteerViTEmbedder:
    """An `indexer.embedder.Embedder` around a SteerViT; `model` is the SteerViT itself."""

    def __init__(self, model: SteerViT) -> None:
        self.model = model
        self.model_id = model.model_id
        self.weights_hash = model.weights_hash
        self.dim = model.dim
        self.batch_size = model.batch_size
        self.preprocessing: dict[str, Any] = preprocessing_of(
            model.config.preprocess.to_dict(), model.config.aggregation
        )
        self._steerings: OrderedDict[tuple[str, float], Steering] = OrderedDict()

    def preprocess(self, image: Image.Image) -> Floats:
        """An RGB picture -> (3, H, W) float32."""
        return self.model.preprocess(image)

    def encode_prompt(self, prompt: str) -> Floats:
        """Text tokens of one prompt (L, Dt) float32; loads the text encoder for a prompt never seen."""
        return self.model.encode_prompt(prompt).numpy()[0]

    @torch.inference_mode()
    def embed(
        self, pixels: Floats, prompt_features: Sequence[Floats | None], gate_scale: float
    ) -> list[Embedded]:
        """(B, 3, H, W) float32 under each prompt (None: the frozen trunk), one `Embedded` per prompt.

        What no prompt changes is computed once for all of them.
        """
        steerings = [self._steering(features, gate_scale) for features in prompt_features]
        return [self._embedded(found) for found in self.model.encode(self.model.to_device(pixels), steerings)]

    @torch.inference_mode()
    def embed_with_frozen(
        self, pixels: Floats, prompt_features: Sequence[Floats], gate_scale: float
    ) -> tuple[Frozen, list[Embedded]]:
        """What the frozen trunk says of (B, 3, H, W) float32, and `embed`; stem and first block run once for all."""
        steerings = [
            NO_STEERING,
            *(self._steering(features, gate_scale) for features in prompt_features),
        ]
        frozen, *steered = self.model.encode(self.model.to_device(pixels), steerings)
        return self._frozen(frozen), [self._embedded(found) for found in steered]

    def _frozen(self, found: Features) -> Frozen:
        patches = found.patches.float().reshape(len(found.patches), *found.grid, -1)
        return Frozen(
            embeddings=found.embedding("cls" if found.prefix.shape[1] else "mean").cpu().numpy(),
            patches=patches.cpu().numpy(),
        )

    def _steering(self, features: Floats | None, gate_scale: float) -> Steering:
        """A prompt made ready for this model, once for all batches."""
        if features is None:
            return self.model.steering(None)
        key = (hashlib.sha256(features.tobytes()).hexdigest(), gate_scale)
        steering = self._steerings.pop(key, None)
        if steering is None:
            steering = self.model.steering(PromptFeatures.from_numpy([features]), gate_scale)
        self._steerings[key] = steering  # the last used is the last to go
        if len(self._steerings) > _STEERINGS_KEPT:
            self._steerings.popitem(last=False)
        return steering

    def _embedded(self, found: Features) -> Embedded:
        return Embedded(
            embeddings=found.embedding(self.model.config.aggregation).cpu().numpy(),
            heatmaps=found.heatmap().cpu().numpy(),
            presence=presence(found).cpu().numpy(),
        )
