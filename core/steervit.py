"""SteerViT, the model top to bottom: a frozen ViT whose tokens a prompt steers (arXiv 2604.02327).

Letters: B images, H W pixels, T = P + N trunk tokens (P prefix tokens, N = Hp·Wp patches), D trunk width,
L text tokens, Dt text width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from steersearch.core.cross_attention import GatedCrossAttention
from steersearch.core.errors import ConfigError, PromptError
from steersearch.core.preprocess import Preprocess, open_image
from steersearch.core.text import CachedTextEncoder, PromptFeatures
from steersearch.core.tiny_vit import TinyViT, TinyViTConfig
from steersearch.core.trunk import Trunk, build_trunk

Aggregation = Literal["cls", "mean", "focus"]
ImageSource = Image.Image | Path | str
EMBED_BATCH = 32  # pictures in one forward of `embed` and `heatmaps`: bounds their memory


@dataclass(frozen=True, kw_only=True)
class SteerViTConfig:
    """All that determines a model except its weights.

    trunk: "tiny" (then `tiny` gives its shape) or a timm name.  resolution: side of the input in pixels.
    aggregation: how tokens become one embedding, see `Features.aggregate`.
    cross_attn_layers: blocks with a cross-attention before them; indices beyond the depth are ignored.
    text_encoder, text_dim: see `text.load_text_encoder`.  connector_hidden: width of the connector's middle.
    """

    trunk: str
    tiny: TinyViTConfig | None = None
    resolution: int
    aggregation: Aggregation = "cls"
    cross_attn_layers: tuple[int, ...] = tuple(range(1, 26, 2))
    num_heads: int = 16
    head_dim: int = 72
    use_ffn: bool = False
    cross_attn_ffn_mult: float = 2.0
    text_encoder: str = "roberta-large"
    text_dim: int = 1024
    connector_hidden: int = 1024
    preprocess: Preprocess

    def __post_init__(self) -> None:
        if self.aggregation not in get_args(Aggregation):
            raise ConfigError("aggregation", self.aggregation, f"must be one of {get_args(Aggregation)}")
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
        """Inverse of `to_dict`. Raises ConfigError for a field that this version does not know."""
        unknown = set(data) - {field.name for field in fields(cls)}
        if unknown:
            name = sorted(unknown)[0]
            raise ConfigError(name, data[name], "no such setting; was the file made by a newer version?")
        tiny = data.get("tiny")
        read = {
            "tiny": None if tiny is None else TinyViTConfig.from_dict(tiny),
            "cross_attn_layers": tuple(data["cross_attn_layers"]),
            "preprocess": Preprocess.from_dict(data["preprocess"]),
        }
        return cls(**{**data, **read})


@dataclass(frozen=True, kw_only=True)
class Features:
    """What one forward pass says about B images. All final-normed by the trunk, none of unit length.

    prefix (B, P, D), patches (B, N, D), logits (B, N) of the segmentation head, grid (Hp, Wp) with N = Hp·Wp.
    """

    prefix: Tensor
    patches: Tensor
    logits: Tensor
    grid: tuple[int, int]

    def aggregate(self, kind: Aggregation) -> Tensor:
        """One vector per image (B, D): CLS token, mean patch, or patches weighted by the heatmap."""
        if kind == "cls":
            if self.prefix.shape[1] == 0:
                raise ConfigError("aggregation", kind, 'this trunk has no CLS token; use "mean" or "focus"')
            return self.prefix[:, 0]
        if kind == "mean":
            return self.patches.mean(dim=1)
        if kind == "focus":
            return torch.einsum("bn,bnd->bd", self.logits.softmax(dim=-1), self.patches)
        raise ConfigError("aggregation", kind, f"must be one of {get_args(Aggregation)}")

    def embedding(self, kind: Aggregation) -> Tensor:
        """`aggregate(kind)` at unit length (B, D): a dot product of two is their cosine."""
        return F.normalize(self.aggregate(kind), dim=-1)

    def heatmap(self) -> Tensor:
        """(B, Hp, Wp): where the prompt's object is; sums to 1 over each image's patches."""
        return self.logits.softmax(dim=-1).reshape(-1, *self.grid)


class SteerViT(nn.Module):
    """A frozen trunk and the trained parts that steer it: connector, gated cross-attention, head.

    `gate_scale`, wherever it is an argument, multiplies every learned gate before its tanh: 0 is the frozen
    trunk bit for bit, 1 is as trained. It is never state: threads may share a model.
    """

    def __init__(self, config: SteerViTConfig, trunk: TinyViT | nn.Module | None = None) -> None:
        """`trunk` None builds the configured one with random weights; it is frozen in any case."""
        super().__init__()
        self.config = config
        self.trunk = trunk if trunk is not None else _random_trunk(config)
        shape = self._trunk
        ffn_mult = config.cross_attn_ffn_mult if config.use_ffn else None
        self.connector = Connector(config.text_dim, config.connector_hidden, shape.dim)
        self.cross_attention = nn.ModuleDict(
            {
                str(i): GatedCrossAttention(shape.dim, config.num_heads, config.head_dim, ffn_mult)
                for i in config.cross_attn_layers
                if i < shape.depth
            }
        )
        self.head = nn.Linear(shape.dim, 1)
        self.model_id = "unsaved"
        self._weights_hash: str | None = None
        self._text_encoder = CachedTextEncoder(config.text_encoder)
        self._init_new_weights()
        self.trunk.requires_grad_(False)
        self.eval()

    def _init_new_weights(self) -> None:
        """Every initial value of the trained parts. Gates and head start at 0: nothing is steered."""
        for linear in (self.connector.mlp[0], self.connector.mlp[2]):
            nn.init.kaiming_normal_(cast(Tensor, linear.weight), nonlinearity="relu")
            nn.init.zeros_(cast(Tensor, linear.bias))
        for layer in self.cross_attention.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, a=5**0.5)  # torch's own default for nn.Linear
            if isinstance(layer, GatedCrossAttention):
                nn.init.zeros_(layer.attn_gate)
                if layer.ff_gate is not None:
                    nn.init.zeros_(layer.ff_gate)
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
        """(Hp, Wp), the patch grid of features and heatmaps."""
        return self._trunk.grid

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

    # ------------------------------------------------------------------------------------------ forward pass

    def forward(
        self, pixels: Tensor, prompts: PromptFeatures | None = None, gate_scale: float = 1.0
    ) -> Features:
        """Steered features of `pixels` (B, 3, H, W) float32, as `preprocess` makes them.

        prompts: of one prompt for all images, or of B, one each; None or gate_scale 0: the plain trunk.
        Without gradients one short prompt is folded (see `GatedCrossAttention.fold`): same, faster.
        """
        steer = self._steering(len(pixels), prompts, gate_scale)
        x = self._trunk.tokens(pixels)  # (B, T, D)
        for i, block in enumerate(self._trunk.blocks):
            if i in steer:
                x = steer[i](x)
            x = block(x)
        x = self._trunk.norm(x)
        prefix, patches = x[:, : self._trunk.num_prefix_tokens], x[:, self._trunk.num_prefix_tokens :]
        return Features(prefix=prefix, patches=patches, logits=self.head(patches).squeeze(-1), grid=self.grid)

    def _steering(
        self, batch: int, prompts: PromptFeatures | None, gate_scale: float
    ) -> dict[int, Callable[[Tensor], Tensor]]:
        """For each steered block, what is done to the tokens (B, T, D) before it; empty = nothing."""
        if prompts is None or gate_scale == 0:
            return {}
        if len(prompts) not in (1, batch):
            raise PromptError(f"{len(prompts)} prompts for {batch} images; give one prompt, or one per image")
        if prompts.tokens.shape[-1] != self.config.text_dim:
            raise PromptError(
                f"prompt features of width {prompts.tokens.shape[-1]}, expected {self.config.text_dim} "
                f"({self.config.text_encoder}); encode the prompt with the model that reads it"
            )
        prompts = prompts.to(self.device, self.head.weight.dtype)
        if len(prompts) == 1 and not torch.is_grad_enabled():
            text = self.connector(prompts.tokens[0][prompts.mask[0]])  # (L, D) without padding
            if len(text) <= self.config.head_dim:  # beyond, A and C outgrow W_q and W_o
                return {int(i): layer.fold(text, gate_scale) for i, layer in self._layers()}
        text, mask = self.connector(prompts.tokens), prompts.mask

        def unfolded(layer: GatedCrossAttention) -> Callable[[Tensor], Tensor]:
            return lambda x: layer(x, text, mask, gate_scale)

        return {int(i): unfolded(layer) for i, layer in self._layers()}

    def _layers(self) -> Iterator[tuple[str, GatedCrossAttention]]:
        return ((i, cast(GatedCrossAttention, layer)) for i, layer in self.cross_attention.items())

    # ------------------------------------------------------------------------------- from pictures and words

    def preprocess(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """A picture -> (3, H, W) float32, as `forward` takes it."""
        return self.config.preprocess(image)

    def encode_prompts(self, prompts: Sequence[str]) -> PromptFeatures:
        """Text tokens (P, L, Dt) of `prompts`; the text encoder is loaded only for those not kept on disk."""
        return self._text_encoder.to(self.device).encode(prompts)

    @torch.inference_mode()
    def features(
        self,
        images: Sequence[ImageSource],
        prompt: str | Sequence[str] | None = None,
        gate_scale: float = 1.0,
    ) -> Features:
        """Features of pictures or paths in one batch; `prompt`: one for all, one per picture, or none."""
        prompts = self._prompt_features(prompt, len(images))
        return self.forward(self._pixels(images), prompts, gate_scale)

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
        return self._in_batches(images, prompt, gate_scale, lambda found: found.embedding(kind), (self.dim,))

    def heatmaps(
        self, images: Sequence[ImageSource], prompt: str | Sequence[str], gate_scale: float = 1.0
    ) -> Tensor:
        """Where the prompt's object is: (B, Hp, Wp) float32 on the CPU, each summing to 1."""
        return self._in_batches(images, prompt, gate_scale, Features.heatmap, self.grid)

    @torch.inference_mode()
    def _in_batches(
        self,
        images: Sequence[ImageSource],
        prompt: str | Sequence[str] | None,
        gate_scale: float,
        read: Callable[[Features], Tensor],
        shape: tuple[int, ...],
    ) -> Tensor:
        if isinstance(images, (str, Path, Image.Image)):
            raise ConfigError("images", images, "must be a sequence of pictures or paths, not a single one")
        prompts = self._prompt_features(prompt, len(images))
        results = [torch.empty(0, *shape)]
        for start in range(0, len(images), EMBED_BATCH):
            part = slice(start, start + EMBED_BATCH)
            own = prompts
            if prompts is not None and len(prompts) > 1:
                own = PromptFeatures(prompts.tokens[part], prompts.mask[part])
            results.append(read(self.forward(self._pixels(images[part]), own, gate_scale)).float().cpu())
        return torch.cat(results)

    def _prompt_features(self, prompt: str | Sequence[str] | None, batch: int) -> PromptFeatures | None:
        if prompt is None:
            return None
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if len(prompts) not in (1, batch):
            raise PromptError(f"{len(prompts)} prompts for {batch} images; give one prompt, or one per image")
        return self.encode_prompts(prompts)

    def _pixels(self, images: Sequence[ImageSource]) -> Tensor:
        pictures = (open_image(i) if isinstance(i, (str, Path)) else i for i in images)
        pixels = torch.from_numpy(np.stack([self.preprocess(picture) for picture in pictures]))
        return pixels.to(self.device, self.head.weight.dtype)

    # ------------------------------------------------------------------------------------- files and identity

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, device: str | torch.device = "auto") -> SteerViT:
        """A named model (`registry.known_models`), "auto", a .safetensors or .pth file, or a hub id."""
        from steersearch.core.checkpoints import load_model

        return load_model(name_or_path, device=device)

    def save(self, path: Path | str) -> None:
        """Write a .safetensors file that `from_pretrained` reads; see `checkpoints.write_safetensors`."""
        from steersearch.core.checkpoints import write_safetensors

        write_safetensors(self, Path(path))

    @property
    def weights_hash(self) -> str:
        """sha256 of the file that the weights came from; of the present weights for a model never saved."""
        return self._weights_hash or _state_hash(self)


class Connector(nn.Module):
    """Text tokens to the trunk's width: unit length, then a two-layer MLP. (..., L, Dt) -> (..., L, D)."""

    def __init__(self, text_dim: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(text_dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.mlp(F.normalize(tokens, dim=-1))
        return out


def _random_trunk(config: SteerViTConfig) -> nn.Module:
    if config.tiny is not None:
        return TinyViT(config.tiny)
    return build_trunk(config.trunk, config.resolution, pretrained=False)


def _state_hash(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
