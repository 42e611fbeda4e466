"""`steersearch bench methods`, and a benchmark of a baseline from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steersearch.benchmarks.baselines.cards import CARDS
from steersearch.benchmarks.paper import core_world
from tests.conftest import Run


def test_the_list_of_methods(run: Run) -> None:
    shown = run("bench", "methods")
    assert shown.code == 0
    header, *lines = shown.out.splitlines()
    assert header.split() == "method in the paper gives licence weights".split()
    assert [line.split()[0] for line in lines] == list(CARDS)
    by_name = {line.split()[0]: line for line in lines}
    assert by_name["dinov2"].endswith("timm/vit_base_patch14_dinov2.lvd142m at 4685c99d")
    assert by_name["clip"].endswith("openai/clip-vit-base-patch16 at main, not pinned")
    assert "cannot be run" in by_name["fade"]
    assert by_name["heatmap-crop"].endswith("mini, bundled")
    assert "steersearch bench methods NAME" in shown.err


def test_all_about_one_method(run: Run) -> None:
    shown = run("bench", "methods", "winclip").out
    assert "needs          pip install 'steersearch[baselines]'" in shown
    assert "no vectors     it scores patches against texts" in shown
    assert "cannot be run" not in shown
    assert "cannot be run  it has no weights of its own" in run("bench", "methods", "divad").out


def test_methods_as_json(run: Run) -> None:
    lines = [json.loads(line) for line in run("bench", "methods", "--json").out.splitlines()]
    assert [line["name"] for line in lines] == list(CARDS)
    sam3 = json.loads(run("bench", "methods", "sam3", "--json").out)
    assert sam3["gives"] == ["vectors", "patches", "maps"]
    assert not sam3["pinned"]


@pytest.mark.parametrize("arguments", [["methods", "clib"], ["core", "--world", "--method", "clib"]])
def test_an_unknown_method(run: Run, arguments: list[str]) -> None:
    done = run("bench", *arguments)
    assert done.code == 1
    assert 'no baseline "clib", did you mean "clip"?' in done.err


def test_one_that_cannot_be_run_says_why(run: Run) -> None:
    done = run("bench", "core", "--world", "--method", "fade")
    assert done.code == 1
    assert "fade cannot be run: it has no weights of its own" in done.err


def test_one_that_is_not_downloaded(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(core_world, "OBJECTS", {"kitchen": core_world.OBJECTS["kitchen"]})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    done = run("bench", "core", "--world", "--limit", "2", "--method", "dinov2")
    assert done.code == 1
    assert "timm/vit_base_patch14_dinov2.lvd142m/model.safetensors: not downloaded yet" in done.err
