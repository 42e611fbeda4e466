"""The interface of a model for the indexer, which imports neither torch nor a model's code."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

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
    patches:   (Hp, Wp, dim) float32, the unsteered patch tokens; None if not requested.
    """

    embedding: Floats
    heatmap: Floats
    patches: Floats | None = None


class Embedder(Protocol):
    """A model for the indexer.

    Equal `weights_hash` and `preprocessing` must mean equal vectors, so aggregation and resolution belong into one of
    the two. `preprocess` is called from several threads.
    """

    @property
    def model_id(self) -> str:
        """The name by which a user selects this model."""

    @property
    def weights_hash(self) -> str:
        """Hex digest of the weights."""

    @property
    def dim(self) -> int:
        """Length of an embedding."""

    @property
    def preprocessing(self) -> dict[str, Any]:
        """JSON-able settings of the embedding besides the weights."""

    @property
    def batch_size(self) -> int:
        """A good number of photos for one call of `embed_pixels`."""

    def preprocess(self, picture: Picture | Image.Image) -> Floats:
        """An RGB picture of any size -> (3, H, W) float32, always the same H and W."""

    def encode_prompt(self, prompt: str) -> EncodedPrompt:
        """The text encoder's output for one prompt. Raises PromptError if it can read no word."""

    def embed_pixels(
        self, pixels: Floats, prompt_features: Sequence[Floats | None], gate_scale: float
    ) -> list[Embedded]:
        """One `Embedded` per prompt (None: without prompt) for pixels (B, 3, H, W) float32."""

    def embed_with_unsteered(
        self, pixels: Floats, prompt_features: Sequence[Floats], gate_scale: float
    ) -> tuple[Unsteered, list[Embedded]]:
        """The unsteered features and the result of `embed_pixels`, with shared computation done once."""


def query_features(
    embedder: Embedder,
    picture: Picture | Image.Image,
    prompt_features: Sequence[Floats],
    gate_scale: float,
    *,
    patches: bool = False,
) -> list[QueryFeatures]:
    """A query photo under each prompt, from one call of the embedder.

    patches: also the unsteered patch tokens, for one more pass through the steered blocks.
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
    """What makes vectors comparable. None: unknown without loading the model."""

    model_id: str | None
    weights_hash: str | None
    preprocessing: dict[str, Any] | None

    def fits(self, weights_hash: str, preprocessing: Mapping[str, Any]) -> bool:
        """Whether vectors of this origin may be this model's."""
        if self.weights_hash not in (None, weights_hash):
            return False
        return self.preprocessing is None or _as_read(self.preprocessing) == _as_read(preprocessing)


def not_finite(path: Path, prompt: str, model: str) -> SteerSearchError:
    """The error for an embedding that is not finite. prompt: "" for none."""
    under = f' for "{prompt}"' if prompt else ""
    return SteerSearchError(
        f"{path}: the model {model} gave an embedding that is not finite{under}; "
        "try --device cpu, and report it if that fails too"
    )


class LazyEmbedder:
    """An `Embedder` that is loaded on first use, so that a run with nothing to do loads nothing.

    load: returns the embedder; called at most once, possibly from another thread.
    model_id, weights_hash, preprocessing: if known in advance; else they are the loaded embedder's. With a
    weights_hash, `Library.index` finds existing prompt indexes without loading. If the loaded weights differ,
    ModelMismatchError is raised.
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

    def __reduce__(self) -> tuple[object, ...]:
        """Another process gets the way to load it, not the model."""
        known = self.known
        return partial(LazyEmbedder, **vars(known)), (self._load,)

    @property
    def is_loaded(self) -> bool:
        return self._embedder is not None

    def loaded(self) -> Embedder:
        """The embedder, loaded on the first call."""
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


def _as_read(settings: Mapping[str, Any]) -> Any:
    """Settings as read from a manifest, with lists for tuples."""
    return json.loads(json.dumps(settings))


def known_identity(embedder: Embedder) -> Identity:
    """The identity of an embedder, without loading it."""
    if isinstance(embedder, LazyEmbedder) and not embedder.is_loaded:
        return embedder.known
    return Identity(embedder.model_id, embedder.weights_hash, embedder.preprocessing)


# ------------------------------------------------------------------------------------------- models by name, and views


class Views(Protocol):
    """Renders hits for notebooks; `hit` is an `indexer.hits.Hit`, `hits` are `Hits`."""

    def hit_picture(self, hit: Any) -> Image.Image:
        """The photo in grey with the heatmap in colour over it, RGB."""

    def hit_html(self, hit: Any) -> str: ...

    def hits_html(self, hits: Any) -> str: ...


class Provider(Protocol):
    """Models by name, and views."""

    @property
    def views(self) -> Views | None: ...

    def full_name(self, model: str) -> str:
        """The model's name in a prompt index."""

    def embedder(self, model: str, view: View | None) -> Embedder:
        """The model of this name with this view (None: its own), loaded on first use.

        Raises UnknownModelError.
        """

    def weights_hash(self, model: str) -> str | None:
        """The hash of the current weights of this name; None if only loading the model can tell."""

    def learned(self, weights_hash: str) -> Learned | None:
        """What the model of these weights has learned, of a small one that ships with it."""

    def earlier_weights(self, model: str) -> str:
        """A description of the file with the former weights of this name, for messages."""


class OneModel:
    """One embedder for every name; None: there is none."""

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
