"""Heatmaps as pictures that the page lays over grey photos."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from steersearch.core.heatmaps import layer, strengths
from steersearch.core.vectors import Floats, VectorSettings
from steersearch.indexer.manifest import PromptIndex, UnsteeredIndex

SIDE = 160  # pixels, longer side: heatmaps are smooth, the browser enlarges them


def heat_layer(
    heatmap: Floats, vmax: float | None, index: PromptIndex | UnsteeredIndex, size: tuple[int, int]
) -> bytes:
    """PNG with transparency, in the shape of a photo of `size`, to be laid over it.

    heatmap: (Hp, Wp).  vmax: the top of the colour range, from `shared_vmax`; None: that of this heatmap.
    """
    region = VectorSettings.from_dict(index.preprocessing).preprocess.region(size)
    scale = SIDE / max(size)
    width, height = (max(1, round(scale * side)) for side in size)
    within = tuple(
        part * whole / side for part, whole, side in zip(region, (width, height) * 2, size * 2, strict=True)
    )
    made = layer(strengths(heatmap, vmax), (width, height), within)  # type: ignore[arg-type]
    encoded = io.BytesIO()
    made.save(encoded, "png")
    return encoded.getvalue()


def legend() -> bytes:
    """PNG: the colour scale over mid grey, from an even spread to the strongest."""
    ramp = Image.new("RGB", (128, 4), (150, 150, 150))
    over = layer(np.linspace(0, 1, 128, dtype=np.float32)[None], ramp.size)
    ramp.paste(over, (0, 0), over)
    encoded = io.BytesIO()
    ramp.save(encoded, "png")
    return encoded.getvalue()
