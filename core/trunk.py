"""The frozen vision transformer under SteerViT. The only file that imports timm, and only inside functions:
the mini model has a trunk of our own (`tiny_vit`), so that it never pays for that import."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from steersearch.core.errors import CheckpointError, CheckpointKeysError, ConfigError
from steersearch.core.preprocess import Preprocess


class Trunk(Protocol):
    """What SteerViT needs of a trunk. T = num_prefix_tokens + Hp·Wp tokens, prefix (CLS, registers) first."""

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


def build_trunk(name: str, resolution: int, pretrained: bool, weights: Path | None = None) -> TimmTrunk:
    """The timm model `name` at `resolution` × `resolution` pixels, without classification head.

    `pretrained` loads timm's weights, from the file `weights` or else from the hub, and resamples their
    position embeddings to `resolution`. Raises ConfigError for a name that timm does not know or whose
    architecture is not its `VisionTransformer`, and a resolution that the patch size does not divide;
    CheckpointError for a file without the weights.
    """
    import timm

    _refuse_unknown(name)
    source = {} if weights is None else {"file": str(weights)}
    # These two families resample their position embeddings in ways of their own: left to timm altogether.
    by_timm = pretrained and ("flexi" in name or "radio" in name)
    with torch.device("meta") if pretrained and not by_timm else nullcontext():
        vit: Any = timm.create_model(
            name, pretrained=by_timm, pretrained_cfg_overlay=source, img_size=resolution, num_classes=0
        )
    patch = vit.patch_embed.patch_size[0]
    if resolution % patch:
        raise ConfigError("resolution", resolution, f"must be a multiple of {name}'s patch size {patch}")
    if pretrained and not by_timm:
        _read_weights(vit, weights or name)
    return TimmTrunk(vit)


def _read_weights(vit: Any, source: Path | str) -> None:
    """timm's own reading of a file into `vit`, which is on the meta device: its parameters become the file's tensors.

    No random weights are made first, and what needs no resampling is mapped, not copied: a base trunk takes 350 MB
    once, and not before it runs.
    """
    from safetensors import SafetensorError
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
    import timm

    _refuse_unknown(name)
    card = timm.get_pretrained_cfg(name)
    return f"{card.architecture}.{card.tag}" if card.tag else str(card.architecture)


def timm_preprocess(name: str, resolution: int) -> Preprocess:
    """timm's evaluation preprocessing for the weights `name`, at `resolution` pixels (needs no weights)."""
    import timm
    from timm.data import resolve_data_config

    _refuse_unknown(name)
    card = timm.get_pretrained_cfg(name)
    data = resolve_data_config(pretrained_cfg=card.to_dict())
    return Preprocess(
        size=resolution,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=data["interpolation"],
        crop_pct=data["crop_pct"],
        mode="squash" if data["crop_mode"] == "squash" else "crop",
    )


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
