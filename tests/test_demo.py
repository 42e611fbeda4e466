"""The demo: draws, indexes, queries, writes a page; works again; touches nothing that is not its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from steersearch import demo
from steersearch.core.errors import FolderError
from tests.conftest import COLOURS, Run, draw_picture


@dataclass(frozen=True)
class Drawn:
    photos: Path
    query: Path
    focuses: tuple[str, str]


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Lets the demo draw six plain pictures; the folders that were drawn into, in order."""
    folders: list[Path] = []

    def draw(folder: Path, count: int = 60, seed: int = 0) -> Drawn:
        folders.append(folder)
        for i, name in enumerate(COLOURS):
            draw_picture(folder / f"{name}.jpg", name, seed=i)
        return Drawn(folder, folder / "red.jpg", ("the mug", "the lamp"))

    monkeypatch.setattr("steersearch.training.demo_photos.demo_photos", draw)
    return folders


@pytest.fixture
def small_demo(drawings: list[Path], tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steersearch.demo.MODEL", str(tiny_model))


def test_the_demo_shows_two_rankings_and_a_page(run: Run, small_demo: None, tmp_path: Path) -> None:
    done = run("demo", "shown")
    assert done.code == 0
    assert done.out.splitlines()[0] == "6 files: 6 added, 0 reused, 0 moved, 0 skipped; 0 removed"
    for focus in ("the mug", "the lamp"):
        ranking = done.out.partition(f'focus "{focus}", query photo red.jpg\n')[2].splitlines()
        assert ranking[0].split() == ["rank", "score", "z", "photo"]
        assert re.fullmatch(r"   1  1\.0000  +\d\.\d  shown/photos/red\.jpg", ranking[1])
        assert [int(line.split()[0]) for line in ranking[1:7]] == [1, 2, 3, 4, 5, 6]
    assert done.out.splitlines()[-1] == "page: shown/results.html"
    page = (tmp_path / "shown" / "results.html").read_text("utf-8")
    assert page.count('<li class="hit">') == 12


def test_the_demo_works_twice(run: Run, small_demo: None, drawings: list[Path]) -> None:
    first, second = run("demo"), run("demo")
    assert second.code == 0
    assert len(drawings) == 1
    assert second.out.splitlines()[0] == "6 files: 0 added, 6 reused, 0 moved, 0 skipped; 0 removed"
    assert second.out.splitlines()[2:] == first.out.splitlines()[2:]


def test_its_library_is_found_afterwards(run: Run, small_demo: None) -> None:
    run("demo")
    done = run("query", "steersearch-demo/photos/red.jpg", "--focus", "the lamp", "-k", "1")
    assert done.code == 0
    assert re.fullmatch(r"   1  1\.0000  +\d\.\d  steersearch-demo/photos/red\.jpg", done.out.splitlines()[1])


def test_the_demo_refuses_a_folder_in_use(run: Run, small_demo: None, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "holiday.jpg").write_text("precious")
    done = run("demo", "mine")
    assert (done.code, done.out) == (1, "")
    assert (
        "error: mine: holds files that are not the demo's, such as holiday.jpg; name a new folder" in done.err
    )
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["holiday.jpg"]


def test_a_photo_put_among_the_demos_is_safe(drawings: list[Path], tmp_path: Path) -> None:
    demo.prepare_photos(tmp_path / "demo")
    mine = tmp_path / "demo" / "photos" / "mine.jpg"
    mine.write_text("precious")
    (tmp_path / "demo" / "photos" / "red.jpg").unlink()
    with pytest.raises(FolderError, match=re.escape("such as photos/mine.jpg")):
        demo.prepare_photos(tmp_path / "demo")
    assert mine.read_text() == "precious"


def test_an_interrupted_drawing_is_drawn_again(drawings: list[Path], tmp_path: Path) -> None:
    half = tmp_path / "demo" / ".drawing"
    half.mkdir(parents=True)
    (half / "half.jpg").touch()
    drawn = demo.prepare_photos(tmp_path / "demo")
    assert sorted(path.name for path in (tmp_path / "demo" / "photos").iterdir()) == sorted(drawn.files)
    assert not half.exists()


def test_missing_photos_are_drawn_again(drawings: list[Path], tmp_path: Path) -> None:
    drawn = demo.prepare_photos(tmp_path / "demo")
    (tmp_path / "demo" / "photos" / "blue.jpg").unlink()
    assert demo.prepare_photos(tmp_path / "demo") == drawn
    assert (tmp_path / "demo" / "photos" / "blue.jpg").is_file()
    assert len(drawings) == 2
