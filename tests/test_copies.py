"""Copies of a photo are folded into the best of them, and said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steersearch.indexer.copies import SAME_PHOTO, folded
from steersearch.indexer.embedder import Floats
from steersearch.indexer.library import Aim, Hit, Hits, Library
from steersearch.indexer.query import EXACT, Searched
from tests.toy_embedder import ToyEmbedder, save_photo

ALL = Searched((), 27, 27, EXACT)


def hits(*image_ids: str) -> Hits[Hit]:
    found = [
        Hit(Path(f"/{i}-{image_id}"), 1 - 0.01 * i, i + 1, image_id, 1.0, True, (), ALL)
        for i, image_id in enumerate(image_ids)
    ]
    return Hits(found, ALL)


def at(degrees: float) -> Floats:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], dtype=np.float32)


def test_identical_and_near_photos_are_folded_into_the_best() -> None:
    limit = float(np.degrees(np.arccos(SAME_PHOTO)))
    vectors = {"a": at(0), "b": at(limit - 1), "c": at(limit + 1), "d": at(90)}
    all_hits = hits("a", "c", "b", "a", "unknown", "d", "unknown")
    found = folded(lambda count: all_hits, 10, lambda ids: vectors)
    assert [hit.image_id for hit in found] == ["a", "c", "unknown", "d"]
    assert [hit.rank for hit in found] == [1, 2, 3, 4]
    assert [[path.name for path in hit.copies] for hit in found] == [["2-b", "3-a"], [], ["6-unknown"], []]
    assert found.searched is all_hits.searched


def test_more_is_asked_for_until_k_are_left_or_there_are_no_more() -> None:
    asked: list[int] = []

    def search(count: int) -> Hits[Hit]:
        asked.append(count)
        return Hits(hits(*["a"] * 20, *"bcdefgh")[:count], ALL)

    found = folded(search, 4, lambda ids: {})
    assert [hit.image_id for hit in found] == ["a", "b", "c", "d"]
    assert len(found[0].copies) == 19
    assert asked == [12, 36]
    assert len(folded(search, 100, lambda ids: {})) == 8


@pytest.mark.parametrize("regions", [True, False])
def test_a_query_folds_copies(tmp_path: Path, regions: bool) -> None:
    photos = tmp_path / "photos"
    for name, colour in {
        "red.png": (200, 0, 0),
        "red again.png": (200, 0, 0),
        "red anew.png": (203, 2, 1),
        "blue.png": (0, 0, 200),
    }.items():
        save_photo(photos / name, colour)
    library = Library.create(photos, tmp_path / "library")
    library.index(ToyEmbedder(), ["red"], regions=regions)
    aims = [Aim(library.find_prompt_index("red"))]
    found = library.search_any(aims, photos / "red.png", lambda _: ToyEmbedder(), 3, collapse=True)
    copies = {hit.path.name: sorted(path.name for path in hit.copies) for hit in found}
    if regions:
        assert copies == {"red again.png": ["red anew.png", "red.png"], "blue.png": []}
    else:  # only what has the same content
        assert copies == {"red again.png": ["red.png"], "red anew.png": [], "blue.png": []}
    assert [hit.rank for hit in found] == list(range(1, len(found) + 1))
    assert len(library.search_any(aims, photos / "red.png", lambda _: ToyEmbedder(), 4)) == 4
    found = library.find_any(aims[0], lambda _: ToyEmbedder(), 3, collapse=True)
    assert {hit.path.name: sorted(path.name for path in hit.copies) for hit in found} == copies
    assert len(library.find_any(aims[0], lambda _: ToyEmbedder(), 4)) == 4
