"""Which scores stand out of a gallery's: a cosine alone says little, since each prompt and query has its own level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float32]

_DEVIATIONS = 2.0
_CLEAR = 0.85
_MOST = 1 << 14  # scores that are looked at for groups; of more an even selection is taken


@dataclass(frozen=True)
class Background:
    """The scores of a whole gallery under one query, summed up.

    mean, sd: of all.  least: from where on a score stands out. Where the scores fall into two clear groups, of which
    the upper has at most half of them, that is this group's lowest (a fifth of the photos show the thing: none of
    them can be two standard deviations above the mean); else it is two standard deviations above the mean. Groups
    are clear if the best cut (Otsu's) explains 85 % of the variance; of a uniform distribution it explains 75 %, of a
    normal one 64 %.

    Calibrated with `benchmarks.relevance`, see its record and LOG.md: no rule that sees the scores only is reliable.
    """

    mean: float
    sd: float
    least: float

    @classmethod
    def of(cls, scores: Scores) -> Background:
        """scores: (n,), of all photos or of a random sample of them; n may be 0."""
        if len(scores) == 0:
            return cls(0.0, 0.0, 0.0)
        mean, sd = float(scores.mean(dtype=np.float64)), float(scores.std(dtype=np.float64))
        least = mean + _DEVIATIONS * sd
        if sd > 0:
            explained, cut, share = two_groups(scores)
            if explained >= _CLEAR and share <= 0.5:
                least = cut
        return cls(mean, sd, least)

    def z(self, score: float) -> float:
        """How many standard deviations a score lies above the mean; 0 where all scores are equal."""
        return (score - self.mean) / self.sd if self.sd > 0 else 0.0

    def stands_out(self, score: float) -> bool:
        """Whether a score is too high to be one of the crowd's; never where all scores are equal."""
        return self.sd > 0 and score >= self.least


def two_groups(scores: Scores) -> tuple[float, float, float]:
    """The best cut in two (Otsu's): the part of the variance that it explains, where it lies, the upper part's share.

    The cut lies half-way between the two scores that it parts. scores: at least two different ones.
    """
    ranked = np.sort(scores[:: 1 + len(scores) // _MOST].astype(np.float64))[::-1]
    count, total = len(ranked), ranked.sum()
    sizes = np.arange(1, count)
    sums = np.cumsum(ranked)[:-1]
    between = sizes * (count - sizes) * (sums / sizes - (total - sums) / (count - sizes)) ** 2 / count**2
    best = int(np.argmax(between))
    variance = float(ranked.var())
    explained = float(between[best]) / variance if variance > 0 else 0.0
    return explained, float(ranked[best : best + 2].mean()), (best + 1) / count
