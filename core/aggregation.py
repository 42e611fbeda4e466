"""How the tokens of a picture become one vector: the names, without torch."""

from __future__ import annotations

from typing import Literal

Aggregation = Literal["cls", "mean", "focus"]  # what they compute: `steervit.Features.aggregate`
