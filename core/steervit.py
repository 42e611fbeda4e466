"""SteerViT, the network top to bottom: a frozen ViT whose tokens a prompt steers (arXiv 2604.02327).

`predictor` applies one to photos and prompts.

Letters: B images, H W pixels, T = P + N backbone tokens (P prefix tokens, N = Hp·Wp patches), D backbone width,
L text tokens, Dt text width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steersearch.core.backbone import Trunk, build_trunk
from steersearch.core.cross_attention import GatedCrossAttention
from steersearch.core.errors import ConfigError, PromptError
from steersearch.core.preprocess import MOST_SIDE, Preprocess
from steersearch.core.ranges import check_flag, check_number, check_text, check_whole, read_fields, read_list
from steersearch.core.text import PromptFeatures
from steersearch.core.vectors import Aggregation
from steersearch.core.vit import MOST_DEEP, MOST_WIDE, ViT, ViTConfig, resampled

Fusion = Literal["early", "late"]
# What `SteerViTConfig.trunk` says of a `ViT` of our own; files and recipes have that key.
OWN_BACKBONE = "vit"
_SUBTRACTED_LEVEL = 0.5  # share of the mean logit


@dataclass(frozen=True, kw_only=True)
class SteerViTConfig:
    """All that determines a model except its weights.

    trunk: the backbone, "vit" for our own (then `vit` is its shape) or a timm name.
    resolution: side of the input in pixels.
    aggregation: how tokens become one embedding, see `Features.aggregate`.
    cross_attn_layers: blocks with a cross-attention before them; indices beyond the depth are ignored.
    text_encoder, text_dim: see `text.load_text_encoder`; text_layers: the number of its layers used, -1 for all.
    connector_hidden: width of the connector's middle.

    The paper's ablations (Tables 3 and 12): fusion "late" puts those cross-attentions, as many, after the last
    block; connector_hidden None is a connector of one linear layer; tanh_gate False leaves out the gates;
    use_ffn follows each cross-attention by a gated network, cross_attn_ffn_mult times as wide as the backbone.
    """

    trunk: str
    vit: ViTConfig | None = None
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
        if (self.trunk == OWN_BACKBONE) != (self.vit is not None):
            raise ConfigError(
                "vit",
                self.vit,
                f'must be given for the backbone "{OWN_BACKBONE}" only, this is "{self.trunk}"',
            )
        if self.vit is not None and self.vit.image_size != self.resolution:
            raise ConfigError(
                "resolution", self.resolution, f"the backbone takes {self.vit.image_size} pixels"
            )
        if self.preprocess.size != self.resolution:
            raise ConfigError(
                "resolution", self.resolution, f"preprocessing makes {self.preprocess.size} pixels"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; `from_dict` reads it back."""
        return asdict(self) | {
            "vit": None if self.vit is None else self.vit.to_dict(),
            "cross_attn_layers": list(self.cross_attn_layers),
            "preprocess": self.preprocess.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SteerViTConfig:
        """Inverse of `to_dict`. Raises ConfigError for a field that is unknown, missing, or out of its range."""
        read = read_fields(cls, _renamed(data), "the config")
        if read.get("vit") is not None:
            read["vit"] = ViTConfig.from_dict(read["vit"])
        if "cross_attn_layers" in read:
            read["cross_attn_layers"] = read_list("cross_attn_layers", read["cross_attn_layers"])
        return cls(**{**read, "preprocess": Preprocess.from_dict(read["preprocess"])})


def _renamed(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """A config as it is written now; earlier files call a backbone of our own "tiny", whatever its size."""
    if not isinstance(data, Mapping) or "tiny" not in data or "vit" in data:
        return data
    rest = {name: value for name, value in data.items() if name != "tiny"}
    trunk = OWN_BACKBONE if data.get("trunk") == "tiny" else data.get("trunk")
    return {**rest, "trunk": trunk, "vit": data["tiny"]}


@dataclass(frozen=True, kw_only=True)
class Features:
    """What one forward pass says about B images. All final-normed by the backbone, none of unit length.

    prefix (B, P, D), patches (B, N, D), logits (B, N) of the segmentation head, grid (Hp, Wp) with N = Hp·Wp.
    attention (B, heads, N), where it was asked for: what CLS attends to in the last block; the rest of its
    attention, up to a sum of 1, lies on the prefix tokens.
    parts (B, N): each patch's part in the mean, summing to 1; None: all alike (see `tiles.whole_pictures`).
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
                raise ConfigError(
                    "aggregation", kind, 'this backbone has no CLS token; use "mean" or "focus"'
                )
            return widened(self.prefix[:, 0])
        if kind == "mean" or (kind == "focus" and not self.is_steered):
            if self.parts is None:
                return widened(self.patches).mean(dim=1)
            return torch.einsum("bn,bnd->bd", self.parts, widened(self.patches))
        if kind == "focus":
            weights = (2 * widened(self.logits)).softmax(dim=-1)
            return torch.einsum("bn,bnd->bd", weights, widened(self.patches))
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
        return widened(self.logits).softmax(dim=-1).reshape(-1, *self.grid)

    def presence(self) -> Tensor:
        """How surely each image shows the prompt's object: (B,) float32 in nats, comparable under one prompt only.

        log(mean of exp(logits)) - 1/2 mean of logits: high where a few patches have a far higher logit than the rest.
        The heatmap alone cannot tell: an image without the object has one too, often as concentrated. The heatmap's
        loss ignores a constant added to all logits of an image, so their level is not trained to mean anything. In the
        mini, which is also trained on prompts for absent things, it means much; for the released models nobody knows.
        So half of it is subtracted: on 36 photographs mean average precision is .61 with half, .64 with none and .21
        with all of it subtracted (an earlier mini, benchmarks/LOG.md).
        """
        logits = widened(self.logits)
        peak = logits.logsumexp(dim=1) - math.log(logits.shape[1])
        return (peak - _SUBTRACTED_LEVEL * logits.mean(dim=1)).float()


@dataclass(frozen=True)
class Steering:
    """What prompts do to the tokens, made by `SteerViT.steering` for any number of batches; immutable.

    num_prompts: 1 (for every image of a batch), or one per image.  layers: for each depth, what happens to the
    tokens (B, T, D) before the block of that index; the backbone's depth is after its last block.
    """

    num_prompts: int
    layers: Mapping[int, Sequence[Callable[[Tensor], Tensor]]]

    def __call__(self, depth: int, x: Tensor) -> Tensor:
        for layer in self.layers.get(depth, ()):
            x = layer(x)
        return x


NO_STEERING = Steering(1, {})


class SteerViT(nn.Module):
    """A frozen backbone and the trained parts that steer it: connector, gated cross-attention, head.

    `gate_scale`, wherever it is an argument, multiplies every learned gate before its tanh: 0 is the frozen
    backbone bit for bit, 1 is as trained. It is never state: threads may share a model.
    """

    def __init__(self, config: SteerViTConfig, trunk: ViT | nn.Module | None = None) -> None:
        """`trunk` None builds the configured one with random weights; it is frozen in any case.

        model_id: the name or file that it was loaded by.  file_hash: sha256 of the file that the weights came from.
        """
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
        self.file_hash: str | None = None
        if not self.head.weight.is_meta:  # else they are about to be read
            self._init_new_weights()
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
        """(Hp, Wp), the patch grid of features and heatmaps."""
        return self._trunk.grid

    @property
    def num_prefix_tokens(self) -> int:
        """P: the CLS token, if the backbone has one, and its registers."""
        return self._trunk.num_prefix_tokens

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def train(self, mode: bool = True) -> SteerViT:
        """As nn.Module, but the backbone stays in evaluation mode: its batch norm statistics are frozen too."""
        super().train(mode)
        self.trunk.eval()
        return self

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Name and parameter of everything that training changes; the backbone is not among them."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def at_resolution(self, side: int) -> SteerViT:
        """This model for pictures of `side` pixels: the same weights, with the backbone's positions resampled.

        A model tested at a higher resolution than it was trained at finds smaller things (FixRes, arXiv 1906.06423).
        Raises ConfigError for a side that the backbone cannot take, and for a backbone that timm builds.
        """
        if not isinstance(self.trunk, ViT):
            raise ConfigError("resolution", side, f"{self.config.trunk} stays at {self.config.resolution}")
        shape = replace(self.trunk.config, image_size=side)
        config = replace(
            self.config,
            resolution=side,
            vit=shape if self.config.vit else None,
            preprocess=replace(self.config.preprocess, size=side),
        )
        with torch.device("meta"):
            trunk = ViT(shape)
            model = SteerViT(config, trunk)
        state = self.state_dict()
        state["trunk.pos_embed"] = resampled(state["trunk.pos_embed"], trunk)
        model.load_state_dict(state, assign=True)
        return model.eval()

    # ------------------------------------------------------------------------------------------ forward pass

    def forward(
        self,
        pixels: Tensor,
        prompts: PromptFeatures | None = None,
        gate_scale: float = 1.0,
        *,
        attention: bool = False,
    ) -> Features:
        """Steered features of `pixels` (B, 3, H, W), as `config.preprocess` makes them.

        prompts: of one prompt for all images, or of B, one each; None or gate_scale 0: the plain backbone.
        attention: also keep what CLS attends to in the last block. For many prompts or many batches use the
        two halves, `before_steering` and `steer`, so that nothing is computed twice.
        """
        steering = self.steering(prompts, gate_scale)
        return self.steer(self.before_steering(pixels), steering, attention=attention)

    def before_steering(self, pixels: Tensor) -> Tensor:
        """The part that no prompt changes: (B, 3, H, W) pixels -> tokens (B, T, D) before the first steered block."""
        x = self._trunk.tokens(pixels)
        for block in self._trunk.blocks[: self._first_steered]:
            x = block(x)
        return x

    def steer(self, x: Tensor, steering: Steering = NO_STEERING, *, attention: bool = False) -> Features:
        """The rest: tokens (B, T, D) from `before_steering` -> features, steered by what `steering` gives."""
        if steering.num_prompts not in (1, len(x)):
            raise PromptError(f"{steering.num_prompts} prompts for {len(x)} images")
        depth, attended = self._trunk.depth, None
        for i in range(self._first_steered, depth):
            x = steering(i, x)
            if attention and i == depth - 1:
                attended = self._attention(x)
            x = self._trunk.blocks[i](x)
        x = self._trunk.norm(steering(depth, x))
        prefix, patches = x[:, : self._trunk.num_prefix_tokens], x[:, self._trunk.num_prefix_tokens :]
        logits = self.head(patches).squeeze(-1)
        return Features(
            prefix=prefix,
            patches=patches,
            logits=logits,
            grid=self._trunk.grid,
            attention=attended,
            is_steered=bool(steering.layers),
        )

    def steering(self, prompts: PromptFeatures | None, gate_scale: float = 1.0) -> Steering:
        """What `prompts` do at `gate_scale`, to be used for any number of batches.

        Without gradients one short prompt is folded (see `GatedCrossAttention.fold`): same, faster.
        Raises PromptError for features of another text encoder.
        """
        if not math.isfinite(gate_scale):
            raise ConfigError("gate_scale", gate_scale, "must be a finite number, 1.0 is as trained")
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
            raise ConfigError(
                "attention", True, "this backbone has no CLS token whose attention could be shown"
            )
        return self._trunk.cls_attention(x)[:, :, self._trunk.num_prefix_tokens :]


class Connector(nn.Module):
    """Text tokens to the backbone's width: unit length, then a two-layer MLP. (..., L, Dt) -> (..., L, D).

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


def widened(values: Tensor) -> Tensor:
    """In float32 at least: sums over patches and unit lengths would lose digits in half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _random_trunk(config: SteerViTConfig) -> nn.Module:
    if config.vit is not None:
        return ViT(config.vit)
    return build_trunk(config.trunk, config.resolution, pretrained=False)
