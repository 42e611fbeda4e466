"""Photos and prompts in; embeddings, heatmaps and presence out: a SteerViT with everything needed to use one.

`from steersearch import SteerViT` gives `Predictor`; the network inside it is `steervit.SteerViT`. To the indexer it is
an `indexer.embedder.Embedder`.

Letters: B photos, H W pixels, P prompts, L text tokens, Dt text width, D embedding, Hp Wp the patch grid.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import math
import os
import sys
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from steersearch.core.attention_maps import HeadPooling, attention_maps
from steersearch.core.checkpoints import load_model, write_safetensors
from steersearch.core.errors import ConfigError, ImageError, PromptError, SteerSearchError
from steersearch.core.images.colour import to_rgb
from steersearch.core.images.picture import orientation_of, upright
from steersearch.core.images.reader import read_picture
from steersearch.core.preprocess import TILES, View
from steersearch.core.prompts import EncodedPrompt, quoted
from steersearch.core.side_by_side import make_workers, side_by_side
from steersearch.core.steervit import NO_STEERING, Features, Steering, SteerViT
from steersearch.core.text import CachedTextEncoder, PromptFeatures
from steersearch.core.tiles import split_tiles, whole_pictures
from steersearch.core.vectors import Aggregation, Embedded, Floats, Unsteered, VectorSettings

logger = logging.getLogger(__name__)
ImageSource = Image.Image | Path | str
R = TypeVar("R", Embedded, Unsteered)

# Backbone inputs in one forward pass. A processor is fastest while the widest activation, the hidden layer of the MLPs,
# stays small: beyond 32 MB each buffer is mapped and zeroed anew in every block (measured: benchmarks/LOG.md).
_CPU_HIDDEN_BYTES, _CPU_BATCH = 16 * 2**20, 32
_CORES = 8  # parts at a time, so that their buffers stay few
_GPU_BATCH = 64
_READERS = max(2, min(8, os.cpu_count() or 2))  # threads that decode pictures
_STEERINGS_KEPT = 64  # folded prompts; each is a few megabytes


class Predictor:
    """A model ready for photos and prompts. Threads may share one.

    model: the network.  preprocess: how pictures become its pixels.  aggregation: how its tokens become one embedding.
    `gate_scale`, wherever it is an argument, multiplies every learned gate before its tanh: 0 is the backbone without
    steering, 1 is as trained.
    """

    def __init__(self, model: SteerViT) -> None:
        self.model = model
        self.preprocess = model.config.preprocess
        self.aggregation = model.config.aggregation
        self._text_encoder = CachedTextEncoder(model.config.text_encoder, model.config.text_layers)
        self._steerings: OrderedDict[tuple[str, float], Steering] = OrderedDict()
        self._most = sys.maxsize  # photos at a time that the GPU's memory was seen to hold
        make_workers(_cores())  # before any threads share the model

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        device: str | torch.device = "auto",
        dtype: torch.dtype | Literal["auto"] = "auto",
    ) -> Predictor:
        """A named model (`registry.MODELS`), "auto", a .safetensors or .pth file, or a hub id.

        device "auto": the GPU if there is one.  dtype "auto": bfloat16 on a GPU that computes with it, else
        float32; embeddings and heatmaps are float32 in any case. Raises UnknownModelError, CheckpointError.
        """
        return cls(load_model(name_or_path, device=device, dtype=dtype))

    def save(self, path: Path | str) -> None:
        """Write a .safetensors file that `from_pretrained` reads, with this view and aggregation as the model's own."""
        config = replace(self.model.config, preprocess=self.preprocess, aggregation=self.aggregation)
        write_safetensors(self.model, Path(path), config)

    def with_view(self, view: View | None) -> Predictor:
        """This model seeing pictures in another way; the weights are shared, not copied.

        view: "crop" (timm's evaluation transform), "squash" (the whole picture in a square) or "tile" (the
            same at twice the resolution, as 2 × 2 tiles: four forward passes); None: the model's own.
        In the view "tile" a heatmap lies on the grid (2·Hp, 2·Wp), and CLS and mean are the tiles' own, each
        weighted by its share of the heatmap.
        """
        own = self.model.config.preprocess
        other = copy.copy(self)
        other.preprocess = own if view is None else own.with_view(view)
        return other

    def with_aggregation(self, kind: Aggregation | None) -> Predictor:
        """This model with another aggregation by default; the weights are shared. None: as it is.

        Raises ConfigError for one that does not exist, or for `cls` with a backbone that has no such token.
        """
        if kind is not None and kind not in get_args(Aggregation):
            raise ConfigError("aggregation", kind, f"must be one of {get_args(Aggregation)}")
        if kind == "cls" and self.model.num_prefix_tokens == 0:
            raise ConfigError("aggregation", kind, 'this backbone has no CLS token; use "mean" or "focus"')
        other = copy.copy(self)
        other.aggregation = kind or self.aggregation
        return other

    # ------------------------------------------------------------------------------------------- what it is

    @property
    def model_id(self) -> str:
        """The name or file that it was loaded by; "unsaved" for a model in memory."""
        return self.model.model_id

    @cached_property
    def weights_hash(self) -> str:
        """sha256 of the file that the weights came from; for a model in memory, of its weights when first asked."""
        return self.model.file_hash or _state_hash(self.model)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """`VectorSettings` in their JSON-able form, as a prompt index records them."""
        return VectorSettings.of(self.preprocess, self.aggregation).to_dict()

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.model.head.weight.dtype

    @property
    def dim(self) -> int:
        """D, the length of an embedding."""
        return self.model.dim

    @property
    def grid(self) -> tuple[int, int]:
        """(Hp, Wp), the patch grid of features and heatmaps: the backbone's, or that of 2 × 2 tiles."""
        height, width = self.model.grid
        return (height * TILES, width * TILES) if self._is_tiled else (height, width)

    @property
    def batch_size(self) -> int:
        """Photos per call: a part for each core, or what a GPU takes at once."""
        return self._part * self._cores

    @property
    def _part(self) -> int:
        """Photos per forward pass: as many as still make it faster."""
        inputs = _GPU_BATCH
        if self.device.type == "cpu":
            tokens = self.model.num_prefix_tokens + math.prod(self.model.grid)
            inputs = min(_CPU_BATCH, _CPU_HIDDEN_BYTES // (tokens * 4 * self.dim * 4))
        return max(1, inputs // TILES**2 if self._is_tiled else inputs)

    @property
    def _cores(self) -> int:
        """How many parts go side by side: PyTorch's threads, up to eight, on a processor; else 1."""
        return _cores() if self.device.type == "cpu" else 1

    @property
    def _is_tiled(self) -> bool:
        return self.preprocess.mode == "tile"

    # ------------------------------------------------------------------------------------ photos and prompts

    def embed(
        self,
        images: Sequence[ImageSource],
        prompt: str | Sequence[str] | None = None,
        gate_scale: float = 1.0,
        aggregation: Aggregation | None = None,
    ) -> Tensor:
        """Prompt-conditioned embeddings of pictures or paths: (B, D) float32 of unit length, on the CPU.

        `prompt`: one for all, one per picture, or None for the plain backbone. `aggregation` None: the default.
        """
        kind = aggregation or self.aggregation
        batches = self._in_batches(images, prompt, gate_scale)
        return self._collect((found.embedding(kind) for found in batches), (self.dim,))

    def heatmaps(
        self, images: Sequence[ImageSource], prompt: str | Sequence[str], gate_scale: float = 1.0
    ) -> Tensor:
        """Where the prompt's object is: (B, Hp, Wp) float32 on the CPU, each summing to 1."""
        batches = self._in_batches(images, prompt, gate_scale)
        return self._collect((found.heatmap() for found in batches), self.grid)

    def attention_maps(
        self,
        images: Sequence[ImageSource],
        prompt: str | Sequence[str] | None = None,
        gate_scale: float = 1.0,
        *,
        heads: HeadPooling = "mean",
        suppress_sinks: bool = True,
    ) -> Tensor:
        """What CLS looks at in the last block, as released: (B, Hp, Wp) float32 in [0, 1) on the CPU.

        heads "none" gives (B, heads, Hp, Wp); see `attention_maps.attention_maps` for both options.
        Raises ConfigError for a backbone without CLS token (SigLIP).
        """

        def maps(found: Features) -> Tensor:
            assert found.attention is not None
            return attention_maps(found.attention, found.grid, heads, suppress_sinks)

        batches = self._in_batches(images, prompt, gate_scale, attention=True)
        return self._collect(map(maps, batches), self.grid)

    @torch.inference_mode()
    def features(
        self,
        images: Sequence[ImageSource],
        prompt: str | Sequence[str] | None = None,
        gate_scale: float = 1.0,
        *,
        attention: bool = False,
    ) -> Features:
        """Features of pictures or paths in one batch; `prompt`: one for all, one per picture, or none."""
        steering = self.steering(self._prompt_features(prompt, len(images)), gate_scale)
        with ThreadPoolExecutor(_READERS) as readers:
            pixels = _stacked([readers.submit(self._read, image) for image in images])
        return self.encode(self.to_device(pixels), [steering], attention=attention)[0]

    def encode_prompts(self, prompts: Sequence[str]) -> PromptFeatures:
        """Text tokens (P, L, Dt) of `prompts`; the text encoder is loaded only for those not kept on disk."""
        return self._text_encoder.to(self.device).encode(prompts)

    # ---------------------------------------------------------------------------------- what the indexer calls

    def encode_prompt(self, prompt: str) -> EncodedPrompt:
        """One prompt as the text encoder reads it, which is loaded for a prompt never seen."""
        found = self.encode_prompts([prompt])
        return EncodedPrompt(found.numpy()[0], *found.readings)

    @torch.inference_mode()
    def embed_pixels(
        self, pixels: Floats, prompt_features: Sequence[Floats | None], gate_scale: float
    ) -> list[Embedded]:
        """(B, 3, H, W) float32 from `preprocess` under each prompt (None: without one), one `Embedded` per prompt.

        What no prompt changes is computed once for all of them.
        """
        steerings = [self._kept_steering(features, gate_scale) for features in prompt_features]
        parts = [list(map(self._embedded, found)) for found in self._in_parts(pixels, steerings)]
        return [_joined(results) for results in zip(*parts, strict=True)]

    @torch.inference_mode()
    def embed_with_unsteered(
        self, pixels: Floats, prompt_features: Sequence[Floats], gate_scale: float
    ) -> tuple[Unsteered, list[Embedded]]:
        """The backbone's own features of (B, 3, H, W) float32, and what `embed_pixels` gives."""
        steered = [self._kept_steering(features, gate_scale) for features in prompt_features]
        plain, parts = [], []
        for found in self._in_parts(pixels, [NO_STEERING, *steered]):
            plain.append(self._unsteered(found[0]))
            parts.append(list(map(self._embedded, found[1:])))
        return _joined(plain), [_joined(results) for results in zip(*parts, strict=True)]

    def _embedded(self, found: Features) -> Embedded:
        return Embedded(
            embeddings=found.embedding(self.aggregation).cpu().numpy(),
            heatmaps=found.heatmap().cpu().numpy(),
            presence=found.presence().cpu().numpy(),
        )

    def _unsteered(self, found: Features) -> Unsteered:
        patches = found.patches.float().reshape(len(found.patches), *found.grid, -1)
        return Unsteered(
            embeddings=found.embedding("cls" if found.prefix.shape[1] else "mean").cpu().numpy(),
            patches=patches.cpu().numpy(),
        )

    def _kept_steering(self, features: Floats | None, gate_scale: float) -> Steering:
        """A prompt made ready for this model, once for all batches."""
        if features is None:
            return NO_STEERING
        key = (hashlib.sha256(features.tobytes()).hexdigest(), gate_scale)
        steering = self._steerings.pop(key, None)
        if steering is None:
            steering = self.steering(PromptFeatures.from_numpy([features]), gate_scale)
        self._steerings[key] = steering  # the last used is the last to go
        if len(self._steerings) > _STEERINGS_KEPT:
            self._steerings.popitem(last=False)
        return steering

    # ------------------------------------------------------------------------------- batches, parts and tiles

    def steering(self, prompts: PromptFeatures | None, gate_scale: float = 1.0) -> Steering:
        """What `prompts` do at `gate_scale`: one for any batch of `encode`, or one for each of its pictures."""
        if self._is_tiled and prompts is not None and len(prompts) > 1:
            prompts = prompts.repeated(TILES**2)  # each tile has its picture's
        return self.model.steering(prompts, gate_scale)

    def encode(
        self, pixels: Tensor, steerings: Sequence[Steering], *, attention: bool = False
    ) -> list[Features]:
        """Features of `pixels` (B, 3, H, W) under each of `steerings`, which are made by `steering`.

        What no prompt changes is computed once for all. A processor takes the pictures in parts, which is 5 to 9 %
        faster than a batch whose activations do not fit its caches, and takes less memory; without gradients as many
        parts at a time as it has cores. A steering of one prompt per picture keeps the batch whole.
        """
        has_parts = all(steering.num_prompts == 1 for steering in steerings)
        workers = self._cores if has_parts and not torch.is_grad_enabled() else 1
        size = len(pixels)
        if has_parts and self.device.type == "cpu":
            size = min(self._part, math.ceil(size / workers))

        def encoded(part: Tensor) -> list[Features]:
            tokens = self.model.before_steering(split_tiles(part) if self._is_tiled else part)
            found = [self.model.steer(tokens, steering, attention=attention) for steering in steerings]
            return list(map(whole_pictures, found)) if self._is_tiled else found

        found = side_by_side(encoded, torch.split(pixels, size), workers)
        return [Features.joined(under) for under in zip(*found, strict=True)]

    def to_device(self, pixels: Floats) -> Tensor:
        """Pixels (B, 3, H, W) float32 where the weights are, in their dtype; a GPU copies while it computes."""
        batch = torch.from_numpy(pixels)
        if self.device.type == "cuda":
            batch = batch.pin_memory()
        return batch.to(self.device, non_blocking=True).to(self.dtype)

    def _in_parts(
        self, pixels: Floats, steerings: Sequence[Steering], attention: bool = False
    ) -> Iterator[list[Features]]:
        """`encode` part by part: all at once unless a GPU's memory is too small.

        Where it is, the part is halved and tried again, and later batches come in parts of the size that worked.
        Raises SteerSearchError if one photo is too much.
        """
        start = 0
        while start < len(pixels):
            part = pixels[start : start + self._most]
            try:
                found = self.encode(self.to_device(part), steerings, attention=attention)
            except torch.OutOfMemoryError as error:
                if len(part) == 1:
                    raise SteerSearchError(
                        f"the GPU has too little free memory for one photo in the model {self.model_id}; end what "
                        "else uses it, or try --device cpu or a smaller --model"
                    ) from error
                self._most = len(part) // 2
                torch.cuda.empty_cache()
                logger.warning("the GPU's memory is full: going on with %d photos at a time", self._most)
            else:
                start += len(part)
                yield found

    def _in_batches(
        self,
        images: Sequence[ImageSource],
        prompt: str | Sequence[str] | None,
        gate_scale: float,
        attention: bool = False,
    ) -> Iterator[Features]:
        if isinstance(images, (str, Path, Image.Image)):
            raise ConfigError("images", images, "must be a sequence of pictures or paths, not a single one")
        images = list(images)
        prompts = self._prompt_features(prompt, len(images))
        if prompts is None or len(prompts) == 1:
            steering = self.steering(prompts, gate_scale)
            for pixels in self._pixel_batches(images, self.batch_size):
                yield from (found for (found,) in self._in_parts(pixels, [steering], attention))
            return
        start = 0
        for pixels in self._pixel_batches(images, self._part):
            own = prompts.part(slice(start, start + len(pixels)))
            yield from self.encode(
                self.to_device(pixels), [self.steering(own, gate_scale)], attention=attention
            )
            start += len(pixels)

    def _prompt_features(self, prompt: str | Sequence[str] | None, batch: int) -> PromptFeatures | None:
        if prompt is None:
            return None
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if len(prompts) not in (1, batch):
            raise PromptError(f"{len(prompts)} prompts for {batch} images; give one prompt, or one per image")
        found = self.encode_prompts(prompts)
        for one, reading in dict(zip(prompts, found.readings, strict=False)).items():
            for remark in reading.remarks():
                logger.warning("prompt %s: %s", quoted(one), remark)
        return found

    def _pixel_batches(self, images: Sequence[ImageSource], size: int) -> Iterator[Floats]:
        """Pixels of the next `size` pictures, read on threads while the model works on the last ones."""
        ahead: deque[list[Future[Floats]]] = deque()
        with ThreadPoolExecutor(_READERS) as readers:
            for start in range(0, len(images), size):
                ahead.append([readers.submit(self._read, image) for image in images[start : start + size]])
                if len(ahead) == 2:
                    yield _stacked(ahead.popleft())
            while ahead:
                yield _stacked(ahead.popleft())

    def _read(self, image: ImageSource) -> Floats:
        if isinstance(image, (str, Path)):
            return self.preprocess(read_picture(image, at_least=self.preprocess.least_side))
        if not isinstance(image, Image.Image):
            raise ConfigError("images", image, "must be pictures of PIL, or paths")
        if 0 in image.size:
            raise ImageError(None, "it has no pixels")
        if image.format is not None:  # opened from a file, in which it may lie on its side
            image = upright(to_rgb(image), orientation_of(image))
        return self.preprocess(image)

    def _collect(self, results: Iterator[Tensor], shape: tuple[int, ...]) -> Tensor:
        """One float32 tensor on the CPU; fetched at the end, so that a GPU never waits in between."""
        with torch.inference_mode():
            found = [result.float() for result in results]
            return torch.cat(found).cpu() if found else torch.empty(0, *shape)


def _cores() -> int:
    return min(_CORES, torch.get_num_threads())


def _stacked(reading: Sequence[Future[Floats]]) -> Floats:
    return np.stack([picture.result() for picture in reading])


def _joined(parts: Sequence[R]) -> R:
    """Results of the parts of a batch as those of the batch."""
    if len(parts) == 1:
        return parts[0]
    return type(parts[0])(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])}
    )


def _state_hash(model: SteerViT) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
