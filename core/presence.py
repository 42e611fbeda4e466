"""Presence: how surely the prompt's object is in the photo at all, from one forward pass under that prompt."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from steersearch.core.steervit import Features

_LEVEL = 0.5  # how much of the mean logit counts for nothing


def presence(found: Features) -> Tensor:
    """One number per image (B,) float32, in nats, higher is surer; comparable between images under one prompt only.

    log(mean of exp(logits)) - 1/2 mean of logits: high where some patches have a high logit, above all where the
    others have not. The heatmap alone does not say it: a photo without the object has one as well, and often as
    concentrated. Every objective here and in the paper is blind to a constant added to all logits of a photo, so what
    their level says is a gift: of all models measured it says much (benchmarks/find.py), of the released ones it is
    not known. That is why half of it is taken out, which costs nothing where it helps.
    """
    logits = found.logits.to(torch.promote_types(found.logits.dtype, torch.float32))
    peak = logits.logsumexp(dim=1) - math.log(logits.shape[1])
    return (peak - _LEVEL * logits.mean(dim=1)).float()
