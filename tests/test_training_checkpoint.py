"""Checkpoints of a run: whole whenever a process is killed, exact to the bit, and clear about what is wrong."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from steersearch.core.errors import (
    CheckpointError,
    OutputError,
    RunError,
)
from steersearch.training import checkpoint
from steersearch.training.muon import Muon


def saved(folder: Path, step: int, **how: Any) -> Path:
    return checkpoint.save(folder, step, {"weight": torch.full((100,), float(step))}, {"step": step}, **how)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def is_whole(folder: Path) -> int:
    """The step of the latest checkpoint, once its content is known to be that step's."""
    path = checkpoint.latest(folder)
    assert path is not None
    step, tensors, state = checkpoint.load(path)
    assert torch.equal(tensors["weight"], torch.full((100,), float(step)))
    assert state == {"step": step}
    return step


# -------------------------------------------------------------------------------------------- to the bit

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
DTYPES = [*FLOATS, torch.int64, torch.int32, torch.uint8, torch.bool]


def as_bytes(value: Tensor) -> bytes:
    return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@given(
    seed=st.integers(0, 1000),
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 4), max_size=3),
    number=st.floats(),
    text=st.text(max_size=8),
)
def test_everything_comes_back_bit_for_bit(
    seed: int, dtype: torch.dtype, shape: list[int], number: float, text: str
) -> None:
    generator = torch.Generator().manual_seed(seed)
    value = torch.randint(0, 256, [*shape, dtype.itemsize], dtype=torch.uint8, generator=generator)
    # NaN and -0.0 among them.
    value = (value > 127)[..., 0] if dtype == torch.bool else value.view(dtype)[..., 0]
    with tempfile.TemporaryDirectory() as folder:
        path = checkpoint.save(Path(folder), 7, {"täglich/x": value}, {"number": number, text: [text, None]})
        step, tensors, state = checkpoint.load(path)
    assert step == 7
    back = tensors["täglich/x"]
    assert (back.dtype, back.shape) == (dtype, value.shape)
    assert as_bytes(back) == as_bytes(value)
    assert np.array_equal(np.float64(state["number"]), np.float64(number), equal_nan=True)
    assert state[text] == [text, None]


def test_tensors_that_share_memory_or_are_views_are_stored_as_they_look(tmp_path: Path) -> None:
    whole = torch.arange(12.0).view(3, 4)
    given_ = {"whole": whole, "again": whole, "turned": whole.T, "part": whole[1:, ::2], "one": whole[0, 3]}
    _, tensors, _ = checkpoint.load(checkpoint.save(tmp_path, 0, given_, {}))
    assert tensors.keys() == given_.keys()
    assert all(torch.equal(tensors[name], value) for name, value in given_.items())


# --------------------------------------------------------------------------------------- which are kept


def test_the_last_two_and_the_best_stay(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.best(tmp_path) is None
    for step in (100, 200, 300, 400):
        assert saved(tmp_path, step, best=step == 100).name == f"step-{step:06}"
    assert names(tmp_path) == ["best", "step-000300", "step-000400"]
    best = checkpoint.best(tmp_path)
    assert best is not None
    assert checkpoint.load(best)[0] == 100
    saved(tmp_path, 500, best=True, keep=1)
    assert names(tmp_path) == ["best", "step-000500"]
    assert checkpoint.load(best)[0] == 500
    assert is_whole(tmp_path) == 500


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000):
        saved(tmp_path, step)
    assert is_whole(tmp_path) == 1_000_000


def test_a_run_that_went_back_leaves_the_course_it_left(tmp_path: Path) -> None:
    for step in (100, 200, 300):
        saved(tmp_path, step, keep=3)
    saved(tmp_path, 150, keep=3)
    assert names(tmp_path) == ["step-000100", "step-000150"]


def test_a_step_can_be_saved_again(tmp_path: Path) -> None:
    saved(tmp_path, 5, keep=1)
    checkpoint.save(tmp_path, 5, {}, {"again": True}, keep=1)
    assert checkpoint.load(tmp_path / "checkpoints" / "step-000005") == (5, {}, {"again": True})
    assert names(tmp_path) == ["step-000005"]


@pytest.mark.parametrize(("step", "keep"), [(-1, 2), (1, 0)])
def test_what_makes_no_sense_is_refused(step: int, keep: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be"):
        saved(tmp_path, step, keep=keep)


# ----------------------------------------------------------------------------------------------- killed

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def forked(work: Callable[[], None]) -> int:
    """A process of its own that does `work`, at once: nothing need be imported again. Returns its id."""
    process = os.fork()
    if process == 0:
        try:
            work()
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    return process


def ended(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@needs_fork
def test_a_kill_at_any_moment_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    rng = random.Random(1)
    last = 0
    for _ in range(10):
        hear, told = os.pipe()

        def save_for_ever(first: int = last + 1, told: int = told) -> None:
            for step in range(first, 10**6):
                saved(tmp_path, step, best=step % 3 == 0)
                os.write(told, struct.pack("q", step))

        process = forked(save_for_ever)
        os.close(told)
        os.read(hear, 8)
        time.sleep(rng.uniform(0, 0.03))
        os.kill(process, signal.SIGKILL)
        assert ended(process) == -signal.SIGKILL
        with os.fdopen(hear, "rb") as file:
            rest = file.read()
        told_of = struct.unpack("q", rest[-8:])[0] if rest else last + 1
        last = is_whole(tmp_path)
        assert last in (told_of, told_of + 1)  # it may have been killed before it could tell
        best = checkpoint.best(tmp_path)
        assert best is None or checkpoint.load(best)[0] % 3 == 0
    saved(tmp_path, last + 1)
    assert [name for name in names(tmp_path) if name.startswith(".")] == []


OPERATIONS = ["mkdir", "rename", "fsync", "link", "unlink", "rmdir"]


def save_until(folder: Path, step: int, at: int) -> None:
    """Save `step`, and die as if killed before operation number `at` on the disk, if there are so many."""
    count = 0

    def dying(operation: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            if count == at:
                os._exit(9)
            count += 1
            return operation(*args, **kwargs)

        return called

    for name in OPERATIONS:
        setattr(os, name, dying(getattr(os, name)))
    saved(folder, step, keep=1, best=True)


@needs_fork
@pytest.mark.parametrize("again", [False, True], ids=["a later step", "the same step again"])
def test_a_kill_before_any_operation_on_the_disk_leaves_a_whole_one(
    again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Counted, but takes no time: no power cut is tried here.
    monkeypatch.setattr(os, "fsync", lambda file: None)
    step = 1
    saved(tmp_path, step, keep=1, best=True)
    for at in range(100):
        following = step if again else step + 1
        exitcode = ended(forked(partial(save_until, tmp_path, following, at)))
        assert is_whole(tmp_path) in (step, following)
        best = checkpoint.best(tmp_path)
        assert best is not None
        assert checkpoint.load(best)[0] in (step, following)
        if exitcode == 0:
            break
        assert exitcode == 9
        step = following
        saved(tmp_path, step, keep=1, best=True)
        assert names(tmp_path) == ["best", f"step-{step:06}"]
    assert at > 10


# -------------------------------------------------------------------------------------- damage, full disk


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: (path / "state.json").unlink(), "state.json is missing"),
        (lambda path: (path / "state.safetensors").unlink(), "state.safetensors is missing"),
        (
            lambda path: os.truncate(path / "state.safetensors", 300),
            "state.safetensors is damaged .300 bytes",
        ),
        (lambda path: os.truncate(path / "state.json", 40), "state.json is damaged"),
        (lambda path: (path / "state.json").write_text("[]"), "state.json is damaged"),
        (lambda path: flip(path / "state.safetensors", -1), "state.safetensors is damaged .it was changed"),
        (
            lambda path: (path / "state.json").write_text(
                (path / "state.json").read_text().replace('"step": ', '"step": 9')
            ),
            "state.json is damaged .it was changed",
        ),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    damage: Callable[[Path], object], reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved(tmp_path, 10)
    path = saved(tmp_path, 20)
    damage(path)
    with pytest.raises(RunError, match=reason) as found:
        checkpoint.load(path)
    assert found.value.path == path
    with caplog.at_level(logging.WARNING):
        assert is_whole(tmp_path) == 10
    assert "step-000020" in caplog.text
    assert "continuing from step-000010" in caplog.text
    damage(tmp_path / "checkpoints" / "step-000010")
    with pytest.raises(RunError, match=r"no checkpoint is undamaged .*step-000020: .*step-000010: "):
        checkpoint.latest(tmp_path)


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_checkpoints_of_format_1_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FILE_FORMAT", 1)
    weight = torch.ones(2)
    steering = checkpoint.save(
        tmp_path / "run", 5, {"model.a": weight}, {"recipe": {"x": 1}, "best": 0.5, "window": {"steps": 2}}
    )
    trunk = checkpoint.save(tmp_path / "trunk", 5, {"trunk.a": weight}, {"settings": {"x": 1}})
    monkeypatch.undo()
    _, tensors, state = checkpoint.load(steering)
    assert list(tensors) == ["a"]
    assert (state["settings"], state["best"], state["window"]) == ({"x": 1}, 0.5, {"steps": 2})
    _, tensors, state = checkpoint.load(trunk)
    assert list(tensors) == ["trunk.a"]
    assert state == {"settings": {"x": 1}, "best": None, "window": {}}


def test_other_versions_and_other_folders_are_distinguished(tmp_path: Path) -> None:
    path = saved(tmp_path, 1)
    content = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(content | {"format": 3}))
    with pytest.raises(RunError, match=r"newer version .format 3."):
        checkpoint.load(path)
    with pytest.raises(RunError, match="no such folder"):
        checkpoint.load(tmp_path / "elsewhere")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("may not mount a small disk here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_costs_nothing_that_was_saved(small_disk: Path) -> None:
    saved(small_disk, 10)
    with pytest.raises(OutputError, match=r"No space left on device.*step-000010 is still there"):
        checkpoint.save(small_disk, 20, {"weight": torch.zeros(10**6)}, {})
    assert names(small_disk) == ["step-000010"]
    assert is_whole(small_disk) == 10
    saved(small_disk, 20)
    assert is_whole(small_disk) == 20


@pytest.mark.parametrize("operation", ["mkdir", "fsync", "rename"])
def test_a_disk_that_refuses_costs_nothing_that_was_saved(
    operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    saved(tmp_path, 10)
    with monkeypatch.context() as patch:
        patch.setattr(os, operation, refuse)
        with pytest.raises(OutputError, match=r"No space left.*step-000010 is still there"):
            saved(tmp_path, 20)
    assert names(tmp_path) == ["step-000010"]


# ------------------------------------------------------------------------------------------ another recipe


def test_settings_that_differ_are_listed_and_some_may() -> None:
    before = {"optimiser": {"lr": 3e-4, "steps": 10}, "model": {"layers": (1, 3), "old": 1}, "world": {}}
    now = {"optimiser": {"lr": 1e-3, "steps": 20}, "model": {"layers": [1, 3], "new": None}, "world": {}}
    found = [("optimiser.lr", 3e-4, 1e-3), ("optimiser.steps", 10, 20), ("model.old", 1, None)]
    found.append(("model.new", None, None))
    assert checkpoint.differences(before, now) == found
    free = ["optimiser.steps", "model.new", "mod"]
    assert checkpoint.differences(before, now, free) == [found[0], found[2]]
    assert checkpoint.differences(before, now, ["optimiser", "model"]) == []
    assert checkpoint.differences(before, before) == []


# --------------------------------------------------------------------------------- optimisers, randomness


def make_adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)


def make_muon(model: nn.Module) -> torch.optim.Optimizer:
    return Muon([p for p in model.parameters() if p.ndim == 2])


def small_model(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).to(dtype)


def train(model: nn.Module, optimiser: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x = torch.randn(
            8, 5, generator=torch.Generator().manual_seed(step), dtype=next(model.parameters()).dtype
        )
        optimiser.zero_grad()
        torch.autograd.backward(model(x).square().mean())
        optimiser.step()


@pytest.mark.parametrize("make", [make_adamw, make_muon])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_restored_optimiser_goes_on_to_the_bit(
    make: Callable[[nn.Module], torch.optim.Optimizer], dtype: torch.dtype, tmp_path: Path
) -> None:
    undisturbed = small_model(dtype)
    optimiser = make(undisturbed)
    train(undisturbed, optimiser, range(5))
    called = {parameter: name for name, parameter in undisturbed.named_parameters()}
    stored = checkpoint.optimiser_tensors(optimiser, called)
    stored |= {f"model.{name}": value for name, value in undisturbed.state_dict().items()}
    path = checkpoint.save(tmp_path, 5, stored, {})
    train(undisturbed, optimiser, range(5, 10))

    resumed = small_model(dtype)
    optimiser = make(resumed)
    _, tensors, _ = checkpoint.load(path)
    resumed.load_state_dict({name: tensors[f"model.{name}"] for name in resumed.state_dict()})
    checkpoint.restore_optimiser(optimiser, {p: name for name, p in resumed.named_parameters()}, tensors)
    train(resumed, optimiser, range(5, 10))
    for name, value in resumed.state_dict().items():
        assert as_bytes(value) == as_bytes(undisturbed.state_dict()[name]), name


def test_adamw_is_restored_as_torch_itself_restores_it() -> None:
    model = small_model()
    first, ours, torchs = (make_adamw(model) for _ in range(3))
    train(model, first, range(3))
    called = {parameter: name for name, parameter in model.named_parameters()}
    checkpoint.restore_optimiser(ours, called, checkpoint.optimiser_tensors(first, called))
    torchs.load_state_dict(first.state_dict())
    for parameter in called:
        assert (
            ours.state[parameter].keys()
            == torchs.state[parameter].keys()
            == {"step", "exp_avg", "exp_avg_sq"}
        )
        for key, value in torchs.state[parameter].items():
            assert torch.equal(ours.state[parameter][key], value)
            assert ours.state[parameter][key].data_ptr() != first.state[parameter][key].data_ptr()


def test_a_parameter_without_gradients_yet_stays_so() -> None:
    model = small_model()
    model[2].requires_grad_(False)  # type: ignore[index, operator]
    called = {parameter: name for name, parameter in model.named_parameters()}
    optimiser, other = make_adamw(model), make_adamw(model)
    train(model, optimiser, range(1))
    tensors = checkpoint.optimiser_tensors(optimiser, called)
    assert "adamw/2.weight/unused" in tensors
    train(model, other, range(1))
    checkpoint.restore_optimiser(other, called, tensors)
    assert not other.state[model[2].weight]  # type: ignore[index, union-attr]
    assert other.state[model[0].weight]["step"] == 1  # type: ignore[index, union-attr]


def test_accelerates_wrapper_is_seen_through() -> None:
    accelerate = pytest.importorskip("accelerate")
    model = small_model()
    called = {parameter: name for name, parameter in model.named_parameters()}
    plain = make_adamw(model)
    train(model, plain, range(2))
    wrapped = accelerate.Accelerator(cpu=True).prepare_optimizer(make_adamw(model))
    checkpoint.restore_optimiser(wrapped, called, checkpoint.optimiser_tensors(plain, called))
    again = checkpoint.optimiser_tensors(wrapped, called)
    assert all(
        torch.equal(again[name], value) for name, value in checkpoint.optimiser_tensors(plain, called).items()
    )


def test_what_does_not_fit_is_named_and_changes_nothing() -> None:
    model = small_model()
    called = {parameter: name for name, parameter in model.named_parameters()}
    optimiser = make_adamw(model)
    train(model, optimiser, range(1))
    tensors = checkpoint.optimiser_tensors(optimiser, called)
    wrong = {name.replace("2.bias", "2.offset"): value for name, value in tensors.items()}
    wrong["adamw/0.weight/exp_avg"] = torch.zeros(5, 4)
    misfit = "missing: 2.bias; unexpected: 2.offset; of another shape: 0.weight/exp_avg$"
    with pytest.raises(CheckpointError, match=misfit):
        checkpoint.restore_optimiser(optimiser, called, wrong)
    assert torch.equal(optimiser.state[model[0].weight]["exp_avg"], tensors["adamw/0.weight/exp_avg"])  # type: ignore[index, union-attr]
    with pytest.raises(CheckpointError, match=r"muon does not fit.*missing: 0.weight, 2.weight"):
        checkpoint.restore_optimiser(make_muon(model), called, tensors)
    with pytest.raises(CheckpointError, match=r"the name of a parameter of shape \(4, 5\)"):
        checkpoint.optimiser_tensors(optimiser, {})


def draw() -> list[float]:
    from_torch = [torch.rand(()).item(), torch.randn(()).item()]
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.normal(), *from_torch]
