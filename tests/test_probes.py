"""Linear probes: the solver against closed forms, labels that cannot leak, and conditions that are what they say."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st

from steersearch.benchmarks.paper import probes
from steersearch.benchmarks.paper.probes import Embedded, fit_probe
from steersearch.core.predictor import Predictor
from steersearch.core.steervit import SteerViT
from steersearch.training.world import composition, scenes
from steersearch.training.world.things import KINDS, draw_stock
from tests.conftest import WordEncoder
from tests.small_models import TINY, small_config, small_model

# ------------------------------------------------------------------------------------------------ solver


def test_without_information_the_probe_says_how_often_a_class_is() -> None:
    # features that are all alike leave the bias, whose optimum is the logarithm of the class frequencies
    labels = np.array([0] * 5 + [1] * 3 + [2] * 2)
    probe = fit_probe(np.ones((10, 4), np.float32), labels, 3, 0.1)
    said = probe.scores(np.ones((1, 4), np.float32)).softmax(dim=1)[0]
    assert said.tolist() == pytest.approx([0.5, 0.3, 0.2], abs=1e-5)


def test_one_binary_feature_without_decay_gives_the_log_odds() -> None:
    # where the feature is off 3 of 4 are of class 0, where it is on 1 of 5: the saturated model says just that
    features = np.array([[0.0]] * 4 + [[1.0]] * 5, np.float32)
    labels = np.array([0, 0, 0, 1, 0, 1, 1, 1, 1])
    scores = fit_probe(features, labels, 2, 0.0).scores(np.array([[0.0], [1.0]], np.float32))
    odds = (scores[:, 1] - scores[:, 0]).tolist()
    assert odds == pytest.approx([np.log(1 / 3), np.log(4)], abs=1e-4)


def test_decay_by_hand() -> None:
    # x = ±1 decides between two equally frequent classes: by symmetry W = (-w, w) and b = 0, with
    # loss log(1 + exp(-2w)) + decay/2 · 2w², so 2 / (1 + exp(2w)) = 2 · decay · w
    features, labels = np.array([[-1.0], [1.0]] * 3, np.float32), np.array([0, 1] * 3)
    probe = fit_probe(features, labels, 2, 0.2)
    w = float(probe.weight[0, 1])
    assert 1 / (1 + np.exp(2 * w)) == pytest.approx(0.2 * w, abs=1e-6)
    assert probe.weight[0, 0] == pytest.approx(-w, abs=1e-6)
    assert probe.bias.abs().max() < 1e-6


@example(seed=893, classes=2, decay=1.0)  # its loss stood still before its gradient had vanished
@given(seed=st.integers(0, 1000), classes=st.integers(2, 5), decay=st.sampled_from([1.0, 0.01]))
def test_the_gradient_vanishes_and_the_start_does_not_matter(seed: int, classes: int, decay: float) -> None:
    rng = np.random.default_rng(seed)
    features = (rng.normal(size=(40, 6)) * rng.uniform(0.1, 50, 6) + 7).astype(np.float32)
    labels = rng.integers(0, classes, 40)
    probe = fit_probe(features, labels, classes, decay)
    inputs = (torch.from_numpy(features).double() - probe.mean) / probe.std
    assert inputs.mean(dim=0).abs().max() < 1e-6
    assert inputs.square().mean(dim=0).sub(1).abs().max() < 1e-6
    residual = (inputs @ probe.weight + probe.bias).softmax(dim=1) - F.one_hot(
        torch.from_numpy(labels), classes
    )
    gradient = inputs.T @ residual / 40 + decay * probe.weight
    assert gradient.abs().max() < 1e-5
    assert residual.mean(dim=0).abs().max() < 1e-5
    elsewhere = fit_probe(features, labels, classes, decay, fit_probe(features, labels, classes, 0.1))
    assert (elsewhere.weight - probe.weight).abs().max() < 1e-3


def test_weight_decay_is_chosen_on_the_last_fifth() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    clean = np.eye(3, dtype=np.float32)[labels]
    noise = rng.normal(size=(300, 60)).astype(np.float32)
    loose = probes.choose_probe(clean, labels, 3)
    assert loose[0].accuracy(clean, labels) == 1
    hidden = np.concatenate([clean + 0.6 * noise[:, :3], noise], axis=1)[:100]  # now the decay matters
    labels = labels[:100]
    held_back = hidden[80:], labels[80:]
    each = {
        decay: fit_probe(hidden[:80], labels[:80], 3, decay).accuracy(*held_back)
        for decay in probes.WEIGHT_DECAYS
    }
    probe, decay = probes.choose_probe(hidden, labels, 3)
    assert min(each.values()) < each[decay] == max(each.values())
    assert decay == max(d for d, accuracy in each.items() if accuracy == each[decay])
    assert (probe.weight - fit_probe(hidden, labels, 3, decay).weight).abs().max() < 1e-4


# ------------------------------------------------------------------------------------------------ photos


@pytest.fixture(scope="module")
def some() -> list[probes.Labelled]:
    patch = pytest.MonkeyPatch()
    patch.setitem(probes.LOOKS_PER_KIND, "test", 1)
    patch.setattr(probes, "THING_SIZE", 32)
    found = list(probes.photos("test", 36, size=(64, 48)))
    patch.undo()
    return found


def test_labels_are_balanced_and_independent(some: list[probes.Labelled]) -> None:
    assert {p.kind for p in some} == set(range(len(KINDS)))
    assert [sum(p.family == f for p in some) for f in range(6)] == [6] * 6
    assert all(p.image.size == (64, 48) and p.image.mode == "RGB" for p in some)
    assert len({p.image.tobytes() for p in some}) == 36


def test_a_photo_shows_one_large_thing_of_its_kind() -> None:
    names = list(KINDS)[:5]
    stock = draw_stock(np.random.default_rng(0), 1, 64, names)
    composed = []
    compose = composition.compose
    patch = pytest.MonkeyPatch()
    patch.setattr(composition, "compose", lambda *a: composed.append(compose(*a)) or composed[-1])
    for number, kind in enumerate((0, 2, 4)):
        plate = scenes.draw_scene(scenes.FAMILIES[number], np.random.default_rng(number), (96, 72))
        image = probes._photo(plate, kind, stock, np.random.default_rng(number))
        shares = {p.thing.noun: p.mask.mean() for p in composed[-1].placed}
        assert image is composed[-1].image
        large = shares.pop(names[kind])
        assert large > 0.02
        assert large >= 2 * max(shares.values(), default=0)
    patch.undo()


# -------------------------------------------------------------------------------------------- embeddings


def test_conditions_are_the_trunk_and_the_prompt_at_each_gate_scale(
    some: list[probes.Labelled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steersearch.core.predictor.CachedTextEncoder", lambda *_: WordEncoder())
    model = Predictor(small_model(text_dim=WordEncoder.dim))
    found = probes.embed(model, some, ["the thing"], [0.6, 1.0])
    assert {condition for condition, _ in found.embeddings} == {"0", "0.6/the thing", "1/the thing"}
    images = [p.image for p in some]
    for (condition, kind), vectors in found.embeddings.items():
        scale = float(condition.split("/")[0])
        expected = model.features(images, "the thing" if scale else None, gate_scale=scale).aggregate(kind)
        assert vectors.shape == (36, model.dim)
        assert np.abs(vectors - expected.numpy()).max() < 1e-4
    assert found.labels["object"].tolist() == [p.kind for p in some]
    assert found.labels["scene"].tolist() == [p.family for p in some]


def test_a_trunk_without_cls_is_probed_without_it(some: list[probes.Labelled]) -> None:
    model = Predictor(SteerViT(small_config(tiny=replace(TINY, class_token=False))))
    found = probes.embed(model, some[:3], [], [])
    assert {kind for _, kind in found.embeddings} == {"mean", "focus"}


def test_figures_of_a_perfect_and_a_blind_embedding() -> None:
    labels = {"scene": np.arange(340) % 6, "object": np.random.default_rng(0).permutation(340) % 34}
    perfect = np.concatenate([np.eye(6)[labels["scene"]], np.eye(34)[labels["object"]]], axis=1)
    shown: dict[tuple[str, probes.Aggregation], probes.Floats] = {
        ("0", "cls"): perfect.astype(np.float32),
        ("1/the thing", "cls"): np.ones((340, 5), np.float32),
    }
    result = probes.evaluate(Embedded(shown, labels), Embedded(shown, labels))
    assert result["scene/cls/0"] == result["object/cls/0"] == 1.0
    assert result["scene/chance"] == pytest.approx(57 / 340)  # 340 = 6 · 56 + 4
    assert result["object/chance"] == pytest.approx(1 / 34)
    assert result["scene/cls/1/the thing"] <= result["scene/chance"]  # type: ignore[operator]


def test_too_few_photos_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["probes", "--test", "33"])
    with pytest.raises(SystemExit) as stopped:
        probes.main()
    assert stopped.value.code == 2
    assert "--test 33: at least 34" in capsys.readouterr().err
