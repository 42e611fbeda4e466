"""Rows that are certainly new are appended; whoever else writes, and whenever, each key is in a table once."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lancedb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lancedb.table import LanceTable

from steersearch.core.errors import LibraryPlaceError
from steersearch.indexer import build, disks, locks
from steersearch.indexer.database import Database
from steersearch.indexer.schema import IMAGES
from steersearch.indexer.store import Store
from steersearch.indexer.table_keys import TableKeys, hashes_of
from tests.test_store import KEY, record, vector
from tests.toy_embedder import ToyEmbedder, save_photos
from tests.toy_library import Library

KEYS = st.lists(st.text(max_size=3), max_size=40, unique=True)


def new_store(place: Path) -> Store:
    store = Store(place)
    store.ensure_images()
    store.ensure_prompt_table(KEY, 3)
    return store


def rows(place: Path) -> dict[str, str]:
    """The image_id of each path; fails if a path or a content is there twice."""
    database = lancedb.connect(place / "lance")
    contents = database.open_table(f"prompt_{KEY}").to_arrow().column("image_id").to_pylist()
    assert len(set(contents)) == len(contents)
    images = database.open_table(IMAGES).to_arrow().to_pylist()
    found = {row["path"]: row["image_id"] for row in images}
    assert len(found) == len(images)
    return found


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("not here")


@given(st.lists(KEYS), KEYS)
def test_a_key_that_was_taken_in_is_never_called_new(parts: list[list[str]], others: list[str]) -> None:
    keys = TableKeys(pa.array(part, pa.string()) for part in parts[:2])
    for part in parts[2:]:
        keys.take_in(hashes_of(pa.array(part, pa.string())))
    there = set().union(*parts)
    some = [*there, *others]
    lacking = keys.lack(hashes_of(pa.array(some, pa.string())))
    assert lacking.tolist() == [key not in there for key in some]


def test_a_run_that_writes_alone_merges_nothing_and_reads_the_keys_of_each_table_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library.create(save_photos(tmp_path / "photos", 20), tmp_path / "library")
    monkeypatch.setattr(build, "_COMMIT_IMAGES", 4)
    monkeypatch.setattr(LanceTable, "merge_insert", refuse)
    read = Counter[str]()
    keys = Store._keys

    def counting(self: Store, name: str, key: str, table: Any) -> TableKeys:
        found = keys(self, name, key, table)
        read[name] += found not in seen
        seen.append(found)
        return found

    seen: list[TableKeys] = []
    monkeypatch.setattr(Store, "_keys", counting)
    assert library.index(ToyEmbedder(), ["red"], batch_size=4).added == 20
    assert len(seen) > 2 * len(read)
    assert set(read.values()) == {1}
    assert library.index(ToyEmbedder(), ["blue"]).added == 20


# What one of several writers does: which of them, what, and with which keys.
STEP = st.tuples(
    st.integers(0, 2),
    st.sampled_from(["write", "write", "write", "remove", "compact", "begin anew"]),
    st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True),
)


@given(st.lists(STEP, max_size=12))
def test_writers_in_turn_leave_each_key_once(steps: list[tuple[int, str, list[int]]]) -> None:
    with TemporaryDirectory() as folder:
        place = Path(folder)
        stores = [new_store(place) for _ in range(3)]
        expected = dict[str, str]()
        for number, (writer, what, keys) in enumerate(steps):
            if what == "write":
                stores[writer].write_images([record(str(key), f"{number}") for key in keys])
                stores[writer].write_vectors(KEY, [vector(str(key), 1, 0, 0) for key in keys])
                expected |= {str(key): f"{number}" for key in keys}
            elif what == "remove":
                gone = [file for file in stores[writer].known() if int(file.path) in keys]
                stores[writer].remove_images(gone)
                expected = {path: id for path, id in expected.items() if int(path) not in keys}
            elif what == "compact":
                Database(place).change(IMAGES, lambda table: table.optimize())
            else:  # the library was removed, and another made in its place
                shutil.rmtree(place / "lance")
                new_store(place)
                expected = {}
        assert rows(place) == expected


def test_versions_of_another_table_by_that_name_do_not_deceive(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.write_images([record("a")])
    shutil.rmtree(tmp_path / "lance")
    new_store(tmp_path).write_images([record("b")])
    store.write_images([record("a"), record("b")])
    assert rows(tmp_path).keys() == {"a", "b"}


@pytest.mark.parametrize("step", ["search", "add", "merge_insert"])
def test_whoever_writes_while_another_is_stopped_in_a_commit_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    store = new_store(tmp_path)
    store.write_images([record("old", "0")])
    monkeypatch.setattr(locks, "_PATIENCE_S", 0.0)
    stopped, waits = threading.Event(), threading.Event()
    caplog.handler.addFilter(lambda _: waits.set() or True)
    real = getattr(LanceTable, step)

    def stopping(self: Any, *args: Any, **named: Any) -> Any:
        if not stopped.is_set():
            stopped.set()
            assert waits.wait(600)
        return real(self, *args, **named)

    monkeypatch.setattr(LanceTable, step, stopping)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(Store(tmp_path).write_images, [record("old", "1"), record("new", "1")])
        assert stopped.wait(600)
        second = threads.submit(store.write_images, [record("old", "2"), record("new", "2")])
        first.result(600)
        second.result(600)
    assert rows(tmp_path) == {"old": "2", "new": "2"}
    assert "waiting for the tables of the library" in caplog.text


def write_and_die(place: str) -> None:
    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    LanceTable.merge_insert = die
    Store(Path(place)).write_images([record("old", "1"), record("new", "1")])


def test_a_writer_killed_in_a_commit_stands_in_nobodys_way(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.write_images([record("old", "0")])
    writer = multiprocessing.get_context("spawn").Process(target=write_and_die, args=(str(tmp_path),))
    writer.start()
    writer.join(600)
    assert writer.exitcode == -signal.SIGKILL
    assert rows(tmp_path) == {"old": "0", "new": "1"}
    store.write_images([record("new", "2"), record("old", "2")])
    assert rows(tmp_path) == {"old": "2", "new": "2"}


def test_after_a_commit_that_failed_nothing_is_taken_for_granted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(tmp_path)
    store.write_images([record("a")])
    add = LanceTable.add

    def full(self: Any, some: Any) -> None:
        add(self, some)  # it arrived all the same
        raise RuntimeError("lance error: LanceError(IO): No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(LanceTable, "add", full)
        with pytest.raises(LibraryPlaceError, match="No space left"):
            store.write_images([record("b", "1")])
    store.write_images([record("b", "2"), record("c", "2")])
    assert rows(tmp_path) == {"a": "id", "b": "2", "c": "2"}


@pytest.mark.parametrize(("step", "last"), [("add", "2"), ("merge_insert", "1")])
def test_a_writer_whom_no_lock_reaches_leaves_no_key_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, last: str
) -> None:
    store, other = new_store(tmp_path), Store(tmp_path)
    other._database.excludes_others = False
    store.write_images([record("a")])
    real = getattr(LanceTable, step)

    def after_the_other(self: Any, some: Any) -> Any:
        monkeypatch.undo()
        other.write_images([record("c", "1"), record("d", "1")])
        return real(self, some)

    monkeypatch.setattr(LanceTable, step, after_the_other)
    store.write_images([record(path, "2") for path in "abc"])
    assert rows(tmp_path) == {"a": "2", "b": "2", "c": last, "d": "1"}
    store.write_images([record("d", "3"), record("b", "3")])
    assert rows(tmp_path) == {"a": "2", "b": "3", "c": last, "d": "3"}


def test_on_a_file_server_all_is_merged_and_no_lock_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = tmp_path / "mountinfo"
    mounted.write_text(f"1 0 0:44 / {tmp_path} rw - nfs4 server:/export rw\n")
    monkeypatch.setattr(disks, "_MOUNTS", mounted)
    monkeypatch.setattr(LanceTable, "add", refuse)
    one, other = new_store(tmp_path / "library"), Store(tmp_path / "library")
    for store in (one, other, one):
        store.write_images([record("a", "A"), record("b", "B")])
        store.write_vectors(KEY, [vector("A", 1, 0, 0), vector("B", 0, 1, 0)])
    assert rows(tmp_path / "library") == {"a": "A", "b": "B"}
    assert [lock.name for lock in (tmp_path / "library/locks").iterdir()] == ["tables.lock"]
