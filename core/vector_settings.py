"""What besides the weights decides a vector, as a versioned record: vectors of equal records can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steersearch.core.aggregation import Aggregation
from steersearch.core.preprocess import Preprocess

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
