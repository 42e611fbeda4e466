"""train_speed: both formulations are the same training step, and figures by hand."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from steersearch.benchmarks.engineering import speed, train_speed
from steersearch.benchmarks.engineering.train_speed import Bench, Sample
from steersearch.core.bert import Bert, BertConfig
from steersearch.core.errors import BenchmarkError
from steersearch.core.steervit import SteerViT
from steersearch.core.text import TextEncoder
from tests.small_models import TEXT_DIM, small_model

SHIFT = "head.bias"  # a softmax over patches does not feel it: its gradient is rounding, which AdamW enlarges


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Expressions of different lengths, so that padding counts."""
    return train_speed.draw_samples(4, size=(64, 48))


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    shape = BertConfig(
        vocabulary=40, dim=TEXT_DIM, depth=2, num_heads=2, hidden=32, positions=64, types=1, norm_eps=1e-5,
        pad_id=1, first_position=2,
    )  # fmt: skip
    torch.manual_seed(0)
    return TextEncoder("roberta-tiny", speed._words_and_marks, Bert(shape))


@pytest.fixture
def bench(encoder: TextEncoder, samples: list[Sample]) -> Bench:
    return Bench(small_model(), encoder, samples)


def test_samples_are_photos_with_what_their_expression_means(samples: list[Sample]) -> None:
    assert len({sample.jpeg for sample in samples}) == 4
    assert len({len(sample.expression.split()) for sample in samples}) > 1
    assert all(sample.mask.shape == (48, 64) and sample.mask.any() for sample in samples)
    again = train_speed.draw_samples(1, size=(64, 48))
    assert again[0].jpeg == samples[0].jpeg


def test_a_batch_is_what_the_model_takes(samples: list[Sample]) -> None:
    model = small_model()
    pixels, cover = train_speed.load_batch(model, samples)
    assert (pixels.shape, pixels.dtype) == ((4, 3, 64, 64), torch.float32)
    assert cover.shape == (4, model.grid[0] * model.grid[1])
    assert 0 <= cover.min() <= cover.max() <= 1
    assert (cover.sum(dim=1) > 0).all()
    assert torch.equal(train_speed.load_batch(model, samples)[0], pixels)


def test_text_is_read_alike_padded_and_not(encoder: TextEncoder, samples: list[Sample]) -> None:
    texts = [sample.expression for sample in samples]
    padded, each = train_speed.encode_padded(encoder, texts), encoder.encode(texts)
    assert torch.equal(padded.mask, each.mask)
    assert not padded.mask.all()
    assert (padded.tokens - each.tokens)[padded.mask].abs().max() < 1e-5
    assert not padded.tokens.requires_grad


def test_both_formulations_have_the_same_loss_and_gradients(bench: Bench) -> None:
    (our_loss, ours), (released_loss, released) = bench.gradients("ours"), bench.gradients("released")
    assert our_loss == pytest.approx(released_loss, abs=1e-5)
    assert set(ours) == set(released) == {name for name, _ in bench.model.trainable_parameters()}
    for name, gradient in released.items():
        largest, difference = gradient.abs().max(), (ours[name] - gradient).abs().max()
        assert difference < 1e-5, name
        assert name == SHIFT or (largest > 1e-6 and difference < 1e-3 * largest), name
    found = train_speed.differences(bench)
    assert found["loss_difference"] < 1e-5
    assert found["gradient_cosine"] > 1 - 1e-9
    assert found["max_gradient_difference"] < 1e-5


def test_both_train_alike_and_only_what_steers(encoder: TextEncoder, samples: list[Sample]) -> None:
    trained: dict[str, dict[str, torch.Tensor]] = {}
    for formulation in ("ours", "released"):
        bench = Bench(small_model(), encoder, samples)
        losses = [bench.step(formulation).item() for _ in range(3)]  # type: ignore[arg-type]
        assert losses[2] < losses[0]
        trained[formulation] = bench.model.state_dict()
    before = small_model().state_dict()
    for name, value in trained["ours"].items():
        if name != SHIFT:  # elsewhere, too, AdamW may turn a single gradient that is next to nothing
            assert (value - trained["released"][name]).abs().median() < 1e-5, name
        assert torch.equal(value, before[name]) == name.startswith("trunk."), name
    assert all(p.grad is None for p in encoder.model.parameters())


def test_the_released_step_reads_the_text_each_time_and_ours_never(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Sequence[str]] = []
    plain = train_speed.encode_padded
    monkeypatch.setattr(
        train_speed, "encode_padded", lambda encoder, texts: read.append(texts) or plain(encoder, texts)
    )
    monkeypatch.setattr(bench.encoder, "encode", lambda texts: pytest.fail("ours encodes beforehand"))
    for _ in range(2):
        bench.step("ours")
    assert read == []
    for _ in range(2):
        bench.step("released")
    assert read == [bench.texts] * 2


def test_kept_pictures_are_not_decoded_and_augmented_alike(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [np.asarray(picture).copy() for picture in bench.kept]
    pixels, cover = train_speed.load_batch(bench.model, bench.samples)
    monkeypatch.setattr(train_speed, "_decoded", lambda sample: pytest.fail("decoded again"))
    for _ in range(2):
        kept_pixels, kept_cover = train_speed.load_batch(bench.model, bench.samples, bench.kept)
        assert kept_pixels.shape == pixels.shape
        assert torch.equal(kept_cover, cover)
    assert all(np.array_equal(one, other) for one, other in zip(before, bench.kept, strict=True))


def test_no_graph_reaches_back_before_the_first_gate_in_either(bench: Bench) -> None:
    for formulation in ("ours", "released"):
        seen: list[bool] = []
        handle = bench.model.cross_attention["1"].register_forward_pre_hook(
            lambda module, inputs, seen=seen: seen.append(inputs[0].requires_grad)
        )
        bench.loss(formulation)  # type: ignore[arg-type]
        handle.remove()
        assert seen == [False]


def test_another_computation_is_refused(bench: Bench) -> None:
    bench.prompts = bench.encoder.encode(["something else entirely"] * 4)
    with pytest.raises(BenchmarkError, match="not the same training step"):
        train_speed.differences(bench)


def test_half_precision_of_ours_stays_near(encoder: TextEncoder, samples: list[Sample]) -> None:
    bench = Bench(small_model(), encoder, samples, "bfloat16")
    found = train_speed.differences(bench, "bfloat16")
    assert 1e-6 < found["max_gradient_difference"] < 0.5
    assert all(parameter.dtype == torch.float32 for parameter in bench.trained.values())


def test_figures_by_hand() -> None:
    seconds = {
        "ours": [1.0, 10.0, 2.0], "released": [2.0, 25.0, 6.0], "text": [0.5, 0.1, 0.2], "data": [1.0, 5.0, 2.0],
        "kept": [0.5, 0.0, 0.0],
    }  # fmt: skip
    found = train_speed.figures(seconds)
    assert found["ours_steps_per_s"] == 0.5
    assert found["released_steps_per_s"] == pytest.approx(1 / 6, abs=1e-4)
    assert found["text_ms"] == 200.0
    assert found["released_over_ours"] == 2.5  # of 2, 2.5 and 3
    assert found["released_over_ours_quartiles"] == [2.25, 2.75]
    assert found["released_over_ours_with_data"] == 2.0  # of 3/2, 30/15 and 8/4
    assert found["released_over_ours_with_kept_pictures"] == 3.0  # of 3/1.5, 30/10 and 8/2


def test_the_command_measures_and_says_what_on(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def model(self: Any, dtype: str) -> SteerViT:
        return small_model()

    monkeypatch.setattr(speed.Workbench, "model", model)
    monkeypatch.setattr(speed.Workbench, "text_encoder", lambda self, dtype: encoder)
    monkeypatch.setattr(speed, "SECONDS_PER_TURN", 1e-12)
    monkeypatch.setattr(train_speed, "PHOTO", (64, 48))
    draw = train_speed.draw_samples
    monkeypatch.setattr(train_speed, "draw_samples", lambda count: draw(count, (64, 48)))
    monkeypatch.setattr(
        sys, "argv", ["train_speed", "--batch-size", "2", "--repeats", "2", "--device", "cpu"]
    )
    train_speed.main()
    record = json.loads(capsys.readouterr().out)
    assert record["benchmark"] == "train-speed/cpu-float32-320px-b2"
    assert record["settings"]["compiled"] is False
    assert [len(values) for values in record["metrics"]["seconds"].values()] == [2] * 5
    low, high = record["metrics"]["released_over_ours_quartiles"]
    assert low <= record["metrics"]["released_over_ours"] <= high
    assert np.isfinite(record["metrics"]["released_over_ours_with_data_processor"])
