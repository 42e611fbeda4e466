"""The model as the indexer sees it: who it is, and a GPU whose memory is too small costs time, not the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steersearch.api import load_embedder
from steersearch.core.errors import GpuMemoryError
from steersearch.embedder import SteerViTEmbedder
from steersearch.identity import identity_of
from steersearch.indexer.embedder import Floats


@pytest.fixture
def embedder(tiny_model: Path) -> SteerViTEmbedder:
    return load_embedder(str(tiny_model), "cpu")


def small_memory(most: int, tried: list[int], encode: Callable[..., Any]) -> Callable[..., Any]:
    """`encode` on a GPU that holds `most` pictures; notes how many each call was given."""

    def encode_or_fail(pixels: torch.Tensor, steerings: Sequence[Any], **options: Any) -> Any:
        tried.append(len(pixels))
        if len(pixels) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(pixels, steerings, **options)

    return encode_or_fail


def pictures(embedder: SteerViTEmbedder, number: int) -> Floats:
    side = embedder.model.config.preprocess.side
    return np.random.default_rng(0).normal(size=(number, 3, side, side)).astype(np.float32)


def test_vectors_of_the_plain_heatmap_are_not_taken_for_those_of_its_square(
    embedder: SteerViTEmbedder, tiny_model: Path
) -> None:
    identity = identity_of(str(tiny_model))
    earlier = {**embedder.preprocessing, "aggregation": "focus"}
    assert identity.fits(embedder.weights_hash, embedder.preprocessing)
    assert not identity.fits(embedder.weights_hash, earlier)


def test_a_batch_is_halved_until_it_fits_and_later_ones_begin_there(
    embedder: SteerViTEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, features = pictures(embedder, 11), [embedder.encode_prompt("red mug").tokens, None]
    whole = embedder.embed_pixels(pixels, features, 1.0)
    frozen, steered = embedder.embed_with_unsteered(pixels, [features[0]], 1.0)  # type: ignore[list-item]
    tried: list[int] = []
    monkeypatch.setattr(embedder.model, "encode", small_memory(3, tried, embedder.model.encode))
    parts = embedder.embed_pixels(pixels, features, 1.0)
    assert tried == [11, 5, 2, 2, 2, 2, 2, 1]
    tried.clear()
    frozen_parts, steered_parts = embedder.embed_with_unsteered(pixels, [features[0]], 1.0)  # type: ignore[list-item]
    assert tried == [2, 2, 2, 2, 2, 1]
    for expected, found in zip(
        [*whole, *steered, frozen], [*parts, *steered_parts, frozen_parts], strict=True
    ):
        for name, values in vars(expected).items():
            np.testing.assert_allclose(getattr(found, name), values, atol=1e-5, err_msg=name)


def test_memory_too_small_for_one_photo_is_said(
    embedder: SteerViTEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedder.model, "encode", small_memory(0, [], embedder.model.encode))
    with pytest.raises(GpuMemoryError, match="too little free memory for one photo") as error:
        embedder.embed_pixels(pictures(embedder, 4), [None], 1.0)
    assert error.value.model == embedder.model_id
