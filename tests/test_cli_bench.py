"""`steersearch bench` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.test_core import write_by_hand


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
        (["--model", "mini", "--resolution", "336"], "the mini takes 320 pixels"),
    ],
)
def test_misuse_and_failure_differ(run: Run, arguments: list[str], words: str) -> None:
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


@pytest.mark.slow
def test_the_mini_is_measured_saved_and_printed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steersearch.benchmarks.harness.record import Record

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
    metrics = record["metrics"]
    for variant in ("plain", "folded", "unfolded"):
        assert metrics[f"{variant}_images_per_s"] > 0
        assert metrics["seconds_per_batch"][variant][0] == pytest.approx(
            1 / metrics[f"{variant}_images_per_s"], rel=0.01
        )
    plain, folded = (metrics["seconds_per_batch"][variant][0] for variant in ("plain", "folded"))
    assert metrics["folded_over_plain"] == pytest.approx(folded / plain, rel=0.01)
    assert metrics["max_difference_folded_unfolded"] < 1e-4
    assert metrics["peak_memory_bytes"] == metrics["folded_peak_memory_bytes"] > 50e6
    assert metrics["unfolded_peak_memory_bytes"] > metrics["folded_peak_memory_bytes"] + 50e6  # MiniLM
    (saved,) = tmp_path.glob("speed-cpu-float32-320px-b1__mini-*.json")
    assert json.loads(saved.read_text())["metrics"] == metrics
    assert str(saved.name) in done.err


def test_the_table_names_the_variants_and_their_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    from steersearch.benchmarks.engineering import speed
    from steersearch.benchmarks.harness.record import Record
    from steersearch.cli.bench.speed import _show_speed

    seconds: speed.Seconds = {"plain": [1.0], "folded": [1.02], "unfolded": [2.04]}
    metrics = speed.throughput(seconds, 8) | speed.ratios(seconds)
    metrics |= {f"{variant}_peak_memory_bytes": 1_500_000_000 for variant in seconds}
    metrics |= {"load_average": [0.5, 0.6], "max_difference_folded_unfolded": 2.1e-6}
    settings = {"resolution": 336, "batch_size": 8, "dtype": "float32", "device": "cpu", "repeats": 1}
    _show_speed(Record.make("speed", "dinov2-base", settings, metrics, 1.0, weights_hash=None))
    shown = capsys.readouterr()
    title, header, *rows = shown.out.splitlines()
    assert title.startswith("dinov2-base, 336 px, batch 8, float32, ")
    assert header.split() == "images/s time / backbone alone time / steered peak memory".split()
    assert [row.split("  ")[0] for row in rows] == ["backbone alone", "steered", "as released, float32"]
    assert "8.00 (8.00–8.00)" in rows[0]
    assert "1.020 (1.020–1.020)" in rows[1]
    assert "2.000 (2.000–2.000)" in rows[2]
    assert "1,500 MB" in rows[2]
    assert "medians of 1 rounds" in shown.err
    assert "2e-06" in shown.err


@pytest.mark.soak
def test_a_released_model_at_its_real_size(run: Run) -> None:
    done = run("bench", "speed", "--model", "dinov2-small", "--batch-size", 1, "--repeats", 1, "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["settings"]["resolution"] == 336
    metrics = record["metrics"]
    assert metrics["max_difference_folded_unfolded"] < 1e-3
    assert (
        metrics["unfolded_peak_memory_bytes"] > metrics["folded_peak_memory_bytes"] + 1.2e9
    )  # RoBERTa-large


# --------------------------------------------------------------------------------------- benchmarks of the catalogue


@pytest.fixture
def by_hand(tmp_path: Path) -> Path:
    return write_by_hand(tmp_path / "by-hand")


def test_core_prints_one_object_with_its_metrics(run: Run, by_hand: Path, tiny_model: Path) -> None:
    done = run("bench", "core", "--model", tiny_model, "--data", by_hand, "--json", "--device", "cpu")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert {"macro", "micro", "macro_wrong_prompt", "macro_no_prompt"} <= set(record["metrics"])
    assert 0 <= record["metrics"]["macro"] <= 100
    assert record["data"]["n"] == 9
    assert record["data"]["source"] == "real"
    assert [row["scene"] for row in record["rows"]] == ["Kitchen", "Park"]
    assert "left out: row 13 (Kitchen, jug, k2): the same again" in done.err


def test_core_prints_tables_for_people_and_keeps_the_record(
    run: Run, by_hand: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steersearch.benchmarks.harness.record import Record

    keep = Record.save
    monkeypatch.setattr(Record, "save", lambda record: keep(record, tmp_path / "kept"))
    done = run("bench", "core", "--model", tiny_model, "--gate-scale", "0", "--data", by_hand, "--save")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("core, ")
    assert lines[0].endswith("tiny.safetensors+gate0")
    assert lines[1].split() == ["figure", "value", "95", "%", "interval"]
    assert lines[2].split()[0] == "macro"
    assert any(line.startswith("Park ") for line in lines)
    (kept,) = (tmp_path / "kept").glob("core__tiny+gate0-*.json")
    assert Record.read(kept).settings["method"]["gate_scale"] == 0.0
    assert "9 pictures, real" in done.err
    assert "the figures are of a part of the data: 5 rows left out" in done.err


def test_core_on_the_stand_in(run: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from steersearch.benchmarks.paper import core_world

    monkeypatch.setattr(core_world, "OBJECTS", {"kitchen": core_world.OBJECTS["kitchen"]})
    done = run("bench", "core", "--world", "--limit", 2, "--model", tiny_model, "--json", "--set", "k=3")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["benchmark"] == "core-world/drawn"
    assert record["data"]["source"] == "generated stand-in"
    assert {"macro", "micro", "macro_wrong_prompt", "macro_no_prompt", "macro_precision_at_3"} <= set(
        record["metrics"]
    )


def test_core_without_data_says_what_there_is_to_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from steersearch.benchmarks.paper import core_data

    def absent() -> Path:
        from steersearch.benchmarks.harness.benchmark import DataMissingError
        from steersearch.benchmarks.harness.catalogue import card

        raise DataMissingError(card("core"), "not downloaded yet, and the model hub does not answer")

    monkeypatch.setattr(core_data, "fetch_core", absent)
    done = run("bench", "core", "--model", "no-such-model")  # which is not looked for before there is data
    assert (done.code, done.out) == (1, "")
    for words in ("the real data is not here", "size:", "licence:", "steersearch bench core --world"):
        assert words in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--world", "--data", "x"], "--world and --data exclude each other"),
        (["--set", "kk=3"], "bench core has the settings: k, source"),
        (["--set", "k=many"], "k=many"),
        (["--set", "k"], "not NAME=VALUE"),
        (["--set", "source=stamps"], "belongs to the stand-in"),
        (["--world", "--set", "source=photos"], "must be one of drawn, stamps"),
        (["--method", "dinov2", "--gate-scale", "0.5"], "--gate-scale applies to our own models"),
        (["--limit", "0"], "--limit"),
        (["--gate-scale", "-1"], "--gate-scale"),
    ],
)
def test_misuse_of_a_benchmark(run: Run, arguments: list[str], words: str) -> None:
    done = run("bench", "core", *arguments)
    assert done.code == 2
    assert words in " ".join(done.err.replace("│", "").split())
    assert done.out == ""


def test_a_baseline_that_does_not_exist(run: Run, tmp_path: Path) -> None:
    done = run("bench", "core", "--data", tmp_path, "--method", "siglipp")
    assert done.code == 1
    assert 'no baseline "siglipp", did you mean "siglip"' in done.err


def test_the_list_of_benchmarks(run: Run) -> None:
    from steersearch.benchmarks.harness.catalogue import CARDS

    shown = run("bench", "list")
    for name, card in CARDS.items():
        assert f"\n{name}\n" in f"\n{shown.out}"
        assert card.data is None or card.data.licence in shown.out
        assert card.stand_in is None or f"steersearch bench {name} --world" in shown.out
    assert "steersearch bench speed" in shown.out
    assert "steersearch bench methods" in shown.err
    lines = [json.loads(line) for line in run("bench", "list", "--json").out.splitlines()]
    assert [line["name"] for line in lines] == list(CARDS)


def test_every_benchmark_explains_itself(run: Run) -> None:
    from steersearch.benchmarks.harness.catalogue import CARDS

    for name in CARDS:
        done = run("bench", name, "--help")
        assert done.code == 0
        assert f"steersearch bench {name} " in " ".join(done.out.split())


# ------------------------------------------------------------------------------------------------------ bench all


@pytest.fixture
def only_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the benchmarks CORE alone, on one scene."""
    from steersearch.benchmarks.harness.catalogue import CARDS
    from steersearch.benchmarks.paper import core_world
    from steersearch.cli.bench import all as bench_all

    monkeypatch.setattr(core_world, "OBJECTS", {"kitchen": core_world.OBJECTS["kitchen"]})
    monkeypatch.setattr(bench_all, "CARDS", {"core": CARDS["core"]})


@pytest.mark.usefixtures("only_core")
def test_all_measures_every_version_that_a_claim_compares(
    run: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steersearch.cli.bench import all as bench_all

    monkeypatch.setattr(bench_all, "SOURCES", ("drawn",))
    done = run("bench", "all", "--world", "--model", tiny_model, "--limit", 2, "--paper", tiny_model)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "core-world/drawn"
    names = [Path(line.split()[0]).name for line in lines[2:8]]
    assert names == [
        "tiny.safetensors", "tiny.safetensors+cls", "tiny-paper+cls",
        "tiny.safetensors+gate0.6+cls", "tiny-paper+gate0.6+cls", "tiny-paper",
    ]  # fmt: skip
    steering = [
        line for line in lines if line.startswith("CORE: steering finds what the unsteered backbone does not")
    ]
    assert len(steering) == 2  # with the paper's objective, and as it is
    assert any("awaits a model trained with late fusion" in line for line in lines)
    assert any(line.startswith("CORE: `focus` finds more than the paper's pooling") for line in lines)
    assert "core-world/drawn, " in done.err


@pytest.mark.usefixtures("only_core")
def test_all_without_real_data_names_the_stand_ins(
    run: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steersearch.benchmarks.paper import core_data

    monkeypatch.setattr(core_data, "why_unreachable", lambda: "the model hub does not answer")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tiny_model.parent / "empty"))
    done = run("bench", "all", "--model", tiny_model)
    assert (done.code, done.out) == (1, "")
    assert done.err.count("skipped: core: the real data is not here") == 1
    assert "nothing could be measured; to use the stand-ins: steersearch bench all --world" in done.err
