"""Losses and metrics, as pure functions of tensors.

Letters: B pictures, N patches, D width, K keys (one per thing in the stock).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def patch_target(cover: Tensor) -> Tensor:
    """Covered share of each patch (B, N) -> a distribution over patches (B, N); an empty mask stays all zero.

    The released code normalises the sum to 1; the paper's formula (arXiv 2604.02327, Eq. 3) does not.
    """
    return cover / cover.sum(dim=-1, keepdim=True).clamp_min(1e-9)


def gaussian_target(centre: Tensor, grid: tuple[int, int], sigma: float) -> Tensor:
    """The pointing objective's target: a Gaussian around `centre`, sampled at the patches' middles (Table 9).

    centre: (B, 2) x and y in patches, nan if the expression fits nothing;  grid: (Hp, Wp);  sigma: in patches
    Returns (B, N), each row summing to 1, or all zero where `centre` is nan.
    """
    height, width = grid
    x = torch.arange(width, device=centre.device) + 0.5
    y = torch.arange(height, device=centre.device) + 0.5
    across = (x[None, :] - centre[:, :1]) ** 2  # (B, Wp)
    down = (y[None, :] - centre[:, 1:]) ** 2  # (B, Hp)
    away = (down[:, :, None] + across[:, None, :]).flatten(1)
    known = centre.isfinite().all(dim=1, keepdim=True)
    return torch.where(known, (-away.nan_to_num() / (2 * sigma**2)).softmax(dim=-1), 0.0)


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """The paper's loss of each picture (B,): - sum of target times log p, p the softmax over patches (Eq. 3).

    logits, target: (B, N), target from `patch_target` or `gaussian_target`; an empty one gives 0.
    """
    return -(target * F.log_softmax(logits, dim=-1)).sum(dim=-1)


def segmentation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """`soft_cross_entropy`, mean over the batch: the released code's loss."""
    return soft_cross_entropy(logits, target).mean()


def alone_contrastive_losses(
    embedding: Tensor, keys: Tensor, positive: Tensor, excluded: Tensor, temperature: float = 0.1
) -> Tensor:
    """Object-alone distillation: the steered embedding is nearest to that of its own object shown alone (InfoNCE).

    embedding: (B, D) steered, any length;  keys: (K, D) unsteered embeddings of objects alone, unit length
    positive:  (B,) int64, the key of the object;  excluded: (B, K) bool, further keys that the expression fits
    Returns (B,).
    """
    scores = F.normalize(embedding.float(), dim=-1) @ keys.T / temperature
    blocked = excluded.clone()
    blocked[torch.arange(len(positive), device=positive.device), positive] = False
    return F.cross_entropy(scores.masked_fill(blocked, float("-inf")), positive, reduction="none")


def alone_cosine_losses(embedding: Tensor, target: Tensor) -> Tensor:
    """1 - cosine between the steered embedding and that of its object alone, both (B, D); (B,)."""
    return 1 - F.cosine_similarity(embedding.float(), target, dim=-1)


def pmass(logits: Tensor, target: Tensor) -> Tensor:
    """Validation metric of the released code: probability on patches that the mask touches, per picture (B,)."""
    return (logits.softmax(dim=-1) * (target > 0)).sum(dim=-1)


def pointing(logits: Tensor, cover: Tensor) -> Tensor:
    """Whether the object covers a quarter of the strongest patch, or as much as of any patch; (B,) bool."""
    hit = cover.gather(1, logits.argmax(dim=-1, keepdim=True)).squeeze(1)
    return hit >= torch.minimum(cover.amax(dim=-1), torch.full_like(hit, 0.25)).clamp_min(1e-6)
