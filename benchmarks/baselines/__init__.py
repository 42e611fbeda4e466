"""The methods that SteerViT is compared with, a file per family; `cards` has a row for each.

    from steersearch.benchmarks import baselines
    method = baselines.load("clip")          # a `harness.method.Method`

Only `load` imports model libraries.
"""

from __future__ import annotations

from steersearch.benchmarks.baselines.cards import CARDS, NAMES, Card, card_of
from steersearch.benchmarks.baselines.loading import load

__all__ = ["CARDS", "NAMES", "Card", "card_of", "load"]
