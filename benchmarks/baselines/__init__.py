"""The methods that SteerViT is compared with, one small file per family; `NAMES` says which and from where.

    from steersearch.benchmarks import baselines
    method = baselines.load("clip")          # a `benchmarks.method.Method`

Importing this package loads no model library: that happens in `load`.
"""

from __future__ import annotations

from steersearch.benchmarks.baselines.cards import CARDS, NAMES, Card, card_of
from steersearch.benchmarks.baselines.loading import load

__all__ = ["CARDS", "NAMES", "Card", "card_of", "load"]
