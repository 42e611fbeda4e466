"""A model's identity, read from its file without torch, so that a run with nothing to compute loads nothing."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import as_file, files
from pathlib import Path

from steersearch.core.preprocess import Preprocess, View
from steersearch.core.registry import MODELS
from steersearch.core.vectors import VectorSettings
from steersearch.indexer.embedder import Identity

BUNDLED = "mini"


def identity_of(model: str, view: View | None = None) -> Identity:
    """A model's identity; fields are None if only loading the model can tell.

    view: None is the model's own.
    """
    if model == BUNDLED:
        with as_file(files("steersearch.core.mini") / f"{BUNDLED}.safetensors") as file:
            return _read(model, file, view)
    return _read(model, Path(model), view)


def weights_now(model: str) -> str | None:
    """The sha256 of a model's weights; None if only loading the model can tell."""
    if model == BUNDLED:
        return MODELS[BUNDLED].weights.sha256
    return identity_of(model).weights_hash


def _read(model: str, file: Path, view: View | None) -> Identity:
    if file.suffix != ".safetensors" or not file.is_file():
        return Identity(None, None, None)
    with file.open("rb") as opened:
        weights_hash = hashlib.file_digest(opened, "sha256").hexdigest()
        opened.seek(0)
        length = int.from_bytes(opened.read(8), "little")
        header = opened.read(min(length, file.stat().st_size))
    try:
        config = json.loads(json.loads(header)["__metadata__"]["steersearch"])["config"]
        own = Preprocess.from_dict(config["preprocess"])
        preprocess = own if view is None else own.with_view(view)
        settings = VectorSettings.of(preprocess, config["aggregation"])
        return Identity(model, weights_hash, settings.to_dict())
    except (ValueError, KeyError, TypeError):  # damaged; loading it will say how
        return Identity(None, None, None)
