"""The predictor: photos and prompts as people give them, batches as the indexer does, and a GPU that is too small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from steersearch.api import load_embedder
from steersearch.core.attention_maps import attention_maps
from steersearch.core.backbone import timm_preprocess
from steersearch.core.errors import ConfigError, ImageError, PromptError, SteerSearchError
from steersearch.core.predictor import Predictor
from steersearch.core.steervit import SteerViT, SteerViTConfig
from steersearch.core.text import PromptFeatures
from steersearch.core.vectors import Floats
from steersearch.identity import identity_of
from tests.small_models import TEXT_DIM, largest_difference, small_model

# ------------------------------------------------------------------------------------ photos and prompts


class FakeTextEncoder:
    """Encodes a prompt as one random token per word, the same for the same word."""

    name, dim = "fake", TEXT_DIM

    def to(self, device: object) -> FakeTextEncoder:
        return self

    def encode(self, prompts: Sequence[str]) -> PromptFeatures:
        def token(word: str) -> np.ndarray:
            return np.random.default_rng(sum(map(ord, word))).standard_normal(TEXT_DIM).astype(np.float32)

        return PromptFeatures.from_numpy([np.stack([token(w) for w in prompt.split()]) for prompt in prompts])


@pytest.fixture
def predictor() -> Predictor:
    predictor = Predictor(small_model())
    predictor._text_encoder = FakeTextEncoder()  # type: ignore[assignment]
    return predictor


@pytest.fixture
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    shapes = [(70, 90, 3), (64, 64, 3), (120, 40, 3)]
    return [Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)) for shape in shapes]


def test_embed_gives_unit_vectors_of_the_forward_pass(
    predictor: Predictor, pictures: list[Image.Image], tmp_path: Path
) -> None:
    pictures[0].save(tmp_path / "one.png")
    vectors = predictor.embed([tmp_path / "one.png", *pictures[1:]], "red mug", gate_scale=0.7)
    pixels = torch.from_numpy(np.stack([predictor.preprocess(picture) for picture in pictures]))
    with torch.no_grad():
        expected = predictor.model(pixels, predictor.encode_prompts(["red mug"]), 0.7).patches.mean(dim=1)
    assert vectors.shape == (3, 64)
    assert vectors.dtype == torch.float32
    assert torch.allclose(vectors, F.normalize(expected, dim=-1), atol=1e-6)
    focus = predictor.embed(pictures, "red mug", gate_scale=0.7, aggregation="focus")
    assert largest_difference(focus, vectors) > 1e-3


def test_embed_in_batches_equals_embed_at_once(
    predictor: Predictor, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = ["red mug", "a blue book here", "key"]
    at_once = predictor.embed(pictures, prompts)
    monkeypatch.setattr("steersearch.core.predictor._CPU_BATCH", 2)
    assert torch.allclose(predictor.embed(pictures, prompts), at_once, atol=1e-5)
    assert predictor.embed([]).shape == (0, 64)


def test_heatmaps_sum_to_one_and_follow_the_prompt(predictor: Predictor, pictures: list[Image.Image]) -> None:
    mug, book = predictor.heatmaps(pictures, "mug"), predictor.heatmaps(pictures, "book")
    assert mug.shape == (3, 4, 4)
    assert torch.allclose(mug.sum(dim=(1, 2)), torch.ones(3), atol=1e-5)
    assert largest_difference(mug, book) > 1e-3
    assert torch.equal(predictor.features(pictures, "mug").heatmap(), mug)


def test_attention_maps_are_those_of_the_forward_pass(
    predictor: Predictor, pictures: list[Image.Image]
) -> None:
    found = predictor.features(pictures, "mug", attention=True)
    assert found.attention is not None
    maps = predictor.attention_maps(pictures, "mug", heads="max", suppress_sinks=False)
    expected = attention_maps(found.attention, (4, 4), "max", suppress_sinks=False)
    assert torch.allclose(maps, expected, atol=1e-6)
    assert maps.amin() == 0
    assert 0.999 < maps.amax() < 1
    assert (
        largest_difference(maps, predictor.attention_maps(pictures, heads="max", suppress_sinks=False)) > 1e-3
    )
    assert predictor.attention_maps(pictures, heads="none").shape == (3, 2, 4, 4)
    assert predictor.attention_maps([]).shape == (0, 4, 4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("vit_small_patch14_dinov2.lvd142m", 4), ("vit_base_patch14_dinov2.lvd142m", 2), ("tiny", 32)],
)
def test_a_processor_gets_batches_whose_activations_stay_small(name: str, expected: int) -> None:
    if name == "tiny":
        model = small_model()
    else:
        with torch.device("meta"):
            model = SteerViT(
                SteerViTConfig(trunk=name, resolution=336, preprocess=timm_preprocess(name, 336))
            )
        model.to_empty(device="cpu")  # no memory before it is written
    predictor = Predictor(model)
    assert predictor._part == expected
    assert predictor.with_view("tile")._part == max(1, expected // 4)
    assert predictor.batch_size == expected * min(8, torch.get_num_threads())


def test_pictures_are_read_ahead_on_threads_and_stay_in_order(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steersearch.core.predictor._CPU_BATCH", 3)
    paths = [tmp_path / f"{i}.png" for i in range(10)]
    for i, path in enumerate(paths):
        Image.new("RGB", (40 + i, 64), (25 * i, 10 * i, 255 - 25 * i)).save(path)
    one_by_one = torch.cat([predictor.embed([path], "mug") for path in paths])
    assert torch.allclose(predictor.embed(paths, "mug"), one_by_one, atol=1e-5)
    with pytest.raises(ImageError, match=r"gone\.png"):
        predictor.embed([*paths[:4], tmp_path / "gone.png", *paths[4:]], "mug")


def test_wrong_use_is_reported_in_words(
    predictor: Predictor, pictures: list[Image.Image], tmp_path: Path
) -> None:
    with pytest.raises(ImageError, match="no such file"):
        predictor.embed([tmp_path / "gone.jpg"])
    with pytest.raises(ConfigError, match="sequence of pictures"):
        predictor.embed(pictures[0])  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="2 prompts for 3 images"):
        predictor.embed(pictures, ["mug", "book"])


def test_the_weights_hash_follows_the_weights() -> None:
    one, same, other = (Predictor(small_model()) for _ in range(3))
    nn.init.constant_(other.model.head.bias, 0.25)
    assert one.weights_hash == same.weights_hash != other.weights_hash


# ---------------------------------------------------------------------------------- what the indexer calls


@pytest.fixture
def embedder(tiny_model: Path) -> Predictor:
    return load_embedder(str(tiny_model), "cpu")


def small_memory(most: int, tried: list[int], encode: Callable[..., Any]) -> Callable[..., Any]:
    """`encode` on a GPU that holds `most` pictures; notes how many each call was given."""

    def encode_or_fail(pixels: torch.Tensor, steerings: Sequence[Any], **options: Any) -> Any:
        tried.append(len(pixels))
        if len(pixels) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(pixels, steerings, **options)

    return encode_or_fail


def noise(embedder: Predictor, number: int) -> Floats:
    side = embedder.preprocess.side
    return np.random.default_rng(0).normal(size=(number, 3, side, side)).astype(np.float32)


def test_vectors_of_the_plain_heatmap_are_not_taken_for_those_of_its_square(
    embedder: Predictor, tiny_model: Path
) -> None:
    identity = identity_of(str(tiny_model))
    earlier = {**embedder.preprocessing, "aggregation": "focus"}
    assert identity.fits(embedder.weights_hash, embedder.preprocessing)
    assert not identity.fits(embedder.weights_hash, earlier)


def test_a_batch_is_halved_until_it_fits_and_later_ones_begin_there(
    embedder: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, features = noise(embedder, 11), [embedder.encode_prompt("red mug").tokens, None]
    whole = embedder.embed_pixels(pixels, features, 1.0)
    frozen, steered = embedder.embed_with_unsteered(pixels, [features[0]], 1.0)  # type: ignore[list-item]
    tried: list[int] = []
    monkeypatch.setattr(embedder, "encode", small_memory(3, tried, embedder.encode))
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


def test_memory_too_small_for_one_photo_is_said(embedder: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder, "encode", small_memory(0, [], embedder.encode))
    with pytest.raises(SteerSearchError, match="too little free memory for one photo") as error:
        embedder.embed_pixels(noise(embedder, 4), [None], 1.0)
    assert f"in the model {embedder.model_id};" in str(error.value)
