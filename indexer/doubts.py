"""Why a small model may be wrong: photos unlike those it was trained on, prompts in words that it was not taught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from steersearch.core.errors import LibraryDamagedError, LibraryUnreadableError
from steersearch.core.learned import Learned
from steersearch.indexer.manifest import PromptIndex, UnsteeredIndex
from steersearch.indexer.regions import sampled_embeddings

MANY = 0.25  # of a gallery's photos; of photographs like the training's, one in twenty counts as unlike
SAMPLE = 1000  # photos by which a gallery is judged


@dataclass(frozen=True)
class Doubt:
    """unlike: the share of the library's photos that look unlike what `model` was trained on, if that is many, else 0.
    untaught: prompts that hold no word that it was taught.  way_out: the command that indexes with a better model."""

    model: str
    unlike: float
    untaught: tuple[str, ...]
    way_out: str

    def __str__(self) -> str:
        reasons = []
        if self.unlike:
            reasons.append(f"{self.unlike:.0%} of these photos look unlike those it was trained on")
        if self.untaught:
            quoted = ", ".join(f'"{prompt}"' for prompt in self.untaught)
            reasons.append(f"it was taught no word of {quoted}")
        return f"{self.model} may well be wrong here: {' and '.join(reasons)}; a better model: {self.way_out}"


def doubt_about(
    learned: Learned,
    unlike: float,
    index: PromptIndex | UnsteeredIndex,
    prompts: Sequence[str],
    way_out: str,
) -> Doubt | None:
    """Why an answer by the model that made `index` may be wrong; None: nothing is known against it.

    unlike: see `share_unlike`; without unsteered vectors (`--no-regions`) it is not known how the photos look.
    """
    untaught = tuple(prompt for prompt in prompts if not learned.knows(prompt))
    if unlike < MANY and not untaught:
        return None
    return Doubt(index.model_id, unlike if unlike >= MANY else 0.0, untaught, way_out)


def share_unlike(learned: Learned, place: Path, index: UnsteeredIndex) -> float:
    """The share of the library's photos that look unlike what the model was trained on; 0 if it is not known."""
    try:
        vectors = sampled_embeddings(place, index.key, SAMPLE)
    except (
        LibraryDamagedError,
        LibraryUnreadableError,
    ):  # `verify` reports it; the answer does not need them
        return 0.0
    if vectors.shape[1:] != learned.mean.shape or not len(vectors):
        return 0.0
    return float(np.mean(learned.is_unlike(vectors)))
