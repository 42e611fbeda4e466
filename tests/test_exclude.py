"""Patterns of what is left out mean what they mean in a .gitignore file."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersearch.core.errors import ArgumentError, LibraryDamagedError
from steersearch.indexer.scan import excluder, read_patterns, scan_folder, write_patterns

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


NAMES = ("a.jpg", "b.jpg", "d", "sub", "*", "**", "a*", "?.jpg", "[ab]*", "[!a].jpg", "x[!a]y", "\\*", "**b*")


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


def left_by_git(root: Path, *patterns: str) -> list[str]:
    """The files that git does not ignore with these lines in its .gitignore."""
    (root / ".gitignore").write_text("".join(f"{pattern}\n" for pattern in patterns))
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return sorted(set(listed.split("\0")) - {".gitignore", ""})


@pytest.mark.parametrize("pattern", CASES)
def test_a_pattern_leaves_out_what_git_would_ignore(tree: Path, pattern: str) -> None:
    assert kept(tree, pattern) == sorted(set(TREE) - CASES[pattern])
    subprocess.run(["git", "init", "-q", str(tree)], check=True)
    assert left_by_git(tree, pattern) == kept(tree, pattern)


def test_any_list_of_patterns_leaves_what_git_leaves(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "d/a.jpg", "d/sub/b.jpg", "sub/d/a.jpg", "sub/a.jpg/b.jpg", "x/y/a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    choose = random.Random(0)
    for _ in range(200):
        patterns = [
            choose.choice(["", "", "!"])
            + choose.choice(["", "", "/"])
            + "/".join(choose.choices(NAMES, k=choose.choice([1, 1, 2, 3])))
            + choose.choice(["", "", "/"])
            for _ in range(choose.randint(1, 4))
        ]
        assert kept(tmp_path, *patterns) == left_by_git(tmp_path, *patterns), patterns


def test_a_later_pattern_takes_back_what_an_earlier_one_leaves_out(tree: Path) -> None:
    assert kept(tree, "*.png", "!/a.png") == sorted({*TREE} - {"drafts/a.png", "sub/deep/er/a.png"})
    assert kept(tree, "*", "!*/", "!b.*") == ["b.jpg"]
    assert "drafts/a.png" not in kept(tree, "drafts/", "!drafts/a.png")  # its folder is left out, as in git


@pytest.mark.parametrize(
    "pattern", ["*a*a*a*a*a*a*a*a*ab", "**/a/" * 8 + "x.jpg", "**/" * 6 + "*a*a*ab", "*" * 200]
)
def test_the_time_for_a_pattern_grows_with_the_path_only(pattern: str) -> None:
    """With backtracking, these take years."""
    is_excluded = excluder([pattern])
    is_everything = set(pattern) == {"*"}
    assert is_excluded("a" * 250 + ".jpg", False) is is_everything
    assert is_excluded("a/" * 120 + "y.jpg", False) is is_everything


def test_bytes_that_are_no_utf_8_are_a_letter_each() -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    for pattern in ("caf?.jpg", "caf*", name):
        assert excluder([pattern])(name, False), pattern
    assert not excluder([os.fsdecode(b"caf\xe8.jpg")])(name, False)


@pytest.mark.parametrize("name", ["#recycle.jpg", "!a.jpg", "a*.jpg", "a .jpg", "[x].jpg", "line\nbreak.jpg"])
def test_a_name_with_letters_of_meaning_can_be_escaped(name: str) -> None:
    escaped = "".join(f"\\{letter}" if letter in "*?[!" else letter for letter in name)
    assert excluder([escaped])(name, False)
    assert not excluder([escaped])("ab.jpg", False)


def test_several_patterns_leave_out_what_any_of_them_names(tree: Path) -> None:
    assert kept(tree, "*.png", "sub/", "drafts.jpg") == ["[x].jpg", "b.jpg"]


def test_composed_and_decomposed_letters_are_alike_to_a_pattern(tmp_path: Path) -> None:
    for name in ("caf\u00e9.jpg", "cafe\u0301.jpg", "cafe.jpg"):
        (tmp_path / name).touch()
    for pattern in ("caf\u00e9*", "cafe\u0301*"):
        assert kept(tmp_path, pattern) == ["cafe.jpg"]


@given(st.text("ab/*?[]!^-.&~|# \\é\n\udce9", max_size=8))
def test_every_other_pattern_matches_or_is_refused_with_a_reason(pattern: str) -> None:
    try:
        excluder([pattern])("a/b.jpg", False)
    except ArgumentError as error:
        message = str(error)
    else:
        message = "exclude"
    assert message.startswith("exclude")


@pytest.mark.parametrize("pattern", ["", " ", "/", "!", "../a", "./a", "a\\b", "drafts\\", "[a", "[z-a]"])
def test_what_cannot_be_intended_is_refused(pattern: str) -> None:
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
