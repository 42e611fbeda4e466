"""`steersearch bench build` as a user types it."""

from __future__ import annotations

from pathlib import Path

from steersearch.benchmarks.paper.mosaic_data import read_mosaics
from tests.conftest import Run
from tests.test_mosaic import write_voc


def test_composites_of_voc_are_built_and_measured_on(run: Run, tmp_path: Path) -> None:
    voc = write_voc(tmp_path / "VOC2012")
    done = run("bench", "build", "mosaic", voc, "-o", tmp_path / "mosaics")
    assert done.code == 0
    assert done.out == ""
    assert "2 composites" in done.err
    assert read_mosaics(tmp_path / "mosaics").n == 2


def test_what_is_not_voc_fails(run: Run, tmp_path: Path) -> None:
    done = run("bench", "build", "mosaic", tmp_path, "-o", tmp_path / "mosaics")
    assert done.code == 1
    assert "no ImageSets/Segmentation/val.txt" in done.err
    done = run(
        "bench",
        "build",
        "mosaic",
        write_voc(tmp_path / "VOC2012"),
        "-o",
        tmp_path / "VOC2012/JPEGImages/2008_000001.jpg",
    )
    assert done.code == 1
    assert "2008_000001.jpg" in done.err
