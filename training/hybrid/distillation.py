"""Losses that pretrain a hybrid backbone, whose patches are feature maps of a published network.

The convolutional network (`core/efficientnet_lite.py`) recognises photographs, but coarsely and without a CLS token.
The blocks above it learn what a pretrained ViT has: patch tokens that encode what they show, on a finer grid, and a
CLS token that encodes what is most salient. The network itself is their teacher, on pictures and on things alone, so
they need no labels except the things' masks.

Letters: B pictures, N patches, K things of the stock, C classes of the network (1,000), D the backbone's width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST_COVER = 0.35  # share of a patch from which on it shows the thing; below EDGE the thing counts as absent
EDGE = 0.12
TEMPERATURE = 0.07
ALIKE = 0.05  # temperature of the targets, which spread over similar things
COMPONENTS = {"deep": 256, "fine": 64}  # principal components in the keys
SHARPEST = 100.0  # of the cosines with the classes' words
LOSSES = ("words", "things", "picture", "salient", "likeness")


@dataclass(frozen=True)
class Components:
    """Principal components of features, half whitened: mean (F,), axes (F, n); projections have length 1 or so."""

    mean: Tensor
    axes: Tensor

    @classmethod
    def of(cls, features: Tensor, count: int) -> Components:
        """features (R, F); at most `count` components."""
        mean = features.mean(dim=0)
        _, spread, axes = torch.linalg.svd(features - mean, full_matrices=False)
        kept = spread[:count].clamp_min(1e-6 * float(spread[0]) + 1e-12)
        scaled = axes[: len(kept)].T / (kept / kept[0]).sqrt()
        typical = ((features - mean) @ scaled).norm(dim=1).mean().clamp_min(1e-12)
        return cls(mean, scaled / typical)

    def __call__(self, features: Tensor) -> Tensor:
        """(..., F) -> (..., n), unit length."""
        return F.normalize((features - self.mean) @ self.axes, dim=-1)


def thing_keys(deep: Tensor, fine: Tensor, colour: Tensor) -> Tensor:
    """(K, n) of unit length: keys that distinguish things, by kind before detail and colour; from `cnn_maps.Alone`.

    deep (K, 1280), fine (K, 120): features of each thing alone;  colour (K, 3): its mean
    """
    colour = (colour - colour.mean(dim=0)) / colour.std().clamp_min(1e-6)
    colour = F.normalize(torch.cat([colour, 0.3 * colour.abs().sum(dim=1, keepdim=True)], dim=1), dim=1)
    parts = [
        Components.of(deep, COMPONENTS["deep"])(deep),
        0.5 * Components.of(fine, COMPONENTS["fine"])(fine),
        0.6 * colour,
    ]
    return F.normalize(torch.cat(parts, dim=1), dim=1)


class DistillationHeads(nn.Module):
    """Linear heads for pretraining only. text, key, picture: widths of their targets."""

    def __init__(self, dim: int, text: int, key: int, picture: int) -> None:
        super().__init__()
        self.words, self.thing = nn.Linear(dim, text), nn.Linear(dim, key)
        self.salient, self.picture = nn.Linear(dim, key), nn.Linear(dim, picture)
        self.sharpness = nn.Parameter(torch.tensor(math.log(30.0)))


@dataclass(frozen=True)
class Shown:
    """What B pictures show.

    cover (B, M, N) in 0..1: share of each patch that thing m covers;  things (B, M): stock numbers, -1 for none
    classes (B, N, C): the network's probabilities at each patch
    picture (B, n): its features of the whole, of unit length
    """

    cover: Tensor
    things: Tensor
    classes: Tensor
    picture: Tensor


def _covered(cover: Tensor, things: Tensor) -> Tensor:
    return cover * (things >= 0)[..., None]


def on_things(cover: Tensor, things: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N) each: the thing that covers most of the patch, whether the patch shows it, and whether the patch is at its
    edge. cover (B, M, N), things (B, M): as in `Shown`."""
    share, which = _covered(cover, things).max(dim=1)
    thing = things.clamp_min(0).gather(1, which)
    shows = share >= LEAST_COVER
    return thing, shows, (share >= EDGE) & ~shows


def draw_patches(shows: Tensor, edge: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """(B, n): at most `count` patches of each picture, preferably on things and never on an edge."""
    weight = torch.where(shows, 1.0, 0.25) * ~edge
    return torch.multinomial(weight + 1e-6, min(count, weight.shape[1]), generator=generator)


def distillation_losses(
    tokens: Tensor,
    shown: Shown,
    heads: DistillationHeads,
    keys: Tensor,
    alone_classes: Tensor,
    class_words: Tensor,
    patches: int,
) -> dict[str, Tensor]:
    """words: class of each patch, among the classes' words.  things: its thing.  picture, salient: CLS to the network's
    features of the picture, and to its largest things.  likeness: mean patch and CLS are as near as those features.
    Each ().

    tokens (B, 1 + N, D), final-normed;  keys (K, n);  alone_classes (K, C);  class_words (C, Dt) of unit length
    """
    cls, rest = tokens[:, 0], tokens[:, 1:]
    thing, shows, edge = on_things(shown.cover, shown.things)
    drawn = draw_patches(shows, edge, patches)
    rows = torch.arange(len(rest), device=rest.device)[:, None]
    target = torch.where(
        shows[rows, drawn][..., None], alone_classes[thing[rows, drawn]], shown.classes[rows, drawn]
    )
    said = F.normalize(heads.words(rest[rows, drawn]), dim=-1) @ class_words.T
    words = (
        -(target * (said * heads.sharpness.exp().clamp_max(SHARPEST)).log_softmax(dim=-1)).sum(dim=-1).mean()
    )

    covered = _covered(shown.cover, shown.things)
    salience = covered.sum(dim=2) ** 1.5  # larger things count more than their share
    salience = salience / salience.sum(dim=1, keepdim=True).clamp_min(1e-6)
    of_things = heads.salient(cls)
    cosines = F.normalize(of_things, dim=-1) @ keys.T / TEMPERATURE
    salient = -(salience * cosines.log_softmax(dim=-1).gather(1, shown.things.clamp_min(0))).sum(dim=1).mean()
    return {
        "words": words,
        "things": _things_loss(rest[shows], thing[shows], heads, keys),
        "picture": (1 - F.cosine_similarity(heads.picture(cls), shown.picture)).mean(),
        "salient": salient,
        "likeness": _likeness_loss(rest.mean(dim=1), shown.picture)
        + 0.5 * _likeness_loss(cls, shown.picture),
    }


def _things_loss(patches: Tensor, things: Tensor, heads: DistillationHeads, keys: Tensor) -> Tensor:
    """Contrastive loss of each patch (P, D) on a thing: its key, and similar ones, against all others."""
    if not len(patches):
        return patches.sum() * 0
    likeness = (keys[things] @ keys.T / ALIKE).softmax(dim=-1)
    cosines = F.normalize(heads.thing(patches), dim=-1) @ keys.T / TEMPERATURE
    return -(likeness * cosines.log_softmax(dim=-1)).sum(dim=-1).mean()


def _likeness_loss(vectors: Tensor, picture: Tensor) -> Tensor:
    """Ten times the mean squared difference of the cosines between pictures, of `vectors` and of `picture`."""
    unit = F.normalize(vectors, dim=-1)
    apart = ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    return 10 * ((unit @ unit.T - picture @ picture.T)[apart] ** 2).mean()
