"""Examples in the documents are run, so that they stay true."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from tests.conftest import COLOURS, draw_picture

DOCS = Path(__file__).parent.parent / "docs"


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
