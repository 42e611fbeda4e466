"""SteerViT and its text encoders once more, straight from the equations, in float64: what the model is tested against.

No module and no function of the package or of torch.nn is used, only sums, products, exp and erf. Everything is
read from a state dict. Each picture has a prompt of its own here, and none is padded or folded, so masks and folding
are checked too.

Letters: B images, T = P + N tokens (P prefix tokens, N patches), D backbone width, L text tokens, Dt text width,
h heads, d head width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


class Weights:
    """A state dict from which tensors are taken in float64, one by one: a large one need not fit in twice."""

    def __init__(self, state: Mapping[str, Tensor], prefix: str = "") -> None:
        self._state, self._prefix = state, prefix

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._state

    def __getitem__(self, name: str) -> Tensor:
        return self._state[self._prefix + name].double()

    def below(self, name: str) -> Weights:
        return Weights(self._state, f"{self._prefix}{name}.")

    def in_memory(self) -> Weights:
        """The same, converted once for all uses."""
        start = self._prefix
        return Weights({k[len(start) :]: v.double() for k, v in self._state.items() if k.startswith(start)})

    def numbers(self, name: str) -> list[int]:
        """All n for which there is something below `name`.n, ascending."""
        start = f"{self._prefix}{name}."
        return sorted({int(key[len(start) :].split(".")[0]) for key in self._state if key.startswith(start)})


# ------------------------------------------------------------------------------------------------ building blocks


def linear(x: Tensor, weights: Weights) -> Tensor:
    y = x @ weights["weight"].T
    return y + weights["bias"] if "bias" in weights else y


def layer_norm(x: Tensor, weights: Weights, eps: float) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = (centred**2).mean(dim=-1, keepdim=True)
    return centred / (variance + eps).sqrt() * weights["weight"] + weights["bias"]


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def softmax(x: Tensor) -> Tensor:
    """Over the last axis."""
    weights = (x - x.amax(dim=-1, keepdim=True)).exp()
    return weights / weights.sum(dim=-1, keepdim=True)


def heads_of(x: Tensor, num_heads: int) -> Tensor:
    """(..., T, h·d) -> (..., h, T, d)."""
    return x.reshape(*x.shape[:-1], num_heads, -1).transpose(-2, -3)


def attention_weights(queries: Tensor, keys: Tensor) -> Tensor:
    """(..., h, T, d) and (..., h, L, d) -> (..., h, T, L)."""
    return softmax(queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1]))


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """(..., h, T, d), (..., h, L, d), (..., h, L, d) -> (..., T, h·d)."""
    mixed = attention_weights(queries, keys) @ values
    return mixed.transpose(-2, -3).flatten(-2)


def convolution(x: Tensor, weights: Weights, stride: int, padding: int = 0) -> Tensor:
    """(B, C, H, W) -> (B, C', H', W') as one matrix product over the pixels below each place of the kernel."""
    kernel = weights["weight"]  # (C', C, k, k)
    padded = x.new_zeros(*x.shape[:2], x.shape[2] + 2 * padding, x.shape[3] + 2 * padding)
    padded[..., padding : padding + x.shape[2], padding : padding + x.shape[3]] = x
    size = kernel.shape[-1]
    below = padded.unfold(2, size, stride).unfold(3, size, stride)  # (B, C, H', W', k, k)
    y = below.permute(0, 2, 3, 1, 4, 5).flatten(3) @ kernel.flatten(1).T
    if "bias" in weights:
        y = y + weights["bias"]
    return y.permute(0, 3, 1, 2)


# --------------------------------------------------------------------------------------------------------- SteerViT


@dataclass(frozen=True)
class Case:
    """One picture (3, H, W) under one prompt (L, Dt), or None, at one gate_scale."""

    pixels: Tensor
    prompt: Tensor | None = None
    gate_scale: float = 1.0


@dataclass(frozen=True)
class Outputs:
    """prefix (B, P, D), patches (B, N, D), logits (B, N); attention (B, h, N) of CLS, for backbones that have one."""

    prefix: Tensor
    patches: Tensor
    logits: Tensor
    attention: Tensor | None

    def rows(self, start: int, stop: int) -> Outputs:
        """Those of some of the cases."""
        part = slice(start, stop)
        attention = None if self.attention is None else self.attention[part]
        return Outputs(self.prefix[part], self.patches[part], self.logits[part], attention)

    @property
    def heatmap(self) -> Tensor:
        """(B, N)"""
        return softmax(self.logits)

    def aggregate(self, kind: str) -> Tensor:
        """(B, D)"""
        if kind == "cls":
            return self.prefix[:, 0]
        if kind == "mean":
            return self.patches.sum(dim=1) / self.patches.shape[1]
        assert kind == "focus"
        weights = self.heatmap**2 / (self.heatmap**2).sum(dim=1, keepdim=True)
        return (weights[..., None] * self.patches).sum(dim=1)


def steervit(
    state: Mapping[str, Tensor],
    cases: Sequence[Case],
    *,
    num_heads: int,
    cross_head_dim: int = 72,
    late: bool = False,
) -> Outputs:
    """The model with the weights `state` (`SteerViT.state_dict`) on each case.

    num_heads: of the self-attention; cross_head_dim: d of the cross-attention, 72 in every released model.
    late: the cross-attentions stand after the last block instead of before the blocks whose number they bear.
    """
    weights = Weights(state)
    trunk = weights.below("trunk.vit" if any(name.startswith("trunk.vit.") for name in state) else "trunk")
    texts = [
        None if case.prompt is None else connector(weights.below("connector"), case.prompt) for case in cases
    ]
    scales = [case.gate_scale for case in cases]
    steered = weights.numbers("cross_attention")

    def steer(x: Tensor, layer: int) -> Tensor:
        below = weights.below(f"cross_attention.{layer}").in_memory()
        each = zip(x, texts, scales, strict=True)
        return torch.stack([gated_cross_attention(below, *one, cross_head_dim) for one in each])

    x = trunk_tokens(trunk, torch.stack([case.pixels.double() for case in cases]))
    attention = None
    for i in trunk.numbers("blocks"):
        if i in steered and not late:
            x = steer(x, i)
        x, attention = block(trunk.below(f"blocks.{i}"), x, num_heads)
    if late:
        for layer in steered:
            x = steer(x, layer)
    x = layer_norm(x, trunk.below("norm"), eps=1e-6)
    num_prefix = num_prefix_tokens(trunk)
    patches = x[:, num_prefix:]
    return Outputs(
        prefix=x[:, :num_prefix],
        patches=patches,
        logits=linear(patches, weights.below("head"))[..., 0],
        attention=attention[:, :, 0, num_prefix:] if num_prefix and attention is not None else None,
    )


def num_prefix_tokens(trunk: Weights) -> int:
    """CLS, if there is one, and registers."""
    return sum(trunk[name].shape[1] for name in ("cls_token", "reg_token") if name in trunk)


def trunk_tokens(trunk: Weights, pixels: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, T, D): patches, CLS, positions; registers have no position, nor has CLS beside them."""
    if "patch_embed.proj.weight" in trunk:
        proj = trunk.below("patch_embed.proj")
        maps = convolution(pixels, proj, stride=proj["weight"].shape[-1])
    elif "patch_embed.deep.weight" in trunk:
        maps = hybrid_patches(trunk.below("patch_embed").in_memory(), pixels)
    else:  # a stem of convolutions
        maps = pixels
        for i in (stem := trunk.below("patch_embed")).numbers("backbone"):
            maps = convolution(maps, stem.below(f"backbone.{i}.conv"), stride=2, padding=1)
            norm = stem.below(f"backbone.{i}.bn")
            if "weight" in norm:
                maps = batch_norm(maps, norm, eps=1e-5).clamp(min=0)
    x = maps.flatten(2).transpose(1, 2)
    prefix = [trunk[name].expand(len(x), -1, -1) for name in ("cls_token", "reg_token") if name in trunk]
    if "reg_token" in trunk:
        return torch.cat([*prefix, x + trunk["pos_embed"]], dim=1)
    return torch.cat([*prefix, x], dim=1) + trunk["pos_embed"]


# Of EfficientNet-Lite2: kernel, stride of the first, expansion, how many; the fifth ends with the finer maps.
LITE2 = ((3, 1, 1, 1), (3, 2, 6, 3), (5, 2, 6, 3), (3, 2, 6, 4), (5, 1, 6, 4), (5, 2, 6, 5), (3, 1, 6, 1))


def hybrid_patches(embed: Weights, pixels: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, D, Hp, Wp): projections of a network's deep and finer features and of mean colours."""
    fine, coarse = lite2_maps(embed.below("cnn"), pixels)
    deep = relu6(same_convolution(coarse, embed.below("cnn.last.conv")))

    def projected(maps: Tensor, name: str) -> Tensor:
        """(B, h, w, D) of maps that are standardised where `name` has statistics."""
        x = maps.permute(0, 2, 3, 1)
        if f"{name}_mean" in embed:
            x = (x - embed[f"{name}_mean"]) / embed[f"{name}_std"]
        return linear(x, embed.below(name))

    means = pixels.unflatten(3, (-1, 4)).mean(4).unflatten(2, (-1, 4)).mean(3)  # of 4 × 4 pixels
    colours = means.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 1, 4, 5, 2, 3).flatten(1, 3)
    stretched = stretch(stretch(projected(deep, "deep"), 1), 2)
    return (stretched + projected(fine, "fine") + projected(colours, "colour")).permute(0, 3, 1, 2)


def lite2_maps(network: Weights, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, S, S) -> maps at strides 16 and 32."""
    x, number, fine = relu6(same_convolution(pixels, network.below("stem.conv"), 2)), 0, pixels
    for stage, (_, first_stride, expansion, count) in enumerate(LITE2):
        for k in range(count):
            part, stride = network.below(f"bottlenecks.{number}"), first_stride if k == 0 else 1
            wide = relu6(same_convolution(x, part.below("widen.conv"))) if expansion > 1 else x
            wide = relu6(same_convolution(wide, part.below("depthwise.conv"), stride))
            narrow = same_convolution(wide, part.below("narrow.conv"))
            x = x + narrow if stride == 1 and narrow.shape == x.shape else narrow
            number += 1
        fine = x if stage == 4 else fine
    return fine, x


def same_convolution(x: Tensor, weights: Weights, stride: int = 1) -> Tensor:
    """TensorFlow's "same": as many outputs as strides fit; what is lacking is padded, the larger half at the end.

    A kernel of one channel, where x has more, convolves each channel by itself.
    """
    kernel = weights["weight"]
    side, size = x.shape[-1], kernel.shape[-1]
    count = -(-side // stride)
    lacking = max((count - 1) * stride + size - side, 0)
    padded = x.new_zeros(*x.shape[:2], side + lacking, side + lacking)
    padded[..., lacking // 2 : lacking // 2 + side, lacking // 2 : lacking // 2 + side] = x
    y = x.new_zeros(len(x), len(kernel), count, count)
    for top in range(size):
        for left in range(size):
            below = padded[..., top::stride, left::stride][..., :count, :count]
            if kernel.shape[1] == x.shape[1]:
                y += torch.einsum("bchw,oc->bohw", below, kernel[:, :, top, left])
            else:
                y += below * kernel[:, 0, top, left, None, None]
    return y + weights["bias"][:, None, None]


def relu6(x: Tensor) -> Tensor:
    return x.clamp(0, 6)


def stretch(x: Tensor, axis: int) -> Tensor:
    """Twice as long along `axis`, linear between the centres; before the first and after the last they hold."""
    count = x.shape[axis]
    at = ((torch.arange(2 * count) + 0.5) / 2 - 0.5).clamp(0, count - 1)
    low = at.floor().long()
    share = (at - low).double().reshape([-1 if k == axis else 1 for k in range(x.dim())])
    high = (low + 1).clamp(max=count - 1)
    return x.index_select(axis, low) * (1 - share) + x.index_select(axis, high) * share


def batch_norm(maps: Tensor, weights: Weights, eps: float) -> Tensor:
    """(B, C, H, W), with the statistics of training."""
    mean, variance, scale, shift = (
        weights[name][:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
    )
    return (maps - mean) / (variance + eps).sqrt() * scale + shift


def block(weights: Weights, x: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
    """A pre-norm block, with LayerScale if it has one: (B, T, D) -> the same, and its attention (B, h, T, T)."""

    def scaled(update: Tensor, name: str) -> Tensor:
        return update * weights[f"{name}.gamma"] if f"{name}.gamma" in weights else update

    qkv = linear(layer_norm(x, weights.below("norm1"), eps=1e-6), weights.below("attn.qkv"))
    queries, keys, values = (heads_of(part, num_heads) for part in qkv.chunk(3, dim=-1))
    x = x + scaled(linear(attend(queries, keys, values), weights.below("attn.proj")), "ls1")
    hidden = gelu(linear(layer_norm(x, weights.below("norm2"), eps=1e-6), weights.below("mlp.fc1")))
    x = x + scaled(linear(hidden, weights.below("mlp.fc2")), "ls2")
    return x, attention_weights(queries, keys)


def connector(weights: Weights, prompt: Tensor) -> Tensor:
    """Text tokens (L, Dt) -> (L, D)."""
    x = prompt.double()
    x = linear(x / (x**2).sum(dim=-1, keepdim=True).sqrt(), weights.below("mlp.0"))
    return linear(x.clamp(min=0), weights.below("mlp.2")) if "mlp.2.weight" in weights else x


def gated_cross_attention(
    weights: Weights, x: Tensor, text: Tensor | None, gate_scale: float, head_dim: int
) -> Tensor:
    """Tokens (T, D) of one picture, steered by its prompt (L, D); without gates gate_scale stands for them."""
    if text is None:
        return x

    def gate(name: str) -> Tensor | float:
        return (weights[name] * gate_scale).tanh() if name in weights else gate_scale

    attention = weights.below("cross_attn")
    queries = linear(layer_norm(x, attention.below("norm"), eps=1e-5), attention.below("to_q"))
    keys, values = linear(text, attention.below("to_kv")).chunk(2, dim=-1)
    num_heads = queries.shape[-1] // head_dim
    mixed = attend(*(heads_of(part, num_heads) for part in (queries, keys, values)))
    x = x + gate("attn_gate") * linear(mixed, attention.below("to_out"))
    if "ff.1.weight" in weights:
        hidden = gelu(linear(layer_norm(x, weights.below("ff.0"), eps=1e-5), weights.below("ff.1")))
        x = x + gate("ff_gate") * linear(hidden, weights.below("ff.3"))
    return x


# --------------------------------------------------------------------------------------------------- text encoders


def text_tokens(state: Mapping[str, Tensor], config: Mapping[str, object], ids: Sequence[int]) -> Tensor:
    """Last hidden states (L, Dt) of BERT or RoBERTa for the token `ids`; `state` and `config` as in its files."""
    weights = Weights(state)
    eps, num_heads = float(str(config["layer_norm_eps"])), int(str(config["num_attention_heads"]))
    positions = torch.arange(len(ids))
    if config["model_type"] == "roberta":
        weights = weights.below("roberta")
        positions = positions + int(str(config["pad_token_id"])) + 1
    embeddings = weights.below("embeddings")
    x = embeddings["word_embeddings.weight"][list(ids)] + embeddings["position_embeddings.weight"][positions]
    x = x + embeddings["token_type_embeddings.weight"][0]
    x = layer_norm(x, embeddings.below("LayerNorm"), eps)
    for i in weights.numbers("encoder.layer"):
        layer = weights.below(f"encoder.layer.{i}")
        projections = (layer.below(f"attention.self.{name}") for name in ("query", "key", "value"))
        mixed = attend(*(heads_of(linear(x, each), num_heads) for each in projections))
        x = x + linear(mixed, layer.below("attention.output.dense"))
        x = layer_norm(x, layer.below("attention.output.LayerNorm"), eps)
        hidden = gelu(linear(x, layer.below("intermediate.dense")))
        x = x + linear(hidden, layer.below("output.dense"))
        x = layer_norm(x, layer.below("output.LayerNorm"), eps)
    return x
