"""Objectives, as pure functions of tensors.

Letters: B pictures, N patches, D width, K keys (one per thing in stock).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def patch_target(cover: Tensor) -> Tensor:
    """Covered share of each patch (B, N) -> a distribution over patches (B, N); an empty mask stays all zero.

    The released code normalises to sum 1, the paper's formula does not (arXiv 2604.02327, Eq. 3).
    """
    return cover / cover.sum(dim=-1, keepdim=True).clamp_min(1e-9)


def segmentation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Soft cross-entropy over the patches of each picture, mean over the batch (arXiv 2604.02327, Eq. 3).

    logits, target: (B, N); target from `patch_target`. A picture with an empty target adds nothing to the sum.
    """
    return -(target * F.log_softmax(logits, dim=-1)).sum(dim=-1).mean()


def alone_contrastive_loss(
    embedding: Tensor, keys: Tensor, positive: Tensor, excluded: Tensor, temperature: float = 0.1
) -> Tensor:
    """Object-alone distillation: the steered embedding is nearest to that of its own object shown alone (InfoNCE).

    embedding: (B, D) steered, any length;  keys: (K, D) frozen embeddings of each thing alone, unit length
    positive:  (B,) int64, the key of the steered thing;  excluded: (B, K) bool, keys that the prompt fits as well
    Returns the mean over the batch; 0 for an empty batch.
    """
    if len(embedding) == 0:
        return embedding.sum()
    scores = F.normalize(embedding, dim=-1) @ keys.T / temperature
    blocked = excluded.clone()
    blocked[torch.arange(len(positive)), positive] = False
    return F.cross_entropy(scores.masked_fill(blocked, float("-inf")), positive)


def alone_cosine_loss(embedding: Tensor, target: Tensor) -> Tensor:
    """1 - cosine between the steered embedding and that of its object alone, both (B, D); mean over the batch."""
    if len(embedding) == 0:
        return embedding.sum()
    return (1 - F.cosine_similarity(embedding, target, dim=-1)).mean()


def pmass(logits: Tensor, target: Tensor) -> Tensor:
    """Validation metric of the released code: probability on patches that the mask touches, per picture (B,)."""
    return (logits.softmax(dim=-1) * (target > 0)).sum(dim=-1)


def pointing(logits: Tensor, cover: Tensor, least: float = 0.25) -> Tensor:
    """Whether the strongest patch is covered by the object to at least `least`, or as much as any is; (B,) bool."""
    hit = cover.gather(1, logits.argmax(dim=-1, keepdim=True)).squeeze(1)
    return hit >= torch.minimum(cover.amax(dim=-1), torch.full_like(hit, least)).clamp_min(1e-6)
