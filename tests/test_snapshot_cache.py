"""Copies of snapshots of libraries in buckets: fetched once, never out of date, kept below a limit."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steersearch.core.objects import ObjectPath, ObjectStoreError
from steersearch.indexer import snapshot as snapshots
from steersearch.indexer import snapshot_cache
from steersearch.indexer.ranking import rank
from steersearch.indexer.schema import FileRecord
from steersearch.indexer.snapshot import Snapshot, open_snapshot, refresh_snapshot, remove_snapshot
from steersearch.indexer.store import Store, Vector
from tests.bucket import Emulator, emulator

KEY = "red-000000000000"


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    with pytest.MonkeyPatch.context() as patched, emulator(patched) as running:
        yield running


@pytest.fixture
def place(server: Emulator, request: pytest.FixtureRequest) -> ObjectPath:
    found = server.create_bucket("photos-of-ours") / str(abs(hash(request.node.name)))
    assert isinstance(found, ObjectPath)
    return found


@pytest.fixture
def store(place: ObjectPath) -> Store:
    """Two photos."""
    store = Store(place)
    store.ensure_images()
    store.ensure_prompt_table(KEY, 2)
    add(store, "a.jpg", [1.0, 0.0])
    add(store, "b.jpg", [0.0, 1.0])
    return store


def add(store: Store, path: str, embedding: list[float], key: str = KEY) -> None:
    store.write_vectors(key, [Vector(path, np.array(embedding, np.float32), np.ones((1, 1), np.float32))])
    store.write_images([FileRecord(path, path, 1, 1)])


def nearest(snapshot: Snapshot) -> list[str]:
    rows = rank([snapshot], [np.array([0.6, 0.8], np.float32)], [1.0], 10).rows
    return [snapshot.value("path", row) for row in rows]


def copies(place: ObjectPath, key: str = KEY) -> list[str]:
    """The files on this machine."""
    folder = snapshot_cache.home_of(place) / "snapshots" / key
    return sorted(path.suffix for path in folder.iterdir()) if folder.exists() else []


def drop_copies(place: ObjectPath) -> None:
    """As on a machine that has never searched the library."""
    for path in snapshot_cache.home_of(place).rglob("*.*"):
        path.unlink()


def forbid(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def called(*_: Any, **__: Any) -> Any:
        raise AssertionError(f"{names} was used")

    for name in names:
        monkeypatch.setattr(snapshots if name == "Store" else ObjectPath, name, called)


def test_another_machine_fetches_what_the_writer_published_and_only_once(
    store: Store, place: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh_snapshot(place, KEY)
    drop_copies(place)
    forbid(monkeypatch, "Store", "write", "upload", "create", "unlink")  # a reader may not write
    assert nearest(open_snapshot(place, KEY)) == ["b.jpg", "a.jpg"]
    assert copies(place) == [".arrow", ".npy"]
    forbid(monkeypatch, "download")
    assert nearest(open_snapshot(place, KEY)) == ["b.jpg", "a.jpg"]


def test_what_nobody_published_is_made_from_the_tables_and_kept_here(
    store: Store, place: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        forbid(patched, "write", "upload", "create", "unlink")
        assert nearest(open_snapshot(place, KEY)) == ["b.jpg", "a.jpg"]
    assert not (place / "snapshots").is_dir()
    forbid(monkeypatch, "Store")
    assert nearest(open_snapshot(place, KEY)) == ["b.jpg", "a.jpg"]


def test_a_copy_is_never_out_of_date(store: Store, place: ObjectPath) -> None:
    """Not after another machine has written, with or without a snapshot, nor after it swept older ones away."""
    refresh_snapshot(place, KEY)
    assert nearest(open_snapshot(place, KEY)) == ["b.jpg", "a.jpg"]
    add(Store(place), "c.jpg", [0.6, 0.8])
    assert nearest(open_snapshot(place, KEY)) == ["c.jpg", "b.jpg", "a.jpg"]
    refresh_snapshot(place, KEY)
    published = [path.suffix for path in (place / "snapshots" / KEY).iterdir()]
    assert sorted(published) == [".arrow", ".npy"]
    assert nearest(open_snapshot(place, KEY)) == ["c.jpg", "b.jpg", "a.jpg"]
    remove_snapshot(place, KEY)
    assert not (place / "snapshots" / KEY).is_dir()
    assert copies(place) == []


def test_a_damaged_copy_is_made_again(store: Store, place: ObjectPath) -> None:
    refresh_snapshot(place, KEY)
    (npy,) = (snapshot_cache.home_of(place) / "snapshots" / KEY).glob("*.npy")
    npy.write_bytes(npy.read_bytes()[:-40] + bytes(40))
    assert nearest(open_snapshot(place, KEY)) == ["b.jpg", "a.jpg"]


def test_the_copies_used_longest_ago_go_first(
    store: Store, place: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"{name}-000000000000" for name in ("old", "middle", "new")]
    for key in keys:
        store.ensure_prompt_table(key, 2)
        add(store, "a.jpg", [1.0, 0.0], key)
    for age, key in zip((3000, 2000, 1000), keys, strict=True):
        open_snapshot(place, key)
        for path in (snapshot_cache.home_of(place) / "snapshots" / key).iterdir():
            os.utime(path, (path.stat().st_mtime - age,) * 2)
    open_snapshot(place, keys[0])  # which makes it the newest
    of_one = sum(
        path.stat().st_size for path in (snapshot_cache.home_of(place) / "snapshots" / keys[0]).iterdir()
    )
    monkeypatch.setattr(snapshot_cache, "_limit", int(2.5 * of_one))
    held = open_snapshot(place, keys[2])
    assert [bool(copies(place, key)) for key in keys] == [True, False, True]
    monkeypatch.setattr(snapshot_cache, "_limit", 0)
    in_use = open_snapshot(place, keys[0])
    assert [bool(copies(place, key)) for key in keys] == [True, False, False]
    assert nearest(held) == nearest(in_use) == ["a.jpg"]  # an open one stays readable
    assert nearest(open_snapshot(place, keys[2])) == ["a.jpg"]


def test_a_cut_off_store_is_an_error_not_an_old_answer(
    store: Store, place: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh_snapshot(place, KEY)

    def cut(self: ObjectPath, name: str, *_: Any, **__: Any) -> Any:
        raise ObjectStoreError(101, str(self), "the store does not answer", "check the network")

    monkeypatch.setattr(ObjectPath, "_call", cut)
    with pytest.raises(ObjectStoreError):
        open_snapshot(place, KEY)


def opened(place: str, folder: str) -> list[str]:
    """In a process of its own, with a cache of almost no space that all share."""
    os.environ["STEERSEARCH_CACHE"] = folder
    snapshot_cache.keep_at_most(1)
    found = ObjectPath(place)
    return [",".join(nearest(open_snapshot(found, KEY))) for _ in range(5)]


@pytest.mark.slow  # processes
def test_processes_that_fetch_and_delete_at_once_all_answer(
    store: Store, place: ObjectPath, tmp_path: Path
) -> None:
    refresh_snapshot(place, KEY)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        found = pool.starmap(opened, [(str(place), str(tmp_path))] * 3)
    assert found == [["b.jpg,a.jpg"] * 5] * 3
