"""The optimiser of the backbone's matrices."""

import pytest
import torch

from steersearch.training.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(3, 16, 40), (2, 40, 16), (1, 8, 8)])
def test_updates_are_nearly_orthogonal_and_point_the_same_way(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    made = orthogonalised(matrices)
    assert made.shape == matrices.shape
    spectrum = torch.linalg.svdvals(made)
    assert spectrum.min() > 0.5
    assert spectrum.max() < 1.3
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(made.flatten(1), (u @ v).flatten(1)).min() > 0.97


def test_steps_are_those_of_torchs_own_but_for_its_bfloat16() -> None:
    start = [torch.randn(24, 16, generator=torch.Generator().manual_seed(i)) * 0.1 for i in range(3)]
    ours, theirs = ([torch.nn.Parameter(p.clone()) for p in start] for _ in range(2))
    mine = Muon(ours, lr=0.05, weight_decay=0.1)
    library = torch.optim.Muon(theirs, lr=0.05, weight_decay=0.1, adjust_lr_fn="original")
    for step in range(4):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            gradient = torch.randn(24, 16, generator=torch.Generator().manual_seed(10 * step + i))
            a.grad, b.grad = gradient.clone(), gradient.clone()
        mine.step()
        library.step()
    for a, b, before in zip(ours, theirs, start, strict=True):
        moved, expected = a.detach() - before, b.detach() - before
        assert torch.nn.functional.cosine_similarity(moved.flatten(), expected.flatten(), dim=0) > 0.995
        assert moved.norm() == pytest.approx(float(expected.norm()), rel=0.03)


def test_what_is_no_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="matrices"):
        Muon([torch.nn.Parameter(torch.zeros(3))])
