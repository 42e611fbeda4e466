"""A run with a hybrid backbone, whole and short: pictures of 64 pixels, a network of random weights, made-up words."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from steersearch.core.checkpoints import load_file
from steersearch.core.efficientnet_lite import DEEP, Classifier, EfficientNetLite2
from steersearch.core.errors import ConfigError
from steersearch.core.predictor import Predictor
from steersearch.training import preparation as training_preparation
from steersearch.training import run
from steersearch.training.hybrid import preparation
from steersearch.training.journal import read_journal
from steersearch.training.photographs.folder import FETCHED, MANIFEST
from steersearch.training.photographs.wordnet import _REFILED
from steersearch.training.recipe import MINI, Recipe
from steersearch.training.run import train_recipe
from steersearch.training.settings import apply_settings
from tests.photograph_folder import make_photograph_folder

pytest.importorskip("accelerate")

SHORT = (
    "world.photos=24", "world.size=64", "world.drawn_per_kind=1", "world.plates=1", "world.stamps=false",
    "world.emoji=false", "data.validation_rows=8", "model.resolution=64", "distillation.steps=3",
    "distillation.batch=4", "alignment.steps=3", "alignment.batch=4", "alignment.patches=6", "optimiser.steps=3",
    "optimiser.batch=4", "optimiser.warmup=1", "optimiser.decay_steps=3", "run.validate_every=3", "run.save_every=1",
    "run.log_every=1", "objective.views=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a WordNet in which every class has one word of its own and a wider one that it shares with nine others."""
    folder = make_photograph_folder(tmp_path_factory.mktemp("photographs"))
    wordnet = folder / FETCHED / "wordnet-base/usr/share/wordnet"
    wordnet.mkdir(parents=True)
    timm = find_spec("timm")
    assert timm is not None
    assert timm.origin is not None
    classes = (Path(timm.origin).parent / "data/_info/imagenet_synsets.txt").read_text().split()
    lines = [f"{9 * 10**7 + i:08d} 03 n 01 group{i} 0 000 | a gloss" for i in range(100)]
    lines += [
        f"{name[1:]} 03 n 01 kind{i} 0 001 @ {9 * 10**7 + i // 10:08d} n 0000 | a gloss"
        for i, name in enumerate(classes)
    ]
    # those that WordNet files elsewhere today
    lines += [f"{offset} 03 n 01 moved{i} 0 000 | a gloss" for i, offset in enumerate(_REFILED.values())]
    (wordnet / "data.noun").write_text("".join(f"{line}\n" for line in lines))
    (wordnet / "index.noun").write_text("")
    return folder


@pytest.fixture(autouse=True, scope="module")
def network() -> Iterator[None]:
    """In the place of the published weights, which are 25 MB of another package."""
    torch.manual_seed(0)
    found = (
        EfficientNetLite2().eval().requires_grad_(False),
        Classifier(torch.randn(1000, DEEP) * 0.1, torch.zeros(1000)),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "load_network", lambda packages, say: found)
        yield


def recipe(photographs: Path, *settings: str) -> Recipe:
    """With what is made once in a cache that the tests share."""
    shared = (f"world.photographs={photographs}", f"data.cache={photographs / 'cache'}")
    return apply_settings(MINI, [*SHORT, "model.test_resolution=96", *shared, *settings])


def weights(file: Path) -> dict[str, Tensor]:
    return load_file(file, device="cpu").state_dict()


@dataclass(frozen=True)
class Trained:
    """An uninterrupted run: its folder, its model's file, and what it said."""

    folder: Path
    file: Path
    said: list[str]


@pytest.fixture(scope="module")
def trained(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder, said = tmp_path_factory.mktemp("trained") / "run", []
    file = train_recipe(recipe(photographs), folder, resume=False, device="cpu", say=said.append)
    return Trained(folder, file, said)


@pytest.mark.slow
def test_a_model_on_photographs_from_nothing(trained: Trained) -> None:
    model = Predictor.from_pretrained(trained.file)
    assert model.model.config.vit is not None
    assert model.model.config.vit.cnn == "efficientnet-lite2"
    assert model.grid == (6, 6)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8))
    assert not np.allclose(model.embed([photo], "the mug"), model.embed([photo], None), atol=1e-3)
    values = [line["values"] for line in read_journal(trained.folder) if line["kind"] == "train"]
    assert {"segmentation", "alone_cls", "alone_focus", "alignment"} <= set(values[-1])
    assert (trained.folder / "report.html").is_file()
    for stage in ("distillation: step 3 of 3", "alignment: step 3 of 3"):
        assert any(line.startswith(stage) for line in trained.said)


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(
    photographs: Path, trained: Trained, tmp_path: Path
) -> None:
    """Stopped in each of its stages."""
    settings = recipe(photographs)
    stops = iter(["backbone: training", "distillation: step 3", "words: ", "alignment: step 3", "step 2"])
    stop = next(stops)

    def ask(line: str) -> None:
        nonlocal stop
        if line.startswith(stop):
            stop = next(stops, "never")
            raise KeyboardInterrupt

    for _ in range(5):
        try:
            train_recipe(settings, tmp_path / "cut", resume=True, device="cpu", say=ask)
        except KeyboardInterrupt:
            continue
    cut = train_recipe(settings, tmp_path / "cut", resume=True, device="cpu", say=ask)
    for name, value in weights(trained.file).items():
        assert torch.equal(value, weights(cut)[name]), name


@pytest.mark.slow
def test_a_run_makes_the_photographs_itself(
    photographs: Path, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while it does, and moved afterwards: the recipe names no folder, so it goes on all the same."""
    monkeypatch.setattr(run, "missing_for_folder", lambda folder: [])

    def make_folder(folder: Path, say: object, progress: Callable[[int, int], None]) -> int:
        """As from the packages, which are not fetched here."""
        made = (folder / "photographs").is_dir()
        for name in ("photographs", "masks", FETCHED):
            shutil.copytree(photographs / name, folder / name, dirs_exist_ok=True)
        if not made:
            raise KeyboardInterrupt
        progress(4, 4)
        shutil.copy(photographs / MANIFEST, folder / MANIFEST)
        return 4

    monkeypatch.setattr(training_preparation, "make_folder", make_folder)
    unnamed = recipe(photographs, "world.photographs=", "data.cache=")
    stop = KeyboardInterrupt
    with pytest.raises(stop):
        train_recipe(unnamed, tmp_path / "run", resume=False, device="cpu", say=lambda line: None)
    assert not (tmp_path / "run/data/photographs" / MANIFEST).exists()

    def stop_at_words(line: str) -> None:
        if line.startswith("alignment: step 3"):
            raise stop

    with pytest.raises(stop):
        train_recipe(unnamed, tmp_path / "run", resume=True, device="cpu", say=stop_at_words)
    (tmp_path / "run").rename(tmp_path / "moved")
    made = train_recipe(unnamed, tmp_path / "moved", resume=True, device="cpu", say=lambda line: None)
    for name, value in weights(trained.file).items():
        assert torch.equal(value, weights(made)[name]), name


@pytest.mark.slow
def test_a_steering_without_a_teacher_has_no_words_before_it_nor_beside_it(
    photographs: Path, tmp_path: Path
) -> None:
    untaught = recipe(photographs, "alignment.steps=0", "objective.alignment=0", "data.without=composites")
    train_recipe(untaught, tmp_path / "run", resume=False, device="cpu", say=lambda line: None)
    assert not (tmp_path / "run/words").exists()
    (*_, last) = (line["values"] for line in read_journal(tmp_path / "run") if line["kind"] == "train")
    assert "segmentation" in last
    assert "alignment" not in last


def test_a_hybrid_backbone_needs_the_world(photographs: Path, tmp_path: Path) -> None:
    pictures = recipe(photographs, "data.cache_pictures=false")
    with pytest.raises(ConfigError, match=r"model\.trunk"):
        train_recipe(pictures, tmp_path / "run", resume=False, device="cpu", say=lambda line: None)
