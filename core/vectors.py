"""What comes out of a model for a batch of photos, and the settings under which two vectors can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from steersearch.core.preprocess import Preprocess

Aggregation = Literal["cls", "mean", "focus"]  # what they compute: `steervit.Features.aggregate`


# Raised when the vectors change and the settings do not.
PREPROCESS_VERSION = 1
# focus: 1 weighs the patches by the heatmap, 2 by its square; 3 is the mean where there is no prompt.
AGGREGATION_VERSIONS: dict[Aggregation, int] = {"cls": 1, "mean": 1, "focus": 3}

# Libraries before schema 5 named an aggregation by a sentence. The keys of prompt indexes are hashes of it.
_SENTENCES = {
    ("focus", 2): "focus, heatmap squared",
    ("focus", 3): "focus, heatmap squared, mean without a prompt",
}


@dataclass(frozen=True)
class AggregationRecord:
    """An aggregation as one version of the code computes it."""

    kind: Aggregation
    version: int

    @classmethod
    def of(cls, kind: Aggregation) -> AggregationRecord:
        """As this version computes it."""
        return cls(kind, AGGREGATION_VERSIONS[kind])


@dataclass(frozen=True)
class VectorSettings:
    """How pictures become vectors. version: of the code that preprocesses them."""

    preprocess: Preprocess
    aggregation: AggregationRecord
    version: int = PREPROCESS_VERSION

    @classmethod
    def of(cls, preprocess: Preprocess, aggregation: Aggregation) -> VectorSettings:
        """As this version computes them."""
        return cls(preprocess, AggregationRecord.of(aggregation))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; `from_dict` reads it back."""
        return {
            **self.preprocess.to_dict(),
            "version": self.version,
            "aggregation": vars(self.aggregation).copy(),
        }

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> VectorSettings:
        """Inverse of `to_dict`. Raises ConfigError for a preprocessing that cannot be, KeyError, TypeError."""
        rest = dict(settings)
        aggregation, version = AggregationRecord(**rest.pop("aggregation")), rest.pop("version")
        return cls(Preprocess.from_dict(rest), aggregation, version)


def with_versions(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a prompt index in the form of `VectorSettings.to_dict`, from that or the one before schema 5.

    Settings of another form stay as they are.
    """
    named = settings.get("aggregation")
    if not isinstance(named, str):
        return dict(settings)
    records = {sentence: record for record, sentence in _SENTENCES.items()}
    kind, version = records.get(named, (named, 1))
    return {**settings, "version": 1, "aggregation": {"kind": kind, "version": version}}


def as_hashed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `with_versions`: the form from which keys are made, so that a key stays what it was."""
    record = settings.get("aggregation")
    if not isinstance(record, Mapping):
        return dict(settings)
    kind, version = record["kind"], record["version"]
    named = kind if version == 1 else _SENTENCES.get((kind, version), f"{kind}, version {version}")
    hashed = {**settings, "aggregation": named}
    return hashed if hashed.pop("version") == 1 else {**hashed, "version": settings["version"]}


# --------------------------------------------------------------------------- results as arrays, readable without torch

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Embedded:
    """One batch under one prompt.

    embeddings: (B, dim) float32, unit length.
    heatmaps:   (B, Hp, Wp) float32 on the patch grid, each sums to 1.
    presence:   (B,) float32, higher where the prompt's object is more surely in the photo; any range, comparable
                between photos under one prompt.
    """

    embeddings: Floats
    heatmaps: Floats
    presence: Floats


@dataclass(frozen=True)
class Unsteered:
    """The backbone's features of one batch, which no prompt steers.

    embeddings: (B, dim) float32, unit length: the whole photo, as CLS sees it, or the mean patch of a backbone without
        CLS. Never `focus`: without a prompt the heatmap that would weigh the patches means nothing.
    patches:    (B, Hp, Wp, dim) float32, the patch tokens.
    """

    embeddings: Floats
    patches: Floats


# --------------------------------------------------------------------------------------------------------- arithmetic

_ONE_THREAD = 2**18  # multiplications up to which OpenBLAS uses one thread


def product(a: Floats, b: Floats) -> Floats:
    """a @ b, (n, m) with (m, k), in parts so small that OpenBLAS starts no threads.

    They spin for a while after each product, on cores that a model in the same process needs: a warm query took half
    as long again.
    """
    rows = max(1, _ONE_THREAD // b.size)
    return np.concatenate([a[start : start + rows] @ b for start in range(0, max(1, len(a)), rows)])
