"""bench speed: hand-worked figures, the released forward against ours, fair rounds, and memory in fresh processes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from steersearch.benchmarks.engineering import speed
from steersearch.benchmarks.engineering.fresh_process import call_fresh, peak_memory
from steersearch.benchmarks.engineering.speed import Settings
from steersearch.core.errors import ArgumentError, BenchmarkError
from tests.small_models import KINDS, pixels_for, prompts_of, small_model

# ------------------------------------------------------------------------------------------- figures by hand


def test_throughput_is_the_median_over_rounds_with_its_quartiles() -> None:
    # batches of 8 in 4, 1, 2, 8 and 16 seconds: 2, 8, 4, 1 and 0.5 images/s, in order 0.5 1 2 4 8
    figures = speed.throughput({"plain": [4.0, 1.0, 2.0, 8.0, 16.0]}, 8)
    assert figures == {"plain_images_per_s": 2.0, "plain_images_per_s_quartiles": [1.0, 4.0]}


def test_ratios_are_taken_within_a_round() -> None:
    # the second round ran on a machine ten times slower; ratios 1.1, 1.2, 1.0 do not feel it
    seconds: speed.Seconds = {
        "plain": [1.0, 10.0, 1.0],
        "folded": [1.1, 12.0, 1.0],
        "unfolded": [3.3, 18.0, 1.5],
    }
    figures = speed.ratios(seconds, "_processor")
    assert figures["folded_over_plain_processor"] == 1.1
    assert figures["folded_over_plain_processor_quartiles"] == [1.05, 1.15]
    assert figures["unfolded_over_folded_processor"] == 1.5  # of 3, 1.5 and 1.5
    assert figures["unfolded_over_plain_processor"] == 1.8
    assert not any("same_dtype" in name for name in figures)


def test_every_variant_has_a_turn_in_every_round_and_goes_first_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speed, "SECONDS_PER_TURN", 1e-12)  # one batch a turn
    calls: list[str] = []
    settings = Settings(device="cpu", repeats=4)
    batches = {v: (lambda v=v: calls.append(v)) for v in ("plain", "folded", "unfolded")}
    clock, processor = speed.time_rounds(batches, settings, lambda line: None)  # type: ignore[arg-type]
    p, f, u = "plain", "folded", "unfolded"
    assert calls[-12:] == [p, f, u, f, u, p, u, p, f, p, f, u]
    assert {v: len(turns) for v, turns in clock.items()} == {p: 4, f: 4, u: 4}
    assert all(seconds >= 0 for turns in (*clock.values(), *processor.values()) for seconds in turns)


# ------------------------------------------------------------------------------------------------- variants


@pytest.mark.parametrize("kind", KINDS)
def test_the_released_forward_and_ours_give_the_same_tokens(kind: str) -> None:
    model = small_model(kind)
    pixels, prompts = pixels_for(model), prompts_of(5, 3, 7)
    with torch.inference_mode():
        released, ours = speed._unfolded(model, pixels, prompts), model(pixels, prompts)
        plain = model(pixels)
    tokens = torch.cat([ours.prefix, ours.patches], dim=1)
    assert (released - tokens).abs().max() < 1e-5
    assert (released - torch.cat([plain.prefix, plain.patches], dim=1)).abs().max() > 0.1


def test_variants_of_the_mini_agree_and_its_backbone_alone_does_not() -> None:
    settings = Settings(model="mini", batch_size=2, device="cpu").resolved()
    bench = speed.Workbench(settings)
    with torch.inference_mode():
        batches = {variant: bench.batch(variant) for variant in settings.variants}
        found = speed._differences(bench, batches)
        features = bench.model("float32")(bench.pixels)
        plain = batches["plain"]()
        wrong = dict(batches, unfolded=batches["plain"])
        with pytest.raises(BenchmarkError, match="not the same computation"):
            speed._differences(bench, wrong)
        broken = dict(batches, unfolded=lambda: plain * float("nan"))
        with pytest.raises(BenchmarkError, match="cosine of nan"):
            speed._differences(bench, broken)
    assert found["max_difference_folded_unfolded"] < 1e-4
    assert found["min_cosine_folded_unfolded"] > 0.99999
    assert found["max_difference_folded_plain"] > 0.1
    assert torch.equal(plain, torch.cat([features.prefix, features.patches], dim=1))


@pytest.mark.parametrize("model", ["dinov2-small", "mae-base-research", "siglip-base-research"])
def test_backbone_alone_is_timms_own(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    build = timm.create_model
    shrink = {"embed_dim": 64, "depth": 2, "num_heads": 2}
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: build(*a, **(k | shrink)))
    bench = speed.Workbench(Settings(model=model, batch_size=2, device="cpu", resolution=112).resolved())
    with torch.inference_mode():
        tokens = bench.batch("plain")()
    patches = (112 // (14 if model == "dinov2-small" else 16)) ** 2
    assert tokens.shape == (2, patches + (model != "siglip-base-research"), 64)  # type: ignore[union-attr]


def test_half_precision_has_the_released_formulation_twice() -> None:
    assert Settings(dtype="float32").variants == ("plain", "folded", "unfolded")
    half = Settings(dtype="bfloat16", model="mini", batch_size=1, device="cpu").resolved()
    assert half.variants == ("plain", "folded", "unfolded", "unfolded_same_dtype")
    bench = speed.Workbench(half)
    with torch.inference_mode():
        kinds = {v: bench.batch(v, prompt_tokens=4)() for v in ("plain", "folded")}
    assert kinds["plain"].dtype == torch.bfloat16  # type: ignore[union-attr]
    assert kinds["folded"].patches.dtype == torch.bfloat16  # type: ignore[union-attr]


def test_the_stand_in_for_the_tokenizer_counts_words_marks_and_two_ends() -> None:
    ids = speed._words_and_marks(["the remote control", "a dog, asleep"])
    assert [len(row) for row in ids] == [5, 6]
    assert all(row[0] == 0 and row[-1] == 2 and 1 not in row[1:-1] for row in ids[:1])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"model": "dino-v2-small"}, 'did you mean "dinov2-small"'),
        ({"model": "?"}, "known: mini, dinov2-small"),
        ({"batch_size": 0}, "at least 1"),
        ({"repeats": 0}, "at least 1"),
        ({"threads": 0}, "at least 1"),
        ({"resolution": 0}, "at least 1"),
        ({"model": "mini", "resolution": 336}, "takes 320 pixels"),
        ({"prompt": " "}, "no word"),
    ],
)
def test_what_cannot_be_measured_is_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ArgumentError, match=words.replace("?", r"\?")) as refused:
        Settings(**wrong)  # type: ignore[arg-type]
    assert refused.value.name == list(wrong)[-1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ArgumentError, match="no GPU"):
        Settings(device="cuda").resolved()


def test_the_number_of_threads_is_put_back() -> None:
    before = torch.get_num_threads()
    with speed._threads(dataclasses.replace(Settings(), threads=before + 1)):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_want_of_memory_is_said_with_a_way_out() -> None:
    with (
        pytest.raises(BenchmarkError, match="not enough memory on the cpu; give a smaller --batch-size"),
        speed._enough_memory(Settings(device="cpu")),
    ):
        torch.empty(2**60)


# ------------------------------------------------------------------------------------------- fresh processes


def test_a_fresh_process_does_not_count_what_this_one_holds() -> None:
    mine = np.ones(2**27, np.uint8)  # 128 MiB, all touched
    assert peak_memory() > mine.nbytes
    assert call_fresh(peak_memory) < 2**26


def test_a_fresh_process_that_fails_says_why() -> None:
    with pytest.raises(BenchmarkError, match="unexpected keyword argument 'size'"):
        call_fresh(peak_memory, size=1)
