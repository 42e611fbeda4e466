"""What teaches a hybrid backbone, against straightforward sums in float64 and cases whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from steersearch.training.hybrid.distillation import (
    LOSSES,
    TEMPERATURE,
    Components,
    DistillationHeads,
    Shown,
    distillation_losses,
    on_things,
    thing_keys,
)


def some_things(count: int = 6) -> tuple[Tensor, Tensor]:
    """Keys, and probabilities of eight classes."""
    generator = torch.Generator().manual_seed(0)
    deep, fine = torch.randn(count, 24, generator=generator), torch.randn(count, 10, generator=generator)
    classes = torch.rand(count, 8, generator=generator)
    keys = thing_keys(deep, fine, torch.rand(count, 3, generator=generator))
    return keys, classes / classes.sum(dim=1, keepdim=True)


def test_components_are_the_half_whitened_principal_ones() -> None:
    features = torch.randn(50, 4, dtype=torch.float64) * torch.tensor(
        [8.0, 4.0, 2.0, 0.1], dtype=torch.float64
    )
    components = Components.of(features, 3)
    projected = (features - features.mean(dim=0)) @ components.axes
    assert projected.norm(dim=1).mean().item() == pytest.approx(1)
    gram = projected.T @ projected
    assert torch.allclose(
        gram - torch.diag(gram.diagonal()), torch.zeros(3, 3, dtype=torch.float64), atol=1e-9
    )
    spread = torch.linalg.svdvals(features - features.mean(dim=0))[:3]
    wanted = (spread / spread[0]).sqrt()  # half whitened: by the root of what sets them apart
    assert torch.allclose(gram.diagonal().sqrt() / gram[0, 0].sqrt(), wanted)
    assert torch.allclose(components(features).norm(dim=1), torch.ones(50, dtype=torch.float64))


def test_few_things_give_as_many_components_as_there_are() -> None:
    keys, _ = some_things(3)
    assert keys.isfinite().all()
    assert torch.allclose(keys.norm(dim=1), torch.ones(3))


def test_a_patch_shows_the_thing_that_covers_most_of_it() -> None:
    cover = torch.tensor([[[0.5, 0.2, 0.0, 0.3], [0.4, 0.0, 0.1, 0.9]]])
    shown = Shown(cover, torch.tensor([[3, -1]]), torch.zeros(1, 4, 8), torch.zeros(1, 5))
    thing, shows, edge = on_things(shown.cover, shown.things)
    assert shows.tolist() == [[True, False, False, False]]  # what -1 covers counts for nothing
    assert edge.tolist() == [[False, True, False, True]]
    assert thing[shows].tolist() == [3]


@torch.no_grad()
def test_losses_are_those_of_plain_sums() -> None:
    torch.manual_seed(1)
    (keys, alone_classes), words = some_things(), F.normalize(torch.randn(8, 7), dim=1)
    heads = DistillationHeads(16, text=7, key=keys.shape[1], picture=5)
    cover = torch.zeros(2, 2, 9)
    cover[0, 0, :4], cover[0, 1, 4:6], cover[1, 0, 8] = 1.0, 0.5, 0.8
    shown = Shown(
        cover,
        torch.tensor([[1, 4], [2, -1]]),
        torch.full((2, 9, 8), 1 / 8),
        F.normalize(torch.randn(2, 5), dim=1),
    )
    tokens = torch.randn(2, 10, 16)
    found = distillation_losses(tokens, shown, heads, keys, alone_classes, words, patches=9)

    target, entropy = {(0, n): 1 for n in range(4)} | {(0, 4): 4, (0, 5): 4, (1, 8): 2}, 0.0
    said_of_things = 0.0
    for b in range(2):
        for n in range(9):
            token = tokens[b, 1 + n]
            cosines = F.normalize(heads.words(token), dim=0) @ words.T * 30
            wanted = alone_classes[target[b, n]] if (b, n) in target else torch.full((8,), 1 / 8)
            entropy -= float((wanted * cosines.log_softmax(0)).sum()) / 18
            if (b, n) in target:
                likeness = (keys[target[b, n]] @ keys.T / 0.05).softmax(0)
                cosines = F.normalize(heads.thing(token), dim=0) @ keys.T / TEMPERATURE
                said_of_things -= float((likeness * cosines.log_softmax(0)).sum()) / len(target)
    assert found["words"].item() == pytest.approx(entropy, abs=1e-4)
    assert found["things"].item() == pytest.approx(said_of_things, abs=1e-4)

    salient = 0.0
    for b, shares in ((0, {1: 4**1.5, 4: 1.0}), (1, {2: 1.0})):
        cosines = (F.normalize(heads.salient(tokens[b, 0]), dim=0) @ keys.T / TEMPERATURE).log_softmax(0)
        salient -= sum(share * float(cosines[k]) for k, share in shares.items()) / sum(shares.values()) / 2
    assert found["salient"].item() == pytest.approx(salient, abs=1e-4)

    cosine = float(shown.picture[0] @ shown.picture[1])
    mean, cls = F.normalize(tokens[:, 1:].mean(dim=1), dim=1), F.normalize(tokens[:, 0], dim=1)
    likeness_loss = 10 * (
        (float(mean[0] @ mean[1]) - cosine) ** 2 + 0.5 * (float(cls[0] @ cls[1]) - cosine) ** 2
    )
    assert found["likeness"].item() == pytest.approx(likeness_loss, abs=1e-4)
    assert tuple(found) == LOSSES


def test_a_batch_without_things_is_no_gap_in_the_loss() -> None:
    keys, alone_classes = some_things()
    heads = DistillationHeads(16, text=7, key=keys.shape[1], picture=5)
    shown = Shown(
        torch.zeros(2, 2, 9),
        torch.full((2, 2), -1),
        torch.full((2, 9, 8), 1 / 8),
        F.normalize(torch.ones(2, 5), dim=1),
    )
    found = distillation_losses(
        torch.randn(2, 10, 16),
        shown,
        heads,
        keys,
        alone_classes,
        F.normalize(torch.randn(8, 7), dim=1),
        patches=40,
    )
    assert all(math.isfinite(value.item()) for value in found.values())
    assert found["things"].item() == found["salient"].item() == 0
