"""Alignment: before the steering is trained, its cross-attentions learn which words a patch answers to.

For each patch, a cross-attention distributes weight over the tokens of the prompt: some on the content, the tokens
that name something, and the rest on tokens that every prompt has, the special ones at both ends and an article. The
alignment trains the weight on content to be the share of it that the patch shows. This supervision is dense: a step
compares a few hundred words with patches of all pictures, while a step of the steering has one expression a picture.
Ours, not the paper's.

Letters: P patches, W words, L text tokens of each, C classes of the backbone's network, K things of the stock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from steersearch.core.cross_attention import GatedCrossAttention
from steersearch.core.steervit import SteerViT

LEAST_SEEN = 0.5  # sum over the patches of a batch from which on a word counts as present
LEAST_SHARE = 0.3  # share of the largest value of any patch; patches below it are not targets


def steered_blocks(model: SteerViT) -> dict[int, GatedCrossAttention]:
    """The cross-attentions by the number of the block after each, in order."""
    layers = {int(name): cast(GatedCrossAttention, layer) for name, layer in model.cross_attention.items()}
    return dict(sorted(layers.items()))


@dataclass(frozen=True)
class Words:
    """W words as the text encoder gives them.

    tokens (W, L, Dt);  mask (W, L) bool, True = real;  has_article (W,) bool
    """

    tokens: Tensor
    mask: Tensor
    has_article: Tensor

    @property
    def content(self) -> Tensor:
        """(W, L) bool: the tokens that name something."""
        content = self.mask.clone()
        rows, last = torch.arange(len(content)), self.mask.sum(dim=1) - 1
        content[:, 0] = False
        content[rows, last] = False
        content[self.has_article, 1] = False
        return content


def content_scores(layer: GatedCrossAttention, patches: Tensor, text: Tensor, words: Words) -> Tensor:
    """(P, W): log-odds of the weight on content, mean over the heads.

    patches (P, D): tokens as the layer gets them.  text (W, L, D): the connector's output for `words`
    """
    attention = layer.cross_attn
    heads, width = attention.num_heads, attention.head_dim
    count, length = text.shape[:2]
    queries = attention.to_q(attention.norm(patches)).view(-1, heads, width).transpose(0, 1)
    keys = F.linear(text.flatten(0, 1), attention.to_kv.weight[: heads * width]).view(-1, heads, width)
    scores = (queries @ keys.permute(1, 2, 0) * width**-0.5).view(heads, -1, count, length)  # (h, P, W, L)
    content = words.content
    on = scores.masked_fill(~content, -torch.inf).logsumexp(dim=-1)
    off = scores.masked_fill(content | ~words.mask, -torch.inf).logsumexp(dim=-1)
    odds: Tensor = (on - off).mean(dim=0)
    return odds


@dataclass(frozen=True)
class Truth:
    """What the patches of a batch show. Columns: words for one class each, words for several classes, names of things.

    shown (P, W) in 0..1: share of what the word names.  narrow, names: number of columns of the first and last kind
    on_thing (P,) bool: whether the patch is on a thing of the stock, so that its name is known
    """

    shown: Tensor
    narrow: int
    names: int
    on_thing: Tensor


def alignment_losses(scores: Tensor, truth: Truth) -> dict[str, Tensor]:
    """where: which patches show the word.  which: which class or thing a patch shows.  whether it shows any.

    Each ().
    """
    shown = truth.shown
    named = slice(shown.shape[1] - truth.names, None)
    classes = _which(scores[:, : truth.narrow], shown[:, : truth.narrow])
    things = _which(scores[truth.on_thing, named], shown[truth.on_thing, named])
    present = (shown * F.softplus(-scores)).sum() / shown.sum().clamp_min(1)
    absent = ((1 - shown) * F.softplus(scores)).sum() / (1 - shown).sum().clamp_min(1)
    return {"where": _where(scores, shown), "which": classes + 0.5 * things, "whether": present + absent}


def _where(scores: Tensor, shown: Tensor) -> Tensor:
    """Cross-entropy over the patches, mean over the words present."""
    there = shown.sum(dim=0) > LEAST_SEEN
    if not there.any():
        return scores.sum() * 0
    shown, scores = shown[:, there], scores[:, there]
    target = torch.where(shown > LEAST_SHARE * shown.amax(dim=0), shown, 0.0)
    target = target / target.sum(dim=0)
    return -(target * scores.log_softmax(dim=0)).sum(dim=0).mean()


def _which(scores: Tensor, shown: Tensor) -> Tensor:
    """Cross-entropy over the words, mean over the patches, each weighted by how much of any word it shows."""
    mass = shown.sum(dim=1)
    if not (mass > 0).any():
        return scores.sum() * 0
    losses = -(shown * scores.log_softmax(dim=1)).sum(dim=1)
    return losses.sum() / mass.sum()


@torch.no_grad()
def begin_values(
    model: SteerViT, words: Words, tokens: Mapping[int, Tensor], strength: float, head: float
) -> None:
    """Initialise the values so that each patch encodes how much of its attention is on content, and the head reads it.

    Each layer's values become one common direction, positive for content and negative for the rest. The steering then
    starts from a heatmap that is right for most words.
    tokens: input patches (P, D) of each steered block.  strength: of the step along the direction, in
    typical lengths of a patch.  head: of the head's reading, per unit of a patch of unit variance
    """
    text, content = model.connector(words.tokens), words.content
    said, wanted = text[words.mask], torch.where(content[words.mask], 1.0, -1.0)
    gram = said.T @ said
    ridge = 1e-2 * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device)
    reading = torch.linalg.solve(gram + ridge, said.T @ wanted)
    direction = torch.randn(model.dim, device=model.device)
    direction = F.normalize(direction - direction.mean(), dim=0)  # a layer norm takes the mean away
    for block, layer in steered_blocks(model).items():
        attention = layer.cross_attn
        heads, width = attention.num_heads, attention.head_dim
        patches = tokens[block]
        typical = (patches - patches.mean(dim=0)).norm(dim=-1).mean()
        values = attention.to_kv.weight[heads * width :].view(heads, width, -1)
        values.mul_(0.3)
        values[:, 0] = reading
        out = attention.to_out.weight.view(-1, heads, width)
        opened = 1.0 if layer.attn_gate is None else float(torch.tanh(layer.attn_gate))
        out[:, :, 0] = (direction * strength * typical / heads / opened)[:, None]
    model.head.weight.copy_(head * direction[None])
