"""Metrics of maps against masks, as pure functions of arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Masks = npt.NDArray[np.bool_]
Part = tuple[float, float, float, float]  # of a picture: left, top, right, bottom as shares of its sides
WHOLE: Part = (0.0, 0.0, 1.0, 1.0)


def patch_cover(mask: npt.ArrayLike, grid: tuple[int, int], part: Part = WHOLE) -> npt.NDArray[np.float64]:
    """(H, W) mask -> (Hp, Wp): the share of each cell of the grid that it covers, exact for any sizes.

    part: the part of the picture that the grid covers, see `viewing.part_seen`.
    """
    inside = np.asarray(mask, np.float64)
    left, top, right, bottom = part
    down = _overlaps(inside.shape[0], grid[0], top, bottom)
    across = _overlaps(inside.shape[1], grid[1], left, right)
    cover: npt.NDArray[np.float64] = down @ inside @ across.T
    return cover


def iou(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Intersection over union of masks (n, ...) with masks (n, ...), (n,); two empty masks agree: 1."""
    shared, union = intersections_and_unions(predicted, truth)
    return np.where(union > 0, shared / np.maximum(union, 1), 1.0)


def intersections_and_unions(
    predicted: npt.ArrayLike, truth: npt.ArrayLike
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cells in both masks of each pair, and in at least one: two (n, ...) -> two (n,)."""
    ours, theirs = np.asarray(predicted, np.bool_), np.asarray(truth, np.bool_)
    if ours.shape != theirs.shape:
        raise ValueError(f"masks of shape {ours.shape} against masks of shape {theirs.shape}")
    axes = tuple(range(1, ours.ndim))
    return (ours & theirs).sum(axis=axes), (ours | theirs).sum(axis=axes)


def near_best(maps: npt.ArrayLike, margin: float) -> Masks:
    """Threshold for maps without an absolute scale: cells at most `margin` below the map's maximum.

    maps: (n, Hp, Wp). For logits of a softmax over patches this is p >= exp(-margin) x max p.
    """
    values = np.asarray(maps)
    near: Masks = values >= values.max(axis=(1, 2), keepdims=True) - margin
    return near


def choose_margin(maps: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """The margin of `near_best` with the greatest mean IoU on these maps (n, Hp, Wp) and masks (n, Hp, Wp).

    Tries 100 quantiles of all distances to a map's maximum; of equally good ones the smallest wins.
    """
    values = np.asarray(maps)
    below = values.max(axis=(1, 2), keepdims=True) - values
    margins = np.unique(np.quantile(below, np.linspace(0, 1, 100)))
    scores = [iou(near_best(values, margin), truth).mean() for margin in margins]
    return float(margins[int(np.argmax(scores))])


def _overlaps(size: int, cells: int, start: float, end: float) -> npt.NDArray[np.float64]:
    """(cells, size): the share of each cell that each pixel of a side takes up; rows sum to 1.

    The cells lie between `start` and `end`, shares of the side.
    """
    edges = np.linspace(start * size, end * size, cells + 1)
    pixels = np.arange(size)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    parts: npt.NDArray[np.float64] = np.clip(shared, 0, None) / ((end - start) * size / cells)
    return parts
