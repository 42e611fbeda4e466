"""Load a baseline by its name; download its weights if necessary."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

from steersearch.benchmarks.baselines.cards import card_of
from steersearch.core.errors import BenchmarkError
from steersearch.core.files import as_path

if TYPE_CHECKING:
    from steersearch.benchmarks.baselines.base import Baseline


def load(name: str, device: str = "auto") -> Baseline:
    """The baseline `name`, or "name=PATH" with weights from a local folder or file.

    device "auto": the GPU if there is one; weights are in float32, on a GPU too: half precision changes rankings.
    Raises BenchmarkError (unknown name, one that cannot be run, an extra that is not installed) and
    CheckpointError (weights that are missing, damaged or cannot be fetched).
    """
    name, _, path = name.partition("=")
    card = card_of(name)
    weights = as_path(path) if path else None
    if weights is not None and not os.path.exists(weights):
        raise BenchmarkError(f"{name}: there is nothing at {weights}")
    family = importlib.import_module(f"{__package__}.{card.family}")
    baseline: Baseline = family.load(card, weights, device)
    return baseline
