"""Corpus, names and a stage of a run, for real, on a world of thumbnails."""

import json
import os
import pickle
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from steersearch.core.errors import DataError, RunError, SteerSearchError
from steersearch.core.preprocess import Preprocess
from steersearch.core.steervit import SteerViT, SteerViTConfig
from steersearch.core.vit import ViT
from steersearch.training import checkpoint
from steersearch.training.alone import kept_thing_keys, thing_keys
from steersearch.training.recipe import StageSettings
from steersearch.training.world.corpus import Corpus, make_corpus
from steersearch.training.world.vocabulary import Vocabulary
from steersearch.training.world.world import WorldConfig
from tests.small_stage import MEAN, STD, TRUNK, Patches, train_trunk

PLAIN = Preprocess(size=32, mean=MEAN, std=STD, crop_pct=1.0, mode="squash")
SMALL = SteerViTConfig(
    trunk="vit", vit=TRUNK, resolution=32, aggregation="focus", cross_attn_layers=(1,), num_heads=2, head_dim=8,
    text_encoder="minilm", text_dim=384, connector_hidden=32, preprocess=PLAIN,
)  # fmt: skip
WORLD = WorldConfig(photos=48, size=32, patch=8, drawn_per_kind=1, plates=1, stamps=False, emoji=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    return make_corpus(WORLD, folder / "corpus")


@pytest.fixture(scope="module")
def trunk(corpus: Corpus, folder: Path) -> ViT:
    config = StageSettings(steps=30, batch=16, warmup=5, save_every=100)
    return train_trunk(corpus, config, folder / "trunk")


def small_model(trunk: ViT) -> SteerViT:
    torch.manual_seed(0)
    return SteerViT(SMALL, trunk)


def test_a_corpus_is_whole_repeatable_and_kept(corpus: Corpus, folder: Path) -> None:
    assert corpus.images.shape == (48, 32, 32, 3)
    assert ((corpus.things >= 0).sum(axis=1) >= 1).all()
    covered = corpus.cover.astype(int).sum(axis=1)
    assert covered.max() <= 255 + 6  # things never cover a patch twice, rounding aside
    assert (covered.reshape(48, -1).max(axis=1) > 0).all()
    kept = make_corpus(WORLD, folder / "corpus")
    assert (kept.images == corpus.images).all()
    assert (make_corpus(WORLD, folder / "afresh").images == corpus.images).all()


class Ran:
    """A pickle of it makes a file."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("ran",)


def test_what_lies_in_a_corpus_folder_is_not_run(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`data.cache` may name anybody's folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "corpus"
    make_corpus(WORLD, folder)
    for name in ("stock.pickle", "stock.safetensors"):
        (folder / name).write_bytes(pickle.dumps(Ran()))
    for settings in (
        vars(WORLD),
        {"format": 2, **vars(WORLD)},
    ):  # as earlier versions wrote it, and as this one
        (folder / "corpus.json").write_text(json.dumps(settings))
        with suppress(DataError):
            make_corpus(WORLD, folder)
    assert not (tmp_path / "ran").exists()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: cut(folder / "images.npy"),
        lambda folder: cut(folder / "stock.safetensors"),
        lambda folder: (folder / "things.npy").unlink(),
        lambda folder: np.save(folder / "things.npy", np.full((48, 6), 999, np.int16)),
        lambda folder: np.save(folder / "cover.npy", np.zeros((48, 6, 4, 4), np.float64)),
        lambda folder: np.save(folder / "families.npy", np.array([{}] * 48, object)),
    ],
)
def test_a_damaged_corpus_is_reported(corpus: Corpus, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = tmp_path / "corpus"
    make_corpus(WORLD, folder)
    damage(folder)
    with pytest.raises(
        DataError, match=r"corpus: a damaged world \(.*\); delete it, it will be composed again"
    ):
        make_corpus(WORLD, folder)


def test_each_thing_bears_its_own_names_and_nothing_bears_none(corpus: Corpus) -> None:
    vocabulary = Vocabulary(corpus.stock)
    for k, thing in enumerate(corpus.stock):
        borne = {name for name, bears in zip(vocabulary.names, vocabulary.bears[k], strict=True) if bears}
        assert borne == thing.names
    assert not vocabulary.bears[-1].any()


def test_an_interrupted_backbone_goes_on_to_the_same_weights(corpus: Corpus, tmp_path: Path) -> None:
    config = StageSettings(steps=8, batch=8, warmup=2, save_every=3)
    whole = train_trunk(corpus, config, tmp_path / "whole")

    def ask(line: str) -> None:
        if "step 3 " in line:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        train_trunk(corpus, config, tmp_path / "cut", say=ask)
    resumed = train_trunk(corpus, config, tmp_path / "cut")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_backbone_that_diverged_leaves_nothing_for_the_next_run(corpus: Corpus, tmp_path: Path) -> None:
    """The next run in its folder begins anew under its own settings, and the error names the setting to lower."""
    good = StageSettings(steps=4, batch=8, warmup=1, save_every=1)
    wild = replace(good, lr=1e30, warmup=0)
    with pytest.raises(SteerSearchError, match=rf"{Patches.name}\.lr") as caught:
        train_trunk(corpus, wild, tmp_path / "run")
    assert "optimiser.lr" not in str(caught.value)
    said: list[str] = []
    found = train_trunk(corpus, good, tmp_path / "run", say=said.append)
    fresh = train_trunk(corpus, good, tmp_path / "fresh")
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, found.state_dict()[name]), name
    assert f"{Patches.name}.lr was 1e+30, is now 0.0012" in said[0]


def test_a_resumed_backbone_is_that_of_its_own_settings_and_world(corpus: Corpus, tmp_path: Path) -> None:
    config = StageSettings(steps=2, batch=8, warmup=1)
    train_trunk(corpus, config, tmp_path)
    other = replace(corpus, config=replace(corpus.config, seed=1))
    for changed, data, name in (
        (replace(config, steps=3), corpus, f"{Patches.name}.steps"), (config, other, "world.seed")
    ):  # fmt: skip
        with pytest.raises(RunError, match=name):
            train_trunk(data, changed, tmp_path, resume=True)
    # How often it is saved may change.
    train_trunk(corpus, replace(config, save_every=1), tmp_path, resume=True)


def test_a_gradient_that_is_no_number_is_not_stepped_on(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is finite then, and what the step would leave is not."""

    def steep(parameters: object, most: float) -> torch.Tensor:
        return torch.tensor(float("inf"))

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", steep)
    config = StageSettings(steps=2, batch=8, save_every=1)
    with pytest.raises(SteerSearchError, match="the gradient is inf at step 0"):
        train_trunk(corpus, config, tmp_path)
    assert checkpoint.latest(tmp_path) is None


def test_alone_keys_tell_things_apart(corpus: Corpus, trunk: ViT) -> None:
    keys = thing_keys(small_model(trunk), corpus.stock, ["focus"], views=2, seed=0)["focus"]
    assert keys.shape == (len(corpus.stock) + 1, 32)
    assert torch.allclose(keys.norm(dim=1), torch.ones(len(keys)), atol=1e-5)
    again = thing_keys(small_model(trunk), corpus.stock, ["focus"], views=2, seed=9)["focus"][:-1]
    nearest = (again @ keys[:-1].T).argmax(dim=1)  # other views of the same things
    assert (nearest == torch.arange(len(again))).float().mean() > 0.3  # by chance 0.03


def test_keys_are_made_once_for_a_backbone(corpus: Corpus, trunk: ViT, tmp_path: Path) -> None:
    said: list[str] = []
    model, other = small_model(trunk), small_model(ViT(TRUNK).eval())

    def keys(of: SteerViT) -> torch.Tensor:
        return kept_thing_keys(of, corpus.stock, ["cls"], 1, 0, tmp_path, said.append)["cls"]

    first = keys(model)
    assert torch.equal(first, thing_keys(model, corpus.stock, ["cls"], views=1, seed=0)["cls"])
    assert torch.equal(keys(model), first)
    assert len(said) == 1
    assert not torch.allclose(keys(other), first)
