"""SteerViT as the indexer sees a model: numbers in, numbers out, and who it is."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from steersearch.core.errors import GpuMemoryError
from steersearch.core.picture import Picture
from steersearch.core.presence import presence
from steersearch.core.reading import EncodedPrompt
from steersearch.core.steervit import NO_STEERING, Features, Steering, SteerViT
from steersearch.core.text import PromptFeatures
from steersearch.identity import preprocessing_of
from steersearch.indexer.embedder import Embedded, Unsteered

Floats = npt.NDArray[np.float32]
logger = logging.getLogger(__name__)
R = TypeVar("R", Embedded, Unsteered)
_STEERINGS_KEPT = 64  # folded prompts; each is a few megabytes


class SteerViTEmbedder:
    """An `indexer.embedder.Embedder` around a SteerViT; `model` is the SteerViT itself."""

    def __init__(self, model: SteerViT) -> None:
        self.model = model
        self.model_id = model.model_id
        self.weights_hash = model.weights_hash
        self.dim = model.dim
        self.batch_size = model.batch_size * model.cores
        self.preprocessing: dict[str, Any] = preprocessing_of(
            model.config.preprocess.to_dict(), model.config.aggregation
        )
        self._most = sys.maxsize  # photos at a time that the GPU's memory was seen to hold
        self._steerings: OrderedDict[tuple[str, float], Steering] = OrderedDict()

    def preprocess(self, picture: Picture | Image.Image) -> Floats:
        """An RGB picture -> (3, H, W) float32."""
        return self.model.preprocess(picture)

    def encode_prompt(self, prompt: str) -> EncodedPrompt:
        """One prompt as the text encoder reads it, which is loaded for a prompt never seen."""
        found = self.model.encode_prompt(prompt)
        return EncodedPrompt(found.numpy()[0], *found.readings)

    @torch.inference_mode()
    def embed_pixels(
        self, pixels: Floats, prompt_features: Sequence[Floats | None], gate_scale: float
    ) -> list[Embedded]:
        """(B, 3, H, W) float32 under each prompt (None: the frozen trunk), one `Embedded` per prompt.

        What no prompt changes is computed once for all of them.
        """
        steerings = [self._steering(features, gate_scale) for features in prompt_features]
        parts = [list(map(self._embedded, found)) for found in self._encoded(pixels, steerings)]
        return [_joined(results) for results in zip(*parts, strict=True)]

    @torch.inference_mode()
    def embed_with_unsteered(
        self, pixels: Floats, prompt_features: Sequence[Floats], gate_scale: float
    ) -> tuple[Unsteered, list[Embedded]]:
        """What the frozen trunk says of (B, 3, H, W) float32, and `embed`; stem and first block run once for all."""
        steerings = [
            NO_STEERING,
            *(self._steering(features, gate_scale) for features in prompt_features),
        ]
        frozen, steered = [], []
        for found in self._encoded(pixels, steerings):
            frozen.append(self._frozen(found[0]))
            steered.append(list(map(self._embedded, found[1:])))
        return _joined(frozen), [_joined(results) for results in zip(*steered, strict=True)]

    def _encoded(self, pixels: Floats, steerings: Sequence[Steering]) -> Iterator[list[Features]]:
        """Features of the batch under each steering, part by part: all at once unless a GPU's memory is too small.

        Where it is, the part is halved and tried again, and later batches come in parts of the size that worked.
        Raises GpuMemoryError if one photo is too much.
        """
        start = 0
        while start < len(pixels):
            part = pixels[start : start + self._most]
            try:
                found = self.model.encode(self.model.to_device(part), steerings)
            except torch.OutOfMemoryError as error:
                if len(part) == 1:
                    raise GpuMemoryError(self.model_id) from error
                self._most = len(part) // 2
                torch.cuda.empty_cache()
                logger.warning("the GPU's memory is full: going on with %d photos at a time", self._most)
            else:
                start += len(part)
                yield found

    def _frozen(self, found: Features) -> Unsteered:
        patches = found.patches.float().reshape(len(found.patches), *found.grid, -1)
        return Unsteered(
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


def _joined(parts: Sequence[R]) -> R:
    """Results of the parts of a batch as those of the batch."""
    if len(parts) == 1:
        return parts[0]
    return type(parts[0])(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])}
    )
