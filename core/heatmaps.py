"""Heatmaps on pictures: bring to size, scale to a shared range, lay over; masks as outlines. Pillow and NumPy only.

A heatmap is (h, w) float32 on the patch grid; the model's own sum to 1 over one picture, so its values depend
on the number of patches, and several pictures are only comparable under one `vmax`. Attention maps are the
same, but for a sum below 1. A value is best read as a multiple of an even spread, see `times_even`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageFilter, ImageOps

Array = npt.NDArray[np.float32]
STRONGEST_OPACITY = 0.7  # of the colour where the heatmap is at `vmax`; 0 shows the picture alone

# The least range of colours, in times an even spread: what lies evenly on an eighth of a picture and nowhere
# else has just the full colour. A flat map is at 1, an eighth of the range, and hardly tints its picture.
LEAST_RANGE = 8.0
OUTLINE = (255, 255, 255), (20, 17, 15)  # colours of a mask's edge and of the line around it
_INSIDE_WHITE, _OUTSIDE_WHITE = 0.15, 0.7  # how far the photo fades where the model saw it, and elsewhere

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


def times_even(heatmap: npt.ArrayLike) -> Array:
    """`heatmap` in multiples of an even spread of 1 over its cells: 1 is what each has in a flat one."""
    values = _as_map(heatmap)
    return values * values.size


def shared_vmax(heatmaps: Iterable[npt.ArrayLike]) -> float:
    """One value to scale all of `heatmaps` by, so that equal colours mean equal values; 0 if there are none.

    The largest value in any of them, but no less than LEAST_RANGE times an even spread: where all are flat,
    none may look as if anything had been found.
    """
    maps = [_as_map(heatmap) for heatmap in heatmaps]
    return max((max(float(values.max()), LEAST_RANGE / values.size) for values in maps), default=0.0)


def colour(values: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Values in [0, 1] of any shape (...) -> RGB (..., 3) uint8, from dark violet to pale yellow."""
    positions = np.clip(np.asarray(values, dtype=np.float32), 0.0, 1.0) * (len(_COLOURS) - 1)
    stops = np.arange(len(_COLOURS))
    channels = [np.interp(positions, stops, _COLOURS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def strengths(heatmap: npt.ArrayLike, vmax: float | None = None) -> Array:
    """`heatmap` as [0, 1] to be shown: 0 up to an even spread, then the same step for each doubling up to `vmax`.

    So a flat map shows nothing, however it is scaled, and an object that fills a quarter of the picture (4 times
    an even spread) still shows beside one that fills a hundredth. vmax: from `shared_vmax`, or None: that of this
    heatmap alone; below LEAST_RANGE times an even spread it counts as that.
    """
    vmax = shared_vmax([heatmap]) if vmax is None else vmax
    values = times_even(heatmap)
    most = np.log2(max(vmax * values.size, LEAST_RANGE))
    shown: Array = np.clip(np.log2(np.maximum(values, 1)) / most, 0, 1).astype(np.float32)
    return shown


def overlay(
    image: Image.Image,
    values: npt.ArrayLike,
    region: tuple[float, float, float, float] | None = None,
) -> Image.Image:
    """`image` in grey under the `layer` of `values`; RGB, same size."""
    shown = ImageOps.grayscale(image.convert("RGB")).convert("RGB")
    over = layer(values, image.size, region)
    shown.paste(over, (0, 0), over)
    return shown


def layer(
    values: npt.ArrayLike, size: tuple[int, int], region: tuple[float, float, float, float] | None = None
) -> Image.Image:
    """What is laid over a photo of `size` (width, height) in grey, so that all colour is the map's; RGBA.

    The higher the value, the more opaque; where it is 0 the photo is only a little lighter.
    values: (h, w) in [0, 1], from `strengths`.
    region: (left, top, right, bottom) in pixels that they cover, from `Preprocess.region`: the model may have
    seen a central crop only, and what lies outside is pale. None: the whole photo.
    """
    box = _whole_pixels(region or (0, 0, *size), size)
    shades = np.clip(upsample(values, (box[3] - box[1], box[2] - box[0])), 0, 1)
    levels = Image.fromarray((255 * shades).round().astype(np.uint8))
    colours, opacities = _mixed_with_white()
    seen = levels.copy()
    seen.putpalette(colours)
    seen = seen.convert("RGB")
    seen.putalpha(levels.point(opacities))
    whole = Image.new("RGBA", size, (255, 255, 255, round(255 * _OUTSIDE_WHITE)))
    whole.paste(seen, box)
    return whole


def _mixed_with_white() -> tuple[bytes, list[int]]:
    """A palette and opacities for 256 values from 0 to 1: of the colours and of the white below them."""
    steps = np.linspace(0, 1, 256)[:, None]
    own = STRONGEST_OPACITY * steps
    opacity = own + (1 - own) * _INSIDE_WHITE
    mixed = (own * colour(steps[:, 0]) + (1 - own) * _INSIDE_WHITE * 255) / opacity
    return mixed.round().astype(np.uint8).tobytes(), (255 * opacity[:, 0]).round().astype(int).tolist()


def outlined(image: Image.Image, mask: npt.ArrayLike) -> Image.Image:
    """`image` with the edge of `mask`, a light line within a dark one, so that it shows on anything; RGB, same size.

    mask: (h, w) bool, of whatever size; it is brought to the image's.
    """
    whole = Image.fromarray(np.asarray(mask, np.bool_).astype(np.uint8) * 255)
    cover = whole.resize(image.size, Image.Resampling.NEAREST)
    shown = image.convert("RGB")
    inner = ImageChops.subtract(cover, cover.filter(ImageFilter.MinFilter(5)))
    outer = ImageChops.subtract(cover.filter(ImageFilter.MaxFilter(3)), cover)
    for edge, line in zip((inner, outer), OUTLINE, strict=True):
        shown.paste(line, (0, 0), edge)
    return shown


def _whole_pixels(
    region: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """The pixels of a picture of `size` (width, height) that `region` covers, at least one each way."""
    left, right = _span(region[0], region[2], size[0])
    top, bottom = _span(region[1], region[3], size[1])
    return left, top, right, bottom


def _span(start: float, end: float, length: int) -> tuple[int, int]:
    """`start` to `end` within [0, length], rounded; in a very narrow picture both may round to one number."""
    first = min(max(0, round(start)), length - 1)
    return first, max(first + 1, min(length, round(end)))


def _as_map(heatmap: npt.ArrayLike) -> Array:
    values = np.asarray(heatmap, dtype=np.float32)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"a heatmap is a non-empty (h, w) array, not of shape {values.shape}")
    return values
