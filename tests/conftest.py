"""What several tests share: user folders, a tiny steered model, a few pictures, the command line."""

from __future__ import annotations

import hashlib
import itertools
import logging
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from steersearch.core.prompts import Reading
from steersearch.views.terminal import _PlainLine
from tests.toy_embedder import Clock

COLOURS = {
    "red": (200, 40, 30),
    "green": (40, 160, 60),
    "blue": (40, 70, 200),
    "yellow": (230, 200, 50),
    "white": (240, 240, 240),
    "black": (15, 15, 15),
}

settings.register_profile(
    "quick", deadline=None, derandomize=True, max_examples=25, suppress_health_check=list(HealthCheck)
)
settings.register_profile("thorough", settings.get_profile("quick"), derandomize=False, max_examples=50)
settings.load_profile("quick")

# A shell starts what it puts in the background with SIGINT ignored, and processes of the tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


_homes = itertools.count()


@pytest.fixture(autouse=True)
def own_user_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the libraries and the kept prompts of whoever runs it."""
    home = tmp_path_factory.getbasetemp() / "homes" / str(next(_homes))
    home.mkdir(parents=True)
    for variable in ("XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(home / variable.lower()))
    for variable in ("STEERSEARCH_LIBRARY", "STEERSEARCH_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    return home


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """What a command does to the log and to warnings, in this process, ends with its test or its fixture."""
    _reset_log()
    with warnings.catch_warnings():
        yield
    _reset_log()


def _reset_log() -> None:
    logger, root = logging.getLogger("steersearch"), logging.getLogger()
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _PlainLine)]
    root.setLevel(logging.WARNING)


@pytest.fixture(autouse=True)
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing depends on how busy the machine is; the tests of these times take it back.

    A file that a test wrote just now counts as written long ago, and a query that names no budget has time enough.
    """
    from steersearch.indexer import loader, search

    monkeypatch.setattr(loader, "RACY_NS", -(10**12))
    monkeypatch.setattr(search, "BUDGET_S", 3600.0)


def wait_until(is_so: Callable[[], object]) -> None:
    """Waits as long as a busy machine may need; what never comes fails the test, and does not hang the suite."""
    for _ in range(60_000):
        if is_so():
            return
        time.sleep(0.01)
    pytest.fail("it did not come about in ten minutes")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six pictures named after their colour, each with a noisy patch of its own."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, name in enumerate(COLOURS):
        draw_picture(folder / f"{name}.jpg", name, seed=i)
    return folder


def draw_picture(path: Path, colour: str, seed: int = 0, size: tuple[int, int] = (96, 64)) -> None:
    """A picture in one of COLOURS with noise in its middle."""
    pixels = np.full((size[1], size[0], 3), COLOURS[colour], np.uint8)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1] // 2, size[0] // 2, 3))
    pixels[size[1] // 4 :][: len(noise), size[0] // 4 :][:, : noise.shape[1]] = noise
    Image.fromarray(pixels).save(path)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which photos are steered."""
    clock = Clock()
    monkeypatch.setattr("steersearch.indexer.anytime.monotonic", clock)
    monkeypatch.setattr("steersearch.indexer.work.monotonic", clock)
    return clock


class WordEncoder:
    """Stands in for MiniLM, which takes seconds to load: each word is a fixed random vector, kept nowhere.

    It says that it cannot read words in capitals.
    """

    name, dim = "minilm", 384

    def to(self, device: object) -> WordEncoder:
        return self

    def encode(self, prompts: Sequence[str]) -> object:
        from dataclasses import replace

        from steersearch.core.text import PromptFeatures

        found = PromptFeatures.from_numpy([np.stack([_word(w) for w in p.split()]) for p in prompts])
        return replace(found, readings=tuple(map(self.read, prompts)))

    def read(self, prompt: str) -> Reading:
        return Reading(tuple(word for word in prompt.split() if word.isupper()))


def _word(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).normal(size=WordEncoder.dim).astype(np.float32)


@pytest.fixture
def word_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steersearch.core.predictor.CachedTextEncoder", lambda *_: WordEncoder())


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model with open gates, so that prompts matter; it takes MiniLM's features."""
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", seed=0)


def write_tiny_model(path: Path, seed: int) -> Path:
    import torch

    from steersearch.core.checkpoints import write_safetensors
    from steersearch.core.preprocess import Preprocess
    from steersearch.core.steervit import SteerViT, SteerViTConfig
    from steersearch.core.vit import ViTConfig

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        trunk = ViTConfig(image_size=64, stem_channels=(8, 16, 24), dim=32, depth=3, num_heads=1)
        model = SteerViT(
            SteerViTConfig(
                trunk="vit",
                vit=trunk,
                resolution=64,
                aggregation="focus",
                text_encoder="minilm",
                text_dim=384,
                connector_hidden=32,
                preprocess=Preprocess(size=64, mean=(0.5,) * 3, std=(0.25,) * 3, mode="squash"),
            )
        )
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("attn_gate"):
                    parameter.fill_(1.0)
            torch.nn.init.normal_(model.head.weight)
    write_safetensors(model, path)
    return path


@dataclass(frozen=True)
class Ran:
    """One command: its exit code and what it wrote."""

    code: int
    out: str
    err: str
    out_bytes: bytes


Run = Callable[..., Ran]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
    tmp_path: Path,
    word_encoder: None,
) -> Run:
    """Run `steersearch` with these arguments in this process, in the folder `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: object) -> Ran:
        from steersearch.cli import main

        capfdbinary.readouterr()
        monkeypatch.setattr(sys, "argv", ["steersearch", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capfdbinary.readouterr()
        code = stopped.value.code
        return Ran(code if isinstance(code, int) else 0, out.decode("utf-8", "replace"), err.decode(), out)

    return command
