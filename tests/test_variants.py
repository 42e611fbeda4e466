"""The paper's variants as options of one model, its two halves, attention maps, half precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steersearch.core.errors import ConfigError, PromptError
from steersearch.core.predictor import Predictor
from steersearch.core.steervit import Features, SteerViT
from steersearch.core.tiles import split_tiles, whole_pictures
from tests.small_models import KINDS, TIMM_KINDS, pixels_for, prompts_of, small_model, timm_vit


def tokens_of(features: Features) -> Tensor:
    return torch.cat([features.prefix, features.patches], dim=1)


def by_hand(
    model: SteerViT, pixels: Tensor, lengths: Sequence[int], gate_scale: float, positions: Sequence[int]
) -> Tensor:
    """Final tokens with the model's own layers in plain order: before the block at each of `positions`."""
    prompts = prompts_of(*lengths)
    text = model.connector(prompts.tokens)
    layers = list(model.cross_attention.values())
    trunk: Any = model.trunk
    x = trunk.tokens(pixels)
    for depth in range(trunk.depth + 1):
        for layer, position in zip(layers, positions, strict=True):
            if position == depth:
                x = layer(x, text, prompts.mask, gate_scale)
        if depth < trunk.depth:
            x = trunk.blocks[depth](x)
    tokens: Tensor = trunk.norm(x)
    return tokens


@pytest.mark.parametrize("lengths", [(6,), (6, 2, 4)])
@pytest.mark.parametrize(
    ("changes", "positions"),
    [
        ({}, (1, 3)),
        ({"cross_attn_layers": (0, 1, 2, 3)}, (0, 1, 2, 3)),
        ({"cross_attn_layers": (3, 9, 30)}, (3,)),
        ({"fusion": "late"}, (4, 4)),
        ({"fusion": "late", "use_ffn": True}, (4, 4)),
        ({"connector_hidden": None}, (1, 3)),
        ({"tanh_gate": False}, (1, 3)),
        ({"tanh_gate": False, "use_ffn": True}, (1, 3)),
    ],
)
def test_each_variant_steers_where_it_says(
    changes: dict[str, Any], positions: Sequence[int], lengths: tuple[int, ...]
) -> None:
    model = small_model(**changes)
    pixels, prompts = pixels_for(model), prompts_of(*lengths)
    with torch.inference_mode():  # one prompt is folded here, and not in `by_hand`
        found = tokens_of(model(pixels, prompts, 0.7))
        expected = by_hand(model, pixels, lengths, 0.7, positions)
        assert torch.allclose(found, expected, atol=1e-5)
        assert not torch.allclose(found, tokens_of(model(pixels)), atol=1e-2)
        assert torch.equal(tokens_of(model(pixels, prompts, 0.0)), tokens_of(model(pixels)))


def test_late_fusion_leaves_the_backbone_alone_and_has_as_many_parameters() -> None:
    early, late = small_model(), small_model(fusion="late")
    count = [sum(p.numel() for _, p in model.trainable_parameters()) for model in (early, late)]
    assert count[0] == count[1]
    seen: list[Tensor] = []
    trunk: Any = late.trunk
    trunk.blocks[-1].register_forward_hook(lambda _module, _args, out: seen.append(out))
    pixels = pixels_for(late)
    with torch.inference_mode():
        late(pixels, prompts_of(5))
        late(pixels)
    assert torch.equal(seen[0], seen[1])


def test_nothing_of_the_patches_reaches_cls_after_late_fusion() -> None:
    """What a prompt does to CLS depends on CLS alone, and the segmentation loss does not train it."""
    model = small_model(fusion="late")
    before = model.before_steering(pixels_for(model, 2)).requires_grad_()
    steering = model.steering(prompts_of(4, 3))
    tokens = before.detach().clone()
    tokens[:, 1:] += 1
    late = [steering(model.trunk.depth, each) for each in (before, tokens)]
    assert torch.equal(late[0][:, 0], late[1][:, 0])
    assert not torch.equal(late[0][:, 1:], late[1][:, 1:])
    F.log_softmax(model.head(model.trunk.norm(late[0]))[:, 1:, 0], dim=1)[:, 0].sum().backward()
    assert before.grad is not None
    assert before.grad[:, 0].abs().max() == 0
    assert before.grad[:, 1:].abs().max() > 0


def test_a_linear_connector_is_one_product() -> None:
    connector = small_model(connector_hidden=None).connector
    (linear,) = connector.mlp
    assert isinstance(linear, nn.Linear)
    tokens = prompts_of(5).tokens
    unit = tokens / tokens.norm(dim=-1, keepdim=True)
    assert torch.allclose(connector(tokens), unit @ linear.weight.T + linear.bias, atol=1e-6)


def test_without_a_gate_there_is_none_to_learn_and_the_update_counts_as_gate_scale_says() -> None:
    model = small_model(tanh_gate=False)
    assert not [name for name, _ in model.trainable_parameters() if "gate" in name]
    layer: Any = model.cross_attention["1"]
    x, text = torch.randn(2, 7, 64), torch.randn(1, 5, 64)
    update = layer(x, text) - x
    assert torch.allclose(layer(x, text, gate_scale=0.25) - x, 0.25 * update, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"fusion": "middle"}, "fusion"), ({"cross_attn_layers": (1, -1)}, "cross_attn_layers")],
)
def test_variants_that_do_not_exist_are_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        small_model(**changes)
    assert caught.value.field == field


# ------------------------------------------------------------------------------------------------- two halves


@pytest.mark.parametrize("fusion", ["early", "late"])
@pytest.mark.parametrize("kind", KINDS)
def test_many_prompts_share_the_first_half(kind: str, fusion: str) -> None:
    model = small_model(kind, fusion=fusion)
    pixels = pixels_for(model)
    counts = {"stem": 0, "block": 0}
    trunk: Any = model.trunk
    whole = trunk.tokens
    trunk.tokens = lambda pixels: (counts.update(stem=counts["stem"] + 1), whole(pixels))[1]
    trunk.blocks[0].register_forward_hook(lambda *_: counts.update(block=counts["block"] + 1))
    with torch.inference_mode():
        before = model.before_steering(pixels)
        ways = [(None, 1.0), (prompts_of(5), 1.0), (prompts_of(3), 0.5), (prompts_of(4, 2, 3), 1.0)]
        shared = [model.steer(before, model.steering(*way)) for way in ways]
        assert counts == {"stem": 1, "block": 1}
        for way, found in zip(ways, shared, strict=True):
            assert torch.equal(tokens_of(found), tokens_of(model(pixels, *way)))


def test_one_steering_serves_batches_of_any_size() -> None:
    model = small_model()
    pixels = pixels_for(model, batch=5)
    with torch.inference_mode():
        steering = model.steering(prompts_of(5), 0.8)
        parts = [model.steer(model.before_steering(part), steering) for part in pixels.split([1, 3, 1])]
        whole = model(pixels, prompts_of(5), 0.8)
    assert torch.allclose(torch.cat([tokens_of(part) for part in parts]), tokens_of(whole), atol=1e-5)


@pytest.mark.parametrize("view", [None, "tile"])
def test_encoding_in_parts_gives_what_one_pass_gives(view: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(small_model()).with_view(view)
    side = predictor.preprocess.side
    pixels = torch.randn(5, 3, side, side)
    monkeypatch.setattr("steersearch.core.predictor._CPU_BATCH", 2)
    passes = {None: [2, 2, 1], "tile": [4] * 5}
    seen: list[int] = []
    trunk: Any = predictor.model.trunk
    trunk.blocks[0].register_forward_hook(lambda _module, args, _out: seen.append(len(args[0])))
    with torch.inference_mode():
        steerings = [predictor.steering(None), predictor.steering(prompts_of(5), 0.7)]
        found = predictor.encode(pixels, steerings)
        assert seen == passes[view]
        tokens = predictor.model.before_steering(split_tiles(pixels) if view == "tile" else pixels)
        for one, steering in zip(found, steerings, strict=True):
            whole = predictor.model.steer(tokens, steering)
            whole = whole_pictures(whole) if view == "tile" else whole
            assert torch.allclose(tokens_of(one), tokens_of(whole), atol=1e-5)
            assert torch.allclose(one.aggregate("mean"), whole.aggregate("mean"), atol=1e-5)
            assert torch.allclose(one.heatmap(), whole.heatmap(), atol=1e-6)


def test_a_steering_for_other_images_is_refused() -> None:
    model = small_model()
    before = model.before_steering(pixels_for(model, batch=3))
    with pytest.raises(PromptError, match="2 prompts for 3 images"):
        model.steer(before, model.steering(prompts_of(4, 4)))


# --------------------------------------------------------------------------------------------- attention maps


@pytest.mark.parametrize("kind", [kind for kind in TIMM_KINDS if kind != "siglip"])
def test_attention_is_what_timm_computes_in_its_last_block(kind: str) -> None:
    vit = timm_vit(kind)
    attention = vit.blocks[-1].attn
    attention.fused_attn = False
    kept: list[Tensor] = []
    attention.attn_drop.register_forward_hook(lambda _module, _args, out: kept.append(out))
    model = small_model(kind)
    pixels = pixels_for(model)
    with torch.no_grad():
        vit.forward_features(pixels)
        found = model(pixels, attention=True)
    prefix = vit.num_prefix_tokens
    assert found.attention is not None
    assert torch.allclose(found.attention, kept[0][:, :, 0, prefix:], atol=1e-6)


def test_attention_of_the_mini_kind_follows_the_equation_and_the_prompt() -> None:
    model = small_model("tiny", cross_attn_layers=(1, 3))
    pixels = pixels_for(model)
    trunk: Any = model.trunk
    block = trunk.blocks[-1]
    inputs: list[Tensor] = []
    block.register_forward_pre_hook(lambda _module, args: inputs.append(args[0]))
    with torch.no_grad():
        plain = model(pixels, attention=True)
        steered = model(pixels, prompts_of(5), attention=True)
        for found, x in zip((plain, steered), inputs, strict=True):
            qkv = F.linear(block.norm1(x), block.attn.qkv.weight, block.attn.qkv.bias).double()
            for head in range(2):
                q, k = (qkv[..., 64 * part + 32 * head : 64 * part + 32 * (head + 1)] for part in (0, 1))
                expected = (torch.einsum("bd,btd->bt", q[:, 0], k) / 32**0.5).softmax(dim=-1)[:, 1:]
                assert found.attention is not None
                assert torch.allclose(found.attention[:, head].double(), expected, atol=1e-6)
    assert plain.attention is not None
    assert steered.attention is not None
    assert (plain.attention - steered.attention).abs().max() > 1e-3


def test_attention_is_kept_only_when_requested_and_changes_nothing_else() -> None:
    model = small_model()
    pixels, prompts = pixels_for(model), prompts_of(5)
    with torch.no_grad():
        without, found = model(pixels, prompts), model(pixels, prompts, attention=True)
    assert without.attention is None
    assert torch.equal(tokens_of(without), tokens_of(found))


def test_a_backbone_without_cls_token_has_no_attention_map() -> None:
    model = small_model("siglip")
    with pytest.raises(ConfigError, match="no CLS token"):
        model(pixels_for(model), attention=True)


# --------------------------------------------------------------------------------------------- half precision


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_gives_nearly_the_same_embeddings_in_float32(kind: str) -> None:
    model = small_model(kind)
    pixels, prompts = pixels_for(model, batch=4), prompts_of(5)
    with torch.inference_mode():
        full = model(pixels, prompts)
        half = model.to(torch.bfloat16)(pixels.to(torch.bfloat16), prompts)
    for aggregation in ("mean", "focus") if kind == "siglip" else ("cls", "mean", "focus"):
        one, other = full.embedding(aggregation), half.embedding(aggregation)  # type: ignore[arg-type]
        assert other.dtype == torch.float32
        assert torch.allclose(other.norm(dim=-1), torch.ones(4), atol=1e-6)
        assert (one * other).sum(dim=-1).min() > 0.999
    assert half.heatmap().dtype == torch.float32
