"""`steersearch train` as a user types it, and under torchrun."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from steersearch.training import run as training_run
from steersearch.training.journal import read_journal
from steersearch.training.photographs.folder import ALL_PACKAGES
from steersearch.training.photographs.needs import missing_for_photographs
from steersearch.training.photographs.packages import unpacked
from steersearch.training.recipe import MINI, PAPER
from steersearch.training.settings import differences, from_json, to_json
from tests.conftest import Run, wait_until
from tests.photograph_folder import make_photograph_folder
from tests.small_recipe import small_recipe_file

# ---------------------------------------------------------------------------------- what would be trained, and how


def test_a_dry_run_prints_every_setting_and_writes_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    schedule = {"lr": 1e-3, "final_lr": 1e-5, "warmup": 9, "decay_steps": 6000, "steps": 700, "batch": 32}
    settings = [part for name, value in schedule.items() for part in ("--set", f"optimiser.{name}={value}")]
    done = run("train", "--preset", "mini", "--set", "fusion=late", *settings, "--dry-run")
    assert done.code == 0, done.err
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert "model.fusion = late (preset: early)" in lines
    assert "model.trunk = hybrid" in lines
    assert "effective batch: 32; 700 steps" in lines
    assert "learning rate: 0.001, up to it in 9 steps, down to 1e-05 by step 6,000" in lines
    assert list(tmp_path.iterdir()) == []


def test_strict_and_data_are_settings(run: Run) -> None:
    """Data of one's own are validated on a part of themselves, unless something else is named."""
    begin = (
        "train",
        "--preset",
        "mini",
        "--set",
        "objective.absent=0",
        "--data",
        "mine",
        "--dry-run",
        "--json",
    )
    plain, strict = (from_json(run(*begin, *more).out) for more in ((), ("--strict",)))
    assert (plain.data.strict, strict.data.strict) == (False, True)
    assert (plain.data.train, plain.data.validation) == (("mine",), ())
    other = from_json(run(*begin, "--set", "data.validation=theirs").out)
    assert other.data.validation == ("theirs",)


def test_the_settings_as_json_are_a_preset(run: Run, tmp_path: Path) -> None:
    done = run(
        "train",
        "--preset",
        "paper",
        "--data",
        "a,b",
        "--data",
        "c",
        "--set",
        "batch=6",
        "--dry-run",
        "--json",
    )
    assert done.code == 2  # two sections have it
    settings = ("--data", "a,b", "--data", "c", "--set", "optimiser.batch=6")
    done = run("train", "--preset", "paper", *settings, "--dry-run", "--json")
    assert done.code == 0, done.err
    expected = replace(
        PAPER, data=replace(PAPER.data, train=("a,b", "c")), optimiser=replace(PAPER.optimiser, batch=6)
    )
    assert from_json(done.out) == expected
    file = tmp_path / "mine.json"
    file.write_text(done.out)
    again = run("train", "--preset", file, "--dry-run", "--json")
    assert json.loads(again.out) == json.loads(done.out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Usage: steersearch train"),
        (["--dry-run"], "--preset paper, release, mini"),
        (["--preset", "papre"], "papre"),
        (["--resume"], "-o RUN"),
        (["--preset", "mini", "--json"], "--dry-run"),
        (["--preset", "mini", "check", "x"], "options of `train check` follow its name"),
        (["--preset", "mini", "--set", "optimizer.lr=1"], 'Did you mean "optimiser.lr"?'),
        (["--preset", "mini", "--set", "model.fusoin=late"], 'Did you mean "model.fusion"?'),
        (["--preset", "mini", "--set", "fusion=latte"], "early, late"),
        (["--preset", "mini", "--set", "steps"], "section.key=value"),
        (["--preset", "mini", "--data", "a", "--set", "train=b"], "give one of them"),
        (["--preset", "mini", "--device", "tpu"], "--device"),
        (["--preset", "mini", "rain"], "rain"),
    ],
)
def test_misuse_and_failure_differ(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("train", *arguments)
    assert done.code == 2
    assert words in done.err + done.out
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------- a run's folder


def test_a_folder_of_photographs_that_is_whole_is_left_alone(run: Run, tmp_path: Path) -> None:
    folder = make_photograph_folder(tmp_path / "photographs")
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    done = run("train", "photographs", folder)
    assert (done.code, done.err) == (0, "")
    assert done.out == "photographs: 4 photographs; their licences: LICENCES.md\n"
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the programs that fetch packages, the extra `photographs`, stamps and emoji."""
    for name in ("onnxruntime", "cv2"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(training_run, "STAMPS_FOLDER", tmp_path / "stamps")
    monkeypatch.setattr(training_run, "EMOJI_FONT", tmp_path / "emoji.ttf")


LACKED_BY_PHOTOGRAPHS = (
    'onnxruntime (pip install "steersearch[photographs]")',
    'opencv-python-headless (pip install "steersearch[photographs]")',
    "apt-get (on Debian or Ubuntu)",
    "dpkg-deb (apt-get install dpkg)",
    "npm (apt-get install npm)",
)
LACKED_BY_THE_MINI = (
    *LACKED_BY_PHOTOGRAPHS,
    "stamps (apt-get install tuxpaint-stamps-default, or world.stamps=false)",
    "emoji (apt-get install fonts-noto-color-emoji, or world.emoji=false)",
)


@pytest.mark.usefixtures("bare_machine")
def test_photographs_say_what_they_lack_before_anything_is_fetched(run: Run, tmp_path: Path) -> None:
    done = run("train", "photographs", tmp_path / "photographs")
    assert done.code == 1
    assert f"needs what is not installed here: {'; '.join(LACKED_BY_PHOTOGRAPHS)}\n" in done.err
    assert not (tmp_path / "photographs").exists()


@pytest.mark.usefixtures("bare_machine")
def test_the_mini_says_what_it_lacks_before_hours_of_work(run: Run, tmp_path: Path) -> None:
    done = run("train", "--preset", "mini", "-o", tmp_path / "run")
    assert done.code == 1
    assert f"this run needs what is not installed here: {'; '.join(LACKED_BY_THE_MINI)}\n" in done.err
    assert not (tmp_path / "run").exists()


def test_a_package_that_was_fetched_needs_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for package in ALL_PACKAGES:
        if package.registry != "npm":
            unpacked(package, tmp_path).mkdir(parents=True)
    names = {missing.name for missing in missing_for_photographs(ALL_PACKAGES, tmp_path)}
    assert names - {"onnxruntime", "opencv-python-headless"} == {"npm"}


@pytest.mark.usefixtures("bare_machine")
def test_a_dry_run_says_that_photographs_are_made_and_what_is_lacking(run: Run, tmp_path: Path) -> None:
    begin = ("train", "--preset", "mini", "-o", tmp_path / "run", "--dry-run")
    done = run(*begin)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert "photographs: made first, in run/data/photographs" in lines
    assert [f"not installed: {each}" for each in LACKED_BY_THE_MINI] == lines[-len(LACKED_BY_THE_MINI) :]
    given = run(*begin, "--set", f"world.photographs={tmp_path}").out
    assert "made first" not in given
    assert "npm" not in given
    make_photograph_folder(tmp_path / "kept/photographs")
    kept = run(*begin, "--set", f"data.cache={tmp_path / 'kept'}").out
    assert "photographs: there, in kept/photographs" in kept.splitlines()
    assert "npm" not in kept
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_written_over(run: Run, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(to_json(MINI))
    done = run("train", "--preset", "paper", "-o", tmp_path)
    assert done.code == 1
    assert f"steersearch train --resume -o {tmp_path}" in done.err
    assert from_json(tmp_path / "recipe.json") == MINI


def test_what_is_no_run_cannot_be_resumed(run: Run, tmp_path: Path) -> None:
    done = run("train", "--resume", "-o", tmp_path)
    assert done.code == 1
    assert "no run here" in done.err
    (tmp_path / "recipe.json").write_text("{")
    done = run("train", "--resume", "-o", tmp_path)
    assert done.code == 1
    assert "recipe.json: it is not JSON" in done.err


def test_resuming_takes_the_runs_own_settings(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = replace(MINI, optimiser=replace(MINI.optimiser, batch=8))
    (tmp_path / "run-mini").mkdir()
    (tmp_path / "run-mini" / "recipe.json").write_text(to_json(own))
    monkeypatch.chdir(tmp_path)
    for named in (("-o", "run-mini"), ("--preset", "mini")):
        done = run("train", "--resume", *named, "--dry-run", "--json")
        assert from_json(done.out) == own, done.err
    whole = ("--preset", "mini", "--set", "optimiser.batch=8", "-o", "run-mini")
    assert from_json(run("train", *whole, "--resume", "--dry-run", "--json").out) == own


def test_a_resumed_run_may_change_only_what_it_does_not_learn_by(run: Run, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(to_json(MINI))
    may = ["--set", "optimiser.steps=7", "--set", "data.workers=1", "--set", "run.compile=false"]
    done = run("train", "--resume", "-o", tmp_path, *may, "--dry-run")
    assert done.code == 0
    assert f"(before: {MINI.optimiser.steps})" in done.out
    for setting in ("model.fusion=late", "run.seed=3", "optimiser.lr=1"):
        done = run("train", "--resume", "-o", tmp_path, *may, "--set", setting)
        assert done.code == 1
        assert f"{setting.partition('=')[0]} was" in done.err
        assert "optimiser.steps" not in done.err
    done = run("train", "--resume", "-o", tmp_path, "--preset", "paper")
    assert done.code == 1
    assert "model.trunk was 'hybrid'" in done.err
    assert not differences(from_json(tmp_path / "recipe.json"), MINI)


def test_a_run_that_could_not_begin_is_none(run: Run, tmp_path: Path) -> None:
    """So that the command, put right, is not told that there is a run already."""
    needs_the_world = ("--preset", "mini", "--data", "nowhere", "--set", "objective.absent=0")
    done = run("train", *needs_the_world, "--device", "cpu", "-o", tmp_path / "run")
    assert done.code == 1
    assert "model.trunk" in done.err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_a_run_cannot_live_in_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("train", "--preset", "mini", "-o", tmp_path / "file" / "below")
    assert done.code == 1
    assert "cannot be written" in done.err


# --------------------------------------------------------------------------------------------- several processes


def test_torchrun_says_how_many_processes_there_are(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    done = run("train", "--preset", "mini", "--set", "optimiser.batch=12", "--dry-run")
    assert "effective batch: 12 (4 processes with 3 each)" in done.out
    done = run("train", "--preset", "mini", "--set", "optimiser.batch=6", "--dry-run")
    assert done.code == 2
    assert "a multiple of the 4 processes" in done.err
    monkeypatch.setenv("RANK", "1")
    assert run("train", "--preset", "mini", "--dry-run").out == ""
    monkeypatch.setenv("WORLD_SIZE", "four")
    assert "must be numbers" in run("train", "--preset", "mini", "--dry-run").err


def torchrun(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """`steersearch train` in two processes, on gloo."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    train = ["-m", "steersearch", "train", "-o", str(folder / "run"), "--device", "cpu", *arguments]
    return subprocess.Popen([*command, *train], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_of_torchrun_save_on_ctrl_c_and_resume(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    recipe = small_recipe_file(tmp_path, "optimiser.steps=4000", "run.validate_every=4000")
    stopped = torchrun(tmp_path, "--preset", str(recipe))
    wait_until(lambda: list(tmp_path.glob("run/checkpoints/step-*")))
    stopped.send_signal(signal.SIGINT)
    said = stopped.communicate(timeout=240)[1]
    assert "which is saved" in said
    assert "continue with: torchrun --nproc-per-node 2 --no-python steersearch train --resume" in said
    done = len(read_journal(tmp_path / "run")) - 1  # but for the first validation
    resumed = torchrun(tmp_path, "--resume", "--set", f"optimiser.steps={done + 2}")
    said = resumed.communicate(timeout=240)[1]
    assert resumed.returncode == 0, said
    assert f"steering: resumed at step {done}" in said
    steps = [line["step"] for line in read_journal(tmp_path / "run") if line["kind"] == "train"]
    assert steps == list(range(1, done + 3))
