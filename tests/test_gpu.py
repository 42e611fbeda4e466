"""What only a GPU can show: it says what the processor says, and training on it is the same training.

Without a GPU everything here is skipped.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity

from steersearch.core.predictor import Predictor
from steersearch.core.vectors import Aggregation
from steersearch.training.journal import read_journal
from steersearch.training.pictures import Pictures
from steersearch.training.recipe import Recipe
from steersearch.training.run import train_recipe
from tests.small_recipe import small_recipe
from tests.small_stage import MEAN, STD

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
pytest.importorskip("accelerate")

GPU = torch.device("cuda")
KINDS: tuple[Aggregation, ...] = ("cls", "mean", "focus")


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (60 + 10 * i, 90, 3), np.uint8)) for i in range(5)]


@pytest.fixture(scope="module")
def on_processor() -> Predictor:
    return Predictor.from_pretrained("mini", device="cpu")


@pytest.mark.parametrize("prompt", [None, "the mug", ["a car", "the hat", "a red ball", "the key", "a lamp"]])
def test_float32_features_are_those_of_the_processor(
    on_processor: Predictor, photos: list[Image.Image], prompt: str | list[str] | None
) -> None:
    model = Predictor.from_pretrained("mini", device="cuda", dtype=torch.float32)
    ours, theirs = model.features(photos, prompt), on_processor.features(photos, prompt)
    for kind in KINDS:
        assert cosine_similarity(ours.embedding(kind).cpu(), theirs.embedding(kind)).min() > 0.9999
    assert torch.allclose(ours.heatmap().cpu(), theirs.heatmap(), atol=2e-3)


def test_bfloat16_is_the_default_and_close(on_processor: Predictor, photos: list[Image.Image]) -> None:
    model = Predictor.from_pretrained("mini")
    assert (model.device.type, model.dtype) == ("cuda", torch.bfloat16)
    for kind in KINDS:
        ours = model.embed(photos, "the mug", aggregation=kind)
        assert ours.dtype == torch.float32
        assert cosine_similarity(ours, on_processor.embed(photos, "the mug", aggregation=kind)).min() > 0.99


def test_a_closed_gate_is_the_plain_backbone_bit_for_bit(photos: list[Image.Image]) -> None:
    model = Predictor.from_pretrained("mini")
    closed, plain = model.features(photos, "the mug", gate_scale=0.0), model.features(photos)
    assert torch.equal(closed.patches, plain.patches)
    assert torch.equal(closed.prefix, plain.prefix)


def test_pictures_kept_on_the_gpu_are_those_of_the_disk() -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (9, 32, 32, 3), np.uint8)
    rows, mirrored = np.array([7, 0, 3]), np.array([True, False, True])
    there = Pictures(images, GPU, MEAN, STD)(rows, mirrored)
    assert there.device.type == "cuda"
    assert torch.allclose(
        there.cpu(), Pictures(images, torch.device("cpu"), MEAN, STD)(rows, mirrored), atol=1e-6
    )


def losses(folder: Path) -> list[float]:
    return [entry["values"]["loss"] for entry in read_journal(folder) if entry["kind"] == "train"]


def train(recipe: Recipe, folder: Path, device: str, resume: bool = False) -> Path:
    return train_recipe(recipe, folder, resume=resume, device=device, say=lambda line: None)


def test_training_in_float32_is_that_of_the_processor(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, "run.precision=float32", f"data.cache={tmp_path / 'data'}")
    train(recipe, tmp_path / "processor", "cpu")
    train(recipe, tmp_path / "gpu", "cuda")
    assert losses(tmp_path / "gpu") == pytest.approx(losses(tmp_path / "processor"), rel=2e-3)


def test_a_resumed_run_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    shared = f"data.cache={tmp_path / 'data'}"
    whole, half = small_recipe(tmp_path, shared), small_recipe(tmp_path, shared, "optimiser.steps=2")
    file = train(whole, tmp_path / "whole", "cuda")
    train(half, tmp_path / "cut", "cuda")
    resumed = train(whole, tmp_path / "cut", "cuda", resume=True)
    assert losses(tmp_path / "cut") == pytest.approx(losses(tmp_path / "whole"), rel=1e-3)
    photo = Image.new("RGB", (90, 60), "red")
    one, other = (Predictor.from_pretrained(f).embed([photo], "the mug") for f in (file, resumed))
    assert cosine_similarity(one, other).min() > 0.999
