"""The names of the things in stock: who bears which, and how a thing is called."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from steersearch.training.things import Thing


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
