"""The training loop on a small model: what is trained, what a stop costs, and that several processes are as one."""

import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from steersearch.core.errors import RunError, SteerSearchError
from steersearch.core.steervit import SteerViT
from steersearch.core.text import PromptFeatures
from steersearch.training.batch import Alone, Batch
from steersearch.training.journal import read_journal
from steersearch.training.objective import Objective
from steersearch.training.recipe import Recipe
from steersearch.training.settings import apply_settings
from steersearch.training.stage import Terms
from steersearch.training.steering import Steering
from steersearch.training.trainer import Trainer
from tests.small_models import TEXT_DIM, small_model

SHORT = (
    "optimiser.steps=8", "optimiser.batch=4", "optimiser.lr=1e-2", "optimiser.warmup=2", "optimiser.decay_steps=8",
    "run.validate_every=4", "run.save_every=3", "run.log_every=1", "run.tensorboard=false",
)  # fmt: skip


@dataclass(frozen=True)
class Squares:
    """A `Feed` of pictures with one bright square each; the prompt is the same, the target is where the square is."""

    batch: int = 4
    rank: int = 0
    ranks: int = 1
    alone: bool = False
    held: int = 7  # an odd number: it cannot be shared evenly
    sources: tuple[str, ...] = ("even", "odd")

    def _read(self, seeds: list[int]) -> Batch:
        pixels, cover = torch.zeros(len(seeds), 3, 64, 64), torch.zeros(len(seeds), 16)
        for i, seed in enumerate(seeds):
            g = torch.Generator().manual_seed(seed)
            where = int(torch.randint(16, (1,), generator=g))
            pixels[i] = torch.randn(3, 64, 64, generator=g) * 0.1
            y, x = divmod(where, 4)
            pixels[i, :, y * 16 : y * 16 + 16, x * 16 : x * 16 + 16] += 3
            cover[i, where] = 1
        tokens = torch.ones(len(seeds), 2, TEXT_DIM)
        centre = torch.stack([cover.argmax(1) % 4 + 0.5, cover.argmax(1) // 4 + 0.5], dim=1)
        names = torch.tensor(seeds)
        return Batch(
            pixels,
            PromptFeatures(tokens, torch.ones(len(seeds), 2, dtype=torch.bool)),
            cover,
            centre,
            names % 2,
            Alone(pixels.flip(2), cover, names) if self.alone else None,
        )

    def training(self, start: int, stop: int) -> Iterator[Batch]:
        for step in range(start, stop):
            yield self._read(
                [1000 + step * self.batch + i for i in range(self.batch)][self.rank :: self.ranks]
            )

    def validation(self) -> Iterator[Batch]:
        rows = list(range(self.held))[self.rank :: self.ranks]
        for start in range(0, len(rows), 2):
            yield self._read(rows[start : start + 2])


def trainer(folder: Path, feed: Squares, *settings: str, say: Any = lambda line: None) -> Trainer:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    recipe = apply_settings(Recipe(), [*SHORT, *settings])
    model = fresh_model()
    if os.environ.get("WORLD_SIZE", "1") == "1":  # else what another test's run computed in would be ours too
        AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True)
    feed = replace(feed, rank=accelerator.process_index, ranks=accelerator.num_processes)
    objective = Objective(recipe.objective, model, gather=accelerator.gather, rank=accelerator.process_index)
    stage = Steering(recipe, model, feed, objective, accelerator)
    return Trainer(stage, folder, recipe.run, say, accelerator)


def steering(run: Trainer) -> Steering:
    assert isinstance(run.stage, Steering)
    return run.stage


def fresh_model() -> SteerViT:
    return small_model("tiny")


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(e["step"], e["values"]["loss"]) for e in read_journal(folder) if e["kind"] == "train"]


def test_training_lowers_the_loss_and_leaves_the_backbone_alone(tmp_path: Path) -> None:
    run = trainer(
        tmp_path, Squares(batch=16), "optimiser.steps=60", "optimiser.decay_steps=60", "optimiser.batch=16"
    )
    before = {name: value.clone() for name, value in steering(run).model.trunk.state_dict().items()}
    first = run.stage.validate()
    run.train(resume=False)
    last = run.stage.validate()
    assert last["loss"] < first["loss"] - 0.3
    assert last["pmass"] > first["pmass"]
    after = steering(run).model.trunk.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not steering(run).model.trunk.training
    assert all(p.grad is None for p in steering(run).model.trunk.parameters())


def test_the_metrics_of_each_source_are_those_of_its_own_rows(tmp_path: Path) -> None:
    run = trainer(tmp_path, Squares())
    found = run.stage.validate()
    assert found["rows"] == 7
    assert found["pmass"] == pytest.approx((4 * found["pmass/even"] + 3 * found["pmass/odd"]) / 7, rel=1e-9)
    with torch.no_grad():
        batch = Squares()._read(list(range(7)))
        p = steering(run).model(batch.pixels, batch.prompts).logits.double().softmax(1)
    expected = (p * (batch.cover > 0)).sum(1)
    assert found["pmass"] == pytest.approx(expected.mean().item(), rel=1e-5)
    assert found["pmass/odd"] == pytest.approx(expected[1::2].mean().item(), rel=1e-5)


@pytest.mark.parametrize("alone", [False, True])
def test_a_run_that_is_asked_to_stop_and_resumed_is_the_same_run(tmp_path: Path, alone: bool) -> None:
    settings = ("objective.alone_cls=1", "objective.queue=6", "optimiser.matrix_lr=0.01") if alone else ()
    feed = Squares(alone=alone)
    whole = trainer(tmp_path / "whole", feed, *settings)
    whole.train(resume=False)

    cut = trainer(tmp_path / "cut", feed, *settings)
    step = cut._step

    def stop_at_the_fifth(terms: Terms, stop: bool) -> bool:
        if cut.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(terms, stop or cut.step == 4)

    cut._step = stop_at_the_fifth  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        cut.train(resume=False)
    assert cut.step == 5
    resumed = trainer(tmp_path / "cut", feed, *settings)
    resumed.train(resume=True)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")  # bit for bit
    for name, value in steering(whole).model.state_dict().items():
        assert torch.equal(value, steering(resumed).model.state_dict()[name]), name


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", Squares())
    whole.train(resume=False)
    cut = trainer(tmp_path / "cut", Squares())
    step = cut._step

    def killed(terms: Terms, stop: bool) -> bool:
        if cut.step == 5:
            raise MemoryError  # as good as a kill: nothing is saved on the way out
        return step(terms, stop)

    cut._step = killed  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        cut.train(resume=False)
    resumed = trainer(tmp_path / "cut", Squares())
    resumed.train(resume=True)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_a_run_goes_on_only_with_its_own_recipe(tmp_path: Path) -> None:
    trainer(tmp_path, Squares()).train(resume=False)
    other = trainer(tmp_path, Squares(), "optimiser.lr=2e-2", "run.log_every=2")
    with pytest.raises(RunError, match=r"optimiser\.lr") as raised:
        other.train(resume=True)
    assert "log_every" not in str(raised.value)


def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path: Path) -> None:
    run = trainer(tmp_path, Squares())
    with torch.no_grad():
        steering(run).model.head.bias.fill_(math.nan)
    before = {name: p.clone() for name, p in steering(run).model.trainable_parameters()}
    with pytest.raises(SteerSearchError, match="step 0"):
        run.train(resume=False)
    for name, p in steering(run).model.trainable_parameters():
        assert torch.equal(p, before[name]) or name == "head.bias"


@pytest.mark.parametrize("clip", [0, 1])
def test_a_gradient_that_is_not_finite_stops_before_the_step(tmp_path: Path, clip: int) -> None:
    run = trainer(tmp_path, Squares(), f"optimiser.clip={clip}")
    gate = next(p for name, p in steering(run).model.trainable_parameters() if name.endswith("gate"))
    gate.register_hook(lambda gradient: gradient * math.inf)
    before = {name: p.detach().clone() for name, p in steering(run).model.trainable_parameters()}
    with pytest.raises(SteerSearchError, match="gradient"):
        run.train(resume=False)
    assert all(torch.equal(p, before[name]) for name, p in steering(run).model.trainable_parameters())


LAUNCH = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node")
WITH_A_QUEUE = ("objective.alone_cls=1", "objective.queue=6")


def assert_same_metrics(found_in: Path, expected_in: Path) -> None:
    expected, found = read_journal(expected_in), read_journal(found_in)
    assert [(e["step"], e["kind"]) for e in found] == [(e["step"], e["kind"]) for e in expected]
    for a, b in zip(found, expected, strict=True):
        for name in {"loss", "pmass", "pointing", "rows", "pmass/odd", "segmentation", "alone_cls"} & set(
            b["values"]
        ):
            assert a["values"][name] == pytest.approx(b["values"][name], abs=1e-5), (a["step"], name)


@pytest.mark.slow
def test_two_processes_are_as_one(tmp_path: Path) -> None:
    """Same effective batch, gloo on processors: the same metrics to 1e-5, although 7 rows cannot be halved."""
    trainer(tmp_path / "one", Squares(alone=True), *WITH_A_QUEUE).train(resume=False)
    command = [*LAUNCH, "2", "--standalone", "-m", "tests.test_trainer", str(tmp_path / "two")]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[1],
                   env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True)  # fmt: skip
    assert_same_metrics(tmp_path / "two", tmp_path / "one")


@pytest.fixture
def two_nodes() -> Iterator[tuple[str, str]]:
    """Two network namespaces, joined by a cable, in which 10.77.0.1 and 10.77.0.2 reach each other and nothing else."""
    names = (f"steer{os.getpid()}a", f"steer{os.getpid()}b")
    cable = tuple(f"v{os.getpid()}{end}" for end in "ab")
    made = [["ip", "netns", "add", name] for name in names]
    made.append(["ip", "link", "add", cable[0], "type", "veth", "peer", "name", cable[1]])
    for i, (name, end) in enumerate(zip(names, cable, strict=True)):
        made.append(["ip", "link", "set", end, "netns", name, "name", "cable"])
        inside = ["ip", "-n", name]
        made += [[*inside, "addr", "add", f"10.77.0.{i + 1}/24", "dev", "cable"]]
        made += [[*inside, "link", "set", device, "up"] for device in ("cable", "lo")]
    try:
        for command in made:
            subprocess.run(command, check=True, capture_output=True)
        yield names
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {error}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ip") is None or os.geteuid() != 0, reason="needs ip and root")
def test_two_nodes_on_a_network_are_as_one(tmp_path: Path, two_nodes: tuple[str, str]) -> None:
    trainer(tmp_path / "one", Squares(alone=True), *WITH_A_QUEUE).train(resume=False)
    started = [
        subprocess.Popen(
            ["ip", "netns", "exec", name, *LAUNCH, "1", "--nnodes", "2", "--node-rank", str(rank),
             "--master-addr", "10.77.0.1", "--master-port", "29500", "-m", "tests.test_trainer", str(tmp_path / "two")],
            cwd=Path(__file__).parents[1],
            env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "cable"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for rank, name in enumerate(two_nodes)
    ]  # fmt: skip
    said = [node.communicate(timeout=600)[0].decode()[-2000:] for node in started]
    assert [node.returncode for node in started] == [0, 0], said
    assert_same_metrics(tmp_path / "two", tmp_path / "one")


if __name__ == "__main__":  # one of the two processes
    trainer(Path(sys.argv[1]), Squares(alone=True), *WITH_A_QUEUE).train(resume=False)
