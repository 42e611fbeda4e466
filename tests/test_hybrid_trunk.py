"""A backbone whose patches are made of a convolutional network's feature maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from steersearch.core.checkpoints import load_file as load_model_file
from steersearch.core.checkpoints import read_config, write_safetensors
from steersearch.core.errors import ConfigError
from steersearch.core.steervit import SteerViT
from steersearch.core.vit import HybridEmbed, ViT, ViTConfig
from tests.small_models import pixels_for, prompts_of, randomise, small_config

HYBRID = ViTConfig(image_size=64, cnn="efficientnet-lite2", dim=32, depth=2, num_heads=2)


def test_patches_from_kept_feature_maps_equal_those_from_pixels() -> None:
    trunk = ViT(HYBRID).eval()
    embed = trunk.patch_embed
    assert isinstance(embed, HybridEmbed)
    randomise(embed, std=0.05)
    pixels = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        patches = embed(pixels)
        assert patches.shape == (3, 16, 32)
        assert patches.std(dim=1).min() > 0
        assert torch.equal(embed.project(embed.cnn(pixels), pixels), patches)
        assert torch.equal(trunk.with_positions(patches), trunk.tokens(pixels))


def test_each_patch_has_the_colours_of_its_own_place() -> None:
    embed = HybridEmbed(HYBRID.dim)
    pixels = torch.zeros(1, 3, 64, 64)
    pixels[:, :, 16:32, 48:] = 1.0  # the second row, the last column
    with torch.no_grad():
        for projection in (embed.deep, embed.fine):
            projection.weight.zero_()
        changed = (embed(pixels) - embed(torch.zeros(1, 3, 64, 64))).abs().amax(dim=2)
    assert changed.nonzero().tolist() == [[0, 7]]


def test_training_leaves_the_convolutional_network_alone() -> None:
    trunk = ViT(HYBRID).train()
    trunk(torch.rand(2, 3, 64, 64)).square().sum().backward()
    network = {name for name, _ in trunk.named_parameters() if name.startswith("patch_embed.cnn.")}
    assert {name for name, value in trunk.named_parameters() if value.grad is None} == network
    assert network


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"cnn": "efficientnet-lite0"}, 'must be "efficientnet-lite2" or empty'),
        ({"image_size": 80}, "a side that is a multiple of 32"),
        ({"patch_size": 32}, "needs patches of 16 pixels"),
        ({"stem_channels": (4, 8, 12)}, "no stem"),
    ],
)
def test_settings_that_feature_maps_do_not_fit_are_refused(changes: dict[str, Any], refused: str) -> None:
    with pytest.raises(ConfigError, match=refused):
        replace(HYBRID, **changes)


def test_a_hybrid_model_goes_through_a_file_in_half_precision(tmp_path: Path) -> None:
    trunk = ViT(HYBRID).eval()
    randomise(trunk, std=0.05)
    model = SteerViT(small_config(vit=HYBRID, cross_attn_layers=(1,)), trunk=trunk)
    write_safetensors(model, tmp_path / "model.safetensors")
    stored = load_file(tmp_path / "model.safetensors")
    assert read_config(tmp_path / "model.safetensors")[0].vit == HYBRID
    network = {name: value for name, value in stored.items() if name.startswith("trunk.patch_embed.cnn.")}
    assert sum(value.numel() for value in network.values()) > 4_500_000
    assert {value.dtype for value in network.values()} == {torch.float16}

    loaded = load_model_file(tmp_path / "model.safetensors", device="cpu")
    assert not any(name.startswith("trunk.") for name, _ in loaded.trainable_parameters())
    rounded = model.half().float().eval()
    with torch.no_grad():
        wanted = rounded(pixels_for(model), prompts_of(3, 5, 2))
        found = loaded.eval()(pixels_for(model), prompts_of(3, 5, 2))
    assert torch.equal(found.patches, wanted.patches)
    assert found.patches.std() > 0.01
