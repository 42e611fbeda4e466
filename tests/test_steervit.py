"""SteerViT against timm, and folded against unfolded. `test_exactness` has the equations."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from steersearch.core.backbone import build_trunk
from steersearch.core.checkpoints import read_config
from steersearch.core.errors import ConfigError, PromptError
from steersearch.core.preprocess import Preprocess
from steersearch.core.registry import MODELS, PackageFile
from steersearch.core.steervit import Features, SteerViT, SteerViTConfig
from steersearch.core.text import PromptFeatures
from steersearch.core.vit import ViT, ViTConfig
from tests.small_models import (
    KINDS,
    TEXT_DIM,
    largest_difference,
    pixels_for,
    prompts_of,
    small_config,
    small_model,
    small_trunk,
    timm_vit,
)


def all_tokens(features: Features) -> Tensor:
    return torch.cat([features.prefix, features.patches], dim=1)


# --------------------------------------------------------------------------------- equal to the plain backbone


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grad", [False, True])
def test_without_prompt_or_at_gate_scale_zero_the_output_is_the_backbones_own(kind: str, grad: bool) -> None:
    model = small_model(kind)
    pixels, prompts = pixels_for(model), prompts_of(5)
    with torch.no_grad():
        own = small_trunk("tiny")(pixels) if kind == "tiny" else timm_vit(kind).forward_features(pixels)
    with torch.set_grad_enabled(grad):
        assert torch.equal(all_tokens(model(pixels)), own)
        assert torch.equal(all_tokens(model(pixels, prompts, gate_scale=0.0)), own)
        assert largest_difference(all_tokens(model(pixels, prompts)), own) > 0.1


def test_a_new_model_steers_nothing_until_it_is_trained() -> None:
    model = SteerViT(small_config(), trunk=small_trunk("tiny"))
    pixels = pixels_for(model)
    assert torch.equal(model(pixels, prompts_of(5)).patches, model(pixels).patches)
    assert torch.equal(model(pixels).heatmap(), torch.full((3, 4, 4), 1 / 16))


# ------------------------------------------------------------------------------------- folded and unfolded


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use_ffn", [False, True])
@pytest.mark.parametrize("gate_scale", [1.0, 0.6])
def test_folded_equals_unfolded(kind: str, use_ffn: bool, gate_scale: float) -> None:
    model = small_model(kind, use_ffn=use_ffn)
    pixels, prompts = pixels_for(model), prompts_of(6)
    unfolded = model(pixels, prompts, gate_scale)
    with torch.inference_mode():
        folded = model(pixels, prompts, gate_scale)
    assert unfolded.patches.requires_grad
    assert not folded.patches.requires_grad
    assert largest_difference(all_tokens(folded), all_tokens(unfolded)) < 1e-5
    assert largest_difference(folded.logits, unfolded.logits) < 1e-5


def test_one_prompt_for_all_equals_the_same_prompt_for_each() -> None:
    model = small_model()
    pixels, one = pixels_for(model), prompts_of(6)
    each = PromptFeatures(one.tokens.expand(3, -1, -1), one.mask.expand(3, -1))
    assert torch.allclose(model(pixels, one).patches, model(pixels, each).patches, atol=1e-6)


def test_padding_in_a_batch_changes_nothing() -> None:
    model = small_model()
    pixels, prompts = pixels_for(model, batch=2), prompts_of(3, 9)
    garbage = PromptFeatures(torch.where(prompts.mask[..., None], prompts.tokens, 1e3), prompts.mask)
    short = PromptFeatures(prompts.tokens[:1, :3], prompts.mask[:1, :3])
    padded = PromptFeatures(garbage.tokens[:1], garbage.mask[:1])
    with torch.inference_mode():
        together = model(pixels, prompts).patches
        assert torch.equal(model(pixels, garbage).patches, together)
        assert (
            largest_difference(model(pixels, padded).patches, model(pixels, short).patches) < 1e-5
        )  # folded
        assert largest_difference(model(pixels[:1], short).patches, together[:1]) < 1e-5
        unmasked = PromptFeatures(garbage.tokens, torch.ones_like(garbage.mask))
        assert largest_difference(model(pixels, unmasked).patches, together) > 1e-2


def test_each_image_gets_its_own_prompt() -> None:
    model = small_model()
    pixels, prompts = pixels_for(model, batch=2), prompts_of(4, 4)
    swapped = PromptFeatures(prompts.tokens.flip(0), prompts.mask.flip(0))
    with torch.inference_mode():
        straight, crossed = model(pixels, prompts).patches, model(pixels.flip(0), swapped).patches
    assert torch.allclose(straight, crossed.flip(0), atol=1e-6)
    assert largest_difference(straight, model(pixels, swapped).patches) > 1e-2


def test_threads_share_a_model_at_different_gate_scales() -> None:
    model = small_model()
    pixels, prompts = pixels_for(model), prompts_of(5)

    @torch.inference_mode()
    def run(gate_scale: float) -> Tensor:
        features: Features = model(pixels, prompts, gate_scale)
        return features.patches

    scales = [0.0, 0.3, 1.0, 2.0] * 5
    alone = [run(scale) for scale in scales]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, scales))
    assert all(largest_difference(one, other) < 1e-5 for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (prompts_of(4, 4), "2 prompts for 3 images"),
        (PromptFeatures(torch.zeros(1, 4, TEXT_DIM + 1), torch.ones(1, 4, dtype=torch.bool)), "expected 20"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(prompts: PromptFeatures, message: str) -> None:
    model = small_model()
    with pytest.raises(PromptError, match=message):
        model(pixels_for(model), prompts)


# ------------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize(
    ("size", "use_ffn", "cross_attention", "connector", "head"),
    [
        ("base", False, 21_242_886, 1_836_800, 769),
        ("base", True, 35_407_884, 1_836_800, 769),
        ("small", False, None, None, 385),
        ("large", False, None, None, 1025),
    ],
)
def test_trainable_parameters_are_as_many_as_in_the_paper(
    size: str, use_ffn: bool, cross_attention: int | None, connector: int | None, head: int
) -> None:
    name = f"vit_{size}_patch14_dinov2.lvd142m"
    preprocess = Preprocess(size=336, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    with torch.device("meta"):
        model = SteerViT(
            SteerViTConfig(trunk=name, resolution=336, use_ffn=use_ffn, preprocess=preprocess),
            build_trunk(name, 336, False),
        )
    counts = {"connector": 0, "cross_attention": 0, "head": 0}
    for parameter_name, parameter in model.trainable_parameters():
        counts[parameter_name.split(".")[0]] += parameter.numel()
    assert counts["head"] == head
    if cross_attention is not None:
        assert (counts["cross_attention"], counts["connector"]) == (cross_attention, connector)
    totals = {("base", False): 23_080_455, ("small", False): 12_065_031, ("large", False): 58_747_917}
    assert sum(counts.values()) == totals.get((size, use_ffn), 35_407_884 + 1_836_800 + 769)
    assert {i for i, _ in model.cross_attention.items()} == {str(i) for i in range(1, model._trunk.depth, 2)}


@pytest.mark.parametrize("kind", KINDS)
def test_only_connector_gates_cross_attention_and_head_learn(kind: str) -> None:
    model = small_model(kind).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainable = dict(model.trainable_parameters())
    assert {name.split(".")[0] for name in trainable} == {"connector", "cross_attention", "head"}
    optimiser = torch.optim.SGD(trainable.values(), lr=0.1)
    model(pixels_for(model), prompts_of(4, 5, 6)).logits.square().sum().backward()
    optimiser.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == set(trainable)  # all of them, and no batch norm statistic of the backbone


def test_training_mode_leaves_the_backbone_in_evaluation_mode() -> None:
    model = small_model()
    assert not model.training
    model.train()
    assert model.training
    assert not any(module.training for module in model.trunk.modules())


# ------------------------------------------------------------------------------- features and what they give


def test_aggregations_are_what_their_names_say() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0, 3.0]])
    patches = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [2.0, 2.0], [0.0, -4.0]]])
    features = Features(
        prefix=torch.tensor([[[3.0, 4.0], [9.0, 9.0]]]), patches=patches, logits=logits, grid=(2, 2)
    )
    weights = np.exp([0, 1, -1, 3]) / np.exp([0, 1, -1, 3]).sum()
    squared = weights**2 / (weights**2).sum()
    assert features.aggregate("cls").tolist() == [[3.0, 4.0]]
    assert np.allclose(features.embedding("cls"), [[0.6, 0.8]])
    assert features.aggregate("mean").tolist() == [[0.75, -0.25]]
    assert np.allclose(features.aggregate("focus"), [squared @ patches[0].numpy()])
    assert np.allclose(features.heatmap(), weights.reshape(1, 2, 2))
    unsteered = replace(features, is_steered=False)
    assert torch.equal(unsteered.aggregate("focus"), features.aggregate("mean"))
    assert torch.equal(Features.joined([unsteered] * 2).aggregate("focus")[1:], features.aggregate("mean"))


def test_a_backbone_without_cls_token_says_so() -> None:
    model = small_model("siglip")
    features = model(pixels_for(model))
    assert features.prefix.shape == (3, 0, 64)
    with pytest.raises(ConfigError, match="no CLS token"):
        features.aggregate("cls")


@pytest.mark.parametrize("kind", ["tiny", "dinov2 with registers", "siglip"])
def test_the_heatmap_covers_the_patches_in_reading_order_and_no_prefix_token(kind: str) -> None:
    model = small_model(kind)
    pixels = torch.zeros(1, 3, model.config.resolution, model.config.resolution)
    patch = model.config.resolution // 4
    pixels[..., patch, 3 * patch] = 400.0  # the first pixel of the patch in row 1, column 3
    plain, marked = model(torch.zeros_like(pixels)), model(pixels)
    moved = (marked.patches - plain.patches).norm(dim=-1).reshape(4, 4)
    assert int(moved.argmax()) == 1 * 4 + 3
    assert marked.logits.shape == (1, 16)


# -------------------------------------------------------------------------------------------------- config


def test_a_config_survives_json() -> None:
    for config in (small_config("tiny", cross_attn_layers=(0, 2), use_ffn=True), small_config("siglip")):
        assert SteerViTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"aggregation": "max"}, "aggregation"),
        ({"vit": None}, "vit"),
        ({"resolution": 128}, "resolution"),
        ({"preprocess": Preprocess(size=32, mean=(0, 0, 0), std=(1, 1, 1))}, "resolution"),
    ],
)
def test_a_config_that_cannot_work_names_the_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        small_config("tiny", **changes)
    assert caught.value.field == field


def test_a_config_of_a_newer_version_names_what_it_does_not_know() -> None:
    data = small_config().to_dict() | {"rotary": True}
    with pytest.raises(ConfigError, match="rotary"):
        SteerViTConfig.from_dict(data)


def test_shapes_are_checked() -> None:
    for changes, field in (
        ({"patch_size": 8, "stem_channels": (32, 64, 128)}, "patch_size"),
        ({"image_size": 100}, "image_size"),
        ({"num_heads": 5}, "num_heads"),
    ):
        with pytest.raises(ConfigError) as caught:
            ViTConfig(**changes)  # type: ignore[arg-type]
        assert caught.value.field == field


# ------------------------------------------------------------------------------------- another resolution


def test_at_another_resolution_only_the_positions_change_and_as_timm_resamples_them() -> None:
    model = small_model("tiny")
    larger = model.at_resolution(96)
    assert (larger.config.resolution, larger.config.preprocess.size, larger.grid) == (96, 96, (6, 6))
    given, now = model.state_dict(), larger.state_dict()
    assert [name for name in given if not torch.equal(given[name], now[name])] == ["trunk.pos_embed"]
    expected = resample_abs_pos_embed(given["trunk.pos_embed"], [6, 6], num_prefix_tokens=1)
    torch.testing.assert_close(now["trunk.pos_embed"], expected)
    assert larger(torch.zeros(1, 3, 96, 96), prompts_of(5)).patches.shape == (1, 36, larger.dim)


def test_at_its_own_resolution_a_model_stays_as_it_is() -> None:
    model = small_model("tiny")
    pixels, prompts = pixels_for(model), prompts_of(5)
    assert torch.equal(model.at_resolution(64)(pixels, prompts).patches, model(pixels, prompts).patches)


def test_a_resolution_that_the_backbone_cannot_take_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of the patch size"):
        small_model("tiny").at_resolution(90)
    built_by_timm = next(model for kind in KINDS if not isinstance((model := small_model(kind)).trunk, ViT))
    with pytest.raises(ConfigError, match="stays at"):
        built_by_timm.at_resolution(96)


def test_a_config_of_earlier_files_is_read() -> None:
    config = small_config("tiny").to_dict()
    earlier = {name: value for name, value in config.items() if name != "vit"}
    assert SteerViTConfig.from_dict({**earlier, "trunk": "tiny", "tiny": config["vit"]}) == small_config(
        "tiny"
    )
    model, holds_backbone = read_config(cast(PackageFile, MODELS["mini"].weights).path)
    assert (model.trunk, model.vit is not None, holds_backbone) == ("vit", True, True)
