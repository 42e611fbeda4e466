"""The optimisers of the parts that steer, in the groups that differ, and the learning rate's schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from steersearch.training.muon import Muon
from steersearch.training.recipe import OptimiserSettings


def build_optimisers(
    named: Iterable[tuple[str, nn.Parameter]], settings: OptimiserSettings
) -> list[torch.optim.Optimizer]:
    """AdamW, and with settings.matrix_lr Muon for the matrices of connector and cross-attention.

    Each group has its "factor" on the learning rate; `set_learning_rate` uses it. Matrices are decayed; gates, biases
    and norms only if settings.decay_vectors, which is what the released code does. A gate decayed towards zero would
    undo what it learned.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    matrices: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        decay = settings.decay_connector if name.startswith("connector.") else settings.decay_rest
        if settings.matrix_lr and parameter.ndim == 2 and min(parameter.shape) > 1:
            factor = settings.aligned_lr if is_aligned(name) else 1.0
            matrices.setdefault((decay, factor), []).append(parameter)
            continue
        if parameter.ndim <= 1 and not settings.decay_vectors:
            decay = 0.0
        factor = settings.gate_lr if name.endswith("gate") else 1.0
        groups.setdefault((decay, factor), []).append(parameter)
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            [
                {"params": parameters, "weight_decay": decay, "factor": factor}
                for (decay, factor), parameters in groups.items()
            ],
            lr=settings.lr,
        )
    ]
    if matrices:
        ratio = settings.matrix_lr / settings.lr
        optimisers.append(
            Muon(
                [
                    {"params": parameters, "weight_decay": decay, "factor": ratio * factor}
                    for (decay, factor), parameters in matrices.items()
                ],
                lr=settings.matrix_lr,
            )
        )
    return optimisers


def is_aligned(name: str) -> bool:
    """Whether an alignment of words and patches trains this parameter, or a part of it."""
    return name.startswith("connector.") or ".to_q." in name or ".to_kv." in name


def learning_rate(step: int, settings: OptimiserSettings) -> float:
    """Of step `step` (from 0): linear warm-up to lr, cosine to final_lr at decay_steps, then constant (facts B4)."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    if step >= settings.decay_steps:
        return settings.final_lr
    progress = (step - settings.warmup) / (settings.decay_steps - settings.warmup)
    return settings.final_lr + (settings.lr - settings.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimisers: Iterable[torch.optim.Optimizer], rate: float) -> None:
    """Give every group its part of `rate`."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate * group["factor"]
