"""A method for tests that looks at colours: what it gives can be worked out by eye."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from steersearch.benchmarks.harness.method import Seen
from steersearch.core.errors import BenchmarkError

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
}


class PaintedMethod:
    """Sees a picture as `grid` x `grid` mean colours; a prompt with a colour's name in it asks for that colour.

    maps: 0 where a cell has the colour, down to -1;  attention: their softmax;  vectors: the cells' colours,
    weighted by it.  words: further names of colours.  lacks: what it says it does not have.
    asked: the prompts so far.
    """

    weights_hash, gallery_takes_prompt = None, True
    name, identity, licence, takes_prompt, batch_size = "painted", "painted-1", "none", True, 3

    def __init__(self, grid: int = 8, words: dict[str, str] | None = None, lacks: Sequence[str] = ()) -> None:
        self.grid, self.words, self.lacks = grid, words or {}, lacks
        self.asked: list[str | None] = []

    def see(
        self,
        pictures: Sequence[Image.Image],
        prompt: str | None,
        *,
        patches: bool = False,
        maps: bool = False,
        attention: bool = False,
    ) -> Seen:
        for name, wanted in (("patches", patches), ("maps", maps), ("attention", attention)):
            if wanted and name in self.lacks:
                raise BenchmarkError(f"{self.name} has no {name}: it is made so")
        self.asked.append(prompt)
        size = (self.grid, self.grid)
        cells = np.stack(
            [np.asarray(p.resize(size, Image.Resampling.BOX), np.float32) / 255 for p in pictures]
        )
        logits = -np.abs(cells - self._colour(prompt)).max(axis=-1)
        weights = np.exp(20 * logits)
        weights /= weights.sum(axis=(1, 2), keepdims=True)
        return Seen(
            vectors=(cells * weights[..., None]).sum(axis=(1, 2)) + np.float32(0.01),
            patches=cells if patches else None,
            maps=logits if maps else None,
            attention=weights if attention else None,
        )

    def _colour(self, prompt: str | None) -> np.ndarray:
        said = (prompt or "").replace(".", " ").split()
        named = [self.words.get(word, word) for word in said]
        found = next((COLOURS[word] for word in named if word in COLOURS), (128, 128, 128))
        return np.array(found, np.float32) / 255
