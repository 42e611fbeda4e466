"""Presence: how surely the prompt's object is in the photo at all, from one forward pass under that prompt."""

from __future__ import annotations

import math

from torch import Tensor

from steersearch.core.steervit import Features, widened

_LEVEL = 0.5  # how much of the mean logit counts for nothing


def presence(found: Features) -> Tensor:
    """One number per image (B,) float32, in nats, higher is surer; comparable between images under one prompt only.

    log(mean of exp(logits)) - 1/2 mean of logits: high where some patches have a high logit, above all where the
    others have not. The heatmap alone does not say it: a photo without the object has one as well, and often as
    concentrated. The objective of the heatmap is blind to a constant added to all logits of a photo, so nothing makes
    their level mean anything. In the mini, which is also trained on prompts for what is absent, it means much; whether
    it does in the released models is not known. So half of it is taken out: on 36 photographs that
    leaves a mini .61 of mean average precision, none taken out .64, all of it .21 (benchmarks/LOG.md).
    """
    logits = widened(found.logits)
    peak = logits.logsumexp(dim=1) - math.log(logits.shape[1])
    return (peak - _LEVEL * logits.mean(dim=1)).float()
