"""info, verify, optimize, remove, export: what they print, where, and their exit codes."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import faiss
import pyarrow.parquet
import pytest

from steersearch.indexer.filters import Filters
from steersearch.indexer.query_terms import Focus
from tests.conftest import Run
from tests.toy_embedder import ToyEmbedder, save_photos
from tests.toy_library import Library


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library.create(save_photos(tmp_path / "photos", 4), tmp_path / "library")
    library.index(ToyEmbedder(), ["red", "blue"])
    library.index(ToyEmbedder(), ["red"], gate_scale=0.5)
    monkeypatch.setenv("STEERSEARCH_LIBRARY", str(library.place))
    return library


def test_info(library: Library, run: Run) -> None:
    ran = run("info")
    header, *rows = ran.out.splitlines()[4:]
    assert (ran.code, header.split()) == (0, "prompt photos gate scale view model created (UTC)".split())
    assert [row.split()[:5] for row in rows] == [
        ['"red"', "4", "of", "4", "1"],
        ['"blue"', "4", "of", "4", "1"],
        ['"red"', "4", "of", "4", "0.5"],
    ]
    (library.place / "prompts" / library.prompts()[0].key / "manifest.json").unlink()
    ran = run("info", "--json")
    held = json.loads(ran.out)
    assert [(row["prompt"], row["gate_scale"], row["photos"], row["missing"]) for row in held["prompts"]] == [
        ("blue", 1.0, 4, 0),
        ("red", 0.5, 4, 0),
    ]
    assert [row["key"] for row in held["prompts"]] == [index.key for index in library.prompts()]
    assert held["unfinished"] == library.unfinished()
    assert "unfinished: red-" in ran.err


def test_verify(library: Library, run: Run) -> None:
    ran = run("verify", "--deep")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err.endswith("no problem\n")
    features = library.place / "prompts" / library.prompts()[1].key / "features.npy"
    features.unlink()
    (library.place / "snapshots" / "gone").mkdir()
    ran = run("verify", "--repair")
    assert ran.code == 1
    first, second = ran.out.splitlines()
    assert first.startswith(
        'error: prompt "blue": the text encoder\'s output for it is missing; only its model can'
    )
    assert second == "repaired: snapshot gone: belongs to no prompt index; dropped"
    assert ran.err.endswith("1 problem, 1 repaired\n")
    ran = run("verify", "--json")
    (finding,) = map(json.loads, ran.out.splitlines())
    assert (ran.code, finding["severity"], finding["is_repaired"]) == (1, "error", False)


def test_optimize(library: Library, run: Run) -> None:
    ran = run("optimize")
    assert ran.code == 0
    assert "MB before, " in ran.out
    assert "at most 2 versions of a table before, 1 after" in ran.out
    done = json.loads(run("optimize", "--json").out)
    assert done["bytes_before"] == done["bytes_after"]


def test_remove_a_prompt(library: Library, run: Run) -> None:
    ran = run("remove", "red")
    assert ran.code == 1
    keys = [index.key for index in library.prompts() if index.prompt == "red"]
    assert f'"red" has 2 indexes: {keys[0]}: "red" (model toy, gate_scale 1), weights ' in ran.err
    assert f', {keys[1]}: "red" (model toy, gate_scale 0.5), weights ' in ran.err
    assert run("remove", "red", "--gate-scale", "0.5").code == 0
    assert [(index.prompt, index.gate_scale) for index in library.prompts()] == [("red", 1.0), ("blue", 1.0)]
    (library.place / "prompts" / library.prompts()[1].key / "manifest.json").unlink()
    (key,) = library.unfinished()
    assert run("remove", key, "--view", "tile").code == run("remove", key, "--model", "toy").code == 2
    assert library.unfinished() == [key]
    ran = run("remove", key)
    assert (ran.code, ran.err.splitlines()[-1]) == (0, f"removed the unfinished {key}")
    ran = run("remove", "green")
    assert ran.code == 1
    assert 'for "green"; have: "red" (' in ran.err
    assert "build" not in ran.err
    assert ran.out == ""


def test_remove_all(library: Library, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("remove").code == run("remove", "red", "--all").code == 2
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    ran = run("remove", "--all")
    assert ran.code == 2
    assert "cannot ask for confirmation here; add --yes" in ran.err.replace("\n", " ").replace(
        "│", ""
    ).replace("  ", " ")
    for selector in (["--model", "nosuch"], ["--view", "tile"], ["--gate-scale", "0.5"]):
        assert run("remove", "--all", "--yes", *selector).code == 2
    assert run("remove", "--all", "--yes", "--model", "nosuch", "--view", "tile").code == 2
    assert [index.prompt for index in library.prompts()] == ["red", "blue", "red"]
    ran = run("remove", "--all", "--yes")
    assert ran.code == 0
    assert "the photos in photos are untouched" in ran.err
    assert not library.place.exists()
    assert len(list(library.folder.iterdir())) == 4
    ran = run("remove", "--all", "--yes", "--library", library.folder)
    assert ran.code == 1
    assert "no library here" in ran.err
    assert len(list(library.folder.iterdir())) == 4


@pytest.mark.parametrize(("answer", "is_kept"), [("n\n", True), ("y\n", False)])
def test_remove_all_asks_on_a_terminal(
    library: Library, run: Run, monkeypatch: pytest.MonkeyPatch, answer: str, is_kept: bool
) -> None:
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    ran = run("remove", "--all")
    assert (ran.code, library.exists) == (int(is_kept), is_kept)


def test_export(library: Library, run: Run, tmp_path: Path) -> None:
    ran = run("export", "-o", "blue.faiss", "--focus", "blue")
    assert (ran.code, ran.out) == (0, "blue.rows.jsonl\nblue.faiss\n")
    assert faiss.read_index(str(tmp_path / "blue.faiss")).ntotal == 4
    ran = run("export", "-o", "blue.faiss", "--focus", "blue")
    assert (ran.code, ran.out) == (1, "")
    assert "blue.rows.jsonl: cannot be written (it exists; replace it with --force)" in ran.err
    assert run("export", "-o", "blue.faiss", "--focus", "blue", "--force").code == 0
    assert run("export", "-o", "blue.csv", "--focus", "blue").code == 1
    assert (
        run("export", "-o", "half", "--focus", "red", "--gate-scale", "0.5", "--format", "parquet").code == 0
    )
    about = json.loads(pyarrow.parquet.read_schema(tmp_path / "half").metadata[b"steersearch"])
    assert about["gate_scale"] == 0.5


def test_export_takes_the_complete_index_and_says_how_many_rows_of_how_many(
    library: Library, run: Run, tmp_path: Path
) -> None:
    """ "red" was tried out at gate scale 0.25 on one photo, last of all."""
    toy = ToyEmbedder()
    tried = Focus.on(library.new_index(toy, "red", 0.25))
    one = Filters.of(where="path = '001.png'")
    library.search_any([tried], library.folder / "000.png", lambda _: toy, 1, filters=one)
    ran = run("export", "-o", "red.parquet", "--focus", "red")
    assert pyarrow.parquet.read_table(tmp_path / "red.parquet").num_rows == 4
    assert '4 of 4 photos, by "red" (model toy, gate_scale 1)\n' in ran.err
    others = '"red" (model toy, gate_scale 0.5), "red" (model toy, gate_scale 0.25)'
    assert f'"red" has 3 indexes; the others: {others}; choose with --gate-scale' in ran.err
    (row,) = map(json.loads, run("find", "red", "-k", "1", "--json").out.splitlines())
    assert (row["gate_scale"], row["compared"], row["of"]) == (1.0, 4, 4)
    assert [index["gate_scale"] for index in row["other_indexes"]] == [0.5, 0.25]
    ran = run("export", "-o", "few.arrow", "--focus", "red", "--gate-scale", "0.25")
    assert (ran.code, ran.out) == (0, "few.arrow\n")
    assert '1 of 4 photos, by "red" (model toy, gate_scale 0.25)\n' in ran.err
    assert (
        "3 photos have no vector yet and are missing from the file; to add them: steersearch index "
        in ran.err
    )
    assert "has 3 indexes" not in ran.err


def test_their_help_says_what_they_do(run: Run) -> None:
    for command in ("info", "verify", "optimize", "remove", "export"):
        ran = run(command, "--help")
        assert ran.code == 0
        assert "Example:" in ran.out
