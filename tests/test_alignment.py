"""The alignment of words and patches, against attention weights written out and numbers worked by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from steersearch.core.cross_attention import GatedCrossAttention
from steersearch.core.preprocess import Preprocess
from steersearch.core.steervit import SteerViT, SteerViTConfig
from steersearch.core.text import PromptFeatures
from steersearch.core.vit import ViT, ViTConfig
from steersearch.training.hybrid.alignment import Truth, Words, alignment_losses, begin_values, content_scores


def some_words(count: int, length: int, dim: int) -> Words:
    """Every other one with an article, every third a token shorter; special tokens and articles are always the same."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(count, length, dim, generator=generator)
    begin, article, end = torch.randn(3, dim, generator=generator)
    has_article = torch.arange(count) % 2 == 0
    mask = torch.ones(count, length, dtype=torch.bool)
    mask[1::3, -1] = False
    tokens[:, 0] = begin
    tokens[has_article, 1] = article
    tokens[torch.arange(count), mask.sum(dim=1) - 1] = end
    return Words(tokens, mask, has_article)


def test_the_content_is_what_lies_between_special_tokens_and_article() -> None:
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    words = Words(torch.zeros(2, 5, 4), mask, torch.tensor([True, False]))
    assert words.content.tolist() == [[False, False, True, True, False], [False, True, False, False, False]]


def test_content_scores_are_the_log_odds_of_the_weights_of_the_attention() -> None:
    torch.manual_seed(0)
    layer = GatedCrossAttention(16, num_heads=2, head_dim=8)
    words, patches = some_words(5, 6, 16), torch.randn(7, 16)
    found = content_scores(layer, patches, words.tokens, words)
    attention = layer.cross_attn
    queries = attention.to_q(attention.norm(patches)).view(7, 2, 8)
    for w in range(5):
        keys = (words.tokens[w] @ attention.to_kv.weight[:16].T).view(6, 2, 8)
        scores = torch.einsum("phd,lhd->phl", queries, keys) / math.sqrt(8)
        weights = scores.masked_fill(~words.mask[w], -torch.inf).softmax(dim=-1)
        on = weights[..., words.content[w]].sum(dim=-1)
        assert torch.allclose(found[:, w], torch.logit(on).mean(dim=1), atol=1e-4)


def test_losses_are_those_worked_by_hand() -> None:
    """Three patches, two class words and one name; only the last patch lies on a thing, which bears the name."""
    scores = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    shown = torch.tensor([[0.8, 0.2, 0.0], [0.0, 0.1, 0.0], [0.0, 0.4, 1.0]])
    truth = Truth(shown, narrow=2, names=1, on_thing=torch.tensor([False, False, True]))
    found = alignment_losses(scores, truth)

    def lse(*values: float) -> float:
        return math.log(sum(map(math.exp, values)))

    # Both class words are there, and the name. Of the second word the second patch shows less than 0.3 · 0.4: left out.
    first = lse(2, 0, 0) - 2
    second = (0.2 * lse(0, 0, 1) + 0.4 * (lse(0, 0, 1) - 1)) / 0.6
    name = lse(-1, 1, 0)
    assert found["where"].item() == pytest.approx((first + second + name) / 3, abs=1e-6)
    classes = 0.8 * (lse(2, 0) - 2) + 0.2 * lse(2, 0) + 0.1 * lse(0, 0) + 0.4 * (lse(0, 1) - 1)
    assert found["which"].item() == pytest.approx(
        classes / 1.5, abs=1e-6
    )  # the one name competes with none: 0

    def softplus(x: float) -> float:
        return math.log1p(math.exp(x))

    pairs = [
        (s, y)
        for row, truths in zip(scores.tolist(), shown.tolist(), strict=True)
        for s, y in zip(row, truths, strict=True)
    ]
    present = sum(y * softplus(-s) for s, y in pairs) / 2.5
    absent = sum((1 - y) * softplus(s) for s, y in pairs) / 6.5
    assert found["whether"].item() == pytest.approx(present + absent, abs=1e-5)


def test_a_word_that_nothing_answers_to_is_looked_for_nowhere() -> None:
    scores = torch.zeros(4, 3, requires_grad=True)
    truth = Truth(torch.zeros(4, 3), narrow=2, names=1, on_thing=torch.zeros(4, dtype=torch.bool))
    found = alignment_losses(scores, truth)
    assert found["where"].item() == found["which"].item() == 0
    sum(found.values(), torch.zeros(())).backward()
    assert scores.grad is not None
    assert (scores.grad > 0).all()  # it is absent everywhere


PLAIN = Preprocess(size=32, mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=1.0, mode="squash")
SHAPE = ViTConfig(image_size=32, patch_size=8, dim=32, depth=3, num_heads=2)
SMALL = SteerViTConfig(
    trunk="vit", vit=SHAPE, resolution=32, aggregation="focus", cross_attn_layers=(2,), num_heads=2, head_dim=16,
    text_encoder="minilm", text_dim=12, connector_hidden=48, preprocess=PLAIN,
)  # fmt: skip


def tokens_before(model: SteerViT, pixels: Tensor) -> Mapping[int, Tensor]:
    tokens = model.before_steering(pixels)
    return {2: tokens[:, 1:].flatten(0, 1)}


@torch.no_grad()
def test_values_begin_as_a_heatmap_of_the_attention_on_content() -> None:
    torch.manual_seed(3)
    model = SteerViT(SMALL, ViT(SHAPE)).eval()
    layer = model.cross_attention["2"]
    layer.cross_attn.to_q.weight.mul_(8)  # so that patches differ in what they answer to
    assert layer.attn_gate is not None
    layer.attn_gate.fill_(1.0)
    words, pixels = some_words(12, 5, 12), torch.randn(2, 3, 32, 32)
    tokens = tokens_before(model, pixels)
    begin_values(model, words, tokens, strength=0.5, head=1.0)
    scores = content_scores(layer, tokens[2], model.connector(words.tokens), words).view(2, 16, 12)
    agree = []
    for w in range(12):
        prompts = PromptFeatures(
            words.tokens[w : w + 1].expand(2, -1, -1), words.mask[w : w + 1].expand(2, -1)
        )
        logits = model.steer(model.before_steering(pixels), model.steering(prompts)).logits
        for picture in range(2):
            agree.append(
                torch.corrcoef(torch.stack([logits[picture], scores[picture, :, w].sigmoid()]))[0, 1].item()
            )
    assert sum(agree) / len(agree) > 0.5  # the values that are left as they were drawn count too
