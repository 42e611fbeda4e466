"""What a library is given, for the indexer itself loads no model and draws nothing: models by name, and views."""

from __future__ import annotations

from typing import Any, Protocol

from PIL import Image

from steersearch.core.errors import ArgumentError
from steersearch.core.preprocess import View
from steersearch.indexer.embedder import Embedder, known_identity


class Views(Protocol):
    """Hits as a notebook shows them; `hit` is an `indexer.hits.Hit`, `hits` are `Hits`."""

    def hit_picture(self, hit: Any) -> Image.Image:
        """The photo in grey with the heatmap in colour over it, RGB."""

    def hit_html(self, hit: Any) -> str: ...

    def hits_html(self, hits: Any) -> str: ...


class Provider(Protocol):
    """Models by their names, and views."""

    @property
    def views(self) -> Views | None: ...

    def full_name(self, model: str) -> str:
        """The name under which a prompt index remembers this model."""

    def embedder(self, model: str, view: View | None) -> Embedder:
        """The model of this name, seeing photos in this way (None: its own); it is loaded when it is needed.

        Raises UnknownModelError.
        """

    def weights_hash(self, model: str) -> str | None:
        """Of the weights that the name stands for now; None where only loading the model can tell."""

    def earlier_weights(self, model: str) -> str:
        """How people call the file of the weights that the name stood for before."""


class OneModel:
    """The one embedder that was given, whatever the name; None: there is none."""

    views = None

    def __init__(self, embedder: Embedder | None = None) -> None:
        self._embedder = embedder

    @property
    def model_id(self) -> str | None:
        """The name of the model, if it is known without loading it."""
        return None if self._embedder is None else known_identity(self._embedder).model_id

    def full_name(self, model: str) -> str:
        return model

    def embedder(self, model: str, view: View | None) -> Embedder:
        if self._embedder is None:
            raise ArgumentError("model", model, "is a name; give an Embedder, or use steersearch.Library")
        return self._embedder

    def weights_hash(self, model: str) -> str | None:
        return None

    def earlier_weights(self, model: str) -> str:
        return "a copy of the earlier file"
