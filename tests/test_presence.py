from __future__ import annotations

import math

import pytest
import torch

from steersearch.core.steervit import Features


def features(logits: list[list[float]], dtype: torch.dtype = torch.float32) -> Features:
    values = torch.tensor(logits, dtype=dtype)
    patches = torch.zeros(*values.shape, 2, dtype=dtype)
    return Features(prefix=patches[:, :0], patches=patches, logits=values, grid=(1, values.shape[1]))


def test_presence_of_small_maps() -> None:
    rows = [[0, 0, 0, 0], [6, 6, 6, 6], [math.log(5), 0, 0, 0], [6 + math.log(5), 6, 6, 6]]
    found = features(rows).presence()
    one_stands_out = math.log((5 + 1 + 1 + 1) / 4) - math.log(5) / 4 / 2
    assert found.tolist() == pytest.approx([0, 3, one_stands_out, 3 + one_stands_out], abs=1e-6)


def test_presence_is_float32_whatever_the_model_computes_in() -> None:
    found = features([[1, 2, 4]], torch.bfloat16).presence()
    assert found.dtype == torch.float32
    assert found.tolist() == features([[1, 2, 4]]).presence().tolist()
