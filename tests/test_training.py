"""Corpus, names and the trunk's training, for real, on a world of thumbnails."""

import os
import signal
from pathlib import Path

import pytest
import torch

from steersearch.core.preprocess import Preprocess
from steersearch.core.steervit import SteerViT, SteerViTConfig
from steersearch.core.vit import ViT, ViTConfig
from steersearch.training import pretrain as pretraining
from steersearch.training.alone import kept_thing_keys, thing_keys
from steersearch.training.corpus import Corpus, CorpusConfig, make_corpus
from steersearch.training.pictures import MEAN, STD
from steersearch.training.prompts import Vocabulary

TRUNK = ViTConfig(image_size=32, patch_size=8, stem_channels=(8, 8), dim=32, depth=2, num_heads=2)
PLAIN = Preprocess(size=32, mean=MEAN, std=STD, crop_pct=1.0, mode="squash")
SMALL = SteerViTConfig(
    trunk="tiny", tiny=TRUNK, resolution=32, aggregation="focus", cross_attn_layers=(1,), num_heads=2, head_dim=8,
    text_encoder="minilm", text_dim=384, connector_hidden=32, preprocess=PLAIN,
)  # fmt: skip
WORLD = CorpusConfig(photos=48, size=32, patch=8, drawn_per_kind=1, plates=1, stamps=False, emoji=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    return make_corpus(WORLD, folder / "corpus")


@pytest.fixture(scope="module")
def trunk(corpus: Corpus, folder: Path) -> ViT:
    config = pretraining.PretrainConfig(steps=30, batch=16, warmup=5, save_every=100)
    return pretraining.pretrain(corpus, TRUNK, config, folder / "trunk", compiled=False)


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


def test_each_thing_bears_its_own_names_and_nothing_bears_none(corpus: Corpus) -> None:
    vocabulary = Vocabulary(corpus.stock)
    for k, thing in enumerate(corpus.stock):
        borne = {name for name, bears in zip(vocabulary.names, vocabulary.bears[k], strict=True) if bears}
        assert borne == thing.names
    assert not vocabulary.bears[-1].any()


def test_an_interrupted_trunk_goes_on_to_the_same_weights(corpus: Corpus, tmp_path: Path) -> None:
    config = pretraining.PretrainConfig(steps=8, batch=8, warmup=2, save_every=3)
    whole = pretraining.pretrain(corpus, TRUNK, config, tmp_path / "whole", compiled=False)

    def ask(line: str) -> None:
        if "step 3 " in line:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        pretraining.pretrain(corpus, TRUNK, config, tmp_path / "cut", compiled=False, say=ask)
    resumed = pretraining.pretrain(corpus, TRUNK, config, tmp_path / "cut", compiled=False)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_alone_keys_tell_things_apart(corpus: Corpus, trunk: ViT) -> None:
    keys = thing_keys(small_model(trunk), corpus.stock, ["focus"], views=2, seed=0)["focus"]
    assert keys.shape == (len(corpus.stock) + 1, 32)
    assert torch.allclose(keys.norm(dim=1), torch.ones(len(keys)), atol=1e-5)
    again = thing_keys(small_model(trunk), corpus.stock, ["focus"], views=2, seed=9)["focus"][:-1]
    nearest = (again @ keys[:-1].T).argmax(dim=1)  # other views of the same things
    assert (nearest == torch.arange(len(again))).float().mean() > 0.3  # by chance 0.03


def test_keys_are_made_once_for_a_trunk(corpus: Corpus, trunk: ViT, tmp_path: Path) -> None:
    said: list[str] = []
    model, other = small_model(trunk), small_model(ViT(TRUNK).eval())

    def keys(of: SteerViT) -> torch.Tensor:
        return kept_thing_keys(of, corpus.stock, ["cls"], 1, 0, tmp_path, said.append)["cls"]

    first = keys(model)
    assert torch.equal(first, thing_keys(model, corpus.stock, ["cls"], views=1, seed=0)["cls"])
    assert torch.equal(keys(model), first)
    assert len(said) == 1
    assert not torch.allclose(keys(other), first)
