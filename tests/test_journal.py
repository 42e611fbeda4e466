"""The journal of a training run: whole after a kill, without a step twice after a resume, readable elsewhere."""

from __future__ import annotations

import json
import logging
import math
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersearch.core.errors import MissingExtraError, RunError
from steersearch.training.journal import FILE, Journal, read_journal


def steps(folder: Path) -> list[tuple[int, str]]:
    return [(line["step"], line["kind"]) for line in read_journal(folder)]


def test_lines_come_back_as_they_were_logged(tmp_path: Path) -> None:
    with Journal(tmp_path / "run") as journal:
        journal.log(0, "validation", {"pmass": 0.1, "pmass/täglich": 0.30000000000000004})
        journal.log(25, "train", {"loss": math.nan, "gradient": math.inf})
        seen = read_journal(tmp_path / "run")  # on the disk before it is closed
    assert [(line["step"], line["kind"]) for line in seen] == [(0, "validation"), (25, "train")]
    assert seen[0]["values"] == {"pmass": 0.1, "pmass/täglich": 0.30000000000000004}
    assert all(math.isnan(value) for value in seen[1]["values"].values())
    assert 0 <= seen[0]["seconds"] <= seen[1]["seconds"] < 10
    for text in (tmp_path / "run" / FILE).read_text("utf-8").splitlines():
        json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_a_resumed_run_has_no_step_twice_and_its_clock_goes_on(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal._began -= 100  # as if it had run for so long
        for step in (0, 25, 50, 75):
            journal.log(step, "train", {"loss": float(step)})
        journal.log(50, "validation", {"loss": 1.0})
    with Journal(tmp_path, step=50) as journal:
        assert steps(tmp_path) == [(0, "train"), (25, "train"), (50, "train"), (50, "validation")]
        journal.log(75, "train", {"loss": 75.0})
    assert steps(tmp_path)[-2:] == [(50, "validation"), (75, "train")]
    assert 100 <= read_journal(tmp_path)[-1]["seconds"] < 110


def test_a_new_run_sets_the_lines_of_another_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Journal(tmp_path) as journal:
        journal.log(5, "train", {"loss": 1.0})
    before = (tmp_path / FILE).read_bytes()
    with caplog.at_level(logging.WARNING), Journal(tmp_path):
        assert read_journal(tmp_path) == []
    assert (tmp_path / f"{FILE}.old").read_bytes() == before
    assert f"{FILE}.old" in caplog.text


@given(cut=st.integers(0, 200), resumed=st.integers(1, 4))
def test_a_line_that_was_cut_anywhere_costs_only_itself(cut: int, resumed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Journal(folder) as journal:
            for step in (1, 2, 3):
                journal.log(step, "train", {"loss": 0.5})
        content = (folder / FILE).read_bytes()
        left = content[: max(0, len(content) - cut)]
        (folder / FILE).write_bytes(left)
        whole = [1, 2, 3][: left.count(b"}}")]  # a line that lacks only its end is whole
        assert [step for step, _ in steps(folder)] == whole
        with Journal(folder, step=resumed) as journal:
            journal.log(9, "train", {"loss": 0.5})
        assert [step for step, _ in steps(folder)] == [s for s in whole if s <= resumed] + [9]
        assert (folder / FILE).read_bytes().endswith(b"}\n")


def test_damage_within_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = '{"step": 1, "kind": "train", "seconds": 1.0, "values": {}}\n'
    (tmp_path / FILE).write_text(good + "\0\0\0\n" + good + '{"step": 2}\n[1]\n')
    with caplog.at_level(logging.WARNING):
        assert len(read_journal(tmp_path)) == 2
    assert [f"line {n}:" in caplog.text for n in (1, 2, 3, 4, 5)] == [False, True, False, True, True]


def test_a_journal_that_is_not_there_or_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=FILE) as missing:
        read_journal(tmp_path)
    assert missing.value.path == tmp_path / FILE
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        Journal(tmp_path / "file")


def test_tensorboard_reads_the_same_and_drops_what_came_after_the_resumed_step(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Journal(tmp_path, tensorboard=True) as journal:
        for step in (25, 50, 75):
            journal.log(step, "train", {"loss": 1 / step, "gate/1": 0.5})
    with Journal(tmp_path, tensorboard=True, step=50) as journal:
        journal.log(75, "train", {"loss": 2.0})
        journal.log(75, "validation", {"pmass/world": 0.25})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "train/gate/1", "validation/pmass/world"}
    losses = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert losses == [(25, pytest.approx(1 / 25)), (50, pytest.approx(1 / 50)), (75, 2.0)]
    assert [event.step for event in events.Scalars("train/gate/1")] == [25, 50]


@pytest.mark.parametrize(
    ("asked", "module", "extra"),
    [({"tensorboard": True}, "torch.utils.tensorboard", "train"), ({"wandb": "mine"}, "wandb", "wandb")],
)
def test_what_is_not_installed_is_said_before_anything_is_written(
    asked: dict[str, object], module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not there
    with pytest.raises(MissingExtraError, match=rf'pip install "steersearch\[{extra}\]"'):
        Journal(tmp_path / "run", **asked)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_weights_and_biases_keeps_a_run_offline_and_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for step in (0, 25):
        with Journal(tmp_path, wandb="steering", step=step, recipe={"optimiser": {"lr": 0.5}}) as journal:
            journal.log(step + 25, "train", {"loss": 0.25})
        identity = (tmp_path / "wandb-id.txt").read_text()
        assert (
            len(list((tmp_path / "wandb").glob(f"offline-run-*-{identity}/run-{identity}.wandb")))
            == 1 + step // 25
        )
    stored = b"".join(file.read_bytes() for file in (tmp_path / "wandb").glob("*/*.wandb"))
    assert b"train/loss" in stored
    assert b"optimiser" in stored


def test_a_refusal_of_weights_and_biases_names_the_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")

    def refuse(**settings: object) -> None:
        raise wandb.errors.UsageError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(RunError, match="WANDB_MODE=offline"):
        Journal(tmp_path, wandb="steering")
