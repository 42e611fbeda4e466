"""A record holds what is needed to repeat a measurement, and nothing of the machine's folders."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from steersearch.benchmarks.harness.benchmark import Outcome
from steersearch.benchmarks.harness.record import RESULTS, Record
from steersearch.core.errors import BenchmarkError


def test_a_record_is_saved_under_its_own_name(tmp_path: Path) -> None:
    record = Record.make(
        "core-world/drawn", "runs/my model.safetensors", {"k": 1}, {"macro": 0.5}, 1.26, weights_hash=None
    )
    path = record.save(tmp_path)
    assert path.name.startswith("core-world-drawn__my model__")
    kept = json.loads(path.read_text())
    assert kept["metrics"] == {"macro": 0.5}
    assert kept["seconds"] == 1.3
    assert kept["machine"]["cores"] >= 1
    assert kept["versions"]["numpy"]
    assert str(Path.home()) not in path.read_text()


def test_a_run_of_the_same_day_is_replaced_only_if_it_asked_the_same(tmp_path: Path) -> None:
    def saved(size: tuple[float, float], macro: float, digest: str = "a") -> str:
        data = {"source": "generated", "n": 1, "hash": digest}
        made = Record.make(
            "core", "mini", {"size": size}, {"macro": macro}, 1.0, weights_hash=None, data=data
        )
        return replace(made, date="2026-01-02").save(tmp_path).name  # it may be midnight now

    first = saved((0.2, 0.3), 85.0)
    assert saved((0.2, 0.3), 86.0) == first
    assert Record.read(tmp_path / first).metrics == {"macro": 86.0}
    second, third = saved((0.1, 0.15), 47.0), saved((0.2, 0.3), 80.0, "b")
    assert [second, third] == [first.replace(".json", f"-{n}.json") for n in (1, 2)]
    assert saved((0.1, 0.15), 48.0) == second
    (tmp_path / first).write_text("{")  # damaged: not ours to write over
    assert saved((0.2, 0.3), 87.0) == first.replace(".json", "-3.json")
    assert len(list(tmp_path.iterdir())) == 4


def test_a_saved_record_is_read_again(tmp_path: Path) -> None:
    data = {"source": "real", "hash": "ab" * 32, "n": 3}
    made = Record.make(
        "core", "mini+gate0.6", {}, {"macro": 50.0}, 1.0, weights_hash=None, data=data, rows=[{"scene": "a"}]
    )
    path = made.save(tmp_path)
    assert "__mini+gate0.6__" in path.name
    assert Record.read(path) == made
    (tmp_path / "other.json").write_text('{"benchmark": "core"}')
    with pytest.raises(BenchmarkError, match=r"other\.json: not a record of a benchmark"):
        Record.read(tmp_path / "other.json")


def test_every_record_here_is_named_after_itself() -> None:
    for path in RESULTS.glob("*.json"):  # a number tells two of a day with other settings apart
        assert re.fullmatch(re.escape(Record.read(path).name) + r"(-[1-9]\d*)?", path.stem), path.stem


def test_a_model_file_gives_its_name_without_its_ending(tmp_path: Path) -> None:
    made = Record.make("core", "runs/v1.5.safetensors+gate0.6", {}, {}, 1.0, weights_hash="ab" * 32)
    assert made.save(tmp_path).name.startswith("core__v1.5+gate0.6-abababab__")


def test_data_that_does_not_say_which_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data without source, n or hash: \['n', 'source'\]"):
        Record.make("trial", "toy", {}, {}, 1.0, weights_hash=None, data={"source": "drawn", "n": 3})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("/home/ann/models/late.pth", "late.pth"),
        ("late-fusion=/home/ann/late.pth", "late-fusion=late.pth"),
        ("models/late.pth", "models/late.pth"),
        ("source=stamps", "source=stamps"),
        ("--save", "--save"),
    ],
)
def test_a_command_is_recorded_without_the_folders_of_the_machine(
    given: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", given])
    assert Record.make("core", "mini", {}, {}, 1.0, weights_hash=None).command.endswith(f" {told}")


def test_answers_take_one_line_and_come_back(tmp_path: Path) -> None:
    answers = {"macro": {"kitchen": [100, 0, 33.3333]}, "ap": [1, 2]}
    made = Record.make("core", "mini", {}, {"macro": 44.4}, 1.0, weights_hash=None, answers=answers)
    path = made.save(tmp_path)
    assert '\n "answers": {"macro":{"kitchen":[100,0,33.3333]},"ap":[1,2]}\n}' in path.read_text()
    assert Record.read(path).answers == answers


def test_answers_are_those_that_the_figure_is_the_mean_of() -> None:
    Outcome(metrics={"macro": 50.0}, answers={"macro": {"a": [100, 0], "b": [50]}})
    with pytest.raises(ValueError, match=r"macro is 50\.0, and its answers are 25\.0"):
        Outcome(metrics={"macro": 50.0}, answers={"macro": {"a": [100, 0], "b": [0]}})
