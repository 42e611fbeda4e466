"""The demo: photographs and drawings, indexed and queried, and a page; works again; touches nothing but its own.

Its photographs are free, credited, and none that is held out for tests.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steersearch import demo
from steersearch.core.errors import FolderError
from steersearch.training.photographs.listed import TEST_ONLY_PACKAGES, is_test_only, listed
from tests.conftest import COLOURS, Run, draw_picture

SHIPPED = Path(demo.__file__).parent / "photographs"
QUERY = "photographs/cat-and-a-drawn-remote-control.jpg"
RED, CAT = "red.jpg", "photographs/cat-face.jpg"


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

    monkeypatch.setattr("steersearch.demo.demo_photos", draw)
    return folders


def credited() -> dict[str, dict[str, str]]:
    """The rows of the credits, by file."""
    lines = [
        line for line in (SHIPPED / "CREDITS.md").read_text("utf-8").splitlines() if line.startswith("| ")
    ]
    names, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in lines)
    return {row[0]: dict(zip(names, row, strict=True)) for row in rows}


def test_every_shipped_photograph_is_free_and_credited() -> None:
    rows = credited()
    assert set(rows) == {path.name for path in SHIPPED.glob("*.jpg")}
    for row in rows.values():
        assert row["licence"] in ("public domain", "CC0-1.0")
        assert re.fullmatch(r"(Debian|PyPI) `[a-z-]+` \d\S+", row["package"])
        assert row["author"]
        assert row["file in it"].startswith("`")
    sizes = [path.stat().st_size for path in SHIPPED.glob("*.jpg")]
    assert sum(sizes) <= 1.5e6


def test_no_shipped_photograph_is_kept_for_tests() -> None:
    rows = credited().values()
    packages = [row["package"].split("`")[1] for row in rows]
    assert not TEST_ONLY_PACKAGES & set(packages)
    files = [row["file in it"].strip("`") for row in rows]
    assert not any(map(is_test_only, packages, files))
    assert is_test_only("gcompris-qt-data", "categorization.rcc:images/others/cup.webp")
    trained_on = {(photograph.package, photograph.file) for photograph in listed()}
    learned = {
        package for package, file in zip(packages, files, strict=True) if (package, file) in trained_on
    }
    assert learned == {"gcompris-qt-data", "scikit-image"}  # as the credits say


def test_a_remote_control_is_laid_into_photographs(tmp_path: Path) -> None:
    query = demo.copy_photographs(tmp_path)
    laid = sorted(path.name for path in tmp_path.glob("*-and-a-drawn-remote-control.jpg"))
    assert laid == sorted(f"{name}-and-a-drawn-remote-control.jpg" for name in demo.REMOTES)
    assert len(list(tmp_path.iterdir())) == len(credited())
    assert query.name in laid
    for name, spot in demo.REMOTES.items():
        before = np.asarray(Image.open(SHIPPED / f"{name}.jpg").convert("RGB"), np.float32)
        after = np.asarray(Image.open(tmp_path / f"{name}-and-a-drawn-remote-control.jpg"), np.float32)
        changed = np.abs(after - before).mean(-1) > 24
        assert 0.01 < changed.mean() < 0.12, name
        rows, columns = np.nonzero(changed)
        height, width = changed.shape
        assert columns.mean() / width == pytest.approx(spot.x, abs=0.05), name
        assert rows.mean() / height == pytest.approx(spot.y, abs=0.05), name


@pytest.fixture
def small_demo(drawings: list[Path], tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steersearch.demo.MODEL", str(tiny_model))


def test_the_demo_ranks_photographs_and_drawings(run: Run, small_demo: None, tmp_path: Path) -> None:
    done = run("demo", "shown")
    assert done.code == 0
    made = len(COLOURS) + len(credited())
    assert done.out.splitlines()[0] == f"{made} files: {made} added, 0 reused, 0 moved, 0 skipped; 0 removed"
    searches = [(QUERY, "the remote control"), (QUERY, "the cat"), (RED, "the mug"), (RED, "the lamp")]
    for query, focus in searches:
        ranking = done.out.partition(f'focus "{focus}", query photo {query}\n')[2].splitlines()
        assert ranking[0].split() == ["rank", "score", "z", "date", "photo"]
        assert re.fullmatch(
            rf"   1  1\.0000  +\d\.\d  \d{{4}}-\d\d-\d\d \(file\)  shown/photos/{re.escape(query)}",
            ranking[1],
        )
        assert [int(line.split()[0]) for line in ranking[1:9]] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert done.out.splitlines()[-1] == "page: shown/results.html"
    page = (tmp_path / "shown" / "results.html").read_text("utf-8")
    assert page.count('<li class="hit">') == 32
    assert "Two photos, four searches" in page
    assert page.count(f"The query photo, {Path(QUERY).name}") == page.count("The query photo, red.jpg") == 2
    assert f'<div class="name">{QUERY}</div>' in page
    assert "photographs: public domain; credits in shown/CREDITS.md" in done.err
    assert (tmp_path / "shown" / "CREDITS.md").read_bytes() == (SHIPPED / "CREDITS.md").read_bytes()


def test_the_demo_works_twice(run: Run, small_demo: None, drawings: list[Path]) -> None:
    first, second = run("demo"), run("demo")
    assert second.code == 0
    assert len(drawings) == 1
    made = len(COLOURS) + len(credited())
    assert (
        second.out.splitlines()[0] == f"{made} files: 0 added, {made} reused, 0 moved, 0 skipped; 0 removed"
    )
    assert second.out.splitlines()[2:] == first.out.splitlines()[2:]


def test_its_library_is_found_afterwards(run: Run, small_demo: None) -> None:
    run("demo")
    done = run(
        "query", "steersearch-demo/photos/red.jpg", "--focus", "the lamp", "-k", "1", "--include-query"
    )
    assert done.code == 0
    assert re.fullmatch(r"   1  1\.0000 .*  steersearch-demo/photos/red\.jpg", done.out.splitlines()[1])


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
    half = tmp_path / "demo" / ".making"
    half.mkdir(parents=True)
    (half / "half.jpg").touch()
    made = demo.prepare_photos(tmp_path / "demo")
    photos = tmp_path / "demo" / "photos"
    found = [path.relative_to(photos).as_posix() for path in photos.rglob("*.jpg")]
    assert sorted(found) == sorted(made.files)
    assert not half.exists()


def test_missing_photos_are_drawn_again(drawings: list[Path], tmp_path: Path) -> None:
    drawn = demo.prepare_photos(tmp_path / "demo")
    (tmp_path / "demo" / "photos" / "blue.jpg").unlink()
    assert demo.prepare_photos(tmp_path / "demo") == drawn
    assert (tmp_path / "demo" / "photos" / "blue.jpg").is_file()
    assert len(drawings) == 2


def test_a_demo_of_drawings_alone_gets_its_photographs(drawings: list[Path], tmp_path: Path) -> None:
    made = demo.prepare_photos(tmp_path / "demo")
    earlier = {"query": RED, "focuses": ["the mug", "the lamp"], "files": list(made.files)}
    (tmp_path / "demo" / "demo.json").write_text(json.dumps(earlier))
    (tmp_path / "demo" / "photos" / CAT).unlink()
    assert demo.prepare_photos(tmp_path / "demo") == made
    assert (tmp_path / "demo" / "photos" / CAT).is_file()
