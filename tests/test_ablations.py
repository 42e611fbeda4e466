"""Each variant of the ablations changes what its name says and nothing else; the table's figures by hand."""

import argparse
import json
from pathlib import Path

import pytest

from steersearch.benchmarks.harness.cache import cache_folder
from steersearch.benchmarks.harness.record import Record
from steersearch.benchmarks.paper.ablations import (
    BASE,
    PUBLISHED,
    VARIANTS,
    _own_cache,
    _run_apart,
    as_text,
    recall,
    recipe_of,
    run,
    run_folder,
    table,
    verdict,
)
from steersearch.benchmarks.paper.published import CORE, CORE_BACKBONES
from steersearch.core.errors import BenchmarkError
from steersearch.training.settings import differences

CHANGED = {
    "late fusion": {"model.fusion"},
    "no tanh gate": {"model.tanh_gate"},
    "linear connector": {"model.connector"},
    "ffn": {"model.ffn"},
    "pointing": {"objective.kind"},
    "3 text layers": {"model.text_layers"},
    "0 text layers": {"model.text_layers"},
    "alone, cosine": {"objective.alone_cls", "objective.alone_focus", "objective.distillation"},
    "alone, contrastive": {"objective.alone_cls", "objective.alone_focus"},
    "alone, contrastive, absent prompts": {
        "objective.alone_cls",
        "objective.alone_focus",
        "objective.absent",
    },
}


@pytest.mark.parametrize("variant", CHANGED)
def test_a_variant_changes_one_thing(variant: str) -> None:
    base, changed = (recipe_of(name, 1, "mini", 500, Path("data")) for name in (BASE, variant))
    assert {line.split(":")[0] for line in differences(base, changed)} == CHANGED[variant]


def test_the_table_is_of_means_and_deviations_over_seeds() -> None:
    figures = {"cls/right/macro": 0.5, "cls/wrong/macro": 0.3, "focus/right/macro": 0.8, "focus/wrong/macro": 0.4,
               "pmass": 0.6, "pointing": 0.7}  # fmt: skip
    better = figures | {"focus/right/macro": 0.9}
    noted = [{"variant": "ffn", "seed": i, "figures": {"drawn": each, "stamps": figures}}
             for i, each in enumerate((figures, better))]  # fmt: skip
    found = table(noted)
    assert list(found) == ["ffn"]
    assert found["ffn"]["drawn"]["focus/right"] == {"mean": 85.0, "sd": 7.1}
    assert found["ffn"]["stamps"]["pointing"] == {"mean": 70.0, "sd": 0.0}
    assert "| ffn | 2 | 50.0 ± 0.0 | 30.0 ± 0.0 | 85.0 ± 7.1 |" in as_text(found)


def test_differences_are_taken_seed_by_seed() -> None:
    def row(variant: str, seed: int, focus: float) -> dict[str, object]:
        figures = {"cls/right/macro": 0.5, "cls/wrong/macro": 0.3, "focus/right/macro": focus,
                   "focus/wrong/macro": 0.4, "pmass": 0.6, "pointing": 0.7}  # fmt: skip
        return {"variant": variant, "seed": seed, "figures": {"drawn": figures, "stamps": figures}}

    base = [row(BASE, seed, focus) for seed, focus in ((1, 0.50), (2, 0.60), (3, 0.70), (4, 0.99))]
    worse = [row("late fusion", seed, focus) for seed, focus in ((3, 0.65), (1, 0.46), (2, 0.54))]
    found = table([*base, *worse, row("ffn", 1, 0.9)])
    # -4, -6, -5: standard deviation 1, so 4.303 / sqrt(3) to either side
    assert found["late fusion"]["drawn"]["difference"]["focus/right"] == {
        "mean": -5.0,
        "low": -7.5,
        "high": -2.5,
    }
    assert "difference" not in found["ffn"]["drawn"]  # one seed
    assert "difference" not in found[BASE]["drawn"]
    assert "-5.0 (-7.5 to -2.5): worse, as in the paper" in as_text(found)


def test_a_difference_is_claimed_where_its_interval_leaves_zero_out() -> None:
    better, unclear = {"mean": 2.0, "low": 0.5, "high": 3.5}, {"mean": 2.0, "low": -0.5, "high": 4.5}
    assert verdict(better, None) == "better"
    assert verdict(better, 93.3) == "better, not as in the paper"
    assert verdict(unclear, 93.3) == "not decided"


def test_runs_of_a_record_are_not_repeated(tmp_path: Path) -> None:
    row = {"variant": "late fusion", "seed": 2, "trunk": "mini", "steps": 500, "seconds": 200, "figures": {}}
    record = Record.make("ablations", "mini", {}, {}, 1.0, weights_hash=None, rows=[row])
    recall(record, tmp_path, "mini", 500)
    noted = run_folder(tmp_path, "late fusion", 2) / "figures.json"
    assert json.loads(noted.read_text()) == row
    run("late fusion", 2, argparse.Namespace(folder=tmp_path))  # would fail if it began to train
    noted.write_text("{}")
    recall(record, tmp_path, "mini", 500)
    assert noted.read_text() == "{}"  # what is there stays
    with pytest.raises(BenchmarkError, match="had 500 steps on mini, these have 400 on mini"):
        recall(record, tmp_path, "mini", 400)


def test_what_a_run_of_several_at_once_raises_comes_back_as_text(tmp_path: Path) -> None:
    arguments = argparse.Namespace(folder=tmp_path, trunk="mini", steps=1, device="cpu", bases=2)
    said = _run_apart("paper", 7, arguments)  # one step, and a hundred of warm-up
    assert said.startswith("paper, seed 7: ")
    assert "optimiser." in said


def test_what_a_run_keeps_while_it_is_evaluated_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEERSEARCH_CACHE", str(tmp_path))
    with _own_cache():
        own = cache_folder()
        assert tmp_path not in own.parents
        own.mkdir(parents=True)
    assert not own.exists()
    assert cache_folder().parent == tmp_path


def test_the_paper_is_quoted_for_what_it_did_alone() -> None:
    """It shortened no text encoder, and distilled nothing."""
    assert PUBLISHED.keys() <= VARIANTS.keys()
    assert not [name for name in PUBLISHED if "text layers" in name or "alone" in name]
    assert {PUBLISHED[name] for name in ("paper", "late fusion")} == {
        CORE["SteerViT"][0],
        CORE_BACKBONES["DINOv2"][1],
    }
