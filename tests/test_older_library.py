"""A library that the version of commit 0011b01 made: it opens, is searched, and is brought up to date.

Its four photos and a file that is none are in the archive with it. It was indexed under "red", in colours that
`ToyEmbedder` sees, leaving out "drafts/"; a query under "blue" then steered one photo.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.toy_embedder import ToyEmbedder, save_photo
from tests.toy_library import Library

ARCHIVE = Path(__file__).parent / "data" / "library_0011b01.zip"


@pytest.fixture
def library(tmp_path: Path) -> Library:
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    manifest = tmp_path / "library" / "library.json"
    fields = json.loads(manifest.read_text())
    del fields["checksum"]  # as the library asks of whoever writes another folder into it
    manifest.write_text(json.dumps({**fields, "folder": str(tmp_path / "photos")}))
    return Library.open(tmp_path / "library")


def test_it_opens_and_is_sound(library: Library) -> None:
    assert not any(finding.is_problem for finding in library.verify(deep=True))
    assert [coverage.photos for coverage in library.info().prompts] == [4, 1]
    assert [skip.path for skip in library.skipped()] == ["broken.png"]
    assert library.excluded == ("drafts/",)


def test_it_is_searched_without_a_model(library: Library) -> None:
    never = ToyEmbedder()
    hits = library.query(never, library.folder / "red.png", "red")
    assert [hit.path.name for hit in hits[:2]] == ["pink.png", "red.png"]
    assert [round(hit.score, 6) for hit in hits] == [1.0, 1.0, 0.303695, 0.303695]
    assert hits.searched.is_exact
    assert library.heatmap(hits[0]).sum() == pytest.approx(1)
    assert never.is_untouched


def test_it_is_brought_up_to_date(library: Library) -> None:
    save_photo(library.folder / "trip" / "black.png", (0, 0, 0))
    counts = library.index(ToyEmbedder())
    assert (counts.added, counts.reused, counts.skipped, counts.forward_passes) == (1, 4, 1, 1)
    counts = library.index(ToyEmbedder(), ["blue"])
    assert (counts.added, counts.reused, counts.forward_passes) == (4, 1, 4)
    assert not any(finding.is_problem for finding in library.verify(deep=True))
