"""The view "tile": the backbone sees a picture as 2 × 2 tiles, whose tokens are joined again.

Letters: B images, n = 2 tiles per side, t = n² tiles per image, N = Hp·Wp patches per tile. A batch of tiles is
(t·B, ...): image after image, the tiles of each in reading order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from steersearch.core.preprocess import TILES
from steersearch.core.steervit import Features, widened


def split_tiles(pixels: Tensor) -> Tensor:
    """Pictures (B, C, n·H, n·W) -> their tiles (t·B, C, H, W)."""
    batch, channels, height, width = pixels.shape
    cells = pixels.reshape(batch, channels, TILES, height // TILES, TILES, width // TILES)
    return cells.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def join_tiles(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """Values of the patches of tiles (t·B, N, ...), in reading order over the whole picture (B, t·N, ...).

    grid: (Hp, Wp) of one tile; that of the picture is (n·Hp, n·Wp).
    """
    cells = values.reshape(-1, TILES, TILES, *grid, *values.shape[2:])  # (B, n, n, Hp, Wp, ...)
    return cells.transpose(2, 3).flatten(1, 4)


def tile_shares(logits: Tensor) -> Tensor:
    """The share of a picture's heatmap in each tile: logits (t·B, N) -> (B, t), rows sum to 1.

    The heatmap is the softmax over all t·N logits, so the shares are the softmax over the tiles' log-sum-exps.
    """
    return logits.logsumexp(dim=-1).reshape(-1, TILES**2).softmax(dim=-1)


def weigh_tiles(values: Tensor, shares: Tensor) -> Tensor:
    """Weighted mean over the tiles of each picture: values (t·B, ...) and shares (B, t) -> (B, ...)."""
    weights = shares.reshape(-1, *[1] * (values.ndim - 1))  # (t·B, 1, ...), float32 or wider
    return (weights * values).reshape(*shares.shape, *values.shape[1:]).sum(dim=1).to(values.dtype)


def whole_pictures(tiles: Features) -> Features:
    """Join the features of 4·B tiles to those of B pictures: patches side by side, one softmax over all logits.

    CLS, mean and attention are means over the tiles, weighted by their share of the heatmap, so that the tile with what
    the prompt names dominates; without a prompt all tiles count alike.
    """
    shares = tile_shares(widened(tiles.logits))
    if not tiles.is_steered:
        shares = torch.full_like(shares, 1 / TILES**2)
    each = shares.flatten()[:, None]  # (4·B, 1)
    attention = tiles.attention
    if attention is not None:
        weighted = attention * each[..., None].to(attention.dtype)
        attention = join_tiles(weighted.transpose(1, 2), tiles.grid).transpose(1, 2)
    return Features(
        prefix=weigh_tiles(tiles.prefix, shares),
        patches=join_tiles(tiles.patches, tiles.grid),
        logits=join_tiles(tiles.logits, tiles.grid),
        grid=(tiles.grid[0] * TILES, tiles.grid[1] * TILES),
        attention=attention,
        parts=join_tiles(each.expand_as(tiles.logits) / tiles.logits.shape[1], tiles.grid),
        is_steered=tiles.is_steered,
    )
