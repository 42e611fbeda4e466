"""steersearch: search photos with a photo and words that say what to look at in it.

    from steersearch import Library, SteerViT

Importing this package loads nothing heavy; the names below are loaded at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steersearch.api import Hit, Hits, Library
    from steersearch.core.predictor import Predictor as SteerViT
    from steersearch.indexer.query_terms import Focus

    __version__: str

__all__ = ["Focus", "Hit", "Hits", "Library", "SteerViT", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("Hit", "Hits", "Library"):
        from steersearch import api

        return getattr(api, name)
    if name == "Focus":
        from steersearch.indexer.query_terms import Focus

        return Focus
    if name == "SteerViT":
        from steersearch.core.predictor import Predictor

        return Predictor
    if name == "__version__":
        from importlib.metadata import version

        return version("steersearch")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
