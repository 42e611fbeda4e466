"""What a model says of a batch of photos, as arrays: readable without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Embedded:
    """One batch under one prompt.

    embeddings: (B, dim) float32, unit length.
    heatmaps:   (B, Hp, Wp) float32 on the patch grid, each sums to 1.
    presence:   (B,) float32, higher where the prompt's object is more surely in the photo; any range, comparable
                between photos under one prompt.
    """

    embeddings: Floats
    heatmaps: Floats
    presence: Floats


@dataclass(frozen=True)
class Unsteered:
    """The backbone's features of one batch, which no prompt steers.

    embeddings: (B, dim) float32, unit length: the whole photo, as CLS sees it, or the mean patch of a trunk without
        CLS. Never `focus`: without a prompt the heatmap that would weigh the patches means nothing.
    patches:    (B, Hp, Wp, dim) float32, the patch tokens.
    """

    embeddings: Floats
    patches: Floats
