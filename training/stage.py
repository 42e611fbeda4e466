"""A stage of a run: what a `Trainer` trains, and the loss that it minimises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steersearch.training.recipe import OptimiserSettings


@dataclass(frozen=True)
class Term:
    """Part of a loss. total: () sum over `count` () samples of this process;  weight: of their mean in the loss."""

    total: Tensor
    count: Tensor
    weight: float


Terms = dict[str, Term]


def weighted(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Terms:
    """Terms from losses () that are already means."""
    return {
        name: Term(loss, torch.ones((), device=loss.device), weights[name]) for name, loss in losses.items()
    }


class Stage(ABC):
    """Pretraining of a backbone, alignment of words and patches, and steering are its subclasses.

    name: shown in progress lines.  rates: the settings to lower if training diverges
    optimiser: steps, batch, learning rates and weight decay
    modules: their parameters that require gradients are trained; checkpoints keep these and all buffers
    settings: everything that decides the result, as nested plain data; a checkpoint made with others is not resumed
    free: names of settings that may still change
    """

    name: str
    rates: str
    optimiser: OptimiserSettings
    modules: Mapping[str, nn.Module]
    settings: Mapping[str, Any]
    free: Collection[str] = ()

    @abstractmethod
    def losses(self, start: int, stop: int) -> Iterator[Terms]:
        """The terms of each step, start..stop-1, with their graph."""

    @cached_property
    def trained(self) -> dict[str, nn.Parameter]:
        """The trained parameters, by names such as "head.weight"."""
        return {
            f"{part}.{name}": parameter
            for part, module in self.modules.items()
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }

    @cached_property
    def buffers(self) -> dict[str, Tensor]:
        return {
            f"{part}.{name}": buffer
            for part, module in self.modules.items()
            for name, buffer in module.named_buffers()
        }

    def is_matrix(self, name: str) -> bool:
        """Whether Muon takes this parameter, if it is a matrix and the settings ask for Muon."""
        return True

    def validate(self) -> dict[str, float]:
        """Validation metrics over all processes; empty for a stage that has none. "pmass" ranks them."""
        return {}

    def keep_best(self, folder: Path) -> None:  # noqa: B027  (a stage may leave it out)
        """Called with the run's folder after a validation with the best pmass so far."""

    def readings(self) -> dict[str, float]:
        """Values for the journal, beside the losses."""
        return {}

    def completed(self, saved: Mapping[str, Any]) -> Mapping[str, Any]:
        """A checkpoint's settings, with defaults for newer ones. Raises ConfigError, UnknownSettingError."""
        return saved

    def tensors(self) -> dict[str, Tensor]:
        """State that a checkpoint needs beside modules and optimisers."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:  # noqa: B027  (the same)
        """Restore what `tensors` returned. Raises KeyError if some is missing."""
