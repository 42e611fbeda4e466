"""The vision transformer under SteerViT, in plain torch: of the mini model and of the backbones that were released.

State dict and output equal timm's, bit for bit: those of `VisionTransformer` as DINOv2, MAE and SigLIP have it, and
with a stem those of one behind timm's `HybridEmbed(ConvStem(...), proj=False)`. It is written without timm because
importing that costs four seconds, the whole budget of a cold query, and 200 MB.

Letters: B images, H W pixels, T = P + N tokens, P = 1 (CLS) or 0 prefix tokens, N = Hp·Wp patches, D = dim.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steersearch.core.efficientnet_lite import DEEP, FINE, STRIDE, EfficientNetLite2, Maps
from steersearch.core.errors import ConfigError
from steersearch.core.preprocess import MOST_SIDE
from steersearch.core.ranges import check_flag, check_number, check_whole, read_fields, read_list

MOST_WIDE, MOST_DEEP = 16_384, 256  # of vectors, and blocks one after another

Cnn = Literal["", "efficientnet-lite2"]


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """Shape of a `ViT`. `image_size` and `patch_size` in pixels.

    stem_channels: none for one linear projection of each patch, as released backbones have it. Else one 3×3
        convolution of stride 2 per entry, each with batch norm and ReLU, and a last one (with bias, no norm)
        to `dim`; `patch_size` must then be 2 ** (len(stem_channels) + 1).
    cnn: "efficientnet-lite2" makes the patches from that network's feature maps, see `HybridEmbed`; "" for none.
    class_token: whether a CLS token comes first (not in SigLIP).
    layer_scale: whether each branch of a block is scaled per channel (in DINOv2).
    """

    image_size: int = 128
    patch_size: int = 16
    stem_channels: tuple[int, ...] = ()
    cnn: Cnn = ""
    dim: int = 192
    depth: int = 8
    num_heads: int = 3
    mlp_ratio: float = 4.0
    class_token: bool = True
    layer_scale: bool = False

    def __post_init__(self) -> None:
        check_whole("image_size", self.image_size, 1, MOST_SIDE)
        check_whole("patch_size", self.patch_size, 1, MOST_SIDE)
        check_whole("dim", self.dim, 1, MOST_WIDE)
        check_whole("depth", self.depth, 1, MOST_DEEP)
        check_whole("num_heads", self.num_heads, 1, MOST_WIDE)
        check_number("mlp_ratio", self.mlp_ratio, 1 / self.dim, 16)
        for channels in self.stem_channels:
            check_whole("stem_channels", channels, 1, MOST_WIDE)
        check_flag("class_token", self.class_token)
        check_flag("layer_scale", self.layer_scale)
        stride = 2 ** (len(self.stem_channels) + 1)
        if self.stem_channels and self.patch_size != stride:
            reason = (
                f"a stem of {len(self.stem_channels)} + 1 stride-2 convolutions makes patches of {stride}"
            )
            raise ConfigError("patch_size", self.patch_size, reason)
        if self.cnn not in get_args(Cnn):
            raise ConfigError("cnn", self.cnn, 'must be "efficientnet-lite2" or empty')
        if self.cnn and (self.stem_channels or self.patch_size != STRIDE or self.image_size % (2 * STRIDE)):
            reason = (
                f"needs patches of {STRIDE} pixels, a side that is a multiple of {2 * STRIDE}, and no stem"
            )
            raise ConfigError("cnn", self.cnn, reason)
        if self.image_size % self.patch_size:
            reason = f"must be a multiple of the patch size {self.patch_size}"
            raise ConfigError("image_size", self.image_size, reason)
        if self.dim % self.num_heads:
            raise ConfigError("num_heads", self.num_heads, f"must divide dim {self.dim}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; `from_dict` reads it back."""
        return asdict(self) | {"stem_channels": list(self.stem_channels)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ViTConfig:
        """Inverse of `to_dict`. Raises ConfigError."""
        read = read_fields(cls, data, "vit")
        return cls(**{**read, "stem_channels": read_list("stem_channels", read.get("stem_channels", ()), 8)})


class ViT(nn.Module):
    """A ViT of `config.depth` pre-norm blocks, learned positions, final LayerNorm."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.dim, self.depth = config.dim, config.depth
        self.num_prefix_tokens = int(config.class_token)
        side = config.image_size // config.patch_size
        self.grid = (side, side)
        self.patch_embed = _patch_embed(config)
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.dim)) if config.class_token else None
        self.pos_embed = nn.Parameter(torch.empty(1, self.num_prefix_tokens + side * side, config.dim))
        self.blocks = nn.Sequential(*(_Block(config) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        if not self.pos_embed.is_meta:  # else they are about to be read
            self._init_weights()

    def _init_weights(self) -> None:
        """Every initial value: as timm's ViT (truncated normal, std 0.02); the rest as torch."""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def tokens(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) pixels -> (B, T, D) tokens with positions, CLS first, as block 0 gets them."""
        size = self.config.image_size
        if tuple(pixels.shape[1:]) != (3, size, size):
            raise ConfigError("pixels", tuple(pixels.shape), f"this backbone takes (B, 3, {size}, {size})")
        return self.with_positions(self.patch_embed(pixels))

    def with_positions(self, x: Tensor) -> Tensor:
        """Patches (B, N, D) -> tokens (B, T, D): CLS first, positions added."""
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        return x + self.pos_embed

    def cls_attention(self, x: Tensor) -> Tensor:
        """What CLS attends to in the last block, given that block's input (B, T, D): (B, heads, T)."""
        block = cast(_Block, self.blocks[-1])
        q, k, _ = block.attn.queries_keys_values(block.norm1(x))
        scores = (q[:, :, :1] * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, heads, 1, T)
        attention: Tensor = scores.squeeze(2).softmax(dim=-1)
        return attention

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) pixels -> (B, T, D) final-normed tokens, CLS first."""
        tokens: Tensor = self.norm(self.blocks(self.tokens(pixels)))
        return tokens


def resampled(positions: Tensor, vit: ViT) -> Tensor:
    """Position embeddings (1, P + n², D) for the patch grid of `vit`: bicubic and antialiased, as timm has it."""
    first = vit.num_prefix_tokens
    prefix, patches = positions[:, :first], positions[:, first:]
    side = math.isqrt(patches.shape[1])
    if side == 0 or side**2 != patches.shape[1] or (side, side) == vit.grid:
        return positions
    maps = patches.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    maps = F.interpolate(maps, size=vit.grid, mode="bicubic", antialias=True)
    stretched = maps.permute(0, 2, 3, 1).reshape(1, -1, positions.shape[-1])
    return torch.cat([prefix, stretched.to(positions.dtype)], dim=1)


def _patch_embed(config: ViTConfig) -> nn.Module:
    if config.cnn:
        return HybridEmbed(config.dim)
    return _ConvStem(config) if config.stem_channels else _PatchEmbed(config)


class _PatchEmbed(nn.Module):
    """One linear projection of each patch: (B, 3, H, W) -> (B, N, D)."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.dim, config.patch_size, stride=config.patch_size)

    def forward(self, pixels: Tensor) -> Tensor:
        maps: Tensor = self.proj(pixels)  # (B, D, Hp, Wp)
        return maps.flatten(2).transpose(1, 2)


class _ConvStem(nn.Module):
    """Convolutions of stride 2 down to patches: (B, 3, H, W) -> (B, N, D)."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        inputs, outputs = (3, *config.stem_channels), (*config.stem_channels, config.dim)
        last = len(outputs) - 1
        self.backbone = nn.Sequential(
            *(
                _ConvNormAct(i, o, plain=k == last)
                for k, (i, o) in enumerate(zip(inputs, outputs, strict=True))
            )
        )

    def forward(self, pixels: Tensor) -> Tensor:
        maps: Tensor = self.backbone(pixels)  # (B, D, Hp, Wp)
        return maps.flatten(2).transpose(1, 2)


class HybridEmbed(nn.Module):
    """Patches from a frozen convolutional network: (B, 3, S, S) -> (B, N, D), N = (S/16)².

    The sum of three linear projections: of the network's deep features, which say what a place shows, stretched to
    the grid of patches; of its finer maps; and of the patch's own pixels, averaged to 4 × 4, for colour and place.
    Features are standardised by `*_mean` and `*_std`, which pretraining measures.
    """

    COLOUR = 3 * 4 * 4
    deep_mean: Tensor  # (1280,), as deep_std
    deep_std: Tensor
    fine_mean: Tensor  # (120,), as fine_std
    fine_std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.cnn = EfficientNetLite2()
        self.deep, self.fine = nn.Linear(DEEP, dim, bias=False), nn.Linear(FINE, dim, bias=False)
        self.colour = nn.Linear(self.COLOUR, dim)
        for name, channels in (("deep", DEEP), ("fine", FINE)):
            self.register_buffer(f"{name}_mean", torch.zeros(channels))
            self.register_buffer(f"{name}_std", torch.ones(channels))
        self.cnn.eval().requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.project(self.cnn(pixels), pixels)

    def project(self, maps: Maps, pixels: Tensor) -> Tensor:
        """The same, from maps (of any float dtype) that were computed before."""
        side = pixels.shape[-1] // STRIDE
        deep = self.deep((_as_tokens(self.cnn.deep(maps)) - self.deep_mean) / self.deep_std)
        deep = deep.transpose(1, 2).unflatten(2, (side // 2, side // 2))
        deep = F.interpolate(deep, size=(side, side), mode="bilinear", align_corners=False)
        fine = self.fine((_as_tokens(maps.fine) - self.fine_mean) / self.fine_std)
        colour = self.colour(_as_tokens(F.pixel_unshuffle(F.avg_pool2d(pixels, 4), 4)))
        patches: Tensor = _as_tokens(deep) + fine + colour
        return patches


def _as_tokens(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H·W, C)."""
    return maps.flatten(2).transpose(1, 2)


class _ConvNormAct(nn.Module):
    """3×3 convolution of stride 2, then batch norm and ReLU; `plain`: with a bias and nothing after it."""

    def __init__(self, inputs: int, outputs: int, *, plain: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=plain)
        self.bn = None if plain else nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if self.bn is None else F.relu(self.bn(x))


class _Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm1 x), then x + mlp(norm2 x), each scaled if so configured."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=1e-6)
        self.attn = _SelfAttention(config.dim, config.num_heads)
        self.ls1 = _LayerScale(config.dim) if config.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(config.dim, eps=1e-6)
        self.mlp = _Mlp(config.dim, int(config.dim * config.mlp_ratio))
        self.ls2 = _LayerScale(config.dim) if config.layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        out: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return out


class _LayerScale(nn.Module):
    """A learned factor per channel, small at first."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _SelfAttention(nn.Module):
    """Multi-head self-attention over (B, T, D)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) -> three of (B, heads, T, D / heads)."""
        batch, num_tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, num_tokens, 3, self.num_heads, dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.queries_keys_values(x)
        attended = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(attended.transpose(1, 2).reshape(x.shape))
        return out


class _Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out
