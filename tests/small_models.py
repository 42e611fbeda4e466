"""Small random models of every backbone kind, so that the model's tests take seconds and need no download."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from steersearch.core.backbone import TimmTrunk
from steersearch.core.preprocess import Preprocess
from steersearch.core.steervit import SteerViT, SteerViTConfig
from steersearch.core.text import PromptFeatures
from steersearch.core.vit import ViT, ViTConfig

TEXT_DIM = 20
TINY = ViTConfig(image_size=64, patch_size=16, stem_channels=(4, 8, 12), dim=64, depth=4, num_heads=2)

# name -> timm's model, and the side of its input. Registers come with DINOv2's newer backbones.
TIMM_KINDS: dict[str, tuple[str, int]] = {
    "dinov2": ("vit_base_patch14_dinov2", 56),
    "dinov2 with registers": ("vit_base_patch14_reg4_dinov2", 56),
    "mae": ("vit_base_patch16_224", 64),
    "siglip": ("vit_base_patch16_siglip_224", 64),
}
KINDS = ["tiny", *TIMM_KINDS]


def randomise(module: nn.Module, seed: int = 0, std: float = 0.15) -> None:
    """Give every parameter and batch norm statistic an own random value: nothing may stay 0 or 1 by luck."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=generator) * std
                around = (
                    1.0 if name.endswith("running_var") or (value.ndim == 1 and "weight" in name) else 0.0
                )
                value.copy_((around + noise).abs() if around else noise)


def timm_vit(kind: str) -> Any:
    """A random timm VisionTransformer of `kind`: 64 wide, 4 blocks, a 4 × 4 patch grid."""
    import timm

    name, side = TIMM_KINDS[kind]
    vit = timm.create_model(name, img_size=side, embed_dim=64, depth=4, num_heads=2, num_classes=0)
    randomise(vit, seed=1)
    return vit.eval()


def small_trunk(kind: str) -> nn.Module:
    if kind != "tiny":
        return TimmTrunk(timm_vit(kind))
    trunk = ViT(TINY)
    randomise(trunk, seed=1)
    return trunk.eval()


def small_config(kind: str = "tiny", **changes: Any) -> SteerViTConfig:
    name, side = TIMM_KINDS.get(kind, ("vit", TINY.image_size))
    settings: dict[str, Any] = {
        "trunk": name,
        "vit": TINY if kind == "tiny" else None,
        "resolution": side,
        "aggregation": "mean",
        "text_encoder": "minilm",
        "text_dim": TEXT_DIM,
        "connector_hidden": 24,
        "preprocess": Preprocess(size=side, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
    }
    return SteerViTConfig(**(settings | changes))


def small_model(kind: str = "tiny", **changes: Any) -> SteerViT:
    """A SteerViT over a random backbone of `kind`, its gates open."""
    model = SteerViT(small_config(kind, **changes), trunk=small_trunk(kind))
    trained = nn.ModuleList([model.connector, model.cross_attention, model.head])
    randomise(trained, seed=2)
    with torch.no_grad():
        for name, parameter in model.trainable_parameters():
            if name.endswith("_gate"):
                parameter.fill_(0.8)
    return model


def pixels_for(model: SteerViT, batch: int = 3, seed: int = 3) -> Tensor:
    side = model.config.resolution
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))


def prompts_of(*lengths: int, seed: int = 4) -> PromptFeatures:
    """Random prompt features, one prompt per length, padded to the longest."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(length, TEXT_DIM, generator=generator).numpy() for length in lengths]
    return PromptFeatures.from_numpy(rows)


def largest_difference(one: Tensor, other: Tensor) -> float:
    return float((one.detach().double() - other.detach().double()).abs().max())
