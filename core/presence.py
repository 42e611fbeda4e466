"""Presence: how surely the prompt's object is in the photo at all, from one forward pass under that prompt."""

from __future__ import annotations

import torch
from torch import Tensor

from steersearch.core.steervit import Features


def presence(found: Features) -> Tensor:
    """One number per image (B,) float32, higher is surer; comparable between images under one prompt only.

    log(mean of exp(logits)) - mean of logits: 0 where the heatmap is flat, and the larger the farther some patches
    stand out. It is the divergence of an even spread from the heatmap in nats; a constant added to all logits, which
    the training objective cannot see, does not change it.
    """
    logits = found.logits.to(torch.promote_types(found.logits.dtype, torch.float32))
    evenly = torch.log(torch.tensor(float(logits.shape[1])))
    return logits.logsumexp(dim=1) - evenly - logits.mean(dim=1)
