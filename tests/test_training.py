"""Corpus, prompts and both training loops, for real, on a world of thumbnails."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from steersearch.core.preprocess import Preprocess
from steersearch.core.steervit import SteerViT, SteerViTConfig
from steersearch.core.vit import ViT, ViTConfig
from steersearch.training import pretrain as pretraining
from steersearch.training import train as steering
from steersearch.training.corpus import Corpus, CorpusConfig, make_corpus
from steersearch.training.prompts import EncodedPrompts, Vocabulary, encode_vocabulary
from steersearch.training.things import TEMPLATES

TRUNK = ViTConfig(image_size=32, patch_size=8, stem_channels=(8, 8), dim=32, depth=2, num_heads=2)
PLAIN = Preprocess(size=32, mean=pretraining.MEAN, std=pretraining.STD, crop_pct=1.0, mode="squash")
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
def encoded(corpus: Corpus, folder: Path) -> EncodedPrompts:
    return encode_vocabulary(Vocabulary(corpus.stock).names, "minilm", folder)


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


def test_a_thing_is_called_by_its_own_names_only(corpus: Corpus) -> None:
    vocabulary = Vocabulary(corpus.stock)
    rng = np.random.default_rng(0)
    for thing in range(0, len(corpus.stock), 5):
        called = {vocabulary.names[vocabulary.call(thing, rng)] for _ in range(60)}
        assert called <= corpus.stock[thing].names
        assert {corpus.stock[thing].noun, corpus.stock[thing].phrase} <= called


def test_encoded_prompts_equal_the_text_encoder(corpus: Corpus, encoded: EncodedPrompts, trunk: ViT) -> None:
    names = Vocabulary(corpus.stock).names
    found = encoded.features([3, 7], [1, 4])
    for i, (name, template) in enumerate([(3, 1), (7, 4)]):
        expected = small_model(trunk).encode_prompts([TEMPLATES[template].format(names[name])])
        assert torch.allclose(found.tokens[i][found.mask[i]], expected.tokens[0], atol=2e-3)


def test_prompts_and_masks_agree(corpus: Corpus, encoded: EncodedPrompts) -> None:
    vocabulary = Vocabulary(corpus.stock)
    config = steering.TrainConfig(steps=4, batch=16, absent=0.5)
    for batch in steering.steering_batches(corpus, vocabulary, encoded, config):
        stock = len(corpus.stock)
        for cover, name, thing in zip(batch.cover, batch.names, batch.things, strict=True):
            if thing == stock:
                assert cover.sum() == 0
            elif thing >= 0:
                assert cover.sum() > 0
                assert vocabulary.bears[thing, name]


def test_alone_keys_tell_things_apart(corpus: Corpus, trunk: ViT) -> None:
    keys = steering.alone_keys(small_model(trunk), corpus.stock, ["focus"], views=2, seed=0)["focus"]
    assert keys.shape == (len(corpus.stock) + 1, 32)
    assert torch.allclose(keys.norm(dim=1), torch.ones(len(keys)), atol=1e-5)
    again = steering.alone_keys(small_model(trunk), corpus.stock, ["focus"], views=2, seed=9)["focus"][:-1]
    nearest = (again @ keys[:-1].T).argmax(dim=1)  # other views of the same things
    assert (nearest == torch.arange(len(again))).float().mean() > 0.3  # by chance 0.03


@pytest.mark.parametrize(
    ("alone", "distillation"),
    [((), "contrastive"), ((("cls", 1.0), ("focus", 0.5)), "contrastive"), ((("cls", 1.0),), "cosine")],
)
def test_training_lowers_the_loss_and_leaves_the_trunk_alone(
    alone: tuple[tuple[str, float], ...],
    distillation: str,
    corpus: Corpus,
    encoded: EncodedPrompts,
    trunk: ViT,
    tmp_path: Path,
) -> None:
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    model = small_model(trunk)
    config = steering.TrainConfig(
        steps=60, batch=16, lr=4e-3, warmup=5, alone=alone, alone_views=1, distillation=distillation
    )  # type: ignore[arg-type]
    batch = next(steering.steering_batches(corpus, Vocabulary(corpus.stock), encoded, config))
    present = batch.cover.sum(dim=1) > 0

    def loss() -> float:
        with torch.no_grad():
            logits = model(batch.pixels, batch.prompts).logits[present]
        return float(steering.segmentation_loss(logits, steering.patch_target(batch.cover)[present]))

    first = loss()
    steering.train(model, corpus, encoded, config, tmp_path, compiled=False)
    assert loss() < first - 0.1
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


def test_an_interrupted_run_goes_on_to_the_same_weights(
    corpus: Corpus, encoded: EncodedPrompts, trunk: ViT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = steering.TrainConfig(steps=12, batch=8, warmup=2, alone=(), save_every=4)
    whole = steering.train(small_model(trunk), corpus, encoded, config, tmp_path / "whole", compiled=False)

    def killed(*arguments: object) -> object:  # after 6 steps, two past the last saved state
        return itertools.islice(all_batches(*arguments), 6)  # type: ignore[arg-type]

    all_batches = steering.steering_batches
    monkeypatch.setattr(steering, "steering_batches", killed)
    steering.train(small_model(trunk), corpus, encoded, config, tmp_path / "cut", compiled=False)
    monkeypatch.setattr(steering, "steering_batches", all_batches)
    resumed = steering.train(small_model(trunk), corpus, encoded, config, tmp_path / "cut", compiled=False)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_loss_that_is_not_finite_stops_before_the_step(
    corpus: Corpus, encoded: EncodedPrompts, trunk: ViT, tmp_path: Path
) -> None:
    model = small_model(trunk)
    with torch.no_grad():
        model.head.bias.fill_(float("nan"))
    gate = next(p for name, p in model.trainable_parameters() if name.endswith("gate")).clone()
    with pytest.raises(FloatingPointError, match="step 0"):
        steering.train(
            model, corpus, encoded, steering.TrainConfig(steps=2, batch=8, alone=()), tmp_path, compiled=False
        )
    assert torch.equal(gate, next(p for name, p in model.trainable_parameters() if name.endswith("gate")))
