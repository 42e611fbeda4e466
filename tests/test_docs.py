"""The documents stay true: their examples run, and what they point at exists."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from tests.conftest import COLOURS, draw_picture

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted((ROOT / "core").glob("*/*.md")))
PATH = re.compile(r"`((?:benchmarks|core|docs|indexer|steersearch|tests|training)/[\w./-]+)`")
MODULE = re.compile(r"\bsteersearch((?:\.[a-z_0-9]+)+)")


def test_library_md(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word_encoder: None) -> None:
    (tmp_path / "photos" / "trip").mkdir(parents=True)
    for seed, name in enumerate(COLOURS):
        folder = "trip" if name in ("white", "black") else "."
        draw_picture(tmp_path / "photos" / folder / f"{name}.jpg", name, seed)
    (tmp_path / "photos" / "broken.jpg").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    run_examples(DOCS / "library.md", least=15)


def run_examples(document: Path, least: int) -> None:
    """Run all blocks of a document that are marked as pycon, in order, in one session."""
    blocks = re.findall(r"^```pycon\n(.*?)^```$", document.read_text("utf-8"), re.M | re.S)
    parser, flags = doctest.DocTestParser(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    examples = parser.get_doctest("\n".join(blocks), {}, document.name, str(document), 0)
    assert len(examples.examples) >= least
    said: list[str] = []
    failed, _ = doctest.DocTestRunner(optionflags=flags).run(examples, out=said.append)
    assert failed == 0, "".join(said)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_path_that_a_document_names_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" not in target:
            assert (page.parent / path).exists() if path else page.exists(), target
            assert not anchor or anchor in anchors(page.parent / path if path else page), target
    for path in PATH.findall(text):
        assert "NAME" in path or (ROOT / path).exists(), path
    for name in MODULE.findall(text):
        assert is_module(name), f"steersearch{name}"


def anchors(page: Path) -> set[str]:
    """What can stand behind # in a link to a page: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def is_module(name: str) -> bool:
    """Whether `name`, after "steersearch", is a module, or something in one."""
    path = (ROOT / "steersearch").joinpath(*name.strip(".").split("."))
    return path.is_dir() or any(path.with_suffix(".py").is_file() for path in (path, path.parent))


def test_the_map_of_contributing_names_every_room() -> None:
    text = (DOCS / "contributing.md").read_text("utf-8")
    rooms = {path.parent.relative_to(ROOT) for path in ROOT.glob("*/*/__init__.py")}
    names = {room.as_posix() for room in rooms if not (ROOT / room).is_symlink() and room.parts[0] != "build"}
    assert {"indexer/care", "training/world", "steersearch/cli"} <= names
    assert [name for name in sorted(names) if f"`{name}/`" not in text] == []


def test_the_readme_is_short_and_shows_a_picture_first() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.split()) < 900
    assert "](docs/images/" in text.split("\n## ")[0]
