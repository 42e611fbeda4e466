"""Masks as COCO writes them: run-length codes, plain and compressed, and polygons.

The result is pixel for pixel that of pycocotools (tests compare), in NumPy and with every number checked: its C
code trusts the counts and sizes that it is given, and annotation files are downloads.

A run-length code goes down the columns, first column first, and counts pixels outside and inside by turns,
outside first. Compressed, each count is written in groups of 5 bits, the lowest first, from the fourth on as the
difference to the count before the last; 32 marks a group that is followed by another, the highest bit of the
last group is the sign, and 48 makes it a printable character.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Mask: TypeAlias = npt.NDArray[np.bool_]
Counts: TypeAlias = npt.NDArray[np.int64]

MOST_PIXELS = 170_000_000  # in a mask; no picture that is larger is read either
_SCALE = 5  # polygons are drawn this many times finer
_FURTHEST = 1e6  # coordinates of a polygon in pixels
_LONGEST = 20_000_000  # fine points of an outline; each takes some 50 bytes


class MaskError(ValueError):
    """A mask that cannot be decoded; the message says why, in plain words."""


def decode_segmentation(segmentation: object, size: tuple[int, int]) -> Mask:
    """What an annotation has under "segmentation" -> (H, W) bool.

    A list of polygons, a run-length code, or a list of these; several parts are united. size: (H, W) of the
    picture, which polygons need and codes must agree with. Raises MaskError.
    """
    if isinstance(segmentation, Mapping):
        return _sized(decode_rle(segmentation), size)
    if not isinstance(segmentation, list):
        raise MaskError("it has no mask")
    if segmentation and (all(map(_is_number, segmentation)) or all(map(_is_point, segmentation))):
        segmentation = [segmentation]  # one polygon without the list around it
    mask = np.zeros(_checked_size(size), np.bool_)
    for part in segmentation:
        if isinstance(part, Mapping):
            mask |= _sized(decode_rle(part), size)
        elif isinstance(part, list):
            mask |= draw_polygon(part, size)
        else:
            raise MaskError("its mask is neither polygons nor a run-length code")
    return mask


def _sized(mask: Mask, size: tuple[int, int]) -> Mask:
    if mask.shape != tuple(size):
        raise MaskError(f"its mask is {_by(mask.shape)} pixels, its picture {_by(size)}")
    return mask


# ------------------------------------------------------------------------------------------ run-length codes


def decode_rle(code: Mapping[str, Any]) -> Mask:
    """{"size": [H, W], "counts": list of numbers, or compressed text} -> (H, W) bool. Raises MaskError."""
    height, width = _checked_size(code.get("size"))
    counts = _counts(code.get("counts"))
    if (counts < 0).any() or (counts > height * width).any():
        raise MaskError("its run-length code is damaged (a count is below zero or beyond the mask)")
    if counts.sum() != height * width:
        raise MaskError(f"its run-length code is damaged ({counts.sum()} of {height * width} pixels)")
    return _filled(counts, height, width)


def encode_rle(mask: Mask) -> dict[str, Any]:
    """(H, W) bool -> {"size": [H, W], "counts": compressed text}, the same letters as pycocotools writes."""
    flat = np.concatenate([[False], mask.T.reshape(-1)])
    return encode_changes(np.flatnonzero(flat[1:] != flat[:-1]), (mask.shape[0], mask.shape[1]))


def encode_changes(changes: Counts, size: tuple[int, int]) -> dict[str, Any]:
    """As `encode_rle`, from the pixels at which outside and inside change, counted down the columns.

    changes: rising; a mask that has pixel 0 begins with 0.  size: (H, W) of the mask
    """
    counts = np.diff(changes, prepend=0, append=size[0] * size[1])
    return {"size": list(size), "counts": _compressed(counts)}


def _counts(counts: object) -> Counts:
    if isinstance(counts, (str, bytes)):
        return _uncompressed(counts if isinstance(counts, bytes) else counts.encode("latin-1", "replace"))
    if isinstance(counts, Sequence) and all(map(_is_whole, counts)):
        if any(abs(count) > MOST_PIXELS for count in counts):
            raise MaskError("its run-length code is damaged (a count is too large)")
        return np.array(counts, np.int64)
    raise MaskError("its run-length code has no counts")


def _uncompressed(text: bytes) -> Counts:
    if not text:
        return np.zeros(0, np.int64)
    groups = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    ends = groups & 0x20 == 0
    if (groups < 0).any() or (groups > 63).any() or not ends[-1]:
        raise MaskError("its run-length code is damaged (a letter that cannot be in one)")
    last = np.flatnonzero(ends)
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(groups)) - np.repeat(first, last - first + 1)
    if place.max() > 7:
        raise MaskError("its run-length code is damaged (a count is too large)")
    counts = np.add.reduceat((groups & 0x1F) << (5 * place), first)
    counts -= np.where(groups[last] & 0x10, 1 << (5 * (place[last] + 1)), 0)
    for start in (1, 2):  # each parity adds up by itself, and the first count of all is not in either
        counts[start::2] = np.cumsum(counts[start::2])
    return counts


def _compressed(counts: Counts) -> str:
    numbers = counts.copy()
    numbers[3:] -= counts[1:-2]
    letters = bytearray()
    for number in numbers.tolist():
        while True:
            group = number & 0x1F
            number >>= 5
            more = number != (-1 if group & 0x10 else 0)
            letters.append(group + (0x20 if more else 0) + 48)
            if not more:
                break
    return letters.decode("ascii")


# -------------------------------------------------------------------------------------------------- polygons


def draw_polygon(outline: Sequence[Any], size: tuple[int, int]) -> Mask:
    """A polygon [x0, y0, x1, y1, …] or [[x0, y0], …] in pixels -> (H, W) bool. Raises MaskError.

    The outline is drawn five times finer, as points. Wherever it steps from one fine column to the next in the
    middle of a column of pixels, what lies below in that column changes between outside and inside. Fewer than
    three corners enclose nothing.
    """
    height, width = _checked_size(size)
    try:
        corners = np.array(outline, np.float64)
    except (TypeError, ValueError):
        raise MaskError("its polygon is damaged (not a list of numbers)") from None
    if corners.ndim == 2 and corners.shape[1] == 2:
        corners = corners.reshape(-1)
    if corners.ndim != 1 or len(corners) % 2:
        raise MaskError("its polygon is damaged (not pairs of x and y)")
    if not (np.abs(corners) < _FURTHEST).all():  # also what is not a number
        raise MaskError("its polygon is damaged (a corner lies nowhere near the picture)")
    if len(corners) < 6:
        return np.zeros((height, width), np.bool_)
    x, y = _outline_points((_SCALE * corners.reshape(-1, 2) + 0.5).astype(np.int64))
    steps = np.flatnonzero(x[1:] != x[:-1])
    column = (np.minimum(x[1:], x[:-1])[steps] + 0.5) / _SCALE - 0.5
    row = (np.minimum(y[1:], y[:-1])[steps] + 0.5) / _SCALE - 0.5
    kept = (column == np.floor(column)) & (column >= 0) & (column <= width - 1)
    row = np.ceil(np.clip(row, 0, height))
    places, times = np.unique((column[kept] * height + row[kept]).astype(np.int64), return_counts=True)
    changes = places[times % 2 == 1]
    return _filled(np.diff(changes, prepend=0, append=height * width), height, width)


def _outline_points(corners: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All points of the closed outline through `corners` (K, 2), in its order: x, y.

    Along its longer side an edge has a point at each number. The shorter side is rounded, always counting from
    the edge's lower end, so that an edge has the same points in both directions.
    """
    start, end = corners, np.roll(corners, -1, axis=0)
    length = np.abs(end - start)
    if length.max(axis=1).sum() > _LONGEST:
        raise MaskError("its polygon is damaged (its outline is far too long)")
    flat = length[:, 0] >= length[:, 1]  # the edge is longer in x than in y
    along = np.where(flat, 0, 1)
    edges = np.arange(len(corners))
    reverse = start[edges, along] > end[edges, along]
    low, high = np.where(reverse[:, None], end, start), np.where(reverse[:, None], start, end)
    longer = length[edges, along]
    slope = (high - low)[edges, 1 - along] / np.maximum(longer, 1)

    number = np.repeat(edges, longer + 1)  # the edge that each point lies on
    first = np.cumsum(longer + 1) - (longer + 1)
    step = np.arange(len(number)) - first[number]
    step = np.where(reverse[number], longer[number] - step, step)
    straight = low[edges, along][number] + step
    rounded = (low[edges, 1 - along][number] + slope[number] * step + 0.5).astype(np.int64)
    return np.where(flat[number], straight, rounded), np.where(flat[number], rounded, straight)


# ---------------------------------------------------------------------------------------------------- shared


def _filled(counts: Counts, height: int, width: int) -> Mask:
    """Down the columns, outside and inside by turns, that many pixels each."""
    inside = np.zeros(len(counts), np.bool_)
    inside[1::2] = True
    return np.ascontiguousarray(np.repeat(inside, counts).reshape(width, height).T)


def _checked_size(size: object) -> tuple[int, int]:
    """(H, W) if it is two whole numbers from 1 up and not absurdly large."""
    if (
        not isinstance(size, Sequence)
        or len(size) != 2
        or not all(_is_whole(side) and side > 0 for side in size)
        or size[0] * size[1] > MOST_PIXELS
    ):
        raise MaskError(f"its mask has no usable size ({size!r})")
    return int(size[0]), int(size[1])


def _is_point(part: object) -> bool:
    return isinstance(part, list) and len(part) == 2 and all(map(_is_number, part))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))


def _is_whole(value: object) -> bool:
    """Whether it is a whole number; some tools write 200.0 for 200."""
    return type(value) is int or (isinstance(value, float) and value.is_integer())


def _by(size: Sequence[int]) -> str:
    return f"{size[1]} × {size[0]}"
