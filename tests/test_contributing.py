"""What docs/contributing.md shows works as it stands there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from steersearch.benchmarks import baselines
from steersearch.benchmarks.baselines import cards
from steersearch.benchmarks.paper import core_world
from tests.conftest import Run

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "contributing.md"


def test_the_map_names_every_package() -> None:
    shown = DOCUMENT.read_text("utf-8").partition("## The map")[2].partition("\n## ")[0]
    packages = {
        file.parent.relative_to(ROOT).as_posix()
        for top in ("core", "indexer", "training", "benchmarks", "steersearch")
        for file in (ROOT / top).rglob("__init__.py")
        if not any(folder.is_symlink() for folder in file.parents)
    }
    named = {place.strip("/") for place in re.findall(r"`([a-z/]+/)`", shown)}
    named |= {f"steersearch/{place}" for place in named if place.startswith("cli/")}
    assert {"core/images", "steersearch/cli/bench"} <= packages
    assert packages - named == set()


def test_a_baseline_is_a_file_and_a_row(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = DOCUMENT.read_text("utf-8").partition("## A baseline from nothing")[2].partition("\n## ")[0]
    file, row = re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)
    (tmp_path / "added").mkdir()
    (tmp_path / "added" / "thumbnail.py").write_text(file)
    monkeypatch.setattr(baselines, "__path__", [*baselines.__path__, str(tmp_path / "added")])
    card = eval(row, vars(cards))  # as it will stand in that file
    monkeypatch.setitem(cards.CARDS, card.name, card)
    monkeypatch.setattr(core_world, "OBJECTS", {"kitchen": core_world.OBJECTS["kitchen"]})
    done = run("bench", "core", "--world", "--limit", 2, "--method", "thumbnail", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["model"] == "thumbnail"
    assert record["metrics"]["macro"] is not None
    refused = run("bench", "mosaic", "--world", "--limit", 1, "--method", "thumbnail")
    assert refused.code == 1
    assert "it is one vector" in refused.err
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "kept.json").write_text(done.out)
    report = run("bench", "report", "-o", "tables.md", "--from", "records")
    assert report.code == 0, report.err
    assert "\n| thumbnail (part of the data) |" in (tmp_path / "tables.md").read_text()
