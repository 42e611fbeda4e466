"""Each variant of the ablations changes what its name says and nothing else; the table's figures by hand."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from steersearch.benchmarks.paper import ablations
from steersearch.benchmarks.paper.ablations import (
    STUDIES,
    Study,
    _run_apart,
    as_text,
    main,
    recipe_of,
    run_folder,
    spread,
    table,
    trained,
    verdict,
)
from steersearch.benchmarks.paper.published import CORE, CORE_BACKBONES
from steersearch.core.checkpoints import load_file
from steersearch.core.errors import BenchmarkError
from steersearch.training.recipe import MINI
from steersearch.training.settings import differences, to_json
from tests.small_recipe import small_recipe

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
    "no teacher": {"alignment.steps", "objective.alignment"},
    "no composites": {"data.without"},
    "no instances": {"data.without"},
    "no object-alone": {"objective.alone_cls", "objective.alone_focus"},
    "no drawings": {"data.without"},
}
SMALL = Study(
    base="paper",
    variants={"paper": (), "ffn": (), "late fusion": ()},
    columns={"drawn": ("cls/right", "focus/right"), "stamps": ("cls/right",)},
    compared=("cls/right", "focus/right"),
    grids={"finer": 64},
    published={"paper": 96.0, "late fusion": 93.3},
)


@pytest.fixture
def mini_run(tmp_path: Path) -> Path:
    """What a run of the preset mini leaves for others, without its files."""
    folder = tmp_path / "mini"
    for stage in ("trunk", "words"):
        (folder / stage).mkdir(parents=True)
    (folder / "recipe.json").write_text(to_json(MINI))
    return folder


def asked(study: str, folder: Path, **others: Any) -> Namespace:
    values = {"trunk": "mini", "of": None, "data": None, "steps": 200, "device": "cpu", "bases": 2, "jobs": 1}
    return Namespace(study=study, folder=folder, **(values | others))


@pytest.mark.parametrize("variant", CHANGED)
def test_a_variant_changes_one_thing(variant: str, mini_run: Path, tmp_path: Path) -> None:
    study = next(name for name, each in STUDIES.items() if variant in each.variants)
    arguments = asked(study, tmp_path, of=mini_run)
    base, changed = (recipe_of(name, 1, arguments) for name in (STUDIES[study].base, variant))
    assert {line.split(":")[0] for line in differences(base, changed)} == CHANGED[variant]


def test_ingredients_are_left_out_of_the_very_recipe_that_made_the_mini(
    mini_run: Path, tmp_path: Path
) -> None:
    arguments = asked("ingredients", tmp_path, of=mini_run)
    changed = {line.split(":")[0] for line in differences(MINI, recipe_of("mini", 2, arguments))}
    assert {key for key in changed if not key.startswith(("run.", "optimiser."))} == {
        "data.cache",
        "model.test_resolution",
    }
    assert {key for key in changed if key.startswith("optimiser.")} == {
        "optimiser.steps",
        "optimiser.decay_steps",
        "optimiser.warmup",
    }
    assert recipe_of("mini", 2, arguments).data.cache == str(mini_run / "data")


def test_stages_are_shared_and_never_made_again(mini_run: Path, tmp_path: Path) -> None:
    (mini_run / "words").rmdir()
    with pytest.raises(BenchmarkError, match="words: there is no such stage; finish the run first"):
        trained("mini", 1, asked("ingredients", tmp_path / "runs", of=mini_run))


def test_a_model_that_is_there_is_not_trained_again(tmp_path: Path) -> None:
    kept = run_folder(tmp_path, "late fusion", 2) / "model.safetensors"
    kept.parent.mkdir()
    kept.touch()
    assert trained("late fusion", 2, asked("paper", tmp_path)) == kept


@pytest.mark.slow
def test_the_papers_parts_train_on_a_given_backbone_and_the_drawn_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = small_recipe(tmp_path)
    monkeypatch.setattr(ablations, "MINI", small)
    arguments = asked("paper", tmp_path / "runs", trunk=small.model.trunk, steps=4)
    model = load_file(trained("late fusion", 1, arguments), device="cpu")
    assert model.config.fusion == "late"
    assert model.config.resolution == small.model.resolution


def row(variant: str, seed: int, focus: float) -> dict[str, object]:
    figures = {"drawn": {"cls/right": 50.0, "focus/right": focus}, "stamps": {"cls/right": 50.0}}
    return {"variant": variant, "seed": seed, "figures": figures}


def test_differences_are_taken_seed_by_seed() -> None:
    base = [row("paper", seed, focus) for seed, focus in ((1, 50), (2, 60), (3, 70), (4, 99))]
    worse = [row("late fusion", seed, focus) for seed, focus in ((3, 65), (1, 46), (2, 54))]
    found = table(SMALL, [*base, *worse, row("ffn", 1, 90), row("finer", 1, 80), row("finer", 2, 90)])
    assert list(found) == ["paper", "ffn", "late fusion", "finer"]
    # -4, -6, -5: standard deviation 1, so 4.303 / sqrt(3) to either side
    assert found["late fusion"]["drawn"]["difference"]["focus/right"] == {"mean": -5.0, "half": 2.5}
    assert found["finer"]["drawn"]["difference"]["focus/right"]["mean"] == 30.0
    assert "difference" not in found["ffn"]["drawn"]  # one seed
    assert "difference" not in found["paper"]["drawn"]
    text = as_text(SMALL, found)
    assert "-5.0 ± 2.5: worse, as in the paper" in text
    assert "| ffn | 1 | 50.0 | 90.0 |" in text
    assert "| late fusion | 3 | 50.0 ± 0.0 | 55.0 ± 23.7 | 93.3 |" in text


def test_a_cell_has_the_interval_of_its_seeds() -> None:
    assert spread([50.0, 52.0, 54.0]) == {"mean": 52.0, "half": 5.0}  # 2 * 4.303 / sqrt(3)
    assert spread([50.0]) == {"mean": 50.0}


def test_a_difference_is_claimed_where_its_interval_leaves_zero_out() -> None:
    better, unclear = {"mean": 2.0, "half": 1.5}, {"mean": 2.0, "half": 2.5}
    assert verdict(SMALL, better, None) == "better"
    assert verdict(SMALL, better, 93.3) == "better, not as in the paper"
    assert verdict(SMALL, unclear, 93.3) == "not decided"


def test_what_was_noted_is_not_repeated_and_makes_the_table(
    tmp_path: Path, mini_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing could be trained here: there is neither data nor a stage."""
    figures = {
        source: dict.fromkeys(columns, 40.0) for source, columns in STUDIES["ingredients"].columns.items()
    }
    for variant, seed in (("mini", 1), ("no teacher", 1)):
        folder = run_folder(tmp_path / "runs", variant, seed)
        folder.mkdir(parents=True)
        noted = {"variant": variant, "seed": seed, "steps": 200, "seconds": 5, "figures": figures}
        (folder / "figures.json").write_text(json.dumps(noted))
    command = f"ablations ingredients {tmp_path / 'runs'} --of {mini_run} --seeds 1 --only"
    monkeypatch.setattr("sys.argv", [*command.split(), "mini;no teacher"])
    monkeypatch.setattr("steersearch.benchmarks.paper.ablations.data_of", lambda *what: None)
    main()
    assert "| no teacher | 1 | 40.0 | 40.0 | 40.0 |" in capsys.readouterr().out


def test_what_a_run_of_several_at_once_raises_comes_back_as_text(tmp_path: Path) -> None:
    said = _run_apart("paper", 7, asked("paper", tmp_path, trunk=str(tmp_path / "none.safetensors")))
    assert said.startswith("paper, seed 7: ")
    assert "none.safetensors" in said


def test_the_paper_is_quoted_for_what_it_did_alone() -> None:
    """It shortened no text encoder, and distilled nothing."""
    study = STUDIES["paper"]
    assert study.published.keys() <= study.variants.keys()
    assert not [name for name in study.published if "text layers" in name or "alone" in name]
    assert {study.published[name] for name in ("paper", "late fusion")} == {
        CORE["SteerViT"][0],
        CORE_BACKBONES["DINOv2"][1],
    }
    assert not STUDIES["ingredients"].published
