"""Whole runs, short ones: on the drawn world, and the mini's backbone on a folder of someone's own data."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from steersearch.core.checkpoints import load_file, load_model
from steersearch.core.errors import SampleError
from steersearch.core.predictor import Predictor
from steersearch.training.data.folder import FolderWriter
from steersearch.training.journal import read_journal
from steersearch.training.recipe import MINI, Recipe
from steersearch.training.run import train_recipe
from steersearch.training.settings import apply_settings
from tests.small_recipe import small_recipe, small_recipe_file

pytest.importorskip("accelerate")


def train(recipe: Recipe, folder: Path, resume: bool = False) -> tuple[Path, list[str]]:
    said: list[str] = []
    return train_recipe(recipe, folder, resume=resume, device="cpu", say=said.append), said


def test_a_model_of_the_drawn_world(tmp_path: Path) -> None:
    file, said = train(small_recipe(tmp_path), tmp_path / "run")
    model = Predictor.from_pretrained(file)
    assert model.aggregation == "focus"
    photo = Image.new("RGB", (90, 60), "red")
    assert model.embed([photo], "the mug").shape == (1, 64)
    metrics = read_journal(tmp_path / "run")
    assert [e["step"] for e in metrics if e["kind"] == "validation"] == [0, 2, 4]
    assert {"segmentation", "alone_cls", "alone_focus", "gate/1.attn_gate"} <= set(metrics[1]["values"])
    report = (tmp_path / "run" / "report.html").read_text()
    assert "pmass" in report
    assert any("pictures" in line for line in said)


@pytest.mark.slow
def test_a_second_run_in_one_process_may_have_another_precision(tmp_path: Path) -> None:
    shared = ("optimiser.steps=2", f"data.cache={tmp_path / 'data'}")
    for precision in ("float32", "bfloat16"):
        recipe = small_recipe(tmp_path, *shared, f"run.precision={precision}")
        file, _ = train(recipe, tmp_path / precision)
        assert file.is_file()


@pytest.mark.slow
def test_runs_that_share_a_cache_may_begin_at_once(tmp_path: Path) -> None:
    preset = str(small_recipe_file(tmp_path, "optimiser.steps=2", f"data.cache={tmp_path / 'data'}"))
    command = [sys.executable, "-m", "steersearch", "train", "--preset", preset, "--device", "cpu"]
    runs = [
        subprocess.Popen(
            [*command, "-o", str(tmp_path / name)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for name in ("one", "other")
    ]
    said = [run.communicate()[1].decode() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    one, other = (
        Predictor.from_pretrained(tmp_path / name / "model.safetensors") for name in ("one", "other")
    )
    assert one.weights_hash == other.weights_hash


def own_data(folder: Path, rows: int = 12) -> Path:
    """Photos of a bright square each, some of them broken."""
    (folder / "photos").mkdir(parents=True)
    rng = np.random.default_rng(0)
    with FolderWriter(folder / "expressions.jsonl") as writer:
        for i in range(rows):
            x, y = (int(v) for v in rng.integers(0, 60, 2))
            pixels = rng.integers(0, 90, (90, 120, 3)).astype(np.uint8)
            mask = np.zeros((90, 120), bool)
            mask[y : y + 30, x : x + 40] = True
            pixels[mask] = 250
            Image.fromarray(pixels).save(folder / f"photos/{i}.png")
            writer.add(f"photos/{i}.png", f"the square number {i % 4}", mask)
        writer.add("photos/gone.png", "the square that is gone", mask)
    return folder


OWN = ("data.validation=", "data.workers=0", "data.cache_pictures=false", "objective.absent=0")


@pytest.mark.parametrize("alone", [False, True])
def test_a_folder_of_ones_own(tmp_path: Path, alone: bool) -> None:
    data = own_data(tmp_path / "data")
    settings = (
        *OWN, "model.trunk=mini", "objective.alignment=0", f"data.train={data}", "data.augment=release",
        f"objective.alone_cls={int(alone)}", "objective.alone_focus=0", "optimiser.steps=4", "optimiser.batch=4",
        "optimiser.warmup=1", "optimiser.decay_steps=4", "run.log_every=1",
    )  # fmt: skip
    file, said = train(apply_settings(MINI, settings), tmp_path / "run")
    trained, mini = load_file(file), load_model("mini")
    for name, value in mini.trunk.state_dict().items():  # frozen, whatever was trained on top of it
        assert torch.equal(value, trained.trunk.state_dict()[name]), name
    assert trained.config.resolution == mini.config.resolution
    assert any("gone.png" in line and "skipped" in line for line in said)
    losses = [e["values"] for e in read_journal(tmp_path / "run") if e["kind"] == "train"]
    assert ("alone_cls" in losses[0]) == alone


def test_the_finished_model_takes_pictures_at_the_test_resolution(tmp_path: Path) -> None:
    plain = small_recipe(
        tmp_path, *OWN, f"data.train={own_data(tmp_path / 'data')}", "model.test_resolution=0"
    )
    trained, larger = (
        load_file(train(recipe, tmp_path / name)[0])
        for name, recipe in (
            ("plain", plain),
            ("larger", apply_settings(plain, ["model.test_resolution=64"])),
        )
    )
    assert (larger.config.resolution, larger.grid) == (64, (4, 4))
    expected = trained.at_resolution(64).state_dict()
    for name, value in larger.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_strict_stops_at_the_first_row_that_cannot_be_used(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, *OWN, f"data.train={own_data(tmp_path / 'data')}", "data.strict=true")
    with pytest.raises(SampleError, match=r"gone\.png"):
        train(recipe, tmp_path / "run")


def test_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    own = (*OWN, f"data.train={own_data(tmp_path / 'data')}", "data.cache_pictures=true")
    recipe = small_recipe(tmp_path, *own)
    whole, _ = train(recipe, tmp_path / "whole")
    train(small_recipe(tmp_path, *own, "optimiser.steps=2"), tmp_path / "cut")
    resumed, said = train(recipe, tmp_path / "cut", resume=True)
    assert "steering: resumed at step 2" in said
    a, b = load_file(whole), load_file(resumed)
    for name, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[name]), name
