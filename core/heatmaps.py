"""Heatmaps on pictures: bring to size, scale to a shared range, lay over. Pillow and NumPy only.

A heatmap is (h, w) float32 on the patch grid; the model's own sum to 1 over one picture, so its values depend
on the number of patches, and several pictures are only comparable under one `vmax`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[np.float32]
STRONGEST_OPACITY = 0.7  # of the colour where the heatmap is at `vmax`; 0 shows the picture alone

# Dark violet over magenta and orange to pale yellow: lightness rises evenly, so more always looks like more,
# in grey print and to colour-blind eyes too. RGB at equal distances over [0, 1].
_COLOURS = np.array(
    [
        (20, 11, 52),
        (80, 18, 123),
        (146, 38, 118),
        (205, 66, 90),
        (243, 112, 60),
        (253, 172, 66),
        (250, 240, 160),
    ],
    dtype=np.float32,
)


def upsample(heatmap: npt.ArrayLike, size: tuple[int, int]) -> Array:
    """`heatmap` (h, w) at `size` (H, W), bilinear between the centres of its cells; float32, same range."""
    height, width = size
    cells = Image.fromarray(_as_map(heatmap))
    return np.asarray(cells.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)


def shared_vmax(heatmaps: Iterable[npt.ArrayLike]) -> float:
    """The largest value in any of `heatmaps`: give it to each, so that equal colours mean equal values."""
    return max((float(_as_map(heatmap).max()) for heatmap in heatmaps), default=0.0)


def normalise(heatmap: npt.ArrayLike, vmax: float | None = None) -> Array:
    """`heatmap` scaled to [0, 1], where 1 is `vmax` (None: its own largest value); all 0 if that is 0."""
    values = _as_map(heatmap)
    top = float(values.max()) if vmax is None else vmax
    return np.clip(values / top, 0.0, 1.0) if top > 0 else np.zeros_like(values)


def colour(values: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Values in [0, 1] of any shape (...) -> RGB (..., 3) uint8, from dark violet to pale yellow."""
    positions = np.clip(np.asarray(values, dtype=np.float32), 0.0, 1.0) * (len(_COLOURS) - 1)
    stops = np.arange(len(_COLOURS))
    channels = [np.interp(positions, stops, _COLOURS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def overlay(
    image: Image.Image,
    heatmap: npt.ArrayLike,
    *,
    vmax: float | None = None,
    region: tuple[float, float, float, float] | None = None,
) -> Image.Image:
    """`image` with `heatmap` over it, the more opaque the higher the value; RGB, same size.

    vmax: the value shown strongest (None: this heatmap's largest).
    region: (left, top, right, bottom) in pixels that the heatmap covers, from `Preprocess.region`: the model
    may have seen a central crop only. None: the whole picture.
    """
    image = image.convert("RGB")
    left, top, right, bottom = region or (0, 0, image.width, image.height)
    box = (
        max(0, round(left)),
        max(0, round(top)),
        min(image.width, round(right)),
        min(image.height, round(bottom)),
    )
    values = normalise(upsample(heatmap, (box[3] - box[1], box[2] - box[0])), _peak(heatmap, vmax))
    under = np.asarray(image.crop(box), dtype=np.float32)
    opacity = STRONGEST_OPACITY * values[..., None]
    mixed = under * (1 - opacity) + colour(values).astype(np.float32) * opacity
    image.paste(Image.fromarray(mixed.round().astype(np.uint8)), box[:2])
    return image


def _peak(heatmap: npt.ArrayLike, vmax: float | None) -> float:
    return float(_as_map(heatmap).max()) if vmax is None else vmax


def _as_map(heatmap: npt.ArrayLike) -> Array:
    values = np.asarray(heatmap, dtype=np.float32)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"a heatmap is a non-empty (h, w) array, not of shape {values.shape}")
    return values
