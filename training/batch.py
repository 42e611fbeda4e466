"""The batches of a training step, whatever their source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from steersearch.core.text import PromptFeatures


@dataclass(frozen=True)
class Alone:
    """For object-alone distillation from a picture's own pixels: the object, cut out and enlarged on grey.

    pixels (B, 3, S, S) float32 normalised;  cover (B, N) share of each patch that the cutout covers
    names (B,) int64: equal numbers stand for equal expressions, which are not negatives of each other
    """

    pixels: Tensor
    cover: Tensor
    names: Tensor


@dataclass(frozen=True)
class Keyed:
    """The same from precomputed keys: one for each of K things, the last for nothing.

    things (B,) int64: the object, -1 if there are several, K if the prompt fits nothing in the picture
    excluded (B, K + 1) bool: further keys that the prompt fits
    """

    things: Tensor
    excluded: Tensor


@dataclass(frozen=True)
class Batch:
    """B pictures with an expression each, and its mask. On the CPU, except perhaps the pixels; `to` moves everything.

    pixels:  (B, 3, S, S) float32, normalised for the backbone; or the precomputed input (B, T, D) of the first
             steered block
    prompts: text tokens of the expressions, padded
    cover:   (B, N) float32 in 0..1, share of each patch that the mask covers; all zero if the expression fits nothing
    centre:  (B, 2) float32, x and y of the centre of the mask's box in patches (0..Wp, 0..Hp), nan without a mask
    source:  (B,) int64, number of the data set, for metrics of each
    alone:   for the object-alone distillation, if the objective has it
    texts:   the expressions themselves, for reports; optional
    counts_empty: whether rows whose cover is all zero count in means, with a loss of 0, as in the released code
    """

    pixels: Tensor
    prompts: PromptFeatures
    cover: Tensor
    centre: Tensor
    source: Tensor
    alone: Alone | Keyed | None = None
    texts: tuple[str, ...] = ()
    counts_empty: bool = False

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shown(self) -> Tensor:
        """(B,) bool: rows whose picture shows what the expression names."""
        return self.cover.sum(dim=1) > 0

    @property
    def counted(self) -> Tensor:
        """(B,) bool: rows that count in means of loss and metrics."""
        return torch.ones_like(self.shown) if self.counts_empty else self.shown

    def to(self, device: torch.device) -> Batch:
        """A copy on `device`; from pinned memory, so that a GPU copies while it computes."""
        if device.type == "cpu":
            return self

        def move(values: Tensor) -> Tensor:
            if values.device.type != "cpu":
                return values.to(device)
            return values.pin_memory().to(device, non_blocking=True)

        alone = self.alone
        if alone is not None:
            alone = type(alone)(**{name: move(values) for name, values in vars(alone).items()})
        prompts = PromptFeatures(move(self.prompts.tokens), move(self.prompts.mask))
        tensors = (move(values) for values in (self.pixels, self.cover, self.centre, self.source))
        pixels, cover, centre, source = tensors
        return replace(
            self, pixels=pixels, prompts=prompts, cover=cover, centre=centre, source=source, alone=alone
        )


class Feed(Protocol):
    """Batches as a function of the step: a run can resume anywhere with the same ones.

    Rank r of R gets rows r, r + R, r + 2R, ... of the step's batch, so R processes together see what one would.
    """

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the data sets, by the numbers in `Batch.source`."""
        ...

    def training(self, start: int, stop: int) -> Iterator[Batch]:
        """This rank's part of the batches of steps start..stop-1, shuffled and augmented."""
        ...

    def validation(self) -> Iterator[Batch]:
        """This rank's part of the validation rows, each row in exactly one rank's batches, not augmented."""
        ...
