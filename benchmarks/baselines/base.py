"""The common part of all baselines: batching, and errors for missing outputs.

Letters: B pictures, D width of a global feature, D' that of a patch feature, Hp Wp the patch grid.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from steersearch.benchmarks.baselines.cards import Card
from steersearch.benchmarks.harness.method import Floats, Seen
from steersearch.core.errors import BenchmarkError

RESOLUTION = 336  # pixels, the paper's for all methods that take it
DTYPE = torch.float32  # on a GPU too: half precision changes rankings
Part = Literal["vectors", "patches", "maps", "attention"]
WORDS: dict[Part, str] = {
    "vectors": "global feature",
    "patches": "patch features",
    "maps": "heatmap",
    "attention": "attention map",
}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The outputs that a benchmark requests besides global features."""

    patches: bool = False
    maps: bool = False
    attention: bool = False


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """One batch, as tensors on any device and in any dtype; shapes as in `Seen`.

    vectors None: the method has no global feature, and another output was requested.
    """

    vectors: Tensor | None = None
    patches: Tensor | None = None
    maps: Tensor | None = None
    attention: Tensor | None = None


class Baseline(ABC):
    """A `Method` by its card. Subclasses compute one batch in `_see`."""

    def __init__(
        self,
        card: Card,
        model: nn.Module,
        source: str,
        device: torch.device,
        batch_size: int = 8,
        **settings: Any,
    ) -> None:
        """model: on `device`; is frozen and set to evaluation mode.  source: hash or commit of its weights.

        settings: all else that determines the output, JSON-able; the weights' dtype is added.
        """
        self.card = card
        self.model: Any = model.eval().requires_grad_(False)  # each family uses its own attributes
        self.device = device
        self.batch_size = batch_size
        self.dtype = next((each.dtype for each in model.parameters()), DTYPE)
        dtype = str(self.dtype).removeprefix("torch.")
        self.weights_hash = source
        self.settings: dict[str, Any] = {"weights": source, "dtype": dtype, **settings}
        self._identity = identity_of(card.name, self.settings)

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def licence(self) -> str:
        return self.card.licence

    @property
    def takes_prompt(self) -> bool:
        return self.card.takes_prompt

    @property
    def gallery_takes_prompt(self) -> bool:
        """False: only queries are seen under the prompt, the gallery under None."""
        return self.card.gallery_takes_prompt

    @property
    def prompt_is_object(self) -> bool:
        """True: the prompt is the bare name of an object, from which the method builds its own sentences."""
        return self.card.prompt_is_object

    @torch.inference_mode()
    def see(
        self,
        pictures: Sequence[Image.Image],
        prompt: str | None,
        *,
        patches: bool = False,
        maps: bool = False,
        attention: bool = False,
    ) -> Seen:
        """As `Method.see`; pictures go through the model `batch_size` at a time.

        A method without a global feature gives vectors of length 0.
        Raises BenchmarkError for an output that the method lacks, and for a missing prompt if it needs one.
        """
        wanted = Wanted(patches=patches, maps=maps, attention=attention)
        self._refuse(wanted, prompt)
        if prompt is not None and not self.takes_prompt:
            prompt = None
        batches = [self._see(batch, prompt, wanted) for batch in self._batches(pictures)]
        return Seen(
            vectors=_joined([batch.vectors for batch in batches], len(pictures)),
            patches=_joined([batch.patches for batch in batches], 0) if patches else None,
            maps=_joined([batch.maps for batch in batches], 0) if maps else None,
            attention=_joined([batch.attention for batch in batches], 0) if attention else None,
        )

    @abstractmethod
    def _see(self, pictures: Sequence[Image.Image], prompt: str | None, wanted: Wanted) -> Outputs:
        """One batch; outputs that the card lacks are never requested."""

    def _batches(self, pictures: Sequence[Image.Image]) -> Iterator[Sequence[Image.Image]]:
        return (
            pictures[start : start + self.batch_size] for start in range(0, len(pictures), self.batch_size)
        )

    def _refuse(self, wanted: Wanted, prompt: str | None) -> None:
        asked: list[Part] = [part for part in WORDS if getattr(wanted, part, False)]
        for part in asked or ["vectors"]:
            if (reason := self.card.lacks.get(part)) is not None:
                raise BenchmarkError(f"{self.name} has no {WORDS[part]}: {reason}")
        if prompt is None and self.card.needs_prompt:
            raise BenchmarkError(f"{self.name} needs a prompt: {self.card.needs_prompt}")
        if prompt is not None and not prompt.strip():
            raise BenchmarkError(f"{self.name}: the prompt is empty; name what to look at")


class FixedVectors(Baseline):
    """A baseline that embeds a picture once, without text; a prompt changes the vector afterwards."""

    @torch.inference_mode()
    def under(self, vectors: Floats, prompt: str) -> Floats:
        """See `method.FixedVectors`."""
        found: Floats = self._under(torch.from_numpy(vectors).to(self.device), prompt).float().cpu().numpy()
        return found

    @abstractmethod
    def _embed(self, pictures: Sequence[Image.Image]) -> Tensor:
        """(B, D) of one batch."""

    @abstractmethod
    def _under(self, vectors: Tensor, prompt: str) -> Tensor:
        """(B, D) as `_embed` gives them -> (B, D) under the prompt."""

    def _see(self, pictures: Sequence[Image.Image], prompt: str | None, wanted: Wanted) -> Outputs:
        vectors = self._embed(pictures)
        return Outputs(vectors=vectors if prompt is None else self._under(vectors, prompt))


def identity_of(name: str, settings: Mapping[str, Any]) -> str:
    """The name, and 16 digits of a hash of it and all that determines the output."""
    identity = json.dumps([name, settings], sort_keys=True)
    return f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def _joined(parts: Sequence[Tensor | None], pictures: int) -> Floats:
    tensors = [part for part in parts if part is not None]
    if not tensors:
        return np.zeros((pictures, 0), np.float32)
    return torch.cat([tensor.float().cpu() for tensor in tensors]).numpy()


def on_grid(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, N, ...) values of patches, row by row -> (B, Hp, Wp, ...)."""
    return values.reshape(len(values), *grid, *values.shape[2:])


def chosen_device(device: str | torch.device) -> torch.device:
    """ "auto" is the GPU if there is one."""
    if str(device) == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


__all__ = ["DTYPE", "RESOLUTION", "Baseline", "FixedVectors", "Outputs", "Wanted", "chosen_device", "on_grid"]
