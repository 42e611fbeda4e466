"""Hits as files for other programs, in the browser, and gathered in a folder."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from steersearch.collect import collect
from tests.conftest import Run, draw_picture

PROMPT = "the red mug"


@pytest.fixture
def indexed(run: Run, photos: Path, tiny_model: Path) -> Path:
    run("index", photos, "--prompt", PROMPT, "--model", tiny_model)
    return photos


@pytest.mark.parametrize("command", [("query", "photos/red.jpg", "--focus", PROMPT), ("find", PROMPT)])
def test_a_file_holds_what_json_prints(run: Run, indexed: Path, command: tuple[str, ...]) -> None:
    printed = [json.loads(line) for line in run(*command, "--json").out.splitlines()]
    for suffix in ("json", "csv", "parquet"):
        done = run(*command, "-o", f"hits.{suffix}")
        assert done.code == 0
        assert f"file: hits.{suffix}\n" in done.err
        assert len(done.out.splitlines()) == len(printed) + 1  # the table is printed as well
    assert json.loads(Path("hits.json").read_text()) == printed
    with open("hits.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [row["path"] for row in printed]
    assert [float(row["score"]) for row in rows] == [row["score"] for row in printed]
    table = parquet.read_table("hits.parquet")
    assert table.column("rank").to_pylist() == [row["rank"] for row in printed]
    assert table.schema.metadata[b"steersearch"].startswith(b"exact")
    if "left_out" in printed[0]:
        assert json.loads(rows[0]["left_out"]) == printed[0]["left_out"]
        assert json.loads(table.column("left_out")[0].as_py()) == printed[0]["left_out"]


def test_a_name_that_is_no_utf8_keeps_its_bytes(run: Run, indexed: Path) -> None:
    odd = os.fsencode(indexed) + b"/odd \xff.jpg"
    os.rename(indexed / "blue.jpg", odd)
    run("index", indexed)
    for suffix in ("csv", "parquet"):
        assert run("find", PROMPT, "-o", f"hits.{suffix}").code == 0
    assert odd in Path("hits.csv").read_bytes()
    assert any(
        "odd \ufffd.jpg" in path for path in parquet.read_table("hits.parquet").column("path").to_pylist()
    )


def test_an_unknown_suffix_is_misuse(run: Run, indexed: Path) -> None:
    done = run("find", PROMPT, "-o", "hits.docx")
    assert done.code == 2
    assert "hits.docx: its suffix must be one of .html, .htm, .json, .csv, .parquet" in done.err
    done = run("find", PROMPT, "-o", "hits.csv", "--open")
    assert done.code == 2
    assert "opens a page" in done.err


def test_the_page_is_opened_in_the_browser(
    run: Run, indexed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: not opened.append(address))
    assert run("find", PROMPT, "--open", "-o", "page.html").code == 0
    assert opened == [(tmp_path / "page.html").as_uri()]
    assert run("find", PROMPT, "--open").code == 0
    assert "Photos that show" in Path(opened[1].removeprefix("file://")).read_text()
    monkeypatch.setattr("webbrowser.open", lambda address: False)
    assert (
        "no browser could be started; open page.html in one"
        in run("find", PROMPT, "--open", "-o", "page.html").err
    )


def test_hits_are_copied_and_linked(run: Run, indexed: Path) -> None:
    done = run("find", PROMPT, "-k", 3, "--copy-to", "chosen", "--link-to", "links", "--paths")
    found = [Path(path) for path in done.out.splitlines()]
    assert "3 photos copied to chosen\n" in done.err
    assert "3 photos linked in links\n" in done.err
    for path in found:
        copy, link = Path("chosen", path.name), Path("links", path.name)
        assert copy.read_bytes() == path.read_bytes()
        assert not copy.is_symlink()
        assert link.resolve() == path


def test_what_cannot_be_had_is_an_error_and_the_rest_is_there(run: Run, indexed: Path) -> None:
    (indexed / "red.jpg").unlink()
    done = run("find", PROMPT, "--copy-to", "chosen")
    assert done.code == 1
    assert "photos/red.jpg: no such file" in done.err
    assert len(list(Path("chosen").iterdir())) == 5
    Path("taken").write_text("mine")
    done = run("find", PROMPT, "--link-to", "taken")
    assert done.code == 1
    assert "taken: cannot be made" in done.err
    assert Path("taken").read_text() == "mine"


def test_nothing_is_overwritten_and_nothing_is_there_twice(tmp_path: Path) -> None:
    for number, folder in enumerate(("one", "two", "three")):
        (tmp_path / folder).mkdir()
        draw_picture(tmp_path / folder / "red.jpg", "red", seed=number)
    photos = [tmp_path / folder / "red.jpg" for folder in ("one", "two", "three")]
    for links in (False, True):
        target = tmp_path / f"links {links}"
        target.mkdir()
        (target / "red.jpg").write_text("mine")
        for _ in range(2):  # the second time all are there
            done = collect(photos, target, links=links)
            assert [path.name for path in done.kept] == ["red (2).jpg", "red (3).jpg", "red (4).jpg"]
            assert [path.read_bytes() for path in done.kept] == [path.read_bytes() for path in photos]
        assert (target / "red.jpg").read_text() == "mine"
        assert len(list(target.iterdir())) == 4
