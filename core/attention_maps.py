"""Attention maps: what the CLS token of the last block looks at, heads pooled and sinks suppressed.

A sink is a single patch that draws far more attention than all around it: a ViT keeps notes on the whole
picture there, and what the patch shows has nothing to do with it.

Letters: B pictures, N = Hp·Wp patches.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from steersearch.core.errors import ArgumentError, ConfigError

HeadPooling = Literal["mean", "max", "min", "median", "mean-std", "none"]

_MAD_TO_STD = 1.4826  # the standard deviation of a normal distribution whose median absolute deviation is 1
_DEVIATIONS = 5.0  # above the median of its map: what a sink exceeds
_TIMES_AROUND = 5.0  # the mean of its neighbours: what it exceeds too
_LEAST_RANGE = 1e-6  # added to that of a map before it is divided by it
_REPLACEMENTS = ("mean of map", "mean of map", "mean of neighbours")  # of the sinks, pass by pass


def attention_maps(
    attention: Tensor,
    grid: tuple[int, int],
    heads: HeadPooling = "mean",
    suppress_sinks: bool = True,
    normalise: bool = True,
) -> Tensor:
    """Maps (B, Hp, Wp), float32 or wider, on the device of `attention`, as released with the paper.

    attention: (B, heads, N), the CLS row of the last block's self-attention, patch columns only.
    grid: (Hp, Wp).
    heads: see `pool_heads`; "none" gives (B, heads, Hp, Wp) and treats each head as a map of its own.
    suppress_sinks: see `without_sinks`.
    normalise: bring each map to [0, 1), see `to_unit_range`. False keeps the attention itself, so that maps
        can be compared: all patches of a mean over heads sum to at most 1, and 1 / N everywhere is flat.
    Raises ConfigError for a pooling that does not exist, ArgumentError for another shape.
    """
    if attention.ndim != 3 or attention.shape[-1] != grid[0] * grid[1]:
        raise ArgumentError(
            "attention", tuple(attention.shape), f"must be (B, heads, N) with N = {grid[0]} · {grid[1]}"
        )
    pooled = pool_heads(attention, heads)
    maps = pooled.reshape(*pooled.shape[:-1], *grid)
    if suppress_sinks:
        maps = without_sinks(maps)
    return to_unit_range(maps) if normalise else maps


def pool_heads(attention: Tensor, heads: HeadPooling) -> Tensor:
    """(B, heads, N) -> (B, N), at least float32; "none" keeps the heads separate.

    "median" is torch's, the lower of the two middle ones; "mean-std" takes the sample standard deviation
    (n - 1) off the mean, so that only what the heads agree on remains; it may go below 0.
    """
    attention = attention.to(torch.promote_types(attention.dtype, torch.float32))
    if heads == "mean":
        return attention.mean(dim=1)
    if heads == "max":
        return attention.amax(dim=1)
    if heads == "min":
        return attention.amin(dim=1)
    if heads == "median":
        return attention.median(dim=1).values
    if heads == "mean-std":
        one_head = attention.shape[1] == 1
        return attention.mean(dim=1) - attention.std(dim=1, correction=0 if one_head else 1)
    if heads == "none":
        return attention
    raise ConfigError("heads", heads, f"must be one of {get_args(HeadPooling)}")


def without_sinks(maps: Tensor) -> Tensor:
    """`maps` (..., Hp, Wp) with their sinks replaced, in three passes, each over the result of the last.

    A patch is a sink if it is greater than the median of its map + 5 · 1.4826 · MAD, than the mean of its
    neighbours (up to 8, fewer at the border) and than 5 times that mean. Medians are torch's, the lower of
    the two middle values. The first two passes put the mean of the map there, sinks included; the third
    puts the mean of the neighbours.
    """
    for replacement in _REPLACEMENTS:
        around = _mean_of_neighbours(maps)
        sinks = (maps > _threshold(maps)) & (maps > around) & (maps > _TIMES_AROUND * around)
        mean = maps.mean(dim=(-2, -1), keepdim=True)
        maps = torch.where(sinks, mean if replacement == "mean of map" else around, maps)
    return maps


def to_unit_range(maps: Tensor) -> Tensor:
    """Each map of `maps` (..., Hp, Wp) scaled to [0, 1): (map - min) / (max - min + 1e-6), as released.

    What is nearly constant stays near 0.
    """
    low = maps.amin(dim=(-2, -1), keepdim=True)
    return (maps - low) / (maps.amax(dim=(-2, -1), keepdim=True) - low + _LEAST_RANGE)


def _threshold(maps: Tensor) -> Tensor:
    """Median + 5 robust standard deviations of each map (..., 1, 1)."""
    values = maps.flatten(-2)
    median = values.median(dim=-1, keepdim=True).values
    deviation = (values - median).abs().median(dim=-1, keepdim=True).values
    return (median + _DEVIATIONS * _MAD_TO_STD * deviation)[..., None]


def _mean_of_neighbours(maps: Tensor) -> Tensor:
    """For each patch the mean of the up to 8 around it, same shape; 0 where a map is a single patch."""
    height, width = maps.shape[-2:]
    planes = maps.reshape(-1, 1, height, width)
    counts = _sum_of_neighbours(torch.ones_like(planes[:1]))
    means = _sum_of_neighbours(planes) / counts.clamp(min=1)
    return means.reshape(maps.shape)


def _sum_of_neighbours(planes: Tensor) -> Tensor:
    """(M, 1, H, W) -> (M, H·W). Not a convolution: on a GPU that may round to TF32."""
    windows = F.unfold(planes, kernel_size=3, padding=1)  # (M, 9, H·W), zeros beyond the border
    return windows[:, [0, 1, 2, 3, 5, 6, 7, 8]].sum(dim=1)
