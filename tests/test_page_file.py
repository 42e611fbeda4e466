"""The file of the page: its links, and the pictures that lie beside it where they are many."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import numpy as np
import pytest
from PIL import Image

from steersearch.core.errors import OutputError
from steersearch.views import page
from steersearch.views.page import write_page
from tests.conftest import Run, draw_picture
from tests.test_without_focus import opened

ODD = ("a b#c?d%41&'\".jpg", "kö:ln.jpg", "new\nline.jpg", os.fsdecode(b"latin-\xe9.jpg"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, name in enumerate(ODD):
        draw_picture(folder / name, "red", seed=i)
    opened(folder).index()
    return folder


def links(html: str, attribute: str) -> list[str]:
    return [link.replace("&amp;", "&") for link in re.findall(rf'{attribute}="([^"]*)"', html)]


def file_of(link: str, base: Path) -> Path:
    """The file that a browser opens."""
    parts = urlsplit(link)
    assert parts.scheme in ("", "file")
    return base / os.fsdecode(unquote_to_bytes(parts.path))


def test_each_hit_opens_its_file_whatever_its_name(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for folder, kind in ((tmp_path, "photos/"), (tmp_path / "elsewhere", "file:///")):
        write_page(folder / "page.html", [opened(photos).query(photos / ODD[0], k=4, include_query=True)])
        found = links((folder / "page.html").read_text(), "href")
        assert all(link.startswith(kind) for link in found)
        query, *hits = (file_of(link, folder) for link in found)
        assert query == photos / ODD[0]
        assert {path.name for path in hits} == set(ODD)
        assert all(path.is_file() for path in hits)


def test_a_hit_that_is_gone_has_no_link(photos: Path, tmp_path: Path) -> None:
    library = opened(photos)
    hits = library.query(photos / ODD[0], k=4, include_query=True)
    (photos / ODD[1]).unlink()
    write_page(tmp_path / "page.html", [hits])
    html = (tmp_path / "page.html").read_text()
    assert len(links(html, "href")) == 4  # the query photo and three hits
    assert html.count(">gone</div>") == 1


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of pictures of `write_page(tmp_path / "m#p 1.html", ...)` with more than three hits."""
    monkeypatch.setattr(page, "MOST_INSIDE", 3)
    return tmp_path / "m#p 1.html.pictures"


def write(photos: Path, file: Path, k: int) -> list[Path]:
    """The pictures of the page that is written."""
    write_page(file, [opened(photos).query(photos / ODD[0], k=k, include_query=True)])
    sources = links(file.read_text(), "src")
    return [file_of(source, file.parent) for source in sources if not source.startswith("data:")]


def test_pictures_of_many_hits_lie_beside_the_page(photos: Path, beside: Path, tmp_path: Path) -> None:
    file = tmp_path / "m#p 1.html"
    pictures = write(photos, file, 4)
    assert len(pictures) == 5
    assert {path.parent for path in pictures} == {beside}
    for path in pictures:
        with Image.open(path) as shown:
            assert shown.size == (96, 64)
    assert "data:" not in file.read_text()


def test_a_new_page_replaces_the_pictures_of_the_last_and_no_other_file(
    photos: Path, beside: Path, tmp_path: Path
) -> None:
    file = tmp_path / "m#p 1.html"
    before = write(photos, file, 4)
    (beside / "notes.txt").write_text("mine")
    (beside / "mine.jpeg").write_text("mine")
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(photos / ODD[2], "JPEG")
    opened(photos).index()
    after = write(photos, file, 4)
    assert set(after) != set(before)
    assert set(beside.iterdir()) == {*after, beside / "notes.txt", beside / "mine.jpeg"}
    assert write(photos, file, 3) == []  # all in the page again
    assert set(beside.iterdir()) == {beside / "notes.txt", beside / "mine.jpeg"}


def test_a_folder_without_pictures_is_removed(photos: Path, beside: Path, tmp_path: Path) -> None:
    write(photos, tmp_path / "m#p 1.html", 4)
    write(photos, tmp_path / "m#p 1.html", 3)
    assert not beside.exists()


def test_a_page_that_fails_leaves_the_last_one_with_its_pictures(
    photos: Path, beside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "m#p 1.html"
    before, html = write(photos, file, 4), file.read_text()
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(photos / ODD[2], "JPEG")
    opened(photos).index()

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(page, "write_output", stopped)
    with pytest.raises(KeyboardInterrupt):
        write(photos, file, 4)
    assert file.read_text() == html
    assert all(path.is_file() for path in before)


def test_a_file_in_the_place_of_the_pictures_is_not_replaced(
    photos: Path, beside: Path, tmp_path: Path
) -> None:
    beside.write_text("mine")
    with pytest.raises(OutputError, match=r"m#p 1\.html\.pictures"):
        write(photos, tmp_path / "m#p 1.html", 4)
    assert beside.read_text() == "mine"
    assert not (tmp_path / "m#p 1.html").exists()


def test_a_focus_has_one_colour_scale_for_its_query_photo_and_all_hits(
    run: Run, photos: Path, tmp_path: Path, tiny_model: Path
) -> None:
    """The layer of the query photo, which is the first hit too, is the same file in both places."""
    run("index", photos, "--prompt", "mug", "--model", tiny_model)
    run("query", "--include-query", photos / ODD[0], "--focus", "mug", "-o", "page.html")
    html = (tmp_path / "page.html").read_text()
    heat = links(html.replace('class="heat heat-0" src=', "heat="), "heat")
    assert len(heat) == 5
    assert heat[0] == heat[1]
