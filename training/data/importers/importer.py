"""The description of a data format, by which it is recognised and opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steersearch.training.data.samples import Source


def _never(section: str, value: Mapping[str, Any]) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Importer:
    """One published format.

    expects: what the user should name, for error messages
    open: (path, images, split) -> the data set; with takes_masks also masks=, a folder of `train masks`
    holds: whether a folder, or a file other than JSON, has this format
    shows: whether an element of a JSON file, given section and value, proves this format; see `json_stream`
    """

    expects: str
    open: Callable[..., Source]
    holds: Callable[[Path], object]
    shows: Callable[[str, Mapping[str, Any]], bool] = _never
    takes_masks: bool = False
