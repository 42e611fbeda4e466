"""Objectives against numbers worked out by hand."""

import math

import pytest
import torch

from steersearch.training.losses import (
    alone_contrastive_losses,
    alone_cosine_losses,
    gaussian_target,
    patch_target,
    pmass,
    pointing,
    segmentation_loss,
)


def test_target_is_a_distribution_and_an_empty_mask_stays_empty() -> None:
    target = patch_target(torch.tensor([[0.5, 1.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    assert torch.allclose(target, torch.tensor([[0.25, 0.5, 0.25, 0.0], [0.0, 0.0, 0.0, 0.0]]))


def test_segmentation_loss_by_hand() -> None:
    logits = torch.tensor([[math.log(1.0), math.log(3.0)], [0.0, 0.0]])  # probabilities 1/4, 3/4 and 1/2, 1/2
    target = torch.tensor([[0.0, 1.0], [0.5, 0.5]])
    expected = (-math.log(0.75) - math.log(0.5)) / 2
    assert segmentation_loss(logits, target).item() == pytest.approx(expected, abs=1e-6)


def test_segmentation_loss_is_least_at_the_target() -> None:
    target = torch.tensor([[0.1, 0.2, 0.7]])
    best = segmentation_loss(target.log(), target)
    for other in torch.randn(20, 1, 3):
        assert segmentation_loss(other, target) >= best


def test_contrastive_loss_by_hand() -> None:
    keys = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    embedding = torch.tensor([[2.0, 0.0]])  # cosines 1, 0, -1
    positive, nothing = torch.tensor([0]), torch.zeros(1, 3, dtype=torch.bool)
    expected = -math.log(math.e / (math.e + 1 + 1 / math.e))
    found = alone_contrastive_losses(embedding, keys, positive, nothing, temperature=1.0)
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_contrastive_loss_leaves_out_keys_that_the_prompt_fits_but_never_the_positive() -> None:
    keys = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    excluded = torch.tensor([[True, False, True]])
    found = alone_contrastive_losses(torch.tensor([[2.0, 0.0]]), keys, torch.tensor([0]), excluded, 1.0)
    assert found.item() == pytest.approx(-math.log(math.e / (math.e + 1)), abs=1e-6)


def test_no_single_object_in_the_batch_costs_nothing() -> None:
    empty = torch.zeros(0, 2, requires_grad=True)
    losses = alone_contrastive_losses(
        empty, torch.eye(2), torch.zeros(0, dtype=torch.long), torch.zeros(0, 2, dtype=torch.bool)
    )
    assert losses.sum().item() == 0
    assert alone_cosine_losses(empty, torch.zeros(0, 2)).sum().item() == 0


def test_cosine_loss_by_hand() -> None:
    found = alone_cosine_losses(
        torch.tensor([[3.0, 0.0], [1.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    )
    assert found.tolist() == pytest.approx([0, 1 - math.sqrt(0.5)], abs=1e-6)


def test_pointing_target_by_hand() -> None:
    # The middle of the second patch of three, in one row.
    centre = torch.tensor([[1.5, 0.5], [math.nan, math.nan]])
    target = gaussian_target(centre, (1, 3), sigma=1.1)
    beside = math.exp(-1 / (2 * 1.1**2))
    expected = [beside / (1 + 2 * beside), 1 / (1 + 2 * beside), beside / (1 + 2 * beside)]
    assert target[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert target[1].tolist() == [0, 0, 0]


def test_pointing_target_has_rows_and_columns_the_right_way_round() -> None:
    target = gaussian_target(torch.tensor([[3.5, 1.5]]), (3, 5), sigma=0.4).reshape(3, 5)
    assert target.argmax().item() == 1 * 5 + 3


def test_pmass_and_pointing_by_hand() -> None:
    logits = torch.tensor([[math.log(6.0), math.log(3.0), math.log(1.0)]])  # probabilities .6, .3, .1
    cover = torch.tensor([[0.0, 0.2, 0.9]])
    assert pmass(logits, cover).item() == pytest.approx(0.4, abs=1e-6)
    assert pointing(logits, cover).tolist() == [False]  # the strongest patch has none of the object
    assert pointing(logits.flip(1), cover).tolist() == [True]
    assert pointing(logits, torch.tensor([[0.1, 0.0, 0.1]])).tolist() == [True]  # as much as any patch has
