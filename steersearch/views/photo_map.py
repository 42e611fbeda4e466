"""One map of a photo under a focus and a gate_scale, and its description in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from steersearch.core.heatmaps import times_even
from steersearch.core.prompts import READ_WHOLE, Reading
from steersearch.views.lettering import printable

MapKind = Literal["heatmap", "attention"]
FLAT_BELOW = 2.0  # times an even spread; a map that stays below singles out no place


@dataclass(frozen=True, kw_only=True)
class PhotoMap:
    """kind: "heatmap" of the segmentation head, or "attention" of the last block's CLS token.

    values: (Hp, Wp) float32, each patch's share of 1. A heatmap sums to 1, attention to less: the rest lies
    on tokens that are not patches.  sinks: how many patches were removed from an attention map as sinks; None if
    none were looked for.  reading: how the model reads the focus.
    """

    kind: MapKind
    focus: str
    gate_scale: float
    values: npt.NDArray[np.float32]
    sinks: int | None = None
    reading: Reading = READ_WHOLE

    @property
    def peak(self) -> float:
        """The largest value, in times an even spread of 1 over the patches."""
        return float(times_even(self.values).max())

    @property
    def is_flat(self) -> bool:
        """Whether the map singles out no place."""
        return self.peak < FLAT_BELOW

    @property
    def patches_of_half(self) -> int:
        """The least number of patches that together hold half of the map."""
        falling = np.sort(self.values, axis=None)[::-1].astype(np.float64)
        return int(np.searchsorted(falling.cumsum(), falling.sum() / 2) + 1)

    @property
    def title(self) -> str:
        """The focus on one line, for captions and remarks."""
        return f"“{printable(self.focus)}”"

    @property
    def in_short(self) -> str:
        """A few words for a caption."""
        sinks = f" ({self._sinks} removed)" if self.sinks else ""
        return f"{'flat: ' if self.is_flat else ''}peak {self.peak:.1f}{sinks}"

    def __str__(self) -> str:
        found = (
            f"flat, no patch reaches {FLAT_BELOW:g} times an even spread"
            if self.is_flat
            else f"peak {self.peak:.1f} times an even spread, "
            f"half of it in {self.patches_of_half} of {self.values.size} patches"
        )
        sinks = f"; {self._sinks} removed" if self.sinks else ""
        return f"{self.kind} of {self.title}, gate scale {self.gate_scale:g}: {found}{sinks}"

    @property
    def _sinks(self) -> str:
        return f"{self.sinks} sink{'' if self.sinks == 1 else 's'}"
