"""JSON of our own that may have come to harm: a regular file, not too large, whose every fault is a ValueError."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from steersearch.core.regular_file import read_regular

MOST_BYTES = 2**28


def read_json(path: Path, at_most: int = MOST_BYTES) -> Any:
    """The value in a file. Raises OSError, and ValueError for what is no JSON, or is nested too deeply."""
    return parse_json(read_regular(path, at_most))


def parse_json(text: str | bytes) -> Any:
    """The value of a text. Raises ValueError, also for one that is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
