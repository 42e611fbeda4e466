"""Which scores stand out of a gallery's: a cosine alone says little, since each prompt and query has its own level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_STANDS_OUT = 3.0  # robust standard deviations above the median
_NORMAL = 1.4826  # standard deviations of a normal distribution per median absolute deviation
_MEDIAN_OF = 1 << 16  # scores; of more an even selection is taken


@dataclass(frozen=True)
class Background:
    """The scores of a whole gallery under one query, in four numbers.

    mean, sd: of all.  median, spread: the same two for whoever is not impressed by a few high scores; spread is the
    median absolute deviation, scaled to be the sd where scores are normally distributed.
    """

    mean: float
    sd: float
    median: float
    spread: float

    @classmethod
    def of(cls, scores: npt.NDArray[np.float32]) -> Background:
        """scores: (n,), of all photos or of a random sample of them; n may be 0."""
        if len(scores) == 0:
            return cls(0.0, 0.0, 0.0, 0.0)
        some = scores[:: 1 + len(scores) // _MEDIAN_OF].astype(np.float64)
        median = float(np.median(some))
        spread = _NORMAL * float(np.median(np.abs(some - median)))
        return cls(float(scores.mean(dtype=np.float64)), float(scores.std(dtype=np.float64)), median, spread)

    def z(self, score: float) -> float:
        """How many standard deviations a score lies above the mean; 0 where all scores are equal."""
        return (score - self.mean) / self.sd if self.sd > 0 else 0.0

    def stands_out(self, score: float) -> bool:
        """Whether a score is too high to be one of the crowd's."""
        return score - self.median > _STANDS_OUT * self.spread
