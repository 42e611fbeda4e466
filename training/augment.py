"""Augmentation of a training picture and its mask, as in the released code (facts B2), in its order.

Views are always the whole square that the backbone sees: preprocessing that crops (MAE's and SigLIP's, to 90 %) would
show another part of the picture than the mask.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from steersearch.core.preprocess import Preprocess
from steersearch.training.data.mask_codec import Mask

Augment: TypeAlias = Literal["release", "light", "none"]
Floats: TypeAlias = npt.NDArray[np.float32]

LEAST_PIXELS = 16  # of a mask that must survive cropping and warping
CROP_TRIES, BOX_TRIES = 10, 10
NARROWEST, WIDEST = 0.85, 1.18  # width to height of a crop

_DIRECTIONS = re.compile(
    r"\b(left|right|leftmost|rightmost|clockwise|counterclockwise|east|west"
    r"|above|below|upper|lower|top|bottom)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class View:
    """A training example. image: RGB, S × S;  mask: (S, S) bool."""

    image: Image.Image
    mask: Mask


def has_direction(expression: str) -> bool:
    """Whether an expression names a direction or place, which mirroring could make wrong."""
    return _DIRECTIONS.search(expression) is not None


def augment(
    image: Image.Image,
    mask: Mask,
    expression: str,
    size: int,
    kind: Augment,
    rng: np.random.Generator,
) -> View:
    """A random view of `size` × `size` pixels.

    image: RGB, of the mask's size or squashed to another.  mask: (H, W) bool, all False if `expression` fits nothing in
    the picture.  kind: "release" crops, mirrors, warps and changes colours; "light" mirrors and changes tones a little;
    "none" only squashes.
    A mask with at least LEAST_PIXELS after a plain squash is never lost.
    """
    if kind == "none":
        return squash(image, mask, size)
    view = random_crop(image, mask, size, rng) if kind == "release" else squash(image, mask, size)
    if rng.random() < 0.5 and not has_direction(expression):
        view = mirror(view)
    if kind == "light":
        return View(change_colours(view.image, rng, tone=0.1, hue=0.0), view.mask)
    if rng.random() < 0.3:
        view = warp(view, rng)
    if rng.random() < 0.7:
        view = View(change_colours(view.image, rng, tone=0.25, hue=0.1), view.mask)
    return view


def squash(image: Image.Image, mask: Mask, size: int) -> View:
    """The whole picture, both sides scaled to `size`, as in validation."""
    return _part(image, mask, (0, 0, mask.shape[1], mask.shape[0]), size)


def random_crop(image: Image.Image, mask: Mask, size: int, rng: np.random.Generator) -> View:
    """A random crop from `crop_box`, scaled to the square.

    Tries up to CROP_TRIES times to keep LEAST_PIXELS of the mask after scaling, then falls back to the squash.
    """
    empty = not mask.any()
    for _ in range(CROP_TRIES):
        left, top, right, bottom = box = crop_box((mask.shape[1], mask.shape[0]), rng)
        if empty or np.count_nonzero(mask[top:bottom, left:right]) >= LEAST_PIXELS:
            view = _part(image, mask, box, size)
            if empty or view.mask.any():
                return view
    return squash(image, mask, size)


def crop_box(size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, top, right, bottom: 0.65-1 of the area of `size` (width, height), aspect ratio 0.85-1.18 (log-uniform).

    If BOX_TRIES do not fit, as happens for wide pictures, the largest central box within these ratios.
    """
    width, height = size
    for _ in range(BOX_TRIES):
        area = rng.uniform(0.65, 1.0) * height * width
        ratio = math.exp(rng.uniform(math.log(NARROWEST), math.log(WIDEST)))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            top, left = int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1))
            return left, top, left + wide, top + high
    wide, high = min(width, round(height * WIDEST)), min(height, round(width / NARROWEST))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high


def mirror(view: View) -> View:
    """Swap left and right."""
    return View(ImageOps.mirror(view.image), np.ascontiguousarray(view.mask[:, ::-1]))


def warp(view: View, rng: np.random.Generator) -> View:
    """Rotate by up to 8°, shift by up to 6 %, scale by 0.9-1.1, shear by up to 3° both ways; fill with black.

    Returns `view` itself if fewer than LEAST_PIXELS of the mask would remain, or it is empty.
    """
    furthest = int(0.06 * view.image.width)
    drawn = {
        "angle": rng.uniform(-8, 8),
        "translate": rng.integers(-furthest, furthest + 1, size=2).tolist(),
        "scale": rng.uniform(0.9, 1.1),
        "shear": rng.uniform(-3, 3, size=2).tolist(),
    }
    mask = np.asarray(tv.affine(_drawn(view.mask), interpolation=InterpolationMode.NEAREST, **drawn)) > 0
    if np.count_nonzero(mask) < LEAST_PIXELS:
        return view
    return View(tv.affine(view.image, interpolation=InterpolationMode.BICUBIC, **drawn), mask)


def change_colours(image: Image.Image, rng: np.random.Generator, *, tone: float, hue: float) -> Image.Image:
    """Change brightness, contrast and saturation by 1 ± `tone` and hue by ± `hue` of the circle, in random order."""
    factors = rng.uniform(1 - tone, 1 + tone, size=3).tolist()
    turn = float(rng.uniform(-hue, hue))
    for step in rng.permutation(4).tolist():
        if step < 3:
            change = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)[step]
            image = change(image, factors[step])
        elif hue:
            image = tv.adjust_hue(image, turn)
    return image


def cut_out(
    image: Image.Image, mask: Mask, expression: str, size: int, rng: np.random.Generator
) -> tuple[Image.Image, Floats]:
    """The masked object alone, enlarged on plain grey, and its share of each pixel, (S, S) float32 in 0..1.

    For object-alone distillation: 50-75 % of the side, grey 100-160, near the middle, mirrored with probability 0.5.
    An empty mask gives plain grey with a share of 1. image, mask: as for `augment`
    """
    grey = int(rng.integers(100, 160))
    canvas = Image.new("RGB", (size, size), (grey, grey, grey))
    if not mask.any():
        return canvas, np.ones((size, size), np.float32)
    left, top, right, bottom = mask_box(mask)
    scale = rng.uniform(0.5, 0.75) * size / max(right - left, bottom - top)
    shape = max(2, round((right - left) * scale)), max(2, round((bottom - top) * scale))
    box = _scaled_box((left, top, right, bottom), mask, image)
    thing = image.resize(shape, Image.Resampling.BICUBIC, box)
    stencil = _drawn(mask[top:bottom, left:right]).resize(shape, Image.Resampling.BILINEAR)
    if rng.random() < 0.5 and not has_direction(expression):
        thing, stencil = ImageOps.mirror(thing), ImageOps.mirror(stencil)
    across, down = (int((size - side) / 2 + rng.uniform(-0.08, 0.08) * size) for side in shape)
    canvas.paste(thing, (across, down), stencil)
    share = Image.new("L", (size, size))
    share.paste(stencil, (across, down))
    return canvas, np.asarray(share, np.float32) / np.float32(255)


def to_pixels(image: Image.Image, preprocess: Preprocess) -> Floats:
    """An S × S picture -> (3, S, S) float32, normalised for the backbone; ignores `crop_pct`."""
    return preprocess.with_view("squash")(image)


def patch_cover(share: npt.NDArray[np.bool_] | Floats, patch: int) -> Floats:
    """(S, S) -> (N,) float32: the mean of each patch of `patch` × `patch` pixels, row by row."""
    grid = share.shape[0] // patch
    pooled: Floats = share.reshape(grid, patch, grid, patch).mean(axis=(1, 3), dtype=np.float32)
    return pooled.reshape(-1)


def mask_box(mask: Mask) -> tuple[int, int, int, int]:
    """left, top, right, bottom in pixels, the last two exclusive; the mask must not be empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _part(image: Image.Image, mask: Mask, box: tuple[int, int, int, int], size: int) -> View:
    """The content of `box` (left, top, right, bottom, in the mask's pixels), scaled to the square."""
    left, top, right, bottom = box
    if image.size == mask.shape[::-1]:
        picture = image.crop(box).resize((size, size), Image.Resampling.BICUBIC)
    else:
        picture = image.resize((size, size), Image.Resampling.BICUBIC, _scaled_box(box, mask, image))
    small = _drawn(mask[top:bottom, left:right]).resize((size, size), Image.Resampling.NEAREST)
    return View(picture, np.asarray(small) > 0)


def _scaled_box(
    box: tuple[int, int, int, int], mask: Mask, image: Image.Image
) -> tuple[float, float, float, float]:
    """Convert a box from the mask's pixels to the image's."""
    x, y = image.width / mask.shape[1], image.height / mask.shape[0]
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y


def _drawn(mask: Mask) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8) * 255)
