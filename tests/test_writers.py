from __future__ import annotations

import errno
import multiprocessing
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from steersearch.core.errors import LibraryBusyError, LibraryPlaceError
from steersearch.indexer import locks
from steersearch.indexer.folders import PhotoFolder
from steersearch.indexer.manifest import LibraryManifest, write_library
from steersearch.indexer.writers import alone, writing
from tests.toy_embedder import ToyEmbedder, save_photos
from tests.toy_library import Library


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_library(tmp_path / "library", LibraryManifest(folders=(PhotoFolder(path="/photos"),)))
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


def test_who_is_in_the_way_is_named(place: Path) -> None:
    with writing(place), pytest.raises(LibraryBusyError) as error, alone(place):
        pytest.fail("not alone")
    assert error.value.holder.startswith(f"process {os.getpid()} on {platform.node()} (")
    assert "since 20" in str(error.value)


def test_a_wait_says_for_whom(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "_PATIENCE_S", 0.0)
    waited = threading.Event()
    caplog.handler.addFilter(lambda record: waited.set() or True)

    def wait() -> None:
        with writing(place):
            pass

    with alone(place):
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert waited.wait(600)
    waiting.join(600)
    (said,) = caplog.messages
    assert said.startswith(f"waiting for the library at {place}, held by process {os.getpid()} on ")


# A file system for which `flock` gives an error, or an interruption again and again.
PRELOADED = """
#include <errno.h>
#include <stdlib.h>
int flock(int file, int operation) { errno = atoi(getenv("FLOCK_ERRNO")); return -1; }
"""


def test_where_no_lock_can_be_had_nothing_is_written_and_all_is_read(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler here")
    library = Library.create(save_photos(tmp_path / "photos", 4), tmp_path / "library")
    library.index(ToyEmbedder(), ["red"])
    (tmp_path / "flock.c").write_text(PRELOADED)
    preload = tmp_path / "flock.so"
    subprocess.run(["cc", "-shared", "-fPIC", tmp_path / "flock.c", "-o", preload], check=True)
    program = (
        "import os, sys\n"
        "from steersearch.core.errors import LibraryPlaceError\n"
        "from tests.toy_library import Library\n"
        "from tests.toy_embedder import ToyEmbedder\n"
        "place, *numbers = sys.argv[1:]\n"
        "library = Library.open(place)\n"
        "for number in numbers:\n"
        "    os.environ['FLOCK_ERRNO'] = number\n"
        "    print(len(library.query(ToyEmbedder(), library.folder / '001.png', 'red')), library.verify())\n"
        "    try:\n"
        "        library.index(ToyEmbedder(), ['blue'])\n"
        "    except LibraryPlaceError as error:\n"
        "        print(error.reason)\n"
    )
    numbers = (errno.ENOLCK, errno.ENOTSUP, errno.EINTR)
    ran = subprocess.run(
        [sys.executable, "-c", program, library.place, *map(str, numbers)],
        env={**os.environ, "LD_PRELOAD": str(preload)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    refusal = "cannot be written (cannot be locked: {}); what was indexed before is kept"
    expected = [line for number in numbers for line in ("4 []", refusal.format(os.strerror(number)))]
    assert ran.stdout.splitlines() == expected
