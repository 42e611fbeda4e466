"""How a gallery's scores are spread: a cosine alone says little, since each prompt and query has its own level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ScoreStatistics:
    """Mean and standard deviation of the scores of a whole gallery under one query.

    No hit is called relevant by them: no cut-off that sees the scores alone is reliable, see benchmarks/LOG.md.
    """

    mean: float
    sd: float

    @classmethod
    def of(cls, scores: Scores) -> ScoreStatistics:
        """scores: (n,), of all photos or of a random sample of them; n may be 0."""
        if len(scores) == 0:
            return cls(0.0, 0.0)
        return cls(float(scores.mean(dtype=np.float64)), float(scores.std(dtype=np.float64)))

    def z(self, score: float) -> float:
        """How many standard deviations a score lies above the mean; 0 where all scores are equal."""
        return (score - self.mean) / self.sd if self.sd > 0 else 0.0
