"""Gated cross-attention: identity at the start, names as released, folding, masks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from steersearch.core.cross_attention import GatedCrossAttention
from tests.small_models import randomise


def open_layer(dim: int = 24, ffn_mult: float | None = None) -> GatedCrossAttention:
    layer = GatedCrossAttention(dim, num_heads=4, head_dim=6, ffn_mult=ffn_mult)
    randomise(layer, std=0.4)
    return layer


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_names_and_shapes_are_those_of_the_released_files() -> None:
    with torch.device("meta"):
        layer = GatedCrossAttention(384, ffn_mult=2)
    assert {name: tuple(value.shape) for name, value in layer.state_dict().items()} == {
        "attn_gate": (1,),
        "cross_attn.norm.weight": (384,),
        "cross_attn.norm.bias": (384,),
        "cross_attn.to_q.weight": (1152, 384),
        "cross_attn.to_kv.weight": (2304, 384),
        "cross_attn.to_out.weight": (384, 1152),
        "ff_gate": (1,),
        "ff.0.weight": (384,),
        "ff.0.bias": (384,),
        "ff.1.weight": (768, 384),
        "ff.3.weight": (384, 768),
    }


def test_a_new_layer_is_the_identity_but_its_gate_can_learn() -> None:
    layer = GatedCrossAttention(24)
    x = draw(2, 5, 24)
    steered = layer(x, draw(2, 3, 24))
    assert torch.equal(steered, x)
    steered.square().sum().backward()
    assert layer.attn_gate.grad is not None
    assert layer.attn_gate.grad.abs() > 0


def test_a_single_text_token_adds_its_value_whatever_the_query() -> None:
    layer = open_layer()
    x, text = draw(2, 5, 24), draw(2, 1, 24)
    value = text @ layer.cross_attn.to_kv.weight[24:].T @ layer.cross_attn.to_out.weight.T
    expected = x + torch.tanh(0.5 * layer.attn_gate) * value
    assert torch.allclose(layer(x, text, gate_scale=0.5), expected, atol=1e-6)


@pytest.mark.parametrize("ffn_mult", [None, 1.5])
@pytest.mark.parametrize("gate_scale", [0.4, 1.0])
def test_folding_changes_nothing(ffn_mult: float | None, gate_scale: float) -> None:
    layer = open_layer(ffn_mult=ffn_mult)
    x, text = draw(2, 7, 24), draw(5, 24)
    folded = layer.fold(text, gate_scale)(x)
    assert torch.allclose(folded, layer(x, text[None], gate_scale=gate_scale), atol=1e-5)
    assert not torch.allclose(folded, x, atol=1e-2)


def test_masked_text_tokens_have_no_say() -> None:
    layer = open_layer()
    x, text = draw(2, 7, 24), draw(2, 5, 24)
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]])
    masked = layer(x, text, mask)
    assert torch.allclose(masked[0], layer(x, text)[0], atol=1e-6)
    assert torch.allclose(masked[1], layer(x[1:], text[1:, [0, 1, 3]])[0], atol=1e-5)


def test_the_feed_forward_network_has_a_gate_of_its_own() -> None:
    layer = open_layer(ffn_mult=2)
    nn.init.zeros_(layer.attn_gate)
    x = draw(1, 3, 24)
    assert layer.ff is not None
    assert layer.ff_gate is not None
    expected = x + torch.tanh(layer.ff_gate) * layer.ff(x)
    assert torch.allclose(layer(x, draw(1, 2, 24)), expected, atol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("texts", [1, 3])
def test_both_orders_of_the_products_give_the_same_update_and_gradients(masked: bool, texts: int) -> None:
    attention = open_layer().cross_attn.double()
    x, text = draw(3, 5, 24).double(), draw(texts, 4, 24).double()
    mask = torch.tensor([[True] * 4, [True, True, False, False], [True, False, False, False]])[:texts]
    found = []
    for order in (attention.queries_first, attention.text_first):
        leaves = [x.clone().requires_grad_(), text.clone().requires_grad_()]
        update = order(leaves[0], leaves[1], mask if masked else None)
        parts = [*leaves, *attention.parameters()]
        found.append([update, *torch.autograd.grad((update * draw(3, 5, 24)).sum(), parts)])
    assert len(found[0]) == 8
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("tokens", "dtype", "first"), [
    (24, torch.float32, "text"), (25, torch.float32, "queries"), (6, torch.bfloat16, "queries"),
])  # fmt: skip
def test_few_text_tokens_in_float32_are_multiplied_first(
    tokens: int, dtype: torch.dtype, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attention, taken = GatedCrossAttention(24).to(dtype).cross_attn, []  # 72 wide heads, as released
    for name in ("text", "queries"):
        order = getattr(attention, f"{name}_first")
        monkeypatch.setattr(
            attention, f"{name}_first", lambda *given, o=order, n=name: (taken.append(n), o(*given))[1]
        )
    attention(draw(2, 5, 24).to(dtype), draw(2, tokens, 24).to(dtype), None)
    assert taken == [first]
