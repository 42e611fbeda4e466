"""Patterns of what is left out mean what they mean in a .gitignore file."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersearch.core.errors import ArgumentError, LibraryDamagedError
from steersearch.indexer.exclude import excluder, read_patterns, write_patterns
from steersearch.indexer.scan import scan_folder

TREE = (
    "a.png",
    "b.jpg",
    "drafts/a.png",
    "sub/drafts/c.jpg",
    "sub/a b.jpg",
    "sub/deep/er/a.png",
    "[x].jpg",
    "drafts.jpg",
)


def kept(root: Path, *patterns: str) -> list[str]:
    return [file.path for file in scan_folder(root, excluder(patterns)).files]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in TREE:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


CASES = {
    "*.png": {"a.png", "drafts/a.png", "sub/deep/er/a.png"},
    "/*.png": {"a.png"},
    "drafts/": {"drafts/a.png", "sub/drafts/c.jpg"},
    "drafts": {"drafts/a.png", "sub/drafts/c.jpg"},
    "/drafts": {"drafts/a.png"},
    "sub/drafts": {"sub/drafts/c.jpg"},
    "sub/*/er": {"sub/deep/er/a.png"},
    "**/er/a.png": {"sub/deep/er/a.png"},
    "sub/**": {"sub/drafts/c.jpg", "sub/a b.jpg", "sub/deep/er/a.png"},
    "sub/**/a.png": {"sub/deep/er/a.png"},
    "?.jpg": {"b.jpg", "sub/drafts/c.jpg"},
    "[ab].*": {"a.png", "b.jpg", "drafts/a.png", "sub/deep/er/a.png"},
    "[!a].*": {"b.jpg", "sub/drafts/c.jpg"},
    "[[]x].jpg": {"[x].jpg"},
    "a b.jpg": {"sub/a b.jpg"},
    "A.PNG": set(),
    "drafts.jpg/": set(),
}


@pytest.mark.parametrize("pattern", CASES)
def test_a_pattern_leaves_out_what_git_would_ignore(tree: Path, pattern: str) -> None:
    assert kept(tree, pattern) == sorted(set(TREE) - CASES[pattern])
    subprocess.run(["git", "init", "-q", str(tree)], check=True)
    (tree / ".gitignore").write_text(pattern + "\n")
    listed = subprocess.run(
        ["git", "-C", str(tree), "ls-files", "-z", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert sorted(set(listed.strip("\0").split("\0")) - {".gitignore"}) == kept(tree, pattern)


def test_several_patterns_leave_out_what_any_of_them_names(tree: Path) -> None:
    assert kept(tree, "*.png", "sub/", "drafts.jpg") == ["[x].jpg", "b.jpg"]


def test_composed_and_decomposed_letters_are_alike_to_a_pattern(tmp_path: Path) -> None:
    for name in ("caf\u00e9.jpg", "cafe\u0301.jpg", "cafe.jpg"):
        (tmp_path / name).touch()
    for pattern in ("caf\u00e9*", "cafe\u0301*"):
        assert kept(tmp_path, pattern) == ["cafe.jpg"]


@settings(max_examples=200)
@given(st.text("ab/*?[]!^-.&~| é", max_size=8))
def test_every_other_pattern_matches_or_is_refused_with_a_reason(pattern: str) -> None:
    try:
        excluder([pattern])("a/b.jpg", False)
    except ArgumentError as error:
        message = str(error)
    else:
        message = "exclude"
    assert message.startswith("exclude")


@pytest.mark.parametrize("pattern", ["", " ", "/", "!a.png", "../a", "./a", "a\\b"])
def test_what_cannot_be_meant_is_refused(pattern: str) -> None:
    with pytest.raises(ArgumentError, match="exclude"):
        excluder([pattern])


def test_patterns_are_remembered_in_their_order(tmp_path: Path) -> None:
    assert read_patterns(tmp_path) == ()
    write_patterns(tmp_path, ["b", "a é"])
    assert read_patterns(tmp_path) == ("b", "a é")
    write_patterns(tmp_path, [])
    assert read_patterns(tmp_path) == ()
    for damaged in ("{", json.dumps({"a": 1}), json.dumps([1])):
        (tmp_path / "exclude.json").write_text(damaged)
        with pytest.raises(LibraryDamagedError, match="not a list of patterns"):
            read_patterns(tmp_path)
