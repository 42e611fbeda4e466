"""Baselines of random weights, small enough for milliseconds: tokenizers and processors are made here, from nothing."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from steersearch.benchmarks.harness.method import Seen

WORDS = (
    "the red green blue cat dog box ball remote control on a table summarise above image in one word".split()
)


def pictures(count: int = 3, size: tuple[int, int] = (40, 40), seed: int = 0) -> list[Image.Image]:
    """Noise on a colour of its own for each."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        base = generator.integers(0, 200, 3)
        noise = generator.integers(0, 56, (size[1], size[0], 3))
        made.append(Image.fromarray((base + noise).astype(np.uint8)))
    return made


def randomise(model: torch.nn.Module, seed: int = 0, std: float = 0.2) -> Any:
    """Every parameter random and large enough that nothing is 0, 1 or alike by luck; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
            parameter.copy_(around + std * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def word_tokenizer(
    specials: Sequence[str], *, bos: str | None = None, eos: str | None = None, **named: Any
) -> Any:
    """One token a word, punctuation apart; `specials` are tokens of their own, the first one pads.

    bos, eos: put around each text. named: extra attributes such as image_token.
    """
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {
        token: i for i, token in enumerate(dict.fromkeys([*specials, "[UNK]", *WORDS, ".", ":", ","]))
    }
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    if bos and eos:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A {eos}", special_tokens=[(bos, vocabulary[bos]), (eos, vocabulary[eos])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=specials[0],
        unk_token="[UNK]",
        bos_token=bos,
        eos_token=eos,
        **named,
    )


def halved(loaded: Any) -> Any:
    """The same with weights in bfloat16, as a GPU has them."""
    return replace(loaded, model=copy.deepcopy(loaded.model).to(torch.bfloat16))


def assert_close_in_bfloat16(exact: Any, half: Any, prompt: str, **asked: bool) -> None:
    """Both methods say the same to a few percent of the largest value, and both in float32."""
    one, other = (method.see(pictures(2), prompt, **asked) for method in (exact, half))
    for part in ("vectors", "patches", "maps"):
        wanted = getattr(one, part)
        if wanted is None or wanted.size == 0:
            continue
        found = getattr(other, part)
        assert found.dtype == np.float32
        assert np.abs(found - wanted).max() < 0.12 * np.abs(wanted).max()


def assert_batching_changes_nothing(
    method: Any, images: list[Image.Image], prompt: str | None, **asked: bool
) -> Seen:
    """All pictures in one call, in batches of two, and one by one say the same; returns it."""
    together: Seen = method.see(images, prompt, **asked)
    method.batch_size = 2
    in_twos: Seen = method.see(images, prompt, **asked)
    alone = [method.see([image], prompt, **asked) for image in images]
    for part in ("vectors", "patches", "maps", "attention"):
        whole = getattr(together, part)
        if whole is None:
            continue
        assert whole.dtype == np.float32
        assert len(whole) == len(images)
        np.testing.assert_allclose(getattr(in_twos, part), whole, rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(
            np.concatenate([getattr(one, part) for one in alone]), whole, rtol=2e-4, atol=2e-5
        )
    return together
