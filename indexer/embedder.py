"""What the indexer needs of models, so that it imports neither torch nor a model's code."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from PIL import Image

from steersearch.core.errors import ArgumentError, ModelMismatchError, SteerSearchError
from steersearch.core.images.picture import Picture
from steersearch.core.learned import Learned
from steersearch.core.preprocess import View
from steersearch.core.prompts import EncodedPrompt
from steersearch.core.vectors import Embedded, Floats, Unsteered


@dataclass(frozen=True)
class QueryFeatures:
    """A query photo under one prompt.

    embedding: (dim,) float32, unit length.
    heatmap:   (Hp, Wp) float32 on the patch grid, sums to 1.
    patches:   (Hp, Wp, dim) float32, the patch tokens without steering; None where they were not asked for.
    """

    embedding: Floats
    heatmap: Floats
    patches: Floats | None = None


class Embedder(Protocol):
    """A model as the indexer sees it.

    Two embedders with equal `weights_hash` and `preprocessing` must give equal vectors: whatever else changes
    them (aggregation, resolution) belongs into one of the two. `preprocess` is called from several threads.
    """

    @property
    def model_id(self) -> str:
        """The name a user types to get this model."""

    @property
    def weights_hash(self) -> str:
        """Hex digest of the weights."""

    @property
    def dim(self) -> int:
        """Length of an embedding."""

    @property
    def preprocessing(self) -> dict[str, Any]:
        """JSON-able settings under which pixels become embeddings."""

    @property
    def batch_size(self) -> int:
        """How many photos suit one call of `embed_pixels`."""

    def preprocess(self, picture: Picture | Image.Image) -> Floats:
        """An RGB picture of any size -> (3, H, W) float32, always the same H and W."""

    def encode_prompt(self, prompt: str) -> EncodedPrompt:
        """The text encoder's output for one prompt. Raises PromptError for one of which no word can be read."""

    def embed_pixels(
        self, pixels: Floats, prompt_features: Sequence[Floats | None], gate_scale: float
    ) -> list[Embedded]:
        """(B, 3, H, W) float32 under each prompt (None: without one), one `Embedded` per prompt."""

    def embed_with_unsteered(
        self, pixels: Floats, prompt_features: Sequence[Floats], gate_scale: float
    ) -> tuple[Unsteered, list[Embedded]]:
        """The backbone's features and what `embed_pixels` gives; what no prompt changes is computed once."""


def query_features(
    embedder: Embedder,
    picture: Picture | Image.Image,
    prompt_features: Sequence[Floats],
    gate_scale: float,
    *,
    patches: bool = False,
) -> list[QueryFeatures]:
    """A query photo under each prompt, from one call of the embedder.

    patches: also give the unsteered patch tokens, which costs one more pass through the steered blocks.
    """
    pixels = embedder.preprocess(picture)[None]
    unsteered = None
    if patches:
        unsteered, steered = embedder.embed_with_unsteered(pixels, prompt_features, gate_scale)
    else:
        steered = embedder.embed_pixels(pixels, prompt_features, gate_scale)
    return [
        QueryFeatures(
            np.asarray(found.embeddings[0], dtype=np.float32),
            found.heatmaps[0],
            None if unsteered is None else unsteered.patches[0],
        )
        for found in steered
    ]


@dataclass(frozen=True)
class Identity:
    """What decides whether vectors can be compared. None: not known without loading the model."""

    model_id: str | None
    weights_hash: str | None
    preprocessing: dict[str, Any] | None

    def fits(self, weights_hash: str, preprocessing: Mapping[str, Any]) -> bool:
        """Whether vectors of this origin are this model's, as far as is known."""
        if self.weights_hash not in (None, weights_hash):
            return False
        return self.preprocessing is None or _as_read(self.preprocessing) == _as_read(preprocessing)


def not_finite(path: Path, prompt: str, model: str) -> SteerSearchError:
    """Says that a model gave no usable embedding for this photo, "": without a prompt."""
    under = f' for "{prompt}"' if prompt else ""
    return SteerSearchError(
        f"{path}: the model {model} gave an embedding that is not finite{under}; "
        "try --device cpu, and report it if that fails too"
    )


class LazyEmbedder:
    """An `Embedder` that is loaded when it is first needed, so that a run with nothing to do loads nothing.

    load: gives the embedder; called at most once, possibly from another thread.
    model_id, weights_hash, preprocessing: what is known beforehand (say, from a registry of models). With a
    weights_hash, `Library.index` finds the prompt indexes that exist without loading; what is not given is
    asked of the loaded embedder. If that turns out to have other weights, ModelMismatchError is raised.
    """

    def __init__(
        self,
        load: Callable[[], Embedder],
        *,
        model_id: str | None = None,
        weights_hash: str | None = None,
        preprocessing: dict[str, Any] | None = None,
    ) -> None:
        self.known = Identity(model_id, weights_hash, preprocessing)
        self._load = load
        self._lock = threading.Lock()
        self._embedder: Embedder | None = None

    @property
    def is_loaded(self) -> bool:
        return self._embedder is not None

    def loaded(self) -> Embedder:
        """The embedder itself; loads it the first time."""
        with self._lock:
            if self._embedder is None:
                embedder = self._load()
                if not self.known.fits(embedder.weights_hash, embedder.preprocessing):
                    expected = self.known.model_id or "announced"
                    raise ModelMismatchError.of("any prompt", expected, embedder.model_id)
                self._embedder = embedder
            return self._embedder

    @property
    def model_id(self) -> str:
        return self.loaded().model_id if self.known.model_id is None else self.known.model_id

    @property
    def weights_hash(self) -> str:
        return self.loaded().weights_hash if self.known.weights_hash is None else self.known.weights_hash

    @property
    def dim(self) -> int:
        return self.loaded().dim

    @property
    def preprocessing(self) -> dict[str, Any]:
        return self.loaded().preprocessing if self.known.preprocessing is None else self.known.preprocessing

    @property
    def batch_size(self) -> int:
        return self.loaded().batch_size

    def preprocess(self, picture: Picture | Image.Image) -> Floats:
        return self.loaded().preprocess(picture)

    def encode_prompt(self, prompt: str) -> EncodedPrompt:
        return self.loaded().encode_prompt(prompt)

    def embed_pixels(
        self, pixels: Floats, prompt_features: Sequence[Floats | None], gate_scale: float
    ) -> list[Embedded]:
        return self.loaded().embed_pixels(pixels, prompt_features, gate_scale)

    def embed_with_unsteered(
        self, pixels: Floats, prompt_features: Sequence[Floats], gate_scale: float
    ) -> tuple[Unsteered, list[Embedded]]:
        return self.loaded().embed_with_unsteered(pixels, prompt_features, gate_scale)


def as_embedder(embedder: Embedder | Callable[[], Embedder]) -> Embedder:
    """An embedder as it is; a function that gives one becomes a LazyEmbedder of unknown identity."""
    if isinstance(embedder, type) or not hasattr(embedder, "embed_pixels"):
        return LazyEmbedder(cast(Callable[[], Embedder], embedder))
    return cast(Embedder, embedder)


def _as_read(settings: Mapping[str, Any]) -> Any:
    """Settings as a manifest gives them back: tuples are lists."""
    return json.loads(json.dumps(settings))


def known_identity(embedder: Embedder) -> Identity:
    """What can be said of an embedder without loading it."""
    if isinstance(embedder, LazyEmbedder) and not embedder.is_loaded:
        return embedder.known
    return Identity(embedder.model_id, embedder.weights_hash, embedder.preprocessing)


# ------------------------------------------------------------------------------------------- models by name, and views


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

    def learned(self, weights_hash: str) -> Learned | None:
        """What the model of these weights has learned, of a small one that ships with it."""

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

    def learned(self, weights_hash: str) -> Learned | None:
        return None

    def earlier_weights(self, model: str) -> str:
        return "a copy of the earlier file"
