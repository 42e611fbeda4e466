"""Metrics of maps against masks, as pure functions of arrays; definitions as of anomaly segmentation (facts C6).

All are exact: every distinct score is a threshold, none is sampled. Scores must be finite; ValueError for what has
no answer, such as masks in which nothing is marked.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from steersearch.benchmarks.rankings import counts_at_thresholds, distinct, split

Masks = npt.NDArray[np.bool_]
Part = tuple[float, float, float, float]  # of a picture: left, top, right, bottom as shares of its sides
WHOLE: Part = (0.0, 0.0, 1.0, 1.0)
PRO_LIMIT = 0.3  # of the false positive rate, up to which the overlap with regions counts


def auroc(scores: npt.ArrayLike, masks: npt.ArrayLike) -> float:
    """The chance that a marked pixel scores higher than one that is not; ties are half. Equal, any shapes."""
    positive, negative = _both(scores, masks)
    below = np.searchsorted(negative, positive, "left").sum(dtype=np.int64)
    not_above = np.searchsorted(negative, positive, "right").sum(dtype=np.int64)
    return float(below + not_above) / (2 * len(positive) * len(negative))


def best_f1(scores: npt.ArrayLike, masks: npt.ArrayLike) -> float:
    """F1max: the greatest F1 that a single threshold reaches over all pixels. Equal, any shapes."""
    positive, negative = _both(scores, masks)
    _, _, found, wrong = counts_at_thresholds(positive, negative)
    return float((2 * found / (found + wrong + len(positive))).max())


def pro(scores: npt.ArrayLike, masks: npt.ArrayLike, limit: float = PRO_LIMIT) -> float:
    """Per-region overlap: the area under mean overlap with regions against false positive rate, up to `limit`.

    scores, masks: (n, H, W). A region is an 8-connected component of a mask, and each counts alike however large;
    the rate is that of all pixels that are not marked. Straight lines join the points of the curve, so it is cut
    exactly at `limit`, and divided by it: 1 is best.
    """
    marked, values = np.asarray(masks, np.bool_), np.asarray(scores)
    _, negative = _both(values, marked)
    inside, weight = values[marked], region_weights(marked)[marked]
    order = np.argsort(inside)
    overlap = np.concatenate(
        [[0.0], np.cumsum(weight[order][::-1])]
    )  # of the so many highest pixels in regions
    lowest = negative[int((1 - limit) * (len(negative) - 1))]  # what scores less lies beyond the limit
    kept = negative[np.searchsorted(negative, lowest) :]
    first = distinct(kept)
    thresholds = kept[first][::-1]
    width = np.diff(first, append=len(kept))[::-1] / len(negative)
    inside = inside[order]
    before = overlap[len(inside) - np.searchsorted(inside, thresholds, "right")]
    after = overlap[len(inside) - np.searchsorted(inside, thresholds, "left")]
    used = np.clip(limit - (np.cumsum(width) - width), 0, width)
    return float((used * (before + (after - before) * used / (2 * width))).sum() / limit)


def region_weights(masks: Masks) -> npt.NDArray[np.float64]:
    """(n, H, W): 1 / (pixels of its region x regions of all masks) for each marked pixel, else 0; sums to 1."""
    weights = np.zeros(masks.shape, np.float64)
    regions = 0
    for mask, weight in zip(masks, weights, strict=True):
        found = components(mask)
        sizes = np.bincount(found.reshape(-1))
        regions += len(sizes) - 1
        weight[mask] = 1 / sizes[found[mask]]
    return weights / max(regions, 1)


def components(mask: Masks) -> npt.NDArray[np.int64]:
    """(H, W) -> its 8-connected regions numbered from 1 in reading order, 0 outside; same shape."""
    height, width = mask.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask
    change = np.diff(padded, axis=1)
    rows, starts = np.nonzero(change == 1)
    ends = np.nonzero(change == -1)[1]  # exclusive; runs of a row alternate, so both have the same order
    root = list(range(len(rows)))

    def rooted(run: int) -> int:
        while root[run] != run:
            root[run] = root[root[run]]
            run = root[run]
        return run

    first = np.searchsorted(rows, np.arange(height + 1)).tolist()
    for row in range(1, height):
        here, end = first[row], first[row + 1]
        for run in range(first[row - 1], here):  # runs touch if they overlap, or meet at a corner
            while here < end and ends[here] < starts[run]:
                here += 1
            other = here
            while other < end and starts[other] <= ends[run]:
                low, high = sorted((rooted(run), rooted(other)))
                root[high] = low
                other += 1
    heads = np.array([rooted(run) for run in range(len(rows))], np.int64)
    numbers = np.unique(heads, return_inverse=True)[1] + 1 if len(heads) else heads
    found = np.zeros((height, width), np.int64)
    for line, start, stop, number in zip(rows, starts, ends, numbers, strict=True):
        found[line, start:stop] = number
    return found


def patch_cover(mask: npt.ArrayLike, grid: tuple[int, int], part: Part = WHOLE) -> npt.NDArray[np.float64]:
    """(H, W) mask -> (Hp, Wp): the share of each cell of the grid that it covers, exact for any sizes.

    part: that of the picture over which the grid lies, see `viewing.part_seen`.
    """
    inside = np.asarray(mask, np.float64)
    left, top, right, bottom = part
    down = _overlaps(inside.shape[0], grid[0], top, bottom)
    across = _overlaps(inside.shape[1], grid[1], left, right)
    cover: npt.NDArray[np.float64] = down @ inside @ across.T
    return cover


def iou(predicted: npt.ArrayLike, meant: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Intersection over union of masks (n, ...) with masks (n, ...), (n,); two empty masks agree: 1."""
    shared, union = intersections_and_unions(predicted, meant)
    return np.where(union > 0, shared / np.maximum(union, 1), 1.0)


def intersections_and_unions(
    predicted: npt.ArrayLike, meant: npt.ArrayLike
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Numbers of cells that both masks of a pair have, and that at least one has: (n, ...) twice -> (n,) twice."""
    ours, theirs = np.asarray(predicted, np.bool_), np.asarray(meant, np.bool_)
    if ours.shape != theirs.shape:
        raise ValueError(f"masks of shape {ours.shape} against masks of shape {theirs.shape}")
    axes = tuple(range(1, ours.ndim))
    return (ours & theirs).sum(axis=axes), (ours | theirs).sum(axis=axes)


def near_best(maps: npt.ArrayLike, margin: float) -> Masks:
    """The threshold rule for maps without a scale of their own: what is at most `margin` below the map's best.

    maps: (n, Hp, Wp). For logits of a softmax over patches this is p >= exp(-margin) x max p.
    """
    values = np.asarray(maps)
    near: Masks = values >= values.max(axis=(1, 2), keepdims=True) - margin
    return near


def choose_margin(maps: npt.ArrayLike, meant: npt.ArrayLike, steps: int = 100) -> float:
    """The margin of `near_best` with the greatest mean IoU on these maps (n, Hp, Wp) and masks (n, Hp, Wp).

    Tried are `steps` quantiles of all distances to a map's best; of equally good ones the smallest is taken.
    """
    values = np.asarray(maps)
    below = values.max(axis=(1, 2), keepdims=True) - values
    margins = np.unique(np.quantile(below, np.linspace(0, 1, steps)))
    scores = [iou(near_best(values, margin), meant).mean() for margin in margins]
    return float(margins[int(np.argmax(scores))])


def _both(
    scores: npt.ArrayLike, masks: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    positive, negative = split(scores, masks)
    if len(positive) == 0 or len(negative) == 0:
        raise ValueError("nothing is marked" if len(positive) == 0 else "everything is marked")
    return positive, negative


def _overlaps(size: int, cells: int, start: float, end: float) -> npt.NDArray[np.float64]:
    """(cells, size): which part of each cell each pixel of a side takes up; rows sum to 1.

    The cells lie between `start` and `end`, shares of the side.
    """
    edges = np.linspace(start * size, end * size, cells + 1)
    pixels = np.arange(size)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    parts: npt.NDArray[np.float64] = np.clip(shared, 0, None) / ((end - start) * size / cells)
    return parts
