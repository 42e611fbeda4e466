"""Attention maps: heads pooled and sinks suppressed as published, against loops and hand-worked numbers."""

from __future__ import annotations

import statistics
from typing import get_args

import numpy as np
import pytest
import torch

from steersearch.core.attention_maps import (
    HeadPooling,
    attention_maps,
    pool_heads,
    to_unit_range,
    without_sinks,
)
from steersearch.core.errors import ArgumentError, ConfigError

Rows = list[list[float]]


def suppressed_by_loops(rows: Rows) -> Rows:
    """The published rule, cell by cell in Python floats."""
    for replace_by_neighbours in (False, False, True):
        values = [value for row in rows for value in row]
        median = statistics.median_low(values)
        mad = statistics.median_low([abs(value - median) for value in values])
        mean = sum(values) / len(values)
        following = [list(row) for row in rows]
        for y, row in enumerate(rows):
            for x, value in enumerate(row):
                around = [
                    rows[v][u]
                    for v in range(max(0, y - 1), min(len(rows), y + 2))
                    for u in range(max(0, x - 1), min(len(row), x + 2))
                    if (v, u) != (y, x)
                ]
                beside = sum(around) / len(around) if around else 0.0
                if value > median + 5 * 1.4826 * mad and value > beside and value > 5 * beside:
                    following[y][x] = beside if replace_by_neighbours else mean
        rows = following
    return rows


def spiky(shape: tuple[int, int], spikes: list[tuple[int, int]], seed: int = 0) -> np.ndarray:
    """Attention such as a ViT's: many small values, a few some hundred times as large."""
    rng = np.random.default_rng(seed)
    values = rng.random(shape) ** 3 + 0.01
    for i, (y, x) in enumerate(spikes):
        values[y, x] = 30.0 * 4**i
    return values / values.sum()


CASES = {
    "random": np.random.default_rng(1).random((7, 9)),
    "even count": np.random.default_rng(2).random((6, 6)) ** 4,
    "flat": np.full((5, 4), 1 / 20),
    "spike inside": spiky((8, 6), [(3, 3)]),
    "spikes at the border": spiky((6, 8), [(0, 0), (5, 3), (2, 7), (5, 7)]),
    "spikes side by side": spiky((9, 9), [(4, 4), (4, 5), (8, 8), (7, 8)]),
    "a strong spike hides a weak one": spiky((12, 12), [(2, 2), (2, 3), (9, 9), (6, 1), (0, 11)]),
    "zeros around": np.pad(np.ones((1, 1)), 3),
    "below zero": np.random.default_rng(3).normal(size=(6, 5)),
    "one row": spiky((1, 12), [(0, 5)]),
    "one column": spiky((12, 1), [(0, 0)]),
    "one patch": np.array([[0.3]]),
}


@pytest.mark.parametrize("name", CASES)
def test_sinks_go_as_in_a_loop_over_the_patches(name: str) -> None:
    values = CASES[name]
    found = without_sinks(torch.from_numpy(values))
    np.testing.assert_allclose(found.numpy(), suppressed_by_loops(values.tolist()), rtol=1e-12, atol=1e-15)


def test_the_cases_hold_what_they_are_named_for() -> None:
    changed = {n for n, v in CASES.items() if not np.array_equal(without_sinks(torch.from_numpy(v)), v)}
    unchanged = {"random", "flat", "one patch"}
    assert changed >= {name for name in CASES if "spike" in name} | {"zeros around", "one row", "one column"}
    assert not changed & unchanged


def test_maps_of_a_batch_do_not_see_each_other() -> None:
    maps = np.stack([spiky((6, 5), [(seed, seed)], seed) for seed in range(4)]).reshape(2, 2, 6, 5)
    found = without_sinks(torch.from_numpy(maps))
    assert found.shape == maps.shape
    for i in range(2):
        for j in range(2):
            alone = suppressed_by_loops(maps[i, j].tolist())
            np.testing.assert_allclose(found[i, j], alone, rtol=1e-12)


def test_three_passes_by_hand() -> None:
    """Ones around a spike c: median 1, MAD 0, neighbours 1; the passes put (8 + c) / 9, again, then 1."""

    def after(spike: float) -> float:
        rows = torch.ones(3, 3, dtype=torch.float64)
        rows[1, 1] = spike
        found = without_sinks(rows)
        assert torch.equal(found[0], rows[0])
        return float(found[1, 1])

    assert after(5.0) == 5.0  # not above 5 × its neighbours
    assert after(46.0) == pytest.approx(14 / 9)  # 46 -> 6 -> 14/9, no sink any more
    assert after(406.0) == 1.0  # 406 -> 46 -> 6, then the mean of the neighbours


def test_neighbours_beyond_the_border_do_not_count() -> None:
    """The corner has the neighbours 1, 3, 2: mean 2. Lower median 2, MAD 1, threshold 9.413."""
    for corner, is_sink in ((9.3, False), (9.8, False), (10.1, True)):
        rows = torch.tensor([[corner, 1, 2], [3, 2, 1]], dtype=torch.float64)
        assert (without_sinks(rows)[0, 0] != corner) == is_sink


def test_heads_are_pooled() -> None:
    attention = torch.tensor([[[0.1, 0.4], [0.2, 0.3], [0.6, 0.2], [0.7, 0.0]]], dtype=torch.float64)
    by_hand = {
        "mean": [0.4, 0.225],
        "max": [0.7, 0.4],
        "min": [0.1, 0.0],
        "median": [0.2, 0.2],  # the lower one of the two in the middle
        "mean-std": [0.4 - (0.26 / 3) ** 0.5, 0.225 - (0.0875 / 3) ** 0.5],
    }
    assert {*by_hand, "none"} == set(get_args(HeadPooling))
    for heads, expected in by_hand.items():
        assert pool_heads(attention, heads)[0].tolist() == pytest.approx(expected)  # type: ignore[arg-type]
    assert torch.equal(pool_heads(attention, "none"), attention)
    assert pool_heads(attention[:, :1], "mean-std")[0].tolist() == pytest.approx([0.1, 0.4])


def test_maps_are_pooled_cleaned_and_stretched() -> None:
    attention = torch.rand(3, 4, 42, generator=torch.Generator().manual_seed(0)).softmax(dim=-1)
    attention[1, :, 17] = 0.9
    maps = attention_maps(attention, (6, 7))
    assert maps.shape == (3, 6, 7)
    assert maps.dtype == torch.float32
    for found, rows in zip(maps, attention.double().mean(dim=1).reshape(3, 6, 7), strict=True):
        clean = np.array(suppressed_by_loops(rows.tolist()))
        expected = (clean - clean.min()) / (clean.max() - clean.min() + 1e-6)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_what_is_switched_off_is_left_out() -> None:
    attention = torch.rand(2, 3, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    attention[0, :, 5] = 40
    mean = attention.mean(dim=1).reshape(2, 3, 4)
    raw = attention_maps(attention, (3, 4), suppress_sinks=False, normalise=False)
    assert torch.equal(raw, mean)
    assert torch.equal(attention_maps(attention, (3, 4), normalise=False), without_sinks(mean))
    assert torch.equal(attention_maps(attention, (3, 4), suppress_sinks=False), to_unit_range(mean))


def test_heads_apart_are_maps_of_their_own() -> None:
    attention = torch.rand(2, 3, 12, generator=torch.Generator().manual_seed(2))
    attention[0, 1, 5] = 40
    maps = attention_maps(attention, (3, 4), heads="none")
    assert maps.shape == (2, 3, 3, 4)
    for head in range(3):
        assert torch.equal(maps[:, head], attention_maps(attention[:, head : head + 1], (3, 4)))


def test_a_range_by_hand() -> None:
    maps = torch.tensor([[[0.0, 2e-6], [1e-6, 3e-6]]], dtype=torch.float64)
    assert to_unit_range(maps).flatten().tolist() == pytest.approx([0, 0.5, 0.25, 0.75])


def test_a_flat_map_is_zero_everywhere() -> None:
    assert not attention_maps(torch.full((1, 2, 6), 1 / 6), (2, 3)).any()


def test_half_precision_is_widened() -> None:
    attention = torch.rand(1, 2, 20, generator=torch.Generator().manual_seed(3)).bfloat16()
    assert torch.equal(attention_maps(attention, (4, 5)), attention_maps(attention.float(), (4, 5)))


def test_the_attention_given_is_left_alone() -> None:
    attention = torch.from_numpy(spiky((4, 4), [(1, 1)])).reshape(1, 1, 16)
    before = attention.clone()
    attention_maps(attention, (4, 4), heads="none")
    assert torch.equal(attention, before)


@pytest.mark.parametrize("shape", [(2, 12), (2, 3, 13), (1, 2, 3, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ArgumentError, match=r"must be \(B, heads, N\) with N = 3 · 4") as error:
        attention_maps(torch.zeros(shape), (3, 4))
    assert error.value.value == shape


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ConfigError, match="'mean-std'") as error:
        attention_maps(torch.zeros(1, 2, 12), (3, 4), heads="mean_std")  # type: ignore[arg-type]
    assert (error.value.field, error.value.value) == ("heads", "mean_std")
