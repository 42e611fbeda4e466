"""The trunks: ours equals timm's, timm's are wrapped without a change, names that cannot work are refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from steersearch.core.backbone import (
    KNOWN_TRUNKS,
    TimmTrunk,
    _preprocess_by_timm,
    build_trunk,
    full_name,
    timm_preprocess,
)
from steersearch.core.errors import CheckpointError, CheckpointKeysError, ConfigError
from steersearch.core.vit import ViT, ViTConfig
from tests.small_models import TIMM_KINDS, TINY, randomise, timm_vit


def timm_twin(config: ViTConfig) -> Any:
    """The timm model whose weights and output a `ViT` must share."""
    from timm.layers import HybridEmbed
    from timm.models.vision_transformer import VisionTransformer
    from timm.models.vision_transformer_hybrid import ConvStem

    channels = (*config.stem_channels, config.dim)
    stem = ConvStem(channels=channels, depth=len(channels), stride=(2,) * len(channels))
    return VisionTransformer(
        img_size=config.image_size,
        patch_size=1,
        embed_layer=partial(HybridEmbed, backbone=stem, proj=False),
        embed_dim=config.dim,
        depth=config.depth,
        num_heads=config.num_heads,
        mlp_ratio=config.mlp_ratio,
        num_classes=0,
    )


@pytest.mark.parametrize("config", [TINY, replace(TINY, depth=2, dim=96, num_heads=3)])
def test_a_vit_behind_a_stem_equals_timm_bit_for_bit(config: ViTConfig) -> None:
    ours, timms = ViT(config).eval(), timm_twin(config).eval()
    randomise(ours, std=0.1)
    timms.load_state_dict(ours.state_dict())  # strict: the same names and shapes
    pixels = torch.randn(2, 3, config.image_size, config.image_size)
    with torch.no_grad():
        tokens = ours(pixels)
        assert torch.equal(tokens, timms.forward_features(pixels))
        assert tokens.std() > 0.1
        assert torch.equal(ours.train()(pixels), timms.train().forward_features(pixels))  # batch statistics
    running = "patch_embed.backbone.0.bn.running_mean"
    assert torch.equal(ours.state_dict()[running], timms.state_dict()[running])


NARROW = {"dim": 64, "depth": 4, "num_heads": 2}
RELEASED = {
    "dinov2": ViTConfig(image_size=56, patch_size=14, layer_scale=True, **NARROW),  # type: ignore[arg-type]
    "mae": ViTConfig(image_size=64, patch_size=16, **NARROW),  # type: ignore[arg-type]
    "siglip": ViTConfig(image_size=64, patch_size=16, class_token=False, **NARROW),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("kind", RELEASED)
def test_a_vit_of_each_released_kind_equals_timm_bit_for_bit(kind: str) -> None:
    timms, ours = timm_vit(kind), ViT(RELEASED[kind]).eval()
    state = {key: value for key, value in timms.state_dict().items() if not key.startswith("attn_pool")}
    ours.load_state_dict(state)  # strict: the same names and shapes
    pixels = torch.randn(2, 3, RELEASED[kind].image_size, RELEASED[kind].image_size)
    with torch.no_grad():
        tokens = ours(pixels)
        assert torch.equal(tokens, timms.forward_features(pixels))
    assert tokens.std() > 0.1
    assert ours.num_prefix_tokens == timms.num_prefix_tokens


@pytest.mark.parametrize("name", KNOWN_TRUNKS)
def test_known_backbones_are_what_timm_says(name: str) -> None:
    import timm

    with torch.device("meta"):
        timms = timm.create_model(name, num_classes=0)
        ours = ViT(KNOWN_TRUNKS[name].shape)
    shapes = {k: v.shape for k, v in timms.state_dict().items() if not k.startswith("attn_pool")}
    assert {key: value.shape for key, value in ours.state_dict().items()} == shapes
    assert ours.blocks[0].attn.num_heads == timms.blocks[0].attn.num_heads  # type: ignore[union-attr]
    norms = [module.eps for module in timms.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert set(norms) == {1e-6}
    assert type(timms.blocks[0].mlp.act) is torch.nn.GELU
    assert timms.blocks[0].mlp.act.approximate == "none"
    assert timm_preprocess(name, 112) == _preprocess_by_timm(name, 112)


@pytest.mark.parametrize(
    ("name", "resolution"),
    [
        ("vit_small_patch14_dinov2.lvd142m", 42),
        ("vit_small_patch14_dinov2.lvd142m", 518),
        pytest.param("vit_base_patch16_siglip_224.v2_webli", 96, marks=pytest.mark.slow),
    ],
)
def test_a_known_backbone_reads_timms_file_as_timm_does(name: str, resolution: int, tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    path = tmp_path / "model.safetensors"
    pretrained = timm.create_model(name, num_classes=0)
    torch.nn.init.normal_(pretrained.pos_embed)
    save_file(pretrained.state_dict(), path)
    timms = timm.create_model(
        name,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(path)},
        img_size=resolution,
        num_classes=0,
    )
    ours = build_trunk(name, resolution, pretrained=True, weights=path)
    assert isinstance(ours, ViT)
    expected = timms.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in ours.state_dict().items())
    assert not any(parameter.requires_grad for parameter in ours.parameters())


def test_a_known_backbone_refuses_files_without_its_weights(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    name, path = "vit_small_patch14_dinov2.lvd142m", tmp_path / "model.safetensors"
    path.write_text("nothing")
    with pytest.raises(CheckpointError, match=f"no weights for {name}"):
        build_trunk(name, 42, pretrained=True, weights=path)
    state = build_trunk(name, 42, pretrained=False).state_dict()
    save_file({key: value for key, value in state.items() if key != "norm.bias"}, path)
    with pytest.raises(CheckpointKeysError, match=r"missing: norm\.bias"):
        build_trunk(name, 42, pretrained=True, weights=path)
    save_file(state | {"norm.bias": torch.zeros(3)}, path)
    with pytest.raises(CheckpointKeysError, match=r"of another shape: norm\.bias"):
        build_trunk(name, 42, pretrained=True, weights=path)


def test_released_backbones_are_built_without_timm(tmp_path: Path) -> None:
    """Neither timm nor what is slow to import in its wake: half a gigabyte and four seconds."""
    program = """
import sys, torch
from steersearch.core.backbone import build_trunk, full_name, timm_preprocess
from steersearch.core.steervit import SteerViT, SteerViTConfig
name = full_name("vit_small_patch14_dinov2.lvd142m")
with torch.device("meta"):
    trunk = build_trunk(name, 336, pretrained=False)
    SteerViT(SteerViTConfig(trunk=name, resolution=336, preprocess=timm_preprocess(name, 336)), trunk)
print([name for name in ("timm", "torchvision", "torch._dynamo", "sympy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_vit_starts_like_timm_and_can_be_trained() -> None:
    ours, timms = ViT(TINY), timm_twin(TINY)
    for name, value in timms.state_dict().items():
        if value.numel() > 100 and value.ndim > 1:
            assert ours.state_dict()[name].std() == pytest.approx(value.std().item(), rel=0.2), name
    ours(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())


def test_vit_refuses_another_size() -> None:
    with pytest.raises(ConfigError, match=r"\(B, 3, 64, 64\)"):
        ViT(TINY)(torch.zeros(1, 3, 80, 64))


@pytest.mark.parametrize("kind", TIMM_KINDS)
def test_a_timm_backbone_takes_timms_own_steps(kind: str) -> None:
    vit = timm_vit(kind)
    side = TIMM_KINDS[kind][1]
    pixels = torch.randn(2, 3, side, side)
    with torch.no_grad():
        expected = vit.forward_features(pixels)
        trunk = TimmTrunk(vit)
        x = trunk.tokens(pixels)
        for block in trunk.blocks:
            x = block(x)
        assert torch.equal(trunk.norm(x), expected)
    prefix = {"dinov2": 1, "dinov2 with registers": 5, "mae": 1, "siglip": 0}[kind]
    assert (trunk.num_prefix_tokens, trunk.grid, trunk.dim, trunk.depth) == (prefix, (4, 4), 64, 4)
    assert vit.attn_pool is None


@pytest.mark.parametrize(
    ("name", "resolution", "prefix", "grid", "dim", "depth"),
    [
        ("vit_small_patch14_dinov2.lvd142m", 336, 1, 24, 384, 12),
        ("vit_base_patch14_dinov2.lvd142m", 336, 1, 24, 768, 12),
        ("vit_large_patch14_dinov2.lvd142m", 336, 1, 24, 1024, 24),
        ("vit_base_patch16_224.mae", 336, 1, 21, 768, 12),
        ("vit_base_patch16_siglip_224.webli", 336, 0, 21, 768, 12),
        ("vit_base_patch16_siglip_224.v2_webli", 336, 0, 21, 768, 12),
    ],
)
def test_the_released_backbones_are_built(
    name: str, resolution: int, prefix: int, grid: int, dim: int, depth: int
) -> None:
    with torch.device("meta"):
        trunk = build_trunk(name, resolution, pretrained=False)
    shape = (trunk.num_prefix_tokens, trunk.grid, trunk.dim, trunk.depth)
    assert shape == (prefix, (grid, grid), dim, depth)


@pytest.mark.parametrize(
    ("name", "resolution", "field", "message"),
    [
        ("vit_enormous", 336, "trunk", "knows no model"),
        ("vit_small_patch14_dinov2.moon", 336, "trunk", "no weights"),
        ("resnet18", 224, "trunk", "VisionTransformer"),
        ("vit_small_patch14_dinov2.lvd142m", 330, "resolution", "patch size 14"),
    ],
)
def test_backbones_that_cannot_be_steered_are_refused(
    name: str, resolution: int, field: str, message: str
) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=message) as caught:
        build_trunk(name, resolution, pretrained=False)
    assert caught.value.field == field


def test_pretrained_weights_come_from_a_file_at_another_resolution(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    name = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    vit = timm.create_model(name, num_classes=0)
    randomise(vit)
    save_file(vit.state_dict(), tmp_path / "model.safetensors")
    trunk = build_trunk(name, 96, pretrained=True, weights=tmp_path / "model.safetensors")
    assert trunk.grid == (6, 6)
    loaded = trunk.vit.state_dict()
    assert torch.equal(loaded["blocks.3.attn.qkv.weight"], vit.blocks[3].attn.qkv.weight)
    assert loaded["pos_embed"].shape == (1, 37, 192)
    assert torch.equal(loaded["pos_embed"][:, 0], vit.pos_embed[:, 0])  # CLS has no place to resample
    source = {"file": str(tmp_path / "model.safetensors")}
    timms = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay=source, img_size=96, num_classes=0
    ).state_dict()
    assert set(loaded) == set(timms)
    assert all(torch.equal(loaded[key], timms[key]) for key in timms)


def test_a_file_without_the_backbones_weights_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    name, path = "vit_tiny_patch16_224.augreg_in21k_ft_in1k", tmp_path / "model.safetensors"
    state = build_trunk(name, 224, pretrained=False).vit.state_dict()
    save_file({key: value for key, value in state.items() if key != "norm.bias"}, path)
    with pytest.raises(CheckpointKeysError, match=r"missing: norm\.bias"):
        build_trunk(name, 224, pretrained=True, weights=path)
    save_file(state | {"norm.bias": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="no weights for vit_tiny_patch16_224"):
        build_trunk(name, 224, pretrained=True, weights=path)
    path.write_text("nothing")
    with pytest.raises(CheckpointError, match="no weights for vit_tiny_patch16_224"):
        build_trunk(name, 224, pretrained=True, weights=path)


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("vit_base_patch14_dinov2", "vit_base_patch14_dinov2.lvd142m"),
        ("vit_base_patch16_224.mae", "vit_base_patch16_224.mae"),
    ],
)
def test_a_backbone_without_a_tag_has_timms_default_weights(name: str, full: str) -> None:
    assert full_name(name) == full


def test_preprocessing_follows_the_weights() -> None:
    assert timm_preprocess("vit_base_patch14_dinov2.lvd142m", 336).crop_pct == 1.0
    assert timm_preprocess("vit_base_patch16_224.mae", 336).crop_pct == 0.9
    siglip = timm_preprocess("vit_base_patch16_siglip_224.webli", 336)
    assert (siglip.size, siglip.mean, siglip.std) == (336, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    with pytest.raises(ConfigError, match="knows no model"):
        timm_preprocess("vit_enormous", 336)
