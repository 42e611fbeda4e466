"""Whether two pictures are one, saved anew: in another size, format or quality, turned, or cut a little.

Two pages, two codes or two nights are alike as a whole, to an embedding as to a perceptual hash: they differ in places.
So one picture is laid over the other, and what counts is the place in which they differ most.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image

from steersearch.core.vectors import Floats

Offsets = npt.NDArray[np.float64]  # (4,): stretch and shift along x, the same along y, as parts of the side

_SIGNATURE = 16  # pixels, each side
_UNLIKE = 0.5  # difference of signatures from which no closer look is taken
_MOST_OFFSET = 0.15
_LEVELS, _STEPS = (24, 48, 96), 8  # of laying over: longer side in pixels, and steps at each
_BLOCKS = 16  # in which brightness is compared, along the longer side; for colours half as many
_COARSER = 8  # times, the pixels in which colours are compared: JPEG blurs them
# Variance that is never counted: of 6 levels of 255, and where there are hard edges what JPEG makes beside them.
_NOISE, _RINGING = 36.0, 0.02  # the second of the variance of the whole picture
_TURNS = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)


@dataclass(frozen=True)
class Shown:
    """A picture to compare, upright."""

    image: Image.Image

    @cached_property
    def grey(self) -> Image.Image:
        """At the size at which one is laid over another."""
        return self.image.convert("L").resize(_scaled(self.image.size, _LEVELS[-1]), Image.Resampling.BOX)

    @cached_property
    def signature(self) -> Floats:
        """(16, 16): the picture in grey at its coarsest."""
        return _values(self.grey, (_SIGNATURE, _SIGNATURE))


def are_alike(signature: Floats, others: Floats) -> npt.NDArray[np.bool_]:
    """(n,): which of the pictures with these signatures (n, 16, 16) may show the same, turned or not, as one."""
    turned = (np.rot90(signature, quarters) for quarters in range(4))
    found: npt.NDArray[np.bool_] = np.any(
        [_difference(others, each[None]) < _UNLIKE for each in turned], axis=0
    )
    return found


def is_same(one: Shown, other: Shown, side: int, limit: float) -> bool:
    """Whether the pictures, one of them turned or not, differ nowhere by more than `limit`, see `differences`.

    side: how large the longer side is when they are compared, in pixels, unless the smaller picture has less.
    """
    turned = np.stack([np.rot90(other.signature, quarters) for quarters in range(4)])
    unlike = _difference(turned, one.signature[None])
    if unlike.min() >= _UNLIKE:
        return False
    turn = _TURNS[int(unlike.argmin())]
    other = other if turn is None else Shown(other.image.transpose(turn))
    if differences(one, other, np.zeros(4), side).max() <= limit:
        return True
    return bool(differences(one, other, lay_over(one.grey, other.grey), side).max() <= limit)


def differences(one: Shown, other: Shown, offsets: Offsets, side: int) -> Floats:
    """Block by block, in brightness and in colours: mean squared difference / (variance of one + of other + noise).

    About 0 for the same picture, 1 for unlike ones; what only one of them shows is left out.
    """
    side = min(side, max(one.image.size), max(other.image.size))
    found = []
    for channel in ("Y", "Cb", "Cr"):
        length = side if channel == "Y" else max(side // _COARSER, _BLOCKS)
        size, block = (
            _scaled(one.image.size, length),
            max(2, length // (_BLOCKS if channel == "Y" else _BLOCKS // 2)),
        )
        values = _values(one.image.convert("YCbCr").getchannel(channel), size)
        laid = _values(other.image.convert("YCbCr").getchannel(channel), _scaled(other.image.size, length))
        laid = _laid(laid, offsets, size)
        for top in (0, block // 2):
            for left in (0, block // 2):
                inside = (slice(top, None), slice(left, None))
                pair = _blocks(values[inside], block), _blocks(laid[inside], block)
                found.append(_difference(*pair, _NOISE + _RINGING * float(values.var())))
    each = np.concatenate(found)
    whole: Floats = each[np.isfinite(each)]
    return whole if len(whole) else np.ones(1, np.float32)


def lay_over(one: Image.Image, other: Image.Image) -> Offsets:
    """How far `other` has to be stretched and shifted to lie on `one` (both grey; least squares, from coarse to fine);
    0 where that were more than a little, or they are too unlike or too plain to say."""
    offsets = np.zeros(4)
    for side in _LEVELS:
        size = _scaled(one.size, side)
        target, picture = _values(one, size).ravel(), _values(other, _scaled(other.size, side))
        y, x = ((np.indices(size[::-1]) + 0.5) / np.array(size[::-1])[:, None, None]) - 0.5
        for _ in range(_STEPS):
            laid = _laid(picture, offsets, size)
            slope_y, slope_x = np.gradient(laid, 1 / size[1], 1 / size[0])
            known = [slope_x * x, slope_x, slope_y * y, slope_y, laid, np.ones_like(laid)]
            columns = np.stack(known, axis=-1).reshape(-1, 6)
            seen = np.isfinite(columns).all(axis=1)
            gram = columns[seen].T @ columns[seen] + 1e-3 * np.eye(6)
            *moves, contrast, _ = np.linalg.solve(gram, columns[seen].T @ target[seen])
            if contrast < 0.2:
                return np.zeros(4)
            step = np.clip(np.array(moves) / contrast, -0.03, 0.03)
            offsets += step
            if np.abs(offsets).max() > _MOST_OFFSET:
                return np.zeros(4)
            if np.abs(step).max() < 0.05 / side:
                break
    return offsets


def _laid(values: Floats, offsets: Offsets, size: tuple[int, int]) -> Floats:
    """(H, W) values, stretched and shifted, as (size[1], size[0]); NaN beyond their edges."""
    height, width = values.shape
    stretch_x, shift_x, stretch_y, shift_y = offsets
    map_x = ((1 + stretch_x) * width / size[0], 0.0, width * (shift_x - stretch_x / 2))
    map_y = (0.0, (1 + stretch_y) * height / size[1], height * (shift_y - stretch_y / 2))
    laid = Image.fromarray(values).transform(
        size, Image.Transform.AFFINE, (*map_x, *map_y), Image.Resampling.BILINEAR, fillcolor=float("nan")
    )
    return np.asarray(laid)


def _values(channel: Image.Image, size: tuple[int, int]) -> Floats:
    """One channel at this size, (H, W)."""
    smooth = Image.Resampling.BOX if size[0] < channel.width else Image.Resampling.BICUBIC
    return np.asarray(channel.resize(size, smooth), dtype=np.float32)


def _scaled(size: tuple[int, int], side: int) -> tuple[int, int]:
    """A size whose longer side is this."""
    width, height = (max(4, round(length * side / max(size))) for length in size)
    return width, height


def _blocks(values: Floats, length: int) -> Floats:
    """(n, length, length): squares side by side; what is left at the right and below is left out."""
    height, width = (side // length for side in values.shape)
    cut = values[: height * length, : width * length].reshape(height, length, width, length)
    return cut.swapaxes(1, 2).reshape(-1, length, length)


def _difference(one: Floats, other: Floats, noise: float = _NOISE) -> Floats:
    """(n,) of n blocks, see `differences`; NaN where one is not seen in full."""
    squared = ((one - other) ** 2).mean(axis=(1, 2))
    found: Floats = squared / (one.var(axis=(1, 2)) + other.var(axis=(1, 2)) + noise)
    return found
