from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from steersearch.core.errors import LibraryBusyError, LibraryPlaceError
from steersearch.indexer.manifest import LibraryManifest, write_library
from steersearch.indexer.writers import alone, writing


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_library(tmp_path / "library", LibraryManifest(folder="/photos"))
    return tmp_path / "library"


def write_until_killed(place: str, began: Any) -> None:
    with writing(Path(place)):
        began.set()
        signal.pause()


def test_writers_work_side_by_side_and_nobody_is_alone_beside_one(place: Path) -> None:
    with writing(place), writing(place), pytest.raises(LibraryBusyError, match="is writing"), alone(place):
        pytest.fail("not alone")
    with alone(place):
        pass
    assert [path.name for path in (place / "locks").iterdir() if path.name.startswith("writer-")] == []


def test_a_killed_writer_stands_in_nobodys_way(place: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    began = spawn.Event()
    writer = spawn.Process(target=write_until_killed, args=(str(place), began))
    writer.start()
    assert began.wait(600)
    with pytest.raises(LibraryBusyError), alone(place):
        pytest.fail("not alone")
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join(600)
    with alone(place):
        assert not list((place / "locks").glob("writer-*"))


def test_a_place_where_no_lock_can_be_made_cannot_be_written(place: Path) -> None:
    (place / "locks").write_text("in the way")
    with pytest.raises(LibraryPlaceError, match="cannot be written"), writing(place):
        pytest.fail("it was opened")
