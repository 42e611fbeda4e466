"""One reader of mask PNGs, for training and benchmarks: tools write the same mask in a dozen ways.

What counts is what a viewer shows: a palette's numbers are resolved to its colours, and colours to how bright they are.

- The ground is the darker of two levels. Of more, it is black: a pixel is in the mask if it is brighter than half of
  the brightest, which is where a smoothed edge is cut.
- Numbers instead of shades (all below 32, or a few levels that are regions of their own): all but the darkest level is
  in it. VOC's void around things is not: its colour, or a border of 255 around such numbers.
- What is transparent is not in it. Of the rest all is, as in a cut-out; if that is black and white, or nothing is
  transparent, the rules above decide.

So 0 and 1, 0 and 255, 0 and 65535, one bit, and a cut-out on transparent white say the same. An inverted mask cannot
be told from one of a large thing: `train check` names masks that cover nearly all of their picture.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from steersearch.core.errors import ImageError
from steersearch.core.images.pillow import opened
from steersearch.training.data.mask_codec import MOST_PIXELS, Mask, MaskError

Values = npt.NDArray[np.integer]  # (H, W): how bright pixels are

# Values below the first are numbers of classes or things; up to the second, beside brighter ones, black.
_NUMBERS, _BLACK = (32, 8)
_FEW = 9  # levels, at most, of a mask whose levels are regions
_EDGE, _BORDER = 2, 4  # pixels: at most from a thing to the shades of its edge; half of a border's width
_VOID, _VOID_COLOUR = 255, (224, 224, 192)  # of VOC: neither thing nor ground


def read_mask_file(source: Path | bytes) -> Mask:
    """A PNG, or the content of one -> (H, W) bool, True for what it marks. Raises MaskError."""
    try:
        with opened(BytesIO(source) if isinstance(source, bytes) else source, ["PNG"]) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ImageError(None, f"{image.width} × {image.height} pixels, at most {MOST_PIXELS:,}")
            image.load()
            values, counted, opaque = _brightness(image), ~_void(image), _opaque(image)
    except ImageError as error:
        if error.reason == "no such file":
            raise MaskError(f"its mask {source!s} was not found") from None
        raise MaskError(f"its mask is not a PNG that can be read ({error.reason})") from error
    if opaque is None or opaque.all():
        return _marked(values, counted)
    if _is_black_and_white(values[opaque]):
        return _marked(values, counted & opaque)
    return opaque


def _brightness(image: Image.Image) -> Values:
    """(H, W) uint8, or uint16 of a 16-bit grey; transparency is ignored."""
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.uint16)
    if image.mode not in ("P", "PA"):
        return np.asarray(image.convert("L"))
    shown = np.asarray(image.convert("RGB").convert("L"))
    return np.asarray(image.getchannel("P")) if (shown == shown[0, 0]).all() else shown


def _void(image: Image.Image) -> Mask:
    """(H, W) bool: pixels in VOC's void colour."""
    if image.mode not in ("P", "RGB"):
        return np.zeros(image.size[::-1], np.bool_)
    void: Mask = (np.asarray(image.convert("RGB")) == _VOID_COLOUR).all(axis=2)
    return void


def _opaque(image: Image.Image) -> Mask | None:
    """(H, W) bool: pixels above half of the greatest opacity; None for a file without transparency."""
    if not image.has_transparency_data:
        return None
    if image.mode.startswith("I"):
        opaque: Mask = np.asarray(image) != image.info["transparency"]
    else:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        opaque = alpha > alpha.max() / 2
    return opaque


def _is_black_and_white(values: Values) -> bool:
    """Whether the values are black and white with few between: a mask, not a cut-out photograph or a silhouette."""
    white = 255 if values.dtype == np.uint8 else 65535
    dark, bright = values < white / 8, values > white * 7 / 8
    between = np.count_nonzero(~dark & ~bright)
    return bool(dark.any() and bright.any() and between <= len(values) / 10)


def _marked(values: Values, counted: Mask) -> Mask:
    """The mask that the values give, among the pixels `counted`."""
    levels = _levels(values[counted])
    if len(levels) < 2:
        return counted & (values > 0)
    darkest, brightest = levels[0], levels[-1]
    if len(levels) == 2 or brightest < _NUMBERS:
        return counted & (values > darkest)
    if len(levels) <= _FEW:
        numbered: Mask = counted & (values > darkest) & (values != _VOID)
        if brightest == _VOID and levels[-2] < _NUMBERS and _is_border(counted & (values == _VOID), numbered):
            return numbered
        black = max(darkest, _BLACK)
        if _are_regions(values, counted, black, brightest):
            return counted & (values > black)
    return counted & (values > brightest / 2)


def _levels(values: Values) -> list[int]:
    """The distinct values, ascending."""
    seen = np.zeros(65536, np.bool_)
    for start in range(0, len(values), 1 << 20):
        seen[values[start : start + (1 << 20)]] = True
    found: list[int] = np.flatnonzero(seen).tolist()
    return found


def _are_regions(values: Values, counted: Mask, black: int, brightest: int) -> bool:
    """Whether dark levels above the ground occur away from bright pixels, and so are regions, not smoothed edges."""
    low = counted & (values > black) & (values <= brightest / 2)
    if not low.any():
        return False
    bright = Image.fromarray((counted & (values > brightest / 2)).astype(np.uint8))
    near = np.asarray(bright.filter(ImageFilter.MaxFilter(2 * _EDGE + 1))) > 0
    return bool((low & ~near).any())


def _is_border(void: Mask, numbered: Mask) -> bool:
    """Whether the void pixels are thin, and few beside the region that they would border."""
    core = Image.fromarray(void.astype(np.uint8)).filter(ImageFilter.MinFilter(2 * _BORDER + 1))
    return core.getbbox() is None and bool(np.count_nonzero(void) <= 2 * np.count_nonzero(numbered))
