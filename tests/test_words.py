"""words: photos of things under nouns and under words that training never used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steersearch.benchmarks.harness.pointing import patch_cover
from steersearch.benchmarks.harness.steervit_method import SteerViTMethod
from steersearch.benchmarks.ours import words
from steersearch.benchmarks.paper import core_world
from steersearch.core.errors import BenchmarkError
from steersearch.core.predictor import Predictor
from steersearch.core.preprocess import View
from steersearch.core.steervit import SteerViT
from steersearch.training.world.kinds import KINDS
from steersearch.training.world.stamps import STAMPS_FOLDER
from tests.test_core import Directions
from tests.test_training import SMALL

needs_stamps = pytest.mark.skipif(not STAMPS_FOLDER.is_dir(), reason="the stamps' package is not installed")


@pytest.mark.usefixtures("word_encoder")
def test_drawn_things_by_two_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "UNSEEN_WORDS", {"cup": "mug", "kitten": "cat"})
    few = ("mug", "cat", "armchair", "cushion", "kite", "clock", "bird")
    monkeypatch.setattr(words, "KINDS", {kind: KINDS[kind] for kind in few})
    benchmark = words.Words()
    data = benchmark.world(1)
    assert [(each.word, each.noun, len(each.photos)) for each in data.asked] == [
        ("cup", "mug", 1),
        ("kitten", "cat", 1),
    ]
    assert (data.n, data.name, data.source) == (2, "words-world/drawn", "generated stand-in")
    assert all(0.008 < mask.mean() < 0.5 for each in data.asked for mask in each.masks)
    assert benchmark.world(1).data_hash == data.data_hash != benchmark.world(2).data_hash
    outcome = benchmark.evaluate(SteerViTMethod(Predictor(SteerViT(SMALL))), data)
    metrics = outcome.metrics
    assert set(metrics) == {"trained", "unseen", "trained_pmass", "unseen_pmass"}
    assert metrics["trained"] == metrics["unseen"]  # closed gates
    assert 0 < metrics["unseen_pmass"] == metrics["trained_pmass"] < 100
    assert [row["word"] for row in outcome.rows] == ["cup", "kitten"]
    with pytest.raises(BenchmarkError, match="directions: only SteerViT's heatmaps"):
        benchmark.evaluate(Directions(), data)
    with pytest.raises(BenchmarkError, match="bench words --world"):
        benchmark.load(Path("somewhere"), None)


@needs_stamps
@pytest.mark.usefixtures("word_encoder")
@pytest.mark.parametrize("source", ["held-out-objects", "held-out-pictures"])
def test_held_out_sources(source: core_world.Source, monkeypatch: pytest.MonkeyPatch) -> None:
    word, noun = next(iter(words.UNSEEN_HELD_OUT_WORDS[source].items()))
    monkeypatch.setitem(words.UNSEEN_HELD_OUT_WORDS, source, {word: noun})
    benchmark = words.Words(source)
    metrics = benchmark.evaluate(SteerViTMethod(Predictor(SteerViT(SMALL))), benchmark.world(1)).metrics
    known = "held_out" if source == "held-out-objects" else "trained"
    assert set(metrics) == {known, "unseen", f"{known}_pmass", "unseen_pmass"}


@needs_stamps
def test_unseen_words_are_what_they_are_said_to_be() -> None:
    said = {name for thing in core_world._trained() for name in thing.names}
    said |= {kind.category for kind in KINDS.values()} | set(KINDS)
    for source, others in words.UNSEEN_HELD_OUT_WORDS.items():
        assert set(others.values()) <= set(core_world.held_out_pictures(source))
        assert not set(others) & said


@pytest.mark.parametrize("view", ["crop", "squash", "tile"])
def test_a_mask_is_seen_as_its_picture_is(view: View) -> None:
    """A picture that is its own mask: where its patches are bright, they are covered."""
    model = Predictor(SteerViT(SMALL)).with_view(view)
    mask = np.zeros((90, 150), np.bool_)
    mask[10:40, 60:130] = True
    seen = model.preprocess(Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB"))[0]
    rows, columns = model.grid
    bright = seen.reshape(rows, -1, columns, seen.shape[1] // columns).mean(axis=(1, 3)).flatten()
    cover = patch_cover(mask, model)
    assert cover.shape == (rows * columns,)
    assert np.corrcoef(bright, cover)[0, 1] > 0.99
    whole = float(mask.mean())
    assert float(cover.mean()) == pytest.approx(whole if view != "crop" else 70 / 90 * 30 / 90, rel=0.2)
