"""The bundled model's embeddings stay what they were: vectors stored with its weights, made by an earlier version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from steersearch.core.predictor import Predictor
from steersearch.core.vectors import Aggregation

STORED = np.load(Path(__file__).parent / "data" / "mini_vectors.npz")
PROMPTS = {"remote": "the remote control", "shelf": "bookshelf", "none": None}


@pytest.fixture(scope="module")
def mini() -> Predictor:
    return Predictor.from_pretrained("mini", "cpu")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [Image.fromarray(pixels) for pixels in STORED["pictures"]]


def test_the_vectors_belong_to_these_weights(mini: Predictor) -> None:
    assert mini.weights_hash == str(STORED["weights_hash"])


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("kind", ["cls", "mean", "focus"])
def test_embeddings_are_the_stored_ones(
    name: str, kind: Aggregation, mini: Predictor, pictures: list[Image.Image]
) -> None:
    stored = torch.from_numpy(STORED[f"{name}_{kind}"])
    cosines = (mini.embed(pictures, PROMPTS[name], aggregation=kind) * stored).sum(dim=-1)
    assert cosines.min() >= 0.9999


@pytest.mark.parametrize("name", ["remote", "shelf"])
def test_heatmaps_are_the_stored_ones(name: str, mini: Predictor, pictures: list[Image.Image]) -> None:
    found = mini.heatmaps(pictures, str(PROMPTS[name])).numpy()
    np.testing.assert_allclose(found, STORED[f"{name}_heatmap"], atol=1e-5)


@pytest.mark.parametrize("kind", ["cls", "mean", "focus"])
def test_in_bfloat16_embeddings_stay_within_five_thousandths(
    kind: Aggregation, pictures: list[Image.Image]
) -> None:
    model = Predictor.from_pretrained("mini", "cpu", torch.bfloat16)
    assert model.dtype == torch.bfloat16
    stored = torch.from_numpy(STORED[f"remote_{kind}"])
    found = model.embed(pictures, PROMPTS["remote"], aggregation=kind)
    assert found.dtype == torch.float32
    assert (found * stored).sum(dim=-1).min() > 0.995
