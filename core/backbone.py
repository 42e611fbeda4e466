"""The frozen vision transformer under SteerViT, by its name in timm.

The backbones that were released are built here from a table, as `ViT`s that equal timm's; any other name of timm's is
left to timm. This is the only file that imports it, and only inside functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from steersearch.core.errors import CheckpointError, CheckpointKeysError, ConfigError
from steersearch.core.preprocess import Preprocess
from steersearch.core.vit import ViT, ViTConfig, resampled
from steersearch.core.weights_file import weights_file


class Trunk(Protocol):
    """What SteerViT needs of a backbone. T = num_prefix_tokens + Hp·Wp tokens, prefix (CLS, registers) first."""

    num_prefix_tokens: int
    grid: tuple[int, int]
    dim: int
    depth: int

    @property
    def blocks(self) -> nn.Sequential: ...

    @property
    def norm(self) -> nn.Module: ...

    def tokens(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) pixels -> (B, T, D), as block 0 gets them (patches, positions, pre-norm)."""
        ...

    def cls_attention(self, x: Tensor) -> Tensor:
        """What CLS attends to in the last block, given that block's input (B, T, D): (B, heads, T), sums to 1."""
        ...


@dataclass(frozen=True, kw_only=True)
class KnownTrunk:
    """What timm knows of one of its models: shape at the size of its weights, and evaluation preprocessing."""

    shape: ViTConfig
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # ImageNet's
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    crop_pct: float


def _known_trunks() -> dict[str, KnownTrunk]:
    dinov2 = partial(ViTConfig, image_size=518, patch_size=14, layer_scale=True)
    base = partial(ViTConfig, patch_size=16, dim=768, depth=12, num_heads=12)
    known = {
        "vit_small_patch14_dinov2.lvd142m": KnownTrunk(
            shape=dinov2(dim=384, depth=12, num_heads=6), crop_pct=1.0
        ),
        "vit_base_patch14_dinov2.lvd142m": KnownTrunk(
            shape=dinov2(dim=768, depth=12, num_heads=12), crop_pct=1.0
        ),
        "vit_large_patch14_dinov2.lvd142m": KnownTrunk(
            shape=dinov2(dim=1024, depth=24, num_heads=16), crop_pct=1.0
        ),
        "vit_base_patch16_224.mae": KnownTrunk(shape=base(image_size=224), crop_pct=0.9),
    }
    half = (0.5, 0.5, 0.5)
    for side in (224, 256, 384, 512):
        siglip = KnownTrunk(shape=base(image_size=side, class_token=False), mean=half, std=half, crop_pct=0.9)
        known |= {f"vit_base_patch16_siglip_{side}.{tag}": siglip for tag in ("webli", "v2_webli")}
    return known


KNOWN_TRUNKS = _known_trunks()


class TimmTrunk(nn.Module):
    """A timm `VisionTransformer` (DINOv2, MAE, SigLIP, ...) as a `Trunk`, without pooling and head."""

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.vit = vit
        self._vit.attn_pool = None  # SigLIP's pooling plays no part in steering
        self.num_prefix_tokens = int(self._vit.num_prefix_tokens)
        height, width = self._vit.patch_embed.grid_size
        self.grid = (int(height), int(width))
        self.dim, self.depth = int(self._vit.embed_dim), len(self._vit.blocks)

    @property
    def _vit(self) -> Any:
        """timm's module, whose attributes have no types."""
        return self.vit

    @property
    def blocks(self) -> nn.Sequential:
        blocks: nn.Sequential = self._vit.blocks
        return blocks

    @property
    def norm(self) -> nn.Module:
        norm: nn.Module = self._vit.norm
        return norm

    def tokens(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) pixels -> (B, T, D), timm's `forward_features` up to its blocks."""
        vit = self._vit
        tokens: Tensor = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(pixels))))
        return tokens

    def cls_attention(self, x: Tensor) -> Tensor:
        """Attention of the first token in the last block, which itself runs fused and keeps none."""
        block = self._vit.blocks[-1]
        attention = block.attn
        qkv = attention.qkv(block.norm1(x)).unflatten(-1, (3, attention.num_heads, -1))  # (B, T, 3, h, d)
        q, k, _ = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, h, T, d)
        q, k = attention.q_norm(q[:, :, :1]), attention.k_norm(k)
        scores: Tensor = (q * attention.scale) @ k.transpose(-2, -1)  # (B, h, 1, T)
        return scores.squeeze(2).softmax(dim=-1)


def build_trunk(name: str, resolution: int, pretrained: bool, weights: Path | None = None) -> ViT | TimmTrunk:
    """timm's model `name` at `resolution` × `resolution` pixels, without pooling and classification head.

    `pretrained` reads timm's weights, from the file `weights` or else (for names that are left to timm) from the
    hub, and resamples their position embeddings to `resolution`. Raises ConfigError for a name that timm does not
    know or whose architecture is not its `VisionTransformer`, and a resolution that the patch size does not
    divide; CheckpointError for a file without the weights.
    """
    known = KNOWN_TRUNKS.get(name)
    if known is None or (pretrained and weights is None):
        return timm_trunk(name, resolution, pretrained, weights)
    _refuse_indivisible(name, resolution, known.shape.patch_size)
    with torch.device("meta") if pretrained else nullcontext():
        trunk = ViT(replace(known.shape, image_size=resolution))
    if weights is not None and pretrained:
        _read_weights(trunk, name, weights)
    return trunk.eval()


def _read_weights(trunk: ViT, name: str, path: Path) -> None:
    """The weights in a file of timm's into `trunk`, which is on the meta device: its parameters become the file's.

    What needs no resampling is mapped, not copied: a base backbone takes 350 MB once, and not before it runs.
    """
    wanted = {key: tuple(value.shape) for key, value in trunk.state_dict().items()}
    try:
        with weights_file(path) as file:
            missing = sorted(set(wanted) - set(file.shapes))
            fixed = set(wanted) & set(file.shapes) - {"pos_embed"}
            misshapen = sorted(key for key in fixed if wanted[key] != file.shapes[key])
            if missing or misshapen:
                raise CheckpointKeysError(path, missing=missing, misshapen=misshapen)
            state = file.read(wanted)
    except CheckpointKeysError:
        raise
    except CheckpointError as error:
        raise CheckpointError(f"{path}: no weights for {name} ({error})") from error
    if state["pos_embed"].ndim == 3:
        state["pos_embed"] = resampled(state["pos_embed"], trunk)
    if state["pos_embed"].shape != wanted["pos_embed"]:
        raise CheckpointKeysError(path, misshapen=["pos_embed"])
    trunk.load_state_dict(state, assign=True)
    trunk.requires_grad_(False)


# ------------------------------------------------------------------------------------------ left to timm


def timm_trunk(
    name: str, resolution: int, pretrained: bool = False, weights: Path | None = None
) -> TimmTrunk:
    """As `build_trunk`, but timm's own module for every name."""
    import timm

    _refuse_unknown(name)
    source = {} if weights is None else {"file": str(weights)}
    # These two families resample their position embeddings in ways of their own: left to timm altogether.
    by_timm = pretrained and ("flexi" in name or "radio" in name)
    with torch.device("meta") if pretrained and not by_timm else nullcontext():
        vit: Any = timm.create_model(
            name, pretrained=by_timm, pretrained_cfg_overlay=source, img_size=resolution, num_classes=0
        )
    _refuse_indivisible(name, resolution, vit.patch_embed.patch_size[0])
    if pretrained and not by_timm:
        _read_by_timm(vit, weights or name)
    return TimmTrunk(vit)


def _read_by_timm(vit: Any, source: Path | str) -> None:
    """timm's own reading of a file into `vit`, which is on the meta device: its parameters become the file's tensors.

    No random weights are made first, and what needs no resampling is mapped, not copied: a base backbone takes 350 MB
    once, and not before it runs.
    """
    from timm.models import load_pretrained
    from timm.models.vision_transformer import checkpoint_filter_fn

    vit.load_state_dict = partial(vit.load_state_dict, assign=True)
    config = vit.pretrained_cfg | {"custom_load": False}  # which would read the JAX files these came from
    try:
        load_pretrained(vit, config, num_classes=0, filter_fn=checkpoint_filter_fn, strict=False)
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{source}: no weights for {config['architecture']} ({error})") from error
    finally:
        del vit.load_state_dict
    lacking = [key for key, value in vit.state_dict().items() if value.is_meta]
    if lacking:
        raise CheckpointKeysError(source, missing=lacking)


def full_name(name: str) -> str:
    """`name` with the tag of timm's weights for it: "vit_base_patch14_dinov2.lvd142m" for one without."""
    if name in KNOWN_TRUNKS:
        return name
    import timm

    _refuse_unknown(name)
    card = timm.get_pretrained_cfg(name)
    return f"{card.architecture}.{card.tag}" if card.tag else str(card.architecture)


def timm_preprocess(name: str, resolution: int) -> Preprocess:
    """timm's evaluation preprocessing for the weights `name`, at `resolution` pixels (needs no weights)."""
    known = KNOWN_TRUNKS.get(name)
    if known is not None:
        return Preprocess(size=resolution, mean=known.mean, std=known.std, crop_pct=known.crop_pct)
    return _preprocess_by_timm(name, resolution)


def _preprocess_by_timm(name: str, resolution: int) -> Preprocess:
    import timm
    from timm.data import resolve_data_config

    _refuse_unknown(name)
    data: Mapping[str, Any] = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    return Preprocess(
        size=resolution,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=data["interpolation"],
        crop_pct=data["crop_pct"],
        mode="squash" if data["crop_mode"] == "squash" else "crop",
    )


def _refuse_indivisible(name: str, resolution: int, patch: int) -> None:
    if resolution % patch:
        raise ConfigError("resolution", resolution, f"must be a multiple of {name}'s patch size {patch}")


def _refuse_unknown(name: str) -> None:
    import timm

    if not timm.is_model(name):
        raise ConfigError("trunk", name, "timm knows no model of this name; see timm.list_models('vit_*')")
    if not timm.models.is_model_in_modules(name, "vision_transformer"):
        raise ConfigError("trunk", name, "steering needs one of timm's models of the class VisionTransformer")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError:
        raise ConfigError("trunk", name, "timm has no weights of this tag for this model") from None
