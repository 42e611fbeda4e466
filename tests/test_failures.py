"""What goes wrong while training, in words: a full disk, damaged caches and run folders, worker processes."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from steersearch.core.errors import DataError, RunError, SteerSearchError
from steersearch.training import checkpoint, settings, text_store
from steersearch.training.alone import kept_thing_keys
from steersearch.training.failures import translated
from steersearch.training.journal import Journal, read_journal
from steersearch.training.recipe import MINI, StageSettings
from steersearch.training.text_store import TextStore
from steersearch.training.world.corpus import make_corpus
from steersearch.training.world.expressions import draw_expressions
from tests.conftest import WordEncoder
from tests.small_recipe import small_recipe_file
from tests.small_stage import train_trunk
from tests.test_training import SMALL, WORLD, small_model

SEED = 0
DAMAGES = 40
SAID: list[str] = []  # beside what is said of the world

# ------------------------------------------------------------------------------------- what the machine refuses


class Wild(torch.utils.data.Dataset[int]):
    """Of which a row cannot be read in a worker."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise self.error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/a/index.npy"),
            "runs/a/index.npy: No space left",
        ),
        (OSError("5000 requested and 1200 written"), "run: 5000 requested and 1200 written"),
        (MemoryError(), "run: the memory of this machine does not suffice; set a smaller optimiser.batch"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "run: the memory of this GPU does not suffice"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "memory of this machine"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "memory of this machine"),
        (RuntimeError("can't start new thread"), "a worker process or thread was killed or could not start"),
        (NotImplementedError("FileSystem does not appear to support flock"), "support flock"),
    ],
)
def test_what_the_machine_refuses_is_reported(error: Exception, words: str) -> None:
    with pytest.raises(RunError, match=words), translated(Path("run")):
        raise error


@pytest.mark.parametrize("error", [ValueError("a bug"), RuntimeError("mat1 and mat2"), KeyError("x")])
def test_a_fault_of_ours_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)), translated(Path("run")):
        raise error
    with pytest.raises(type(error), match="Caught"), translated(Path("run")):
        list(DataLoader(Wild(error), num_workers=1))


def test_an_error_in_a_worker_process_is_reported_like_any_other(tmp_path: Path) -> None:
    (tmp_path / checkpoint.FOLDER).mkdir()
    with pytest.raises(RunError) as caught, translated(tmp_path):
        list(DataLoader(Wild(DataError("texts", '"a mug" is not there')), num_workers=1))
    kept = "checkpoints are kept; --resume continues from the last"
    assert str(caught.value) == f'{tmp_path}: texts: "a mug" is not there; {kept}'


@pytest.mark.slow
def test_a_full_disk_ends_a_run_in_words(tmp_path: Path) -> None:
    """Files of this process can grow no further, which is reported as a full disk is."""
    preset = str(small_recipe_file(tmp_path))
    command = [sys.executable, "-m", "steersearch", "train", "--preset", preset, "--device", "cpu"]
    limit = 300 * 1024  # less than the world takes
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert str(tmp_path / "run") in last
    assert any(words in last for words in ("File too large", "requested and"))


# --------------------------------------------------------------------------------------------- damaged folders


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run in small: all files that a run reads again."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "recipe.json").write_text(settings.to_json(MINI))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_store, "load_text_encoder", lambda name: WordEncoder())
        open_all(folder)
    return folder


def open_all(folder: Path) -> None:
    """Make what is not there yet, and read all of it."""
    settings.from_json(folder / "recipe.json")
    corpus = make_corpus(WORLD, folder / "data/world")
    said = draw_expressions(corpus, 0, 0.1, folder / "data")
    store = TextStore.open(folder / "data/text", "minilm")
    store.require_width(384)
    store.add([*said.texts, *SAID])
    store.features(said.texts[:4])
    trunk = train_trunk(corpus, StageSettings(steps=1, batch=4), folder / "trunk", resume=True)
    model = small_model(trunk)
    kept_thing_keys(model, corpus.stock, ["cls"], 1, 0, folder / "data", lambda line: None)
    found = checkpoint.latest(folder)
    if found is None:
        checkpoint.save(folder, 1, {"a": torch.ones(3)}, {"recipe": {}})
    else:
        checkpoint.load(found)
    step = 0 if found is None else 1
    with Journal(folder, step=step) as journal:
        journal.log(1, "train", {"loss": 1.0})
    read_journal(folder)


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def halved(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def nested(file: Path) -> None:
    file.write_bytes(b"[" * 100_000)


def piped(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def foldered(file: Path) -> None:
    file.unlink()
    file.mkdir()


def scrambled(file: Path) -> None:
    content = bytearray(file.read_bytes())
    for place in random.Random(len(content)).choices(range(len(content)), k=1 + len(content) // 50):
        content[place] ^= 0x55
    file.write_bytes(content)


def headless(file: Path) -> None:
    file.write_bytes(b"\xff" * 16 + file.read_bytes()[16:])


DAMAGE: list[Callable[[Path], None]] = [
    emptied,
    halved,
    nested,
    piped,
    foldered,
    scrambled,
    headless,
    Path.unlink,
]


def read_again(folder: Path) -> Iterator[Path]:
    """The files of a run that are read when it goes on."""
    yield from sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("lock"))


def test_every_damage_of_a_run_folder_is_reported_in_words(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of damage on files at random: either it is mended, or an error of ours names the place."""
    monkeypatch.setattr(text_store, "load_text_encoder", lambda name: WordEncoder())
    draw = random.Random(SEED)
    names = [path.relative_to(whole) for path in read_again(whole)]
    told = 0
    for number in range(DAMAGES):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder, copy_function=os.link)
        name, damage = draw.choice(names), draw.choice(DAMAGE)
        (folder / name).unlink()
        shutil.copyfile(whole / name, folder / name)
        damage(folder / name)
        error = outcome(folder)
        assert isinstance(error, SteerSearchError | None), (damage, name, error)
        assert error is None or str(folder) in str(error), (damage, name)
        told += error is not None
    assert told > DAMAGES / 2


def outcome(folder: Path) -> Exception | None:
    """What reading it all again raises."""
    try:
        with translated(folder):
            open_all(folder)
    except Exception as error:
        return error
    return None


def test_tokens_of_another_width_are_refused(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    (noted,) = (tmp_path / "run/data/text").glob("*/store.json")
    noted.write_text(json.dumps(json.loads(noted.read_text()) | {"dim": 96}))
    store = TextStore.open(tmp_path / "run/data/text", "minilm")
    with pytest.raises(DataError, match="its tokens are 96 wide, the encoder's 384"):
        store.require_width(384)


def test_what_was_drawn_for_another_corpus_is_refused(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    corpus = make_corpus(WORLD, tmp_path / "run/data/world")
    (arrays,) = (tmp_path / "run/data").glob("expressions-*.npz")
    for number, meant in (
        (np.full((48, 4), 10**6, np.int32), np.zeros((48, 4, 6), np.bool_)),
        (np.zeros((47, 4), np.int32), np.zeros((47, 4, 6), np.bool_)),
    ):
        np.savez(arrays, number=number, meant=meant)
        with pytest.raises(DataError, match=r"damaged expressions .*they will be drawn again"):
            draw_expressions(corpus, 0, 0.1, tmp_path / "run/data")


@pytest.mark.parametrize("name", ["data/text/{store}/0/tokens.f16"])
def test_nothing_is_written_through_a_link(
    whole: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run's folder may be somebody else's, and a link in it may lead anywhere."""
    monkeypatch.setattr(text_store, "load_text_encoder", lambda name: WordEncoder())
    shutil.copytree(whole, tmp_path / "run")
    (store,) = (tmp_path / "run/data/text").iterdir()
    link, precious = tmp_path / "run" / name.format(store=store.name), tmp_path / "precious"
    shutil.copyfile(link, precious)
    before = precious.read_bytes()
    link.unlink()
    link.symlink_to(precious)
    monkeypatch.setattr(sys.modules[__name__], "SAID", ["an expression that is not encoded yet"])
    error = outcome(tmp_path / "run")
    assert isinstance(error, RunError)
    assert "a link, to which nothing is written" in str(error)
    assert precious.read_bytes() == before


assert SMALL.text_dim == 384
