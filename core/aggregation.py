"""How the tokens of a picture become one vector: the names, without torch."""

from __future__ import annotations

from typing import Literal

Aggregation = Literal["cls", "mean", "focus"]  # what they compute: `steervit.Features.aggregate`


def aggregation_rule(aggregation: str) -> str:
    """The aggregation as it is computed: changes where its name stays but its vectors do not."""
    return "focus, heatmap squared, mean without a prompt" if aggregation == "focus" else aggregation
