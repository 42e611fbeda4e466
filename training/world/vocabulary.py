"""The names of all things in a stock, and which things have which names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from steersearch.training.world.things import Thing


class Vocabulary:
    """names: all names, sorted.  bears: (K + 1, V) bool, whether thing k bears name v; the last row, of no thing, is
    all False."""

    def __init__(self, stock: Sequence[Thing]) -> None:
        self.names = sorted({name for thing in stock for name in thing.names})
        number = {name: i for i, name in enumerate(self.names)}
        bears = np.zeros((len(stock) + 1, len(self.names)), np.bool_)
        for k, thing in enumerate(stock):
            bears[k, [number[name] for name in thing.names]] = True
        self.bears = torch.from_numpy(bears)
