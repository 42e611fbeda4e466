"""SteerViT, the model top to bottom: a frozen ViT whose tokens a prompt steers (arXiv 2604.02327).

Letters: B images, H W pixels, T = P + N trunk tokens (P prefix tokens, N = Hp·Wp patches), D trunk width,
L text tokens, Dt text width.
"""

from __future__ import annotations

import copy
import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from steersearch.core.aggregation import Aggregation
from steersearch.core.attention_maps import HeadPooling, attention_maps
from steersearch.core.cross_attention import GatedCrossAttention
from steersearch.core.errors import ConfigError, PromptError
from steersearch.core.image_file import read_picture
from steersearch.core.picture import Picture
from steersearch.core.preprocess import MOST_SIDE, TILES, Preprocess, View
from steersearch.core.ranges import check_flag, check_number, check_text, check_whole, read_fields, read_list
from steersearch.core.side_by_side import make_workers, side_by_side
from steersearch.core.text import CachedTextEncoder, PromptFeatures
from steersearch.core.tiles import join_tiles, split_tiles, tile_shares, weigh_tiles
from steersearch.core.trunk import Trunk, build_trunk
from steersearch.core.vit import MOST_DEEP, MOST_WIDE, ViT, ViTConfig

Fusion = Literal["early", "late"]
ImageSource = Image.Image | Path | str
# Trunk inputs in one forward pass. A processor is fastest while the widest activation, the hidden layer of the MLPs,
# stays small: beyond 32 MB each buffer is mapped and zeroed anew in every block (measured: benchmarks/LOG.md).
_CPU_HIDDEN_BYTES, _CPU_BATCH = 16 * 2**20, 32
_CORES = 8  # parts at a time, so that their buffers stay few
_GPU_BATCH = 64
_READERS = max(2, min(8, os.cpu_count() or 2))  # threads that decode pictures


@dataclass(frozen=True, kw_only=True)
class SteerViTConfig:
    """All that determines a model except its weights.

    trunk: "tiny" (then `tiny` gives its shape) or a timm name.  resolution: side of the input in pixels.
    aggregation: how tokens become one embedding, see `Features.aggregate`.
    cross_attn_layers: blocks with a cross-attention before them; indices beyond the depth are ignored.
    text_encoder, text_dim: see `text.load_text_encoder`; text_layers: only so many of its layers, -1 for all.
    connector_hidden: width of the connector's middle.

    The paper's ablations (Tables 3 and 12): fusion "late" puts those cross-attentions, as many, after the last
    block; connector_hidden None is a connector of one linear layer; tanh_gate False leaves out the gates;
    use_ffn follows each cross-attention by a gated network, cross_attn_ffn_mult times as wide as the trunk.
    """

    trunk: str
    tiny: ViTConfig | None = None
    resolution: int
    aggregation: Aggregation = "cls"
    cross_attn_layers: tuple[int, ...] = tuple(range(1, 26, 2))
    fusion: Fusion = "early"
    num_heads: int = 16
    head_dim: int = 72
    tanh_gate: bool = True
    use_ffn: bool = False
    cross_attn_ffn_mult: float = 2.0
    text_encoder: str = "roberta-large"
    text_dim: int = 1024
    text_layers: int = -1
    connector_hidden: int | None = 1024
    preprocess: Preprocess

    def __post_init__(self) -> None:
        check_text("trunk", self.trunk)
        check_text("text_encoder", self.text_encoder, 4096)
        check_whole("resolution", self.resolution, 1, MOST_SIDE)
        for name in ("num_heads", "head_dim", "text_dim"):
            check_whole(name, getattr(self, name), 1, MOST_WIDE)
        if self.connector_hidden is not None:
            check_whole("connector_hidden", self.connector_hidden, 1, MOST_WIDE)
        check_whole("text_layers", self.text_layers, -1, MOST_DEEP)
        for block in self.cross_attn_layers:
            check_whole("cross_attn_layers", block, 0, MOST_DEEP)
        check_number("cross_attn_ffn_mult", self.cross_attn_ffn_mult, 0, 16)
        check_flag("tanh_gate", self.tanh_gate)
        check_flag("use_ffn", self.use_ffn)
        if self.aggregation not in get_args(Aggregation):
            raise ConfigError("aggregation", self.aggregation, f"must be one of {get_args(Aggregation)}")
        if self.fusion not in get_args(Fusion):
            raise ConfigError("fusion", self.fusion, f"must be one of {get_args(Fusion)}")
        if (self.trunk == "tiny") != (self.tiny is not None):
            raise ConfigError(
                "tiny", self.tiny, f'must be given for the trunk "tiny" only, this is "{self.trunk}"'
            )
        if self.tiny is not None and self.tiny.image_size != self.resolution:
            raise ConfigError("resolution", self.resolution, f"the trunk takes {self.tiny.image_size} pixels")
        if self.preprocess.size != self.resolution:
            raise ConfigError(
                "resolution", self.resolution, f"preprocessing makes {self.preprocess.size} pixels"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; `from_dict` reads it back."""
        return asdict(self) | {
            "tiny": None if self.tiny is None else self.tiny.to_dict(),
            "cross_attn_layers": list(self.cross_attn_layers),
            "preprocess": self.preprocess.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SteerViTConfig:
        """Inverse of `to_dict`. Raises ConfigError for a field that is unknown, missing, or out of its range."""
        read = read_fields(cls, data, "the config")
        if read.get("tiny") is not None:
            read["tiny"] = ViTConfig.from_dict(read["tiny"])
        if "cross_attn_layers" in read:
            read["cross_attn_layers"] = read_list("cross_attn_layers", read["cross_attn_layers"])
        return cls(**{**read, "preprocess": Preprocess.from_dict(read["preprocess"])})


@dataclass(frozen=True, kw_only=True)
class Features:
    """What one forward pass says about B images. All final-normed by the trunk, none of unit length.

    prefix (B, P, D), patches (B, N, D), logits (B, N) of the segmentation head, grid (Hp, Wp) with N = Hp·Wp.
    attention (B, heads, N), where it was asked for: what CLS attends to in the last block; the rest of its
    attention, up to a sum of 1, lies on the prefix tokens.
    parts (B, N): each patch's part in the mean, summing to 1; None: all alike (see `_of_whole_pictures`).
    is_steered: whether by a prompt; without one, the head was never trained and the logits mean nothing.
    """

    prefix: Tensor
    patches: Tensor
    logits: Tensor
    grid: tuple[int, int]
    attention: Tensor | None = None
    parts: Tensor | None = None
    is_steered: bool = True

    def aggregate(self, kind: Aggregation) -> Tensor:
        """One vector per image (B, D): CLS token, mean patch, or patches weighted by the squared heatmap (`focus`).

        Squared, since what the heatmap leaves beside the object adds up: benchmarks/LOG.md. Without a prompt there is
        nothing to focus on, and `focus` is the mean.
        """
        if kind == "cls":
            if self.prefix.shape[1] == 0:
                raise ConfigError("aggregation", kind, 'this trunk has no CLS token; use "mean" or "focus"')
            return _widened(self.prefix[:, 0])
        if kind == "mean" or (kind == "focus" and not self.is_steered):
            if self.parts is None:
                return _widened(self.patches).mean(dim=1)
            return torch.einsum("bn,bnd->bd", self.parts, _widened(self.patches))
        if kind == "focus":
            weights = (2 * _widened(self.logits)).softmax(dim=-1)
            return torch.einsum("bn,bnd->bd", weights, _widened(self.patches))
        raise ConfigError("aggregation", kind, f"must be one of {get_args(Aggregation)}")

    def embedding(self, kind: Aggregation) -> Tensor:
        """`aggregate(kind)` at unit length (B, D): a dot product of two is their cosine."""
        return F.normalize(self.aggregate(kind), dim=-1)

    @classmethod
    def joined(cls, parts: Sequence[Features]) -> Features:
        """The features of several batches as those of one; all alike in what they have, and steered or not."""
        if len(parts) == 1:
            return parts[0]

        def together(name: str) -> Tensor | None:
            values = [getattr(part, name) for part in parts]
            return None if values[0] is None else torch.cat(values)

        tensors: dict[str, Any] = {
            name: together(name) for name in ("prefix", "patches", "logits", "attention", "parts")
        }
        return cls(grid=parts[0].grid, is_steered=parts[0].is_steered, **tensors)

    def heatmap(self) -> Tensor:
        """(B, Hp, Wp): where the prompt's object is; sums to 1 over each image's patches."""
        return _widened(self.logits).softmax(dim=-1).reshape(-1, *self.grid)


def _of_whole_pictures(tiles: Features) -> Features:
    """Features of B pictures from those of their 4·B tiles: patches side by side, one softmax over all logits.

    A picture has one CLS: that of its tiles, each weighted by its share of the heatmap, so that the tile that
    shows what the prompt names decides; without a prompt the heatmap means nothing and all count alike. The
    same weights make the mean, and the attention of that CLS, whose sum stays at most 1.
    """
    shares = tile_shares(_widened(tiles.logits))
    if not tiles.is_steered:
        shares = torch.full_like(shares, 1 / TILES**2)
    each = shares.flatten()[:, None]  # (4·B, 1)
    attention = tiles.attention
    if attention is not None:
        weighted = attention * each[..., None].to(attention.dtype)
        attention = join_tiles(weighted.transpose(1, 2), tiles.grid).transpose(1, 2)
    return Features(
        prefix=weigh_tiles(tiles.prefix, shares),
        patches=join_tiles(tiles.patches, tiles.grid),
        logits=join_tiles(tiles.logits, tiles.grid),
        grid=(tiles.grid[0] * TILES, tiles.grid[1] * TILES),
        attention=attention,
        parts=join_tiles(each.expand_as(tiles.logits) / tiles.logits.shape[1], tiles.grid),
        is_steered=tiles.is_steered,
    )


@dataclass(frozen=True)
class Steering:
    """What prompts do to the tokens, made by `SteerViT.steering` for any number of batches; immutable.

    num_prompts: 1 (for every image of a batch), or one per image.  layers: for each depth, what happens to the
    tokens (B, T, D) before the block of that index; the trunk's depth is after its last block.
    """

    num_prompts: int
    layers: Mapping[int, Sequence[Callable[[Tensor], Tensor]]]

    def __call__(self, depth: int, x: Tensor) -> Tensor:
        for layer in self.layers.get(depth, ()):
            x = layer(x)
        return x


NO_STEERING = Steering(1, {})


class SteerViT(nn.Module):
    """A frozen trunk and the trained parts that steer it: connector, gated cross-attention, head.

    `gate_scale`, wherever it is an argument, multiplies every learned gate before its tanh: 0 is the frozen
    trunk bit for bit, 1 is as trained. It is never state: threads may share a model.
    """

    def __init__(self, config: SteerViTConfig, trunk: ViT | nn.Module | None = None) -> None:
        """`trunk` None builds the configured one with random weights; it is frozen in any case."""
        super().__init__()
        self.config = config
        self.trunk = trunk if trunk is not None else _random_trunk(config)
        shape = self._trunk
        ffn_mult = config.cross_attn_ffn_mult if config.use_ffn else None
        self.connector = Connector(config.text_dim, config.connector_hidden, shape.dim)
        self.cross_attention = nn.ModuleDict(
            {
                str(i): GatedCrossAttention(
                    shape.dim, config.num_heads, config.head_dim, ffn_mult, config.tanh_gate
                )
                for i in config.cross_attn_layers
                if i < shape.depth
            }
        )
        self.head = nn.Linear(shape.dim, 1)
        self.model_id = "unsaved"
        self._weights_hash: str | None = None
        self._text_encoder = CachedTextEncoder(config.text_encoder, config.text_layers)
        self._own_preprocess = config.preprocess
        if not self.head.weight.is_meta:  # else they are about to be read
            self._init_new_weights()
        make_workers(_cores())  # before any threads share the model
        self.trunk.requires_grad_(False)
        self.eval()

    def _init_new_weights(self) -> None:
        """Every initial value of the trained parts. Gates and head start at 0: nothing is steered."""
        for linear in self.connector.mlp:
            if isinstance(linear, nn.Linear):
                nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
                nn.init.zeros_(linear.bias)
        for layer in self.cross_attention.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, a=5**0.5)  # torch's own default for nn.Linear
            if isinstance(layer, GatedCrossAttention):
                for gate in (layer.attn_gate, layer.ff_gate):
                    if gate is not None:
                        nn.init.zeros_(gate)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def _trunk(self) -> Trunk:
        return cast(Trunk, self.trunk)

    @property
    def dim(self) -> int:
        """D, the length of an embedding."""
        return self._trunk.dim

    @property
    def grid(self) -> tuple[int, int]:
        """(Hp, Wp), the patch grid of features and heatmaps: the trunk's, or that of 2 × 2 tiles."""
        height, width = self._trunk.grid
        return (height * TILES, width * TILES) if self._is_tiled else (height, width)

    @property
    def _is_tiled(self) -> bool:
        return self.config.preprocess.mode == "tile"

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def train(self, mode: bool = True) -> SteerViT:
        """As nn.Module, but the trunk stays in evaluation mode: its batch norm statistics are frozen too."""
        super().train(mode)
        self.trunk.eval()
        return self

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Name and parameter of everything that training changes; the trunk is not among them."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    @property
    def batch_size(self) -> int:
        """How many pictures suit one forward pass here: as many as make it faster, and no more memory than that."""
        inputs = _GPU_BATCH
        if self.device.type == "cpu":
            trunk = self._trunk
            tokens = trunk.num_prefix_tokens + trunk.grid[0] * trunk.grid[1]
            inputs = min(_CPU_BATCH, _CPU_HIDDEN_BYTES // (tokens * 4 * trunk.dim * 4))
        return max(1, inputs // TILES**2 if self._is_tiled else inputs)

    @property
    def cores(self) -> int:
        """How many parts `encode` works on side by side: PyTorch's threads, up to eight, on a processor; else 1."""
        return _cores() if self.device.type == "cpu" else 1

    # ------------------------------------------------------------------------------------------ forward pass

    def forward(
        self,
        pixels: Tensor,
        prompts: PromptFeatures | None = None,
        gate_scale: float = 1.0,
        *,
        attention: bool = False,
    ) -> Features:
        """Steered features of `pixels` (B, 3, H, W), as `preprocess` makes them.

        prompts: of one prompt for all images, or of B, one each; None or gate_scale 0: the plain trunk.
        attention: also keep what CLS attends to in the last block. For many prompts or many batches use the
        two halves, `before_steering` and `steer`, so that nothing is computed twice.
        """
        steering = self.steering(prompts, gate_scale)
        return self.steer(self.before_steering(pixels), steering, attention=attention)

    def encode(self, pixels: Tensor, steerings: Sequence[Steering]) -> list[Features]:
        """Features of `pixels` (B, 3, H, W) under each of `steerings`, which are for any number of images.

        What no prompt changes is computed once for all. A processor takes the images in parts of at most
        `batch_size`, which is 5 to 9 % faster than a batch whose activations do not fit its caches, and takes less
        memory; without gradients `cores` parts at a time.
        """
        cores = 1 if torch.is_grad_enabled() else self.cores
        size = len(pixels)
        if self.device.type == "cpu":
            size = min(self.batch_size, math.ceil(size / cores))

        def encoded(part: Tensor) -> list[Features]:
            tokens = self.before_steering(part)
            return [self.steer(tokens, steering) for steering in steerings]

        found = side_by_side(encoded, torch.split(pixels, size), cores)
        return [Features.joined(under) for under in zip(*found, strict=True)]

    def before_steering(self, pixels: Tensor) -> Tensor:
        """The part that no prompt changes: (B, 3, H, W) pixels -> tokens (B, T, D) before the first steered block.

        In the view "tile" each image is four in here: (B, 3, H, W) -> (4·B, T, D), see `tiles`.
        """
        x = self._trunk.tokens(split_tiles(pixels) if self._is_tiled else pixels)
        for block in self._trunk.blocks[: self._first_steered]:
            x = block(x)
        return x

    def steer(self, x: Tensor, steering: Steering = NO_STEERING, *, attention: bool = False) -> Features:
        """The rest: tokens (B, T, D) from `before_steering` -> features, steered by what `steering` gives."""
        images = len(x) // TILES**2 if self._is_tiled else len(x)
        if steering.num_prompts not in (1, images):
            raise _wrong_number(steering.num_prompts, images)
        depth, attended = self._trunk.depth, None
        for i in range(self._first_steered, depth):
            x = steering(i, x)
            if attention and i == depth - 1:
                attended = self._attention(x)
            x = self._trunk.blocks[i](x)
        x = self._trunk.norm(steering(depth, x))
        prefix, patches = x[:, : self._trunk.num_prefix_tokens], x[:, self._trunk.num_prefix_tokens :]
        logits = self.head(patches).squeeze(-1)
        seen = Features(
            prefix=prefix,
            patches=patches,
            logits=logits,
            grid=self._trunk.grid,
            attention=attended,
            is_steered=bool(steering.layers),
        )
        return _of_whole_pictures(seen) if self._is_tiled else seen

    def steering(self, prompts: PromptFeatures | None, gate_scale: float = 1.0) -> Steering:
        """What `prompts` do at `gate_scale`, to be used for any number of batches.

        Without gradients one short prompt is folded (see `GatedCrossAttention.fold`): same, faster.
        Raises PromptError for features of another text encoder.
        """
        if prompts is None or gate_scale == 0:
            return NO_STEERING
        if prompts.tokens.shape[-1] != self.config.text_dim:
            raise PromptError(
                f"prompt features of width {prompts.tokens.shape[-1]}, expected {self.config.text_dim} "
                f"({self.config.text_encoder}); encode the prompt with the model that reads it"
            )
        prompts = prompts.to(self.device, self.head.weight.dtype)
        if len(prompts) == 1 and not torch.is_grad_enabled():
            text = self.connector(prompts.tokens[0][prompts.mask[0]])  # (L, D) without padding
            if len(text) <= self.config.head_dim:  # beyond, A and C outgrow W_q and W_o
                return Steering(1, self._placed(lambda layer: layer.fold(text, gate_scale)))
        text, mask = self.connector(prompts.tokens), prompts.mask
        if self._is_tiled and len(prompts) > 1:  # each image's prompt for each of its tiles
            text, mask = (each.repeat_interleave(TILES**2, dim=0) for each in (text, mask))
        whole = partial(partial, text=text, mask=mask, gate_scale=gate_scale)
        return Steering(len(prompts), self._placed(whole))

    def _placed(
        self, prompted: Callable[[GatedCrossAttention], Callable[[Tensor], Tensor]]
    ) -> dict[int, list[Callable[[Tensor], Tensor]]]:
        """Each cross-attention, made a function of the tokens alone by `prompted`, under the depth where it sits."""
        placed: dict[int, list[Callable[[Tensor], Tensor]]] = {}
        for i, layer in self.cross_attention.items():
            depth = self._trunk.depth if self.config.fusion == "late" else int(i)
            placed.setdefault(depth, []).append(prompted(cast(GatedCrossAttention, layer)))
        return placed

    @property
    def _first_steered(self) -> int:
        """The first block that belongs to `steer`; the last always does, for the sake of its attention."""
        steered = [] if self.config.fusion == "late" else [int(i) for i in self.cross_attention]
        return min([*steered, self._trunk.depth - 1])

    def _attention(self, x: Tensor) -> Tensor:
        if self._trunk.num_prefix_tokens == 0:
            raise ConfigError("attention", True, "this trunk has no CLS token whose attention could be shown")
        return self._trunk.cls_attention(x)[:, :, self._trunk.num_prefix_tokens :]

    # ------------------------------------------------------------------------------- from pictures and words

    def preprocess(self, picture: Picture | Image.Image) -> npt.NDArray[np.float32]:
        """A picture -> (3, H, W) float32, as `forward` takes it."""
        return self.config.preprocess(picture)

    def encode_prompts(self, prompts: Sequence[str]) -> PromptFeatures:
        """Text tokens (P, L, Dt) of `prompts`; the text encoder is loaded only for those not kept on disk."""
        return self._text_encoder.to(self.device).encode(prompts)

    def encode_prompt(self, prompt: str) -> PromptFeatures:
        """Text tokens (1, L, Dt) of one prompt; see `encode_prompts`."""
        return self.encode_prompts([prompt])

    @torch.inference_mode()
    def features(
        self,
        images: Sequence[ImageSource],
        prompt: str | Sequence[str] | None = None,
        gate_scale: float = 1.0,
        *,
        attention: bool = False,
    ) -> Features:
        """Features of pictures or paths in one batch; `prompt`: one for all, one per picture, or none."""
        prompts = self._prompt_features(prompt, len(images))
        with ThreadPoolExecutor(_READERS) as readers:
            pixels = self._gather([readers.submit(self._read, image) for image in images])
        if attention or (prompts is not None and len(prompts) > 1):
            return self.forward(pixels, prompts, gate_scale, attention=attention)
        return self.encode(pixels, [self.steering(prompts, gate_scale)])[0]

    def embed(
        self,
        images: Sequence[ImageSource],
        prompt: str | Sequence[str] | None = None,
        gate_scale: float = 1.0,
        aggregation: Aggregation | None = None,
    ) -> Tensor:
        """Prompt-conditioned embeddings of pictures or paths: (B, D) float32 of unit length, on the CPU.

        `prompt`: one for all, one per picture, or None for the plain trunk. `aggregation` None: the default.
        """
        kind = aggregation or self.config.aggregation
        batches = self._in_batches(images, prompt, gate_scale)
        return self._collect((found.embedding(kind) for found in batches), (self.dim,))

    def heatmaps(
        self, images: Sequence[ImageSource], prompt: str | Sequence[str], gate_scale: float = 1.0
    ) -> Tensor:
        """Where the prompt's object is: (B, Hp, Wp) float32 on the CPU, each summing to 1."""
        batches = self._in_batches(images, prompt, gate_scale)
        return self._collect((found.heatmap() for found in batches), self.grid)

    def attention_maps(
        self,
        images: Sequence[ImageSource],
        prompt: str | Sequence[str] | None = None,
        gate_scale: float = 1.0,
        *,
        heads: HeadPooling = "mean",
        suppress_sinks: bool = True,
    ) -> Tensor:
        """What CLS looks at in the last block, as released: (B, Hp, Wp) float32 in [0, 1) on the CPU.

        heads "none" gives (B, heads, Hp, Wp); see `attention_maps.attention_maps` for both options.
        Raises ConfigError for a trunk without CLS token (SigLIP).
        """
        batches = self._in_batches(images, prompt, gate_scale, attention=True)
        maps = (self._attention_map(found, heads, suppress_sinks) for found in batches)
        return self._collect(maps, self.grid)

    def _attention_map(self, found: Features, heads: HeadPooling, suppress_sinks: bool) -> Tensor:
        assert found.attention is not None
        return attention_maps(found.attention, found.grid, heads, suppress_sinks)

    def _collect(self, results: Iterator[Tensor], shape: tuple[int, ...]) -> Tensor:
        """One float32 tensor on the CPU; fetched at the end, so that a GPU never waits in between."""
        with torch.inference_mode():
            found = [result.float() for result in results]
            return torch.cat(found).cpu() if found else torch.empty(0, *shape)

    def _in_batches(
        self,
        images: Sequence[ImageSource],
        prompt: str | Sequence[str] | None,
        gate_scale: float,
        attention: bool = False,
    ) -> Iterator[Features]:
        if isinstance(images, (str, Path, Image.Image)):
            raise ConfigError("images", images, "must be a sequence of pictures or paths, not a single one")
        prompts = self._prompt_features(prompt, len(images))
        one = prompts is None or len(prompts) == 1
        shared = self.steering(prompts, gate_scale) if one else None
        if shared is not None and not attention:
            for pixels in self._pixel_batches(images, self.batch_size * self.cores):
                yield self.encode(pixels, [shared])[0]
            return
        start = 0
        for pixels in self._pixel_batches(images, self.batch_size):
            steering = shared
            if steering is None:
                assert prompts is not None
                part = slice(start, start + len(pixels))
                own = PromptFeatures(prompts.tokens[part], prompts.mask[part])
                steering = self.steering(own, gate_scale)
            yield self.steer(self.before_steering(pixels), steering, attention=attention)
            start += len(pixels)

    def _prompt_features(self, prompt: str | Sequence[str] | None, batch: int) -> PromptFeatures | None:
        if prompt is None:
            return None
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if len(prompts) not in (1, batch):
            raise _wrong_number(len(prompts), batch)
        return self.encode_prompts(prompts)

    def _pixel_batches(self, images: Sequence[ImageSource], size: int) -> Iterator[Tensor]:
        """Pixels of the next `size` pictures, read on threads while the model works on the last ones."""
        ahead: deque[list[Future[npt.NDArray[np.float32]]]] = deque()
        with ThreadPoolExecutor(_READERS) as readers:
            for start in range(0, len(images), size):
                ahead.append([readers.submit(self._read, image) for image in images[start : start + size]])
                if len(ahead) == 2:
                    yield self._gather(ahead.popleft())
            while ahead:
                yield self._gather(ahead.popleft())

    def _read(self, image: ImageSource) -> npt.NDArray[np.float32]:
        if isinstance(image, (str, Path)):
            return self.preprocess(read_picture(image, at_least=self.config.preprocess.least_side))
        return self.preprocess(image)

    def _gather(self, reading: Sequence[Future[npt.NDArray[np.float32]]]) -> Tensor:
        return self.to_device(np.stack([picture.result() for picture in reading]))

    def to_device(self, pixels: npt.NDArray[np.float32]) -> Tensor:
        """Pixels (B, 3, H, W) float32 where the weights are, in their dtype; a GPU copies while it computes."""
        batch = torch.from_numpy(pixels)
        if self.device.type == "cuda":
            batch = batch.pin_memory()
        return batch.to(self.device, non_blocking=True).to(self.head.weight.dtype)

    # ------------------------------------------------------------------------------------- files and identity

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        device: str | torch.device = "auto",
        dtype: torch.dtype | Literal["auto"] = "auto",
    ) -> SteerViT:
        """A named model (`registry.MODELS`), "auto", a .safetensors or .pth file, or a hub id.

        device "auto": the GPU if there is one.  dtype "auto": bfloat16 on a GPU that computes with it, else
        float32; embeddings and heatmaps are float32 in any case. Raises UnknownModelError, CheckpointError.
        """
        from steersearch.core.checkpoints import load_model

        return load_model(name_or_path, device=device, dtype=dtype)

    def with_view(self, view: View | None) -> SteerViT:
        """This model seeing pictures in another way; the weights are shared, not copied.

        view: "crop" (timm's evaluation transform), "squash" (the whole picture in a square) or "tile" (the
            same at twice the resolution, as 2 × 2 tiles: four forward passes); None: the model's own.
        In the view "tile" a heatmap lies on the grid (2·Hp, 2·Wp), and CLS and mean are the tiles' own, each
        weighted by its share of the heatmap.
        """
        own = self._own_preprocess
        other = copy.copy(self)
        other.config = replace(self.config, preprocess=own if view is None else own.with_view(view))
        return other

    def with_aggregation(self, kind: Aggregation | None) -> SteerViT:
        """This model with another aggregation by default; the weights are shared. None: as it is.

        Raises ConfigError for one that does not exist, or for `cls` with a trunk that has no such token.
        """
        if kind == "cls" and self._trunk.num_prefix_tokens == 0:
            raise ConfigError("aggregation", kind, 'this trunk has no CLS token; use "mean" or "focus"')
        other = copy.copy(self)
        other.config = self.config if kind is None else replace(self.config, aggregation=kind)
        return other

    def save(self, path: Path | str) -> None:
        """Write a .safetensors file that `from_pretrained` reads; see `checkpoints.write_safetensors`."""
        from steersearch.core.checkpoints import write_safetensors

        write_safetensors(self, Path(path))

    @property
    def weights_hash(self) -> str:
        """sha256 of the file that the weights came from; of the present weights for a model never saved."""
        return self._weights_hash or _state_hash(self)


class Connector(nn.Module):
    """Text tokens to the trunk's width: unit length, then a two-layer MLP. (..., L, Dt) -> (..., L, D).

    hidden None: one linear layer instead, the paper's ablation (Table 3).
    """

    def __init__(self, text_dim: int, hidden: int | None, dim: int) -> None:
        super().__init__()
        if hidden is None:
            self.mlp = nn.Sequential(nn.Linear(text_dim, dim))
        else:
            self.mlp = nn.Sequential(nn.Linear(text_dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.mlp(F.normalize(tokens, dim=-1))
        return out


def _cores() -> int:
    return min(_CORES, torch.get_num_threads())


def _widened(values: Tensor) -> Tensor:
    """In float32 at least: sums over patches and unit lengths would lose digits in half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _random_trunk(config: SteerViTConfig) -> nn.Module:
    if config.tiny is not None:
        return ViT(config.tiny)
    return build_trunk(config.trunk, config.resolution, pretrained=False)


def _wrong_number(prompts: int, images: int) -> PromptError:
    return PromptError(f"{prompts} prompts for {images} images; give one prompt, or one per image")


def _state_hash(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
