"""`Library` with models by name, loaded when they are needed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from steersearch.config import Precision
from steersearch.core.errors import ArgumentError
from steersearch.core.files import as_path
from steersearch.core.learned import Learned, learned_by
from steersearch.core.preprocess import View, checked_view
from steersearch.identity import BUNDLED, identity_of, weights_now
from steersearch.indexer import library as indexed
from steersearch.indexer.embedder import LazyEmbedder, Provider
from steersearch.indexer.hits import Hit, Hits
from steersearch.indexer.library_models import AUTO
from steersearch.views import notebook

if TYPE_CHECKING:
    from steersearch.core.predictor import Predictor

__all__ = ["AUTO", "Hit", "Hits", "Library", "Models", "full_name", "load_embedder", "load_model"]


class Library(indexed.Library):
    """A photo folder with its prompt indexes, and the models that made them, see `indexer.library.Library`."""

    @classmethod
    def _provider(cls, device: str, precision: str) -> Provider:
        return Models(device, precision)

    @contextmanager
    def without_models(self) -> Iterator[None]:
        """Within it, what takes a model raises ModelNeededError instead of loading one."""
        models = self._models.provider
        assert isinstance(models, Models)
        models.may_load = False
        try:
            yield
        finally:
            models.may_load = True


class ModelNeededError(Exception):
    """A model would have to be loaded."""


class Models:
    """Models by name on one device and in one precision, as `indexer.embedder.Provider` wants them.

    A model's weights are in memory once, whatever the number of its views.
    may_load: False: raise ModelNeededError instead.
    """

    views = notebook
    may_load = True

    def __init__(self, device: str, precision: str = AUTO, chosen: Mapping[str, str] | None = None) -> None:
        self._device, self._precision = device, precision
        self._chosen = dict(chosen or {})  # what "auto" stood for in another process
        self._embedders: dict[tuple[str, View | None], LazyEmbedder] = {}
        self._models: dict[str, Predictor] = {}
        self._loading = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        """Another process loads its own: of the same name, whatever "auto" would choose there."""
        chosen = {name: model.model_id for name, model in self._models.items()}
        return Models, (self._device, self._precision, chosen)

    def full_name(self, model: str) -> str:
        return full_name(model)

    def embedder(self, model: str, view: View | None) -> LazyEmbedder:
        if (model, view) not in self._embedders:
            known = identity_of(model, view)
            self._embedders[model, view] = LazyEmbedder(
                partial(self._load, model, view),
                model_id=known.model_id,
                weights_hash=known.weights_hash,
                preprocessing=known.preprocessing,
            )
        return self._embedders[model, view]

    def weights_hash(self, model: str) -> str | None:
        return weights_now(model)

    def learned(self, weights_hash: str) -> Learned | None:
        return learned_by(weights_hash)

    def earlier_weights(self, model: str) -> str:
        bundled = f"{model}.safetensors of the earlier release"
        return bundled if model == BUNDLED else "a copy of the earlier file"

    def _load(self, model: str, view: View | None) -> Predictor:
        if not self.may_load:
            raise ModelNeededError
        with self._loading:
            if model not in self._models:
                name = self._chosen.get(model, model)
                self._models[model] = load_model(name, self._device, self._precision)
        return self._models[model].with_view(view)


def load_embedder(model: str, device: str, precision: str = AUTO, view: View | None = None) -> Predictor:
    """The model of this name on this device; view None is the model's own.

    Raises what `load_model` does, and ArgumentError for an unknown view.
    """
    return load_model(model, device, precision).with_view(checked_view(view))


def load_model(model: str, device: str, precision: str = AUTO) -> Predictor:
    """The model of this name on this device; precision: see `Library.create`.

    Raises ArgumentError for a device that is not there and an unknown precision.
    """
    if precision not in get_args(Precision):
        raise ArgumentError("precision", precision, f"must be one of {', '.join(get_args(Precision))}")
    import torch

    from steersearch.core.predictor import Predictor

    if device not in (AUTO, "cpu"):
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:  # torch raises either, or a kind of it
            raise ArgumentError("device", device, 'cannot be used on this machine; try "auto"') from error
    dtype: Any = AUTO if precision == AUTO else getattr(torch, precision)
    return Predictor.from_pretrained(model, device, dtype)


def full_name(model: str) -> str:
    """A model file by its full path, since a prompt index remembers its model; other names as they are."""
    path = as_path(model)
    return os.path.realpath(path) if path.suffix in (".safetensors", ".pth") else model
