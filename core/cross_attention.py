"""Gated cross-attention: how a prompt steers the tokens of the backbone (arXiv 2604.02327, Eq. 2).

    x <- x + tanh(alpha · gate_scale) · CA(LayerNorm(x), text)

Sits before every second block. All backbone tokens are queries, prefix tokens included.
Letters: B images, T backbone tokens, D backbone width, L text tokens, h heads, d head width (16 × 72 as released).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST_FOLD = 3  # `text_first` pays if a head is at least this many times as wide as there are text tokens


class GatedCrossAttention(nn.Module):
    """One steering layer; its state dict has the names and shapes of the authors' files.

    Two of the paper's ablations are options. `ffn_mult` adds a gated feed-forward network (Table 12; None:
    without, as released). `tanh_gate` False leaves the gates out (Table 3): x <- x + gate_scale · CA(...).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 16,
        head_dim: int = 72,
        ffn_mult: float | None = None,
        tanh_gate: bool = True,
    ) -> None:
        super().__init__()
        self.attn_gate = nn.Parameter(torch.zeros(1)) if tanh_gate else None
        self.cross_attn = _CrossAttention(dim, num_heads, head_dim)
        self.ff_gate: nn.Parameter | None = None
        self.ff: nn.Sequential | None = None
        if ffn_mult is not None:
            hidden = int(dim * ffn_mult)
            self.ff_gate = nn.Parameter(torch.zeros(1)) if tanh_gate else None
            self.ff = nn.Sequential(
                nn.LayerNorm(dim),
                nn.Linear(dim, hidden, bias=False),
                nn.GELU(),
                nn.Linear(hidden, dim, bias=False),
            )

    def forward(
        self,
        x: Tensor,
        text: Tensor,
        mask: Tensor | None = None,
        gate_scale: float = 1.0,
        *,
        as_written: bool = False,
    ) -> Tensor:
        """Steer `x` (B, T, D) by `text` (B, L, D), the connector's output.

        mask: (B, L) bool, True = a real text token, False = padding; None = all real.
        Both `text` and `mask` may have 1 in place of B: one prompt for the whole batch.
        as_written: multiply in the order of Eq. 2, as the released code does, also where another is faster.
        """
        attend = self.cross_attn.queries_first if as_written else self.cross_attn
        x = x + _opened(self.attn_gate, gate_scale) * attend(x, text, mask)
        return self._feed_forward(x, gate_scale)

    def fold(self, text: Tensor, gate_scale: float = 1.0) -> FoldedCrossAttention:
        """Collapse this layer for ONE prompt without padding, `text` (L, D): same result, far fewer products.

        Keys and values of a fixed prompt are constants, so with n(x) the LayerNorm without its affine part
            scores[h, l] = n(x) · A[h, l] + b[h, l],  A = M ⊙ gamma,  b = M · beta,  M = K_h W_q,h / sqrt(d)
            update = sum_h softmax_l(scores[h]) · C[h],  C[h, l] = tanh(alpha · gate_scale) · V_h,l W_o,h
        """
        attention = self.cross_attn
        heads, head_dim, dim = attention.num_heads, attention.head_dim, text.shape[-1]
        wide = torch.promote_types(text.dtype, torch.float32)  # once per prompt, so it may be exact
        keys, values = (kv[0].to(wide) for kv in attention.keys_values(text[None]))  # (h, L, d)
        w_q = attention.to_q.weight.to(wide).view(heads, head_dim, dim)
        w_o = attention.to_out.weight.to(wide).view(dim, heads, head_dim).permute(1, 2, 0)  # (h, d, D)
        gamma, beta = attention.norm.weight.to(wide), attention.norm.bias.to(wide)
        unscaled = torch.matmul(keys, w_q).transpose(0, 1) * head_dim**-0.5  # (L, h, D)
        updates = torch.matmul(values, w_o).transpose(0, 1) * _opened(self.attn_gate, gate_scale)
        return FoldedCrossAttention(
            layer=self,
            gate_scale=gate_scale,
            queries=(unscaled * gamma).flatten(0, 1).to(text.dtype),
            bias=(unscaled @ beta).flatten().to(text.dtype),
            updates=updates.flatten(0, 1).to(text.dtype),
        )

    def _feed_forward(self, x: Tensor, gate_scale: float) -> Tensor:
        if self.ff is None:
            return x
        update: Tensor = _opened(self.ff_gate, gate_scale) * self.ff(x)
        return x + update


def _opened(gate: Tensor | None, gate_scale: float) -> Tensor | float:
    """By how much an update counts: tanh(alpha · gate_scale), or gate_scale itself without a gate."""
    return gate_scale if gate is None else torch.tanh(gate * gate_scale)


@dataclass(frozen=True, kw_only=True)
class FoldedCrossAttention:
    """A `GatedCrossAttention` with one prompt and one gate_scale built in: call it with x (B, T, D).

    queries (L·h, D), bias (L·h,), updates (L·h, D): A, b and C of `GatedCrossAttention.fold`. Heads vary
    fastest, so that the softmax over the few text tokens runs along vectors: 12 times faster on a CPU.
    """

    layer: GatedCrossAttention
    gate_scale: float
    queries: Tensor
    bias: Tensor
    updates: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> steered x (B, T, D)."""
        norm, heads = self.layer.cross_attn.norm, self.layer.cross_attn.num_heads
        normed = F.layer_norm(x, norm.normalized_shape, eps=norm.eps)
        scores = F.linear(normed, self.queries, self.bias).view(*x.shape[:2], -1, heads)  # (B, T, L, h)
        weights = scores.softmax(dim=-2).view(-1, len(self.updates))  # (B·T, L·h)
        x = torch.addmm(x.flatten(0, 1), weights, self.updates).view(x.shape)
        return self.layer._feed_forward(x, self.gate_scale)


class _CrossAttention(nn.Module):
    """Queries from the backbone (LayerNorm, then a product), keys and values from the text; no biases."""

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        inner = num_heads * head_dim
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def keys_values(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, D) -> keys and values, each (B, h, L, d)."""
        kv = self.to_kv(text).reshape(*text.shape[:2], 2, self.num_heads, self.head_dim)  # (B, L, 2, h, d)
        keys, values = kv.permute(2, 0, 3, 1, 4).unbind(0)
        return keys, values

    def forward(self, x: Tensor, text: Tensor, mask: Tensor | None) -> Tensor:
        """The update (B, T, D), in whichever order of the same products is faster.

        In half precision the scores would be rounded in between, where the attention keeps them in float32.
        """
        is_wide = text.dtype == torch.float32 and not torch.is_autocast_enabled(text.device.type)
        if is_wide and text.shape[1] * LEAST_FOLD <= self.head_dim:
            return self.text_first(x, text, mask)
        return self.queries_first(x, text, mask)

    def queries_first(self, x: Tensor, text: Tensor, mask: Tensor | None) -> Tensor:
        """As written in Eq. 2: queries of all tokens, attention of each head, its outputs joined and projected."""
        batch, tokens, _ = x.shape
        queries = self.to_q(self.norm(x)).view(batch, tokens, self.num_heads, self.head_dim).transpose(1, 2)
        keys, values = self.keys_values(text)
        if len(keys) != batch:  # one prompt for the whole batch
            keys, values = keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1)
        keep = None if mask is None else mask[:, None, None, :]  # (B, 1, 1, L), over heads and queries
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=keep)  # scale 1 / sqrt(d)
        out: Tensor = self.to_out(attended.transpose(1, 2).flatten(2))
        return out

    def text_first(self, x: Tensor, text: Tensor, mask: Tensor | None) -> Tensor:
        """The same with W_q joined to the keys and W_o to the values, of which there are few: as `fold`, but for many
        texts at once, with padding, and with gradients. (B, T, D) never becomes (B, T, h · d)."""
        heads, head_dim, dim = self.num_heads, self.head_dim, x.shape[-1]
        keys, values = self.keys_values(text)  # (B, h, L, d)
        w_q = self.to_q.weight.view(heads, head_dim, dim)
        w_o = self.to_out.weight.view(dim, heads, head_dim).permute(1, 2, 0)  # (h, d, D)
        queries = torch.matmul(keys * head_dim**-0.5, w_q).transpose(1, 2).flatten(1, 2)  # (B, L·h, D)
        updates = torch.matmul(values, w_o).transpose(1, 2).flatten(1, 2)
        scores = torch.matmul(self.norm(x), queries.mT).view(*x.shape[:2], -1, heads)  # (B, T, L, h)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, :, None], -math.inf)
        return torch.matmul(scores.softmax(dim=-2).flatten(2), updates)
