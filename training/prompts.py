"""Prompts for the things in stock: which words to say, and their text tokens, encoded once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from steersearch.core.text import PromptFeatures, load_text_encoder
from steersearch.training.things import TEMPLATES, Thing


class Vocabulary:
    """Every name in stock, who bears it, and how a thing is called at random.

    names: all names, sorted;  bears: (K + 1, V) bool, thing k bears name v; the last row is nothing, which bears none
    """

    def __init__(self, stock: Sequence[Thing]) -> None:
        self.names = sorted({name for thing in stock for name in thing.names})
        number = {name: i for i, name in enumerate(self.names)}
        bears = np.zeros((len(stock) + 1, len(self.names)), np.bool_)
        for k, thing in enumerate(stock):
            bears[k, [number[name] for name in thing.names]] = True
        self.bears = torch.from_numpy(bears)
        self._choices = [_choices(thing, number) for thing in stock]

    def call(self, thing: int, rng: np.random.Generator) -> int:
        """A name for the thing: its full phrase, its noun, a wider word, or something between."""
        phrase, noun, category, others = self._choices[thing]
        roll = rng.random()
        if roll < 0.35:
            return phrase
        if roll < 0.70:
            return noun
        if roll < 0.80 and category >= 0:
            return category
        return others[int(rng.integers(len(others)))]


def _choices(thing: Thing, number: dict[str, int]) -> tuple[int, int, int, list[int]]:
    between = sorted(thing.names - {thing.category}) or [thing.phrase]
    return (
        number[thing.phrase],
        number[thing.noun],
        number[thing.category] if thing.category else -1,
        [number[name] for name in between],
    )


@dataclass(frozen=True)
class EncodedPrompts:
    """Text tokens of every name in every template, kept flat on disk.

    tokens: (sum of L, Dt) float16;  starts: (V * templates + 1,), where each prompt's tokens begin
    """

    tokens: npt.NDArray[np.float16]
    starts: npt.NDArray[np.int64]

    def features(self, names: Sequence[int], templates: Sequence[int]) -> PromptFeatures:
        """Features of the prompts (name, template), padded to the longest of them all so that shapes repeat."""
        rows = [name * len(TEMPLATES) + template for name, template in zip(names, templates, strict=True)]
        longest = int(np.diff(self.starts).max())
        tokens: Tensor = torch.zeros(len(rows), longest, self.tokens.shape[1])
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        for i, row in enumerate(rows):
            begin, end = int(self.starts[row]), int(self.starts[row + 1])
            tokens[i, : end - begin] = torch.from_numpy(np.asarray(self.tokens[begin:end], np.float32))
            mask[i, : end - begin] = True
        return PromptFeatures(tokens, mask)


def encode_vocabulary(names: Sequence[str], text_encoder: str, folder: Path) -> EncodedPrompts:
    """Encode every name in every template with the text encoder, or load what was encoded before.

    Encoding inside the training loop would starve two cores: it costs more than the step itself.
    """
    prompts = [template.format(name) for name in names for template in TEMPLATES]
    key = hashlib.sha256(json.dumps([text_encoder, prompts]).encode()).hexdigest()[:16]
    file = folder / f"prompts-{key}.npz"
    if not file.is_file():
        encoder = load_text_encoder(text_encoder)
        rows = []
        for start in range(0, len(prompts), 256):
            rows += [row.astype(np.float16) for row in encoder.encode(prompts[start : start + 256]).numpy()]
        part = folder / f"prompts-{key}.part.npz"
        np.savez(part, tokens=np.concatenate(rows), starts=np.cumsum([0, *(len(row) for row in rows)]))
        part.replace(file)
    with np.load(file) as kept:
        return EncodedPrompts(kept["tokens"], kept["starts"])
