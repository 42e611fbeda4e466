"""The optimisers with their parameter groups, and the learning rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from steersearch.training.muon import Muon
from steersearch.training.recipe import OptimiserSettings


def build_optimisers(
    named: Mapping[str, nn.Parameter],
    settings: OptimiserSettings,
    is_matrix: Callable[[str], bool] = lambda name: True,
) -> list[torch.optim.Optimizer]:
    """AdamW, and with settings.matrix_lr Muon for those matrices that `is_matrix` accepts by name.

    Each group has its "factor" on the learning rate, which `set_learning_rate` applies. Matrices are decayed; gates,
    biases and norms only if settings.decay_vectors, which is what the released code does. A gate decayed towards zero
    would undo what it learned.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    matrices: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        decay = settings.decay_connector if name.startswith("connector.") else settings.decay_rest
        is_wide = parameter.ndim == 2 and min(parameter.shape) > 1
        if settings.matrix_lr and is_wide and is_matrix(name):
            factor = settings.aligned_lr if is_aligned(name) else 1.0
            matrices.setdefault((decay, settings.matrix_lr / settings.lr * factor), []).append(parameter)
            continue
        if parameter.ndim <= 1 and not settings.decay_vectors:
            decay = 0.0
        factor = settings.gate_lr if name.endswith("gate") else 1.0
        groups.setdefault((decay, factor), []).append(parameter)
    optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(_groups(groups), lr=settings.lr)]
    if matrices:
        optimisers.append(Muon(_groups(matrices), lr=settings.matrix_lr))
    return optimisers


def _groups(parameters: Mapping[tuple[float, float], list[nn.Parameter]]) -> list[dict[str, Any]]:
    return [
        {"params": alike, "weight_decay": decay, "factor": factor}
        for (decay, factor), alike in parameters.items()
    ]


def is_aligned(name: str) -> bool:
    """Whether the alignment of words and patches trains this parameter, or part of it."""
    return name.startswith("connector.") or ".to_q." in name or ".to_kv." in name


def learning_rate(step: int, settings: OptimiserSettings) -> float:
    """Of step `step` (from 0): linear warm-up to lr, cosine to final_lr at decay_steps, then constant."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    if step >= settings.decay_steps:
        return settings.final_lr
    progress = (step - settings.warmup) / (settings.decay_steps - settings.warmup)
    return settings.final_lr + (settings.lr - settings.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimisers: Iterable[torch.optim.Optimizer], rate: float) -> None:
    """Set the rate of every group to `rate` times its factor."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate * group["factor"]
