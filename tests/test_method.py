"""SteerViT as a benchmark's method: what it says is what the model says, and its name and identity tell all of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steersearch.benchmarks.harness.method import Method
from steersearch.benchmarks.harness.steervit_method import SteerViTMethod
from steersearch.core.attention_maps import attention_maps
from steersearch.core.errors import ArgumentError, BenchmarkError
from steersearch.core.predictor import Predictor

pytestmark = pytest.mark.usefixtures("word_encoder")
PICTURES = [
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (40 + 9 * i, 60, 3), dtype=np.uint8))
    for i in range(3)
]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Predictor:
    return Predictor.from_pretrained(tiny_model, device="cpu")


def test_what_it_sees_is_what_the_model_gives(model: Predictor) -> None:
    method: Method = SteerViTMethod(model)
    seen = method.see(PICTURES, "the red mug", patches=True, maps=True, attention=True)
    found = model.features(PICTURES, "the red mug", attention=True)
    assert seen.vectors == pytest.approx(found.aggregate("focus").numpy(), abs=1e-6)
    assert seen.patches is not None
    assert seen.patches.shape == (3, *model.grid, model.dim)
    assert seen.patches.reshape(3, -1, model.dim) == pytest.approx(found.patches.numpy(), abs=1e-6)
    assert seen.maps is not None
    assert seen.maps.reshape(3, -1) == pytest.approx(found.logits.numpy(), abs=1e-6)
    assert found.attention is not None
    assert seen.attention == pytest.approx(
        attention_maps(found.attention, model.grid, suppress_sinks=False, normalise=False).numpy(), abs=1e-6
    )
    assert {value.dtype for value in vars(seen).values()} == {np.dtype(np.float32)}


def test_only_what_is_requested(model: Predictor) -> None:
    seen = SteerViTMethod(model).see(PICTURES, None)
    assert (seen.patches, seen.maps, seen.attention) == (None, None, None)


def test_gate_scale_0_is_the_frozen_backbone_whatever_the_prompt(model: Predictor) -> None:
    frozen, steered = SteerViTMethod(model, gate_scale=0), SteerViTMethod(model)
    assert (frozen.takes_prompt, steered.takes_prompt) == (False, True)
    plain = frozen.see(PICTURES, None).vectors
    assert np.array_equal(frozen.see(PICTURES, "a mug").vectors, plain)
    assert np.array_equal(steered.see(PICTURES, None).vectors, plain)
    assert not np.allclose(steered.see(PICTURES, "a mug").vectors, plain, atol=1e-3)


def test_name_and_identity_tell_what_decides_the_output(model: Predictor) -> None:
    methods = [
        SteerViTMethod(model),
        SteerViTMethod(model, gate_scale=0.6),
        SteerViTMethod(model, gate_scale=0),
        SteerViTMethod(model, aggregation="cls"),
        SteerViTMethod(model, view="tile"),
    ]
    ends = ["", "+gate0.6", "+gate0", "+cls", "+tile"]
    assert [method.name for method in methods] == [model.model_id + end for end in ends]
    assert len({method.identity for method in methods}) == len(methods)
    assert SteerViTMethod(model, 1.0, "focus", "squash").identity == methods[0].identity
    assert methods[3].see(PICTURES, "a mug").vectors == pytest.approx(
        model.features(PICTURES, "a mug").aggregate("cls").numpy(), abs=1e-6
    )


def test_what_cannot_be_given_is_refused(model: Predictor) -> None:
    with pytest.raises(BenchmarkError, match="has no heatmap without a prompt"):
        SteerViTMethod(model).see(PICTURES, None, maps=True)
    for wrong in (-0.1, float("inf"), float("nan")):
        with pytest.raises(ArgumentError, match="gate_scale"):
            SteerViTMethod(model, gate_scale=wrong)
