"""BERT and RoBERTa as frozen text encoders in plain PyTorch, because importing transformers takes seconds.

Parameters have the names of the published files. Letters: P prompts, L tokens, Dt width, h heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steersearch.core.errors import CheckpointError, CheckpointKeysError, ConfigError
from steersearch.core.files import read_json
from steersearch.core.ranges import MOST_JSON, check_number, check_whole
from steersearch.core.vit import MOST_DEEP, MOST_WIDE
from steersearch.core.weights_file import weights_file

# model_type of config.json -> whether positions start after the padding token's number
_KINDS = {"bert": False, "roberta": True, "xlm-roberta": True, "camembert": True}


@dataclass(frozen=True, kw_only=True)
class BertConfig:
    """Shape of the encoder. first_position: row of the position table for the first token.

    Above 0, as in RoBERTa, padding tokens are not counted and get the row before, even ones in a prompt's text.
    """

    vocabulary: int
    dim: int
    depth: int
    num_heads: int
    hidden: int
    positions: int
    types: int
    norm_eps: float
    pad_id: int = 0
    first_position: int = 0

    def __post_init__(self) -> None:
        for name, most in (
            ("vocabulary", 2**22),
            ("dim", MOST_WIDE),
            ("num_heads", MOST_WIDE),
            ("hidden", 4 * MOST_WIDE),
            ("positions", 2**16),
            ("types", 256),
        ):
            check_whole(name, getattr(self, name), 1, most)
        check_whole("depth", self.depth, 0, MOST_DEEP)
        check_whole("pad_id", self.pad_id, 0, self.vocabulary - 1)
        check_whole("first_position", self.first_position, 0, self.positions - 1)
        check_number("norm_eps", self.norm_eps, 0, 1)
        if self.dim % self.num_heads:
            raise ConfigError("num_heads", self.num_heads, f"must divide dim {self.dim}")

    @property
    def most_tokens(self) -> int:
        """The longest input in tokens."""
        return self.positions - self.first_position

    @classmethod
    def read(cls, file: Path) -> BertConfig:
        """Read a published config.json. Raises CheckpointError for another architecture or an invalid file."""
        try:
            said: dict[str, Any] = read_json(file, MOST_JSON)
            kind, pad_id = said.get("model_type"), said.get("pad_token_id") or 0
            unusual = [
                f"{name} {said[name]}"
                for name, usual in (("hidden_act", "gelu"), ("position_embedding_type", "absolute"))
                if said.get(name, usual) != usual
            ]
            if kind not in _KINDS or unusual:
                reason = ", ".join([f"model_type {kind}", *unusual])
                raise CheckpointError(f"{file}: not a standard BERT or RoBERTa ({reason})")
            return cls(
                vocabulary=said["vocab_size"],
                dim=said["hidden_size"],
                depth=said["num_hidden_layers"],
                num_heads=said["num_attention_heads"],
                hidden=said["intermediate_size"],
                positions=said["max_position_embeddings"],
                types=said["type_vocab_size"],
                norm_eps=said["layer_norm_eps"],
                pad_id=pad_id,
                first_position=pad_id + 1 if _KINDS[kind] else 0,
            )
        except ConfigError as error:
            raise CheckpointError(f"{file}: invalid config: {error}") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{file}: cannot be loaded ({error!r})") from error


class Bert(nn.Module):
    """Post-norm transformer over token ids, without pooling or head."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer(config) for _ in range(config.depth))})

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer's layers, first to last."""
        return cast(nn.ModuleList, self.encoder["layer"])

    def cut(self, layers: int) -> None:
        """Keep the first `layers` layers."""
        self.encoder["layer"] = self.layers[:layers]

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """(P, L) token ids -> last hidden states (P, L, Dt). mask (P, L): False is padding, at the end of rows only."""
        x = self.embeddings(ids)
        keep = None if mask is None else mask[:, None, None, :]  # (P, 1, 1, L), over heads and queries
        for layer in self.layers:
            x = layer(x, keep)
        return cast(Tensor, x)


class _Embeddings(nn.Module):
    """LayerNorm of the sum of token, position and type (always 0) embeddings."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.first_position, self.pad_id = config.first_position, config.pad_id
        self.word_embeddings = _table(config.vocabulary, config.dim)
        self.position_embeddings = _table(config.positions, config.dim)
        self.token_type_embeddings = _table(config.types, config.dim)
        self.LayerNorm = nn.LayerNorm(config.dim, config.norm_eps)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.word_embeddings(ids) + self.token_type_embeddings.weight[0]
        return cast(Tensor, self.LayerNorm(x + self.position_embeddings(self._places(ids))))

    def _places(self, ids: Tensor) -> Tensor:
        if self.first_position == 0:
            return torch.arange(ids.shape[1], device=ids.device)
        counted = ids != self.pad_id
        return counted.cumsum(dim=1) * counted + self.first_position - 1


def _table(rows: int, dim: int) -> nn.Embedding:
    """A random table, or an empty one on meta, where drawing random numbers imports parts of torch for a second."""
    weight = torch.empty(rows, dim)
    return nn.Embedding(rows, dim, _weight=weight if weight.is_meta else nn.init.normal_(weight, std=0.02))


class _Layer(nn.Module):
    """x <- norm(x + attention(x)), then x <- norm(x + mlp(x))."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        dim, hidden = config.dim, config.hidden
        own = nn.ModuleDict({name: nn.Linear(dim, dim) for name in ("query", "key", "value")})
        self.attention = nn.ModuleDict({"self": own, "output": _add_and_norm(dim, dim, config.norm_eps)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(dim, hidden)})
        self.output = _add_and_norm(hidden, dim, config.norm_eps)

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        own, out = cast(nn.ModuleDict, self.attention["self"]), cast(nn.ModuleDict, self.attention["output"])
        q, k, v = (
            own[name](x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )  # each (P, h, L, Dt / h)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=keep).transpose(1, 2).flatten(2)
        x = out["LayerNorm"](x + out["dense"](attended))
        hidden = F.gelu(self.intermediate["dense"](x))
        return cast(Tensor, self.output["LayerNorm"](x + self.output["dense"](hidden)))


def _add_and_norm(inputs: int, dim: int, eps: float) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(inputs, dim), "LayerNorm": nn.LayerNorm(dim, eps)})


def load_bert(folder: Path, weights: str) -> Bert:
    """The encoder in `folder` (config.json and the safetensors file `weights`), in float32, frozen.

    Ignores other weights, such as a head. Raises CheckpointError for damaged files or another architecture,
    CheckpointKeysError for missing or misshapen weights.
    """
    config, path = BertConfig.read(folder / "config.json"), folder / weights
    with weights_file(path) as file:
        with torch.device("meta"):
            model = Bert(config)
        names = {_own(name): name for name in file.shapes}
        wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        missing = [name for name in wanted if name not in names]
        misshapen = [n for n, shape in wanted.items() if n in names and file.shapes[names[n]] != shape]
        if missing or misshapen:
            raise CheckpointKeysError(path, missing=missing, misshapen=misshapen)
        state = file.read(names[name] for name in wanted)
        model.load_state_dict({name: state[names[name]].float() for name in wanted}, assign=True)
    return model.eval().requires_grad_(False)


def _own(name: str) -> str:
    """A parameter's name in a published file without the prefix of the whole model."""
    return name.removeprefix("bert.").removeprefix("roberta.")
