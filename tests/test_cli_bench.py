"""`steersearch bench` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--batch-size", "0"], "--batch-size"),
        (["--model", "dinov2-smal"], 'did you mean "dinov2-small"'),
        (["--prompt", " "], "--prompt"),
        (["--dtype", "int8"], "--dtype"),
        (["--device", "tpu"], "--device"),
        (["--repeats", "0"], "--repeats"),
        (["--resolution", "0"], "--resolution"),
        (["--model", "mini", "--resolution", "336"], "the mini takes 128 pixels"),
    ],
)
def test_misuse_is_told_apart_from_failure(run: Run, arguments: list[str], words: str) -> None:
    done = run("bench", "speed", *arguments)
    assert done.code == 2
    assert words in done.err
    assert done.out == ""


def test_a_batch_beyond_all_memory_fails_with_a_way_out(run: Run) -> None:
    done = run("bench", "speed", "--model", "mini", "--batch-size", 10**9)
    assert done.code == 1
    assert "not enough memory" in done.err
    assert "--batch-size" in done.err
    assert done.out == ""


def test_the_mini_is_measured_saved_and_printed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steersearch.benchmarks.record import Record

    keep = Record.save
    monkeypatch.setattr(Record, "save", lambda record: keep(record, tmp_path))
    few = ("--batch-size", 1, "--repeats", 1, "--threads", 1)
    done = run("bench", "speed", "--model", "mini", *few, "--device", "cpu", "--json", "--save")
    assert done.code == 0, done.err
    record: dict[str, Any] = json.loads(done.out)
    assert record["model"] == "mini"
    assert record["settings"]["batch_size"] == 1
    assert record["settings"]["prompt_tokens"] == 5
    assert record["machine"]["cores"] >= 1
    assert record["versions"]["torch"]
    for variant in ("plain", "folded", "unfolded"):
        assert record[f"{variant}_images_per_s"] > 0
        assert record["seconds_per_batch"][variant][0] == pytest.approx(
            1 / record[f"{variant}_images_per_s"], rel=0.01
        )
    plain, folded = (record["seconds_per_batch"][variant][0] for variant in ("plain", "folded"))
    assert record["folded_over_plain"] == pytest.approx(folded / plain, rel=0.01)
    assert record["max_difference_folded_unfolded"] < 1e-4
    assert record["peak_memory_bytes"] == record["folded_peak_memory_bytes"] > 50e6
    assert record["unfolded_peak_memory_bytes"] > record["folded_peak_memory_bytes"] + 50e6  # MiniLM
    (saved,) = tmp_path.glob("speed-cpu-float32-128px-b1_mini_*.json")
    assert json.loads(saved.read_text())["metrics"]["folded_images_per_s"] == record["folded_images_per_s"]
    assert str(saved.name) in done.err


def test_the_table_names_the_variants_and_their_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    from steersearch import cli_bench
    from steersearch.benchmarks import speed
    from steersearch.benchmarks.record import Record

    seconds: speed.Seconds = {"plain": [1.0], "folded": [1.02], "unfolded": [2.04]}
    metrics = speed.throughput(seconds, 8) | speed.ratios(seconds)
    metrics |= {f"{variant}_peak_memory_bytes": 1_500_000_000 for variant in seconds}
    metrics |= {"load_average": [0.5, 0.6], "max_difference_folded_unfolded": 2.1e-6}
    settings = {"resolution": 336, "batch_size": 8, "dtype": "float32", "device": "cpu", "repeats": 1}
    cli_bench._show_speed(Record.make("speed", "dinov2-base", settings, metrics, 1.0))
    shown = capsys.readouterr()
    title, header, *rows = shown.out.splitlines()
    assert title.startswith("dinov2-base, 336 px, batch 8, float32, ")
    assert header.split() == "images/s time / trunk alone time / steered peak memory".split()
    assert [row.split("  ")[0] for row in rows] == ["trunk alone", "steered", "the released way, float32"]
    assert "8.00 (8.00–8.00)" in rows[0]
    assert "1.020 (1.020–1.020)" in rows[1]
    assert "2.000 (2.000–2.000)" in rows[2]
    assert "1,500 MB" in rows[2]
    assert "medians of 1 rounds" in shown.err
    assert "2e-06" in shown.err


@pytest.mark.slow
def test_a_released_model_at_its_real_size(run: Run) -> None:
    done = run("bench", "speed", "--model", "dinov2-small", "--batch-size", 1, "--repeats", 1, "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["settings"]["resolution"] == 336
    assert record["max_difference_folded_unfolded"] < 1e-3
    assert record["unfolded_peak_memory_bytes"] > record["folded_peak_memory_bytes"] + 1.2e9  # RoBERTa-large
