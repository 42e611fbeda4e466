"""The query photo and its copies are left out of the hits, and the answer says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from steersearch import Library
from steersearch.indexer import dedup
from tests.conftest import Run

PROMPT = "the red mug"


@pytest.fixture
def library(photos: Path, tiny_model: Path, word_encoder: None) -> Library:
    """red.jpg lies there three times: as it is, copied, and saved anew."""
    (photos / "trip").mkdir()
    shutil.copy(photos / "red.jpg", photos / "trip" / "same.jpg")
    Image.open(photos / "red.jpg").save(photos / "anew.jpg", quality=80)
    library = Library.create(photos, model=str(tiny_model))
    library.index(prompts=[PROMPT])
    return library


OTHERS = ["black.jpg", "blue.jpg", "green.jpg", "white.jpg", "yellow.jpg"]
SHOWN = ["anew.jpg", "red.jpg", "same.jpg"]


@pytest.mark.parametrize("focus", [PROMPT, None, "a new lamp"], ids=["indexed", "no focus", "new"])
def test_neither_the_photo_nor_its_copies_are_hits(library: Library, photos: Path, focus: str | None) -> None:
    hits = library.query(photos / "red.jpg", focus)
    assert sorted(hit.path.name for hit in hits) == OTHERS
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    assert sorted(path.name for path in hits.searched.left_out) == SHOWN
    assert hits[0].searched.left_out == hits.searched.left_out
    assert "left out: the query photo and its copies, 3 photos" in str(hits.searched)
    assert len(library.query(photos / "red.jpg", focus, k=2)) == 2
    kept = library.query(photos / "red.jpg", focus, include_query=True)
    assert (len(kept), kept.searched.left_out) == (8, ())
    assert hits[0].score == next(hit.score for hit in kept if hit.path == hits[0].path)


def test_a_copy_of_a_photo_from_outside_is_left_out(library: Library, photos: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    Image.open(photos / "blue.jpg").save(outside)
    hits = library.query(outside, PROMPT, k=1)
    assert hits[0].path.name != "blue.jpg"
    assert [path.name for path in hits.searched.left_out] == ["blue.jpg"]
    assert str(hits.searched) == "exact; left out: the query photo"


def test_a_photo_that_was_left_out_behind_the_last_hit_is_not_named(library: Library, photos: Path) -> None:
    hits = library.query(photos / "red.jpg", [(PROMPT, -1.0)], k=2)
    assert (len(hits), hits.searched.left_out) == (2, ())  # led away from itself, it ranks last


def test_folding_copies_leaves_them_out_too(library: Library, photos: Path) -> None:
    hits = library.query(photos / "red.jpg", PROMPT, collapse=True)
    assert sorted(hit.path.name for hit in hits) == OTHERS
    assert len(hits.searched.left_out) == 3


def test_text_json_and_page_say_so(run: Run, library: Library, photos: Path, tmp_path: Path) -> None:
    query = ("query", photos / "red.jpg", "--focus", PROMPT)
    done = run(*query, "--html", tmp_path / "page.html")
    said = "exact; left out: the query photo and its copies, 3 photos"
    assert f'{said}, by "{PROMPT}"' in done.err
    assert said in (tmp_path / "page.html").read_text()
    for line in run(*query, "--json").out.splitlines():
        assert sorted(Path(path).name for path in json.loads(line)["left_out"]) == SHOWN
    kept = [json.loads(line) for line in run(*query, "--include-query", "--json").out.splitlines()]
    assert len(kept) == 8
    assert "left_out" not in kept[0]


def test_photos_are_compared_with_a_query_photo_once_and_again_when_they_change(
    library: Library, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dedup, "_COPY_COSINE", -1.0)
    outside = tmp_path / "outside.png"
    Image.open(photos / "blue.jpg").save(outside)
    read: list[str] = []

    def reading(path: Path) -> dedup.Shown | None:
        read.append(path.name)
        return opened(path)

    opened = dedup._photo
    monkeypatch.setattr(dedup, "_photo", reading)
    first = library.query(outside, PROMPT)
    assert len(set(read)) > 1
    read.clear()
    again = library.query(outside, PROMPT)
    assert read == []
    assert again == first
    outside.write_bytes(outside.read_bytes() + b" ")  # the same picture, as another file
    assert library.query(outside, PROMPT).searched.left_out == first.searched.left_out
    assert read == ["blue.jpg"]
    shutil.copy(photos / "blue.jpg", photos / "green.jpg")  # which is not indexed anew
    left_out = library.query(outside, PROMPT).searched.left_out
    assert {path.name for path in left_out} == {"blue.jpg", "green.jpg"}
