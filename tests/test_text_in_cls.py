"""What a prompt does to CLS, by changes that are plain to see."""

import pytest
import torch

from steersearch.benchmarks.paper.text_in_cls import moved, shared


def test_what_all_pictures_have_in_common() -> None:
    alike = torch.tensor([[3.0, 4.0]]).repeat(5, 1)
    assert shared(alike) == pytest.approx(1.0)
    assert shared(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])) == 0
    assert shared(torch.tensor([[1.0, 1.0], [1.0, -1.0]])) == pytest.approx(
        0.5
    )  # half of the square is common


def test_how_far_vectors_moved() -> None:
    plain = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert moved(plain, 3 * plain) == pytest.approx(0.0, abs=1e-6)
    assert moved(plain, torch.tensor([[0.0, 1.0], [0.0, 1.0]])) == pytest.approx(0.5)
