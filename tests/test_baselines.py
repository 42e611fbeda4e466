"""The list of baselines, plain backbones and late fusion; each family of models has a test file of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer

from steersearch.benchmarks import baselines
from steersearch.benchmarks.baselines import cards
from steersearch.benchmarks.baselines.late_fusion import LateFusion
from steersearch.benchmarks.baselines.pins import pin, read_pins
from steersearch.benchmarks.baselines.trunks import PlainTrunk
from steersearch.cli.bench import measure
from steersearch.core.backbone import Trunk
from steersearch.core.errors import BenchmarkError
from steersearch.core.predictor import Predictor
from steersearch.core.preprocess import Preprocess
from tests.small_baselines import assert_batching_changes_nothing, pictures
from tests.small_models import TIMM_KINDS, small_model, small_trunk

CPU = torch.device("cpu")


def test_the_papers_methods_are_all_listed() -> None:
    rows = {card.row for card in baselines.CARDS.values()}
    assert rows >= {
        "DINOv2", "MAE", "SigLIP", "SigLIP 2", "CLIP", "CLIP + text", "Late fusion", "FLAIR", "InternVL3-1B",
        "InternVL3-2B", "Qwen3-VL-2B", "LFM2.5-VL-1.6B", "SAM3", "GroundingDINO", "CLIPSeg", "WinCLIP", "FADE",
        "MaskCLIP", "DIVAD", "GeneCIS combiner",
    }  # fmt: skip
    assert tuple(baselines.CARDS) == baselines.NAMES


@pytest.mark.parametrize("card", baselines.CARDS.values(), ids=lambda card: card.name)
def test_a_card_says_all_that_must_be_known(card: baselines.Card) -> None:
    assert card.licence
    assert card.computes
    assert card.aggregation
    assert (card.family is None) == (card.cannot is not None)
    if card.family is not None:
        path = Path(baselines.__file__).parent / f"{card.family}.py"
        assert path.is_file()
        assert card.repo or card.url or card.bundled or card.name in ("late-fusion", "learned-map")
        assert card.gives
    assert card.pinned == (card.name == "dinov2")


def test_a_method_that_cannot_be_run_says_why() -> None:
    for name in ("fade", "divad"):
        with pytest.raises(BenchmarkError, match=f"{name} cannot be run: it has no weights of its own"):
            baselines.load(name)
        assert baselines.CARDS[name].gives == ()


def test_unknown_names_and_paths(tmp_path: Path) -> None:
    with pytest.raises(
        BenchmarkError, match='no baseline "clib", did you mean "clip"\\?; known: dinov2, mae'
    ):
        baselines.load("clib")
    with pytest.raises(BenchmarkError, match=f"clip: there is nothing at {tmp_path / 'none'}"):
        baselines.load(f"clip={tmp_path / 'none'}")


def test_listing_them_loads_no_model_library() -> None:
    code = "import sys; from steersearch.benchmarks import baselines; baselines.NAMES; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "transformers", "timm", "open_clip", "PIL"} & set(done.stdout.split()) == set()


@pytest.mark.parametrize("name", ["dinov2", "mae-mean"])
def test_a_plain_backbone_is_the_frozen_steervit(name: str) -> None:
    kind = name.partition("-")[0]
    side = TIMM_KINDS[kind][1]
    preprocess = Preprocess(size=side, mean=(0.5,) * 3, std=(0.25,) * 3)
    trunk = small_trunk(kind)
    method = PlainTrunk(baselines.CARDS[name], trunk, preprocess, "source", CPU)
    images = pictures(size=(90, 70))
    seen = assert_batching_changes_nothing(method, images, None, patches=True, attention=True)

    model = small_model(kind, preprocess=preprocess)
    assert isinstance(trunk, torch.nn.Module)
    model.trunk.load_state_dict(trunk.state_dict())
    found = Predictor(model).features(images, attention=True)
    wanted = found.aggregate("cls" if name == "dinov2" else "mean")
    np.testing.assert_allclose(seen.vectors, wanted, rtol=1e-4, atol=1e-5)
    assert seen.patches is not None
    assert seen.attention is not None
    np.testing.assert_allclose(seen.patches.reshape(3, 16, -1), found.patches, rtol=1e-4, atol=1e-5)
    assert found.attention is not None
    np.testing.assert_allclose(
        seen.attention.reshape(3, 16), found.attention.mean(dim=1), rtol=1e-4, atol=1e-5
    )
    assert seen.attention.shape == (3, *_grid(trunk))

    assert not method.takes_prompt
    np.testing.assert_array_equal(method.see(images, "the cat").vectors, method.see(images, None).vectors)
    with pytest.raises(BenchmarkError, match=f"{name} has no heatmap: it takes no text"):
        method.see(images, "the cat", maps=True)


def _grid(trunk: Trunk | torch.nn.Module) -> tuple[int, int]:
    height, width = trunk.grid  # type: ignore[misc]
    return int(height), int(width)


def test_identity_tells_weights_and_settings_apart() -> None:
    trunk, preprocess = small_trunk("mae"), Preprocess(size=64, mean=(0.5,) * 3, std=(0.25,) * 3)
    squashed = preprocess.with_view("squash")
    identities = {
        PlainTrunk(baselines.CARDS[name], trunk, how, source, CPU).identity
        for name in ("mae", "mae-mean")
        for how in (preprocess, squashed)
        for source in ("one", "other")
    }
    assert len(identities) == 8


def test_late_fusion_is_the_checkpoint(tmp_path: Path, word_encoder: None) -> None:
    late = Predictor(small_model("dinov2", fusion="late", text_dim=384, aggregation="cls"))
    method = LateFusion(baselines.CARDS["late-fusion"], late)
    images = pictures()
    seen = assert_batching_changes_nothing(method, images, "the cat", patches=True, maps=True, attention=True)
    found = late.features(images, "the cat", attention=True)
    np.testing.assert_allclose(seen.vectors, found.prefix[:, 0], rtol=1e-4, atol=1e-5)
    assert seen.maps is not None
    np.testing.assert_allclose(seen.maps.reshape(3, 16), found.logits, rtol=1e-4, atol=1e-5)

    other = method.see(images, "the dog", patches=True, maps=True, attention=True)
    for part in ("vectors", "patches", "maps"):
        assert np.abs(getattr(other, part) - getattr(seen, part)).max() > 1e-3
    np.testing.assert_allclose(other.attention, seen.attention, rtol=1e-5)  # it came before the text

    frozen = Predictor(small_model("dinov2", text_dim=384, aggregation="cls")).features(images)
    np.testing.assert_allclose(method.see(images, None).vectors, frozen.prefix[:, 0], rtol=1e-4, atol=1e-5)
    with pytest.raises(BenchmarkError, match="late-fusion has no heatmap without a prompt"):
        method.see(images, None, maps=True)


def test_late_fusion_alone_of_the_baselines_takes_a_pooling(monkeypatch: pytest.MonkeyPatch) -> None:
    late = Predictor(small_model("dinov2", fusion="late", text_dim=384, aggregation="cls"))
    monkeypatch.setattr(
        measure.baselines, "load", lambda name, device: LateFusion(baselines.CARDS["late-fusion"], late)
    )
    check = measure._check_method
    check(None, "late-fusion=late.safetensors", None, "mean", None)
    assert measure._baseline("late-fusion=late.safetensors", "cpu", "mean").name == "late-fusion+mean"
    assert measure._baseline("late-fusion=late.safetensors", "cpu", None).name == "late-fusion"
    with pytest.raises(typer.BadParameter, match="--aggregation applies to our own models"):
        check(None, "dinov2", None, "mean", None)


def test_late_fusion_needs_the_file_of_such_a_model(tiny_model: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"the authors released no such model.*late-fusion=FILE"):
        baselines.load("late-fusion")
    with pytest.raises(BenchmarkError, match='a model with fusion "early", not "late"'):
        baselines.load(f"late-fusion={tiny_model}", device="cpu")


def test_an_empty_prompt_is_refused() -> None:
    method = LateFusion(baselines.CARDS["late-fusion"], Predictor(small_model("dinov2", fusion="late")))
    with pytest.raises(BenchmarkError, match="the prompt is empty"):
        method.see(pictures(1), "  ")


def test_the_first_saved_record_pins_the_commit_of_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pins.json"
    file.write_text("{}")
    card = baselines.CARDS["clip-text"]
    first, later = ("ab" * 20, "cd" * 20)
    assert pin(card.repo, "ef" * 32, file) is None  # the user's own weights
    assert pin(card.repo, f"other/model@{first}", file) is None
    assert pin(None, f"{card.repo}@{first}", file) is None  # of no repository
    assert pin(card.repo, f"{card.repo}@{first}", file) == first
    assert pin(card.repo, f"{card.repo}@{later}", file) is None
    assert read_pins(file) == {card.repo: first}
    monkeypatch.setattr(cards, "_PINS", read_pins(file))
    assert cards._pinned(card).weights == f"{card.repo} at abababab"
    dinov2 = baselines.CARDS["dinov2"]
    assert cards._pinned(dinov2) == dinov2
