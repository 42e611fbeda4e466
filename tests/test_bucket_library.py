"""A library in a bucket: all that can be done with one on this machine, and what may happen on the way."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from moto.backends import get_backend
from PIL import Image

from steersearch.core import objects
from steersearch.core.errors import LibraryPlaceError
from steersearch.core.objects import ObjectPath, ObjectStoreError
from steersearch.indexer import leases
from steersearch.indexer import library as steersearch_library
from steersearch.indexer.leases import Lease
from steersearch.indexer.snapshot_cache import home_of
from steersearch.indexer.store import Store
from tests.bucket import KEYS, Emulator, emulator
from tests.conftest import COLOURS, Run
from tests.toy_embedder import ToyEmbedder
from tests.toy_library import Library, made_by_6a69363


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with emulator(monkeypatch) as running:
        yield running


@pytest.fixture
def place(server: Emulator) -> ObjectPath:
    bucket = server.create_bucket("photos-of-ours")
    found = bucket / "library"
    assert isinstance(found, ObjectPath)
    return found


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (8, 8), colour).save(folder / f"{name}.png")
    return folder


def found(library: Library, photo: Path, focus: str = "red") -> list[tuple[str, float]]:
    hits = library.query(ToyEmbedder(), photo, focus, k=3)
    return [(hit.path.name, round(hit.score, 5)) for hit in hits]


@pytest.mark.slow  # hundreds of requests
def test_it_answers_as_a_library_on_this_machine(place: ObjectPath, photos: Path, tmp_path: Path) -> None:
    here, there = Library.create(photos, tmp_path / "here"), Library.create(photos, str(place))
    for library in (here, there):
        counts = library.index(ToyEmbedder(), ["red", "blue"])
        assert (counts.added, counts.skipped) == (6, 0)
    assert found(there, photos / "red.png") == found(here, photos / "red.png")
    (photos / "red.png").rename(photos / "scarlet.png")
    Image.new("RGB", (8, 8), (250, 10, 10)).save(photos / "new.png")
    again = Library.open(str(place))
    counts = again.index(ToyEmbedder(), ["red", "blue"])
    assert (counts.added, counts.moved, counts.reused) == (1, 1, 5)
    here.index(ToyEmbedder(), ["red", "blue"])
    opened = Library.open(str(place))
    assert found(opened, photos / "new.png") == found(here, photos / "new.png")
    assert [coverage.photos for coverage in opened.info().prompts] == [7, 7]
    assert opened.info().place == place
    assert opened.verify(deep=True) == []
    done = opened.optimize()
    assert done.versions_after < done.versions_before
    assert found(opened, photos / "new.png") == found(here, photos / "new.png")
    opened.remove(opened.prompts()[0])
    assert [index.prompt for index in opened.prompts()] == ["blue"]
    opened.delete()
    assert not place.exists()
    assert len(list(photos.iterdir())) == 7


WRITER = """
    import sys
    from tests.toy_embedder import ToyEmbedder
    from tests.toy_library import Library, made_by_6a69363
    folder, place, prompt = sys.argv[1:]
    print(Library.create(folder, place).index(ToyEmbedder(), [prompt]).added)
"""


def writer(folder: Path, place: Path, prompt: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(folder), str(place), prompt]
    return subprocess.Popen(
        command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow  # hundreds of requests
def test_one_of_an_earlier_version_is_brought_forward(
    server: Emulator, place: ObjectPath, tmp_path: Path
) -> None:
    """Copied up as it is: thumbnails are read where they are, then moved to a table of their own."""
    here = made_by_6a69363(tmp_path)
    for path in here.place.rglob("*"):
        if path.is_file():
            name = f"library/{path.relative_to(here.place).as_posix()}"
            server.put("photos-of-ours", name, path.read_bytes())
    there, ids = Library.open(str(place)), Store(here.place).photos().column("image_id").to_pylist()
    thumbnails = Store(here.place).thumbnails(ids)
    assert Store(place).thumbnails(ids) == thumbnails
    counts = there.index(ToyEmbedder())
    assert (counts.reused, counts.forward_passes) == (5, 0)
    assert Store(place).thumbnail_ids() == thumbnails.keys()
    assert Store(place).thumbnails(ids) == thumbnails
    assert there.verify(deep=True) == []


def test_of_writers_who_make_one_object_at_once_one_succeeds(
    place: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the emulator, too, which had let several: a commit was lost."""
    backend = get_backend("s3")["123456789012"]["aws"]
    put = backend.put_object

    def put_slowly(*given: Any, **named: Any) -> Any:
        time.sleep(0.05)
        return put(*given, **named)

    monkeypatch.setattr(backend, "put_object", put_slowly)
    with ThreadPoolExecutor(4) as writers:
        made = list(writers.map(ObjectPath(f"{place}/one").create, [bytes([k]) for k in range(4)]))
    assert sum(version is not None for version in made) == 1


@pytest.mark.slow  # three processes
def test_two_writers_at_once_lose_nothing(place: ObjectPath, photos: Path, tmp_path: Path) -> None:
    """Both make the library, each with photos of its own in a folder of the same name, and one prompt of both."""
    second = tmp_path / "elsewhere" / "photos"
    shutil.copytree(photos, second)
    for number in range(20):
        Image.new("RGB", (8, 8), (10 * number, 7, 9)).save(second / f"{number}.png")
    writers = [writer(photos, place, "red"), writer(second, place, "red")]
    for process in writers:
        _, complaints = process.communicate(timeout=600)
        assert process.returncode == 0, complaints
    library = Library.open(str(place))
    assert sorted(map(str, library.folders)) == sorted([str(photos), str(second)])
    counts = library.index(ToyEmbedder(), ["red"])  # finds all as it should be
    assert (counts.files, counts.added, counts.reused, counts.removed) == (32, 0, 32, 0)
    assert library.info().prompts[0].photos == 32
    assert library.verify() == []


def test_a_bucket_that_does_not_exist_is_named(server: Emulator, photos: Path) -> None:
    for ask in (
        lambda: Library.open("s3://nobody-has-this/library"),
        lambda: Library.create(photos, "s3://nobody-has-this/library"),
    ):
        with pytest.raises(ObjectStoreError, match="there is no bucket s3://nobody-has-this; check its name"):
            ask()


def test_keys_that_the_store_refuses_are_not_shown(
    server: Emulator, place: ObjectPath, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.refuse_unknown_keys()
    with pytest.raises(ObjectStoreError, match="access is refused; check AWS_ACCESS_KEY_ID") as raised:
        Library.create(photos, str(place))
    assert str(place) in str(raised.value)
    assert KEYS["AWS_ACCESS_KEY_ID"] not in str(raised.value)
    with pytest.raises(ObjectStoreError, match="access is refused") as raised:
        Store(place).embedded_ids("red-000000000000")
    assert KEYS["AWS_ACCESS_KEY_ID"] not in str(raised.value)


@pytest.mark.slow  # hundreds of requests
def test_a_store_that_is_cut_off_meanwhile_leaves_the_library_as_it_was(
    server: Emulator, place: ObjectPath, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PATIENCE", timedelta(seconds=0.1))
    library = Library.create(photos, str(place))
    library.index(ToyEmbedder(), ["red"])
    before = found(library, photos / "red.png")
    Image.new("RGB", (8, 8), (250, 10, 10)).save(photos / "new.png")

    class Cut(ToyEmbedder):
        def embed_pixels(self, *arguments: Any) -> Any:
            server.stop()
            return super().embed_pixels(*arguments)

    with pytest.raises(ObjectStoreError, match=f"{place}.*does not answer; check the network"):
        library.index(Cut(), ["red"])
    with pytest.raises(ObjectStoreError, match="does not answer"):
        found(library, photos / "red.png")
    server.start_again()
    assert found(Library.open(str(place)), photos / "red.png") == before
    monkeypatch.setattr(leases, "LEASE_S", 0.0)  # the lock of the run that was cut off has expired
    counts = library.index(ToyEmbedder(), ["red"])
    assert (counts.added, counts.reused) == (1, 6)
    assert library.verify() == []


def test_the_lock_of_a_killed_process_is_taken_over_and_a_renewed_one_is_not(
    place: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, other = Lease(place / "gate.lock"), Lease(place / "gate.lock")  # type: ignore[arg-type]
    assert held.take()
    assert not other.take()
    assert (holder := other.holder()) is not None
    assert (holder.pid, holder.host) == (os.getpid(), platform.node())
    monkeypatch.setattr(leases, "LEASE_S", 0.0)
    assert other.take()
    held.release()  # which is no longer its own
    assert other.path.exists()
    other.release()
    assert not other.path.exists()
    assert not [path for path in place.iterdir() if path.name.startswith("clock-")]


def test_a_lock_is_renewed_while_it_is_held(place: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 0.04)
    held = Lease(place / "gate.lock")  # type: ignore[arg-type]
    assert held.take()
    first = held.path.stat()
    while held.path.stat() == first:
        time.sleep(0.01)
    held.release()
    assert not held.path.exists()


def test_keys_are_read_from_the_users_file_as_well(
    place: ObjectPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the profile that is named: obstore, which does not read the file, and LanceDB, which does."""
    file = tmp_path / "credentials"
    file.write_text("[ours]\naws_access_key_id = AKIAOFTHEFILEOFTHEUSE\naws_secret_access_key = secret\n")
    for name in KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_PROFILE", "ours")
    objects.store_of.cache_clear()
    store = Store(place)
    store.ensure_images()
    assert not store.known()
    assert (place / "lance" / "images.lance").is_dir()


@pytest.mark.slow  # a process and a model
def test_commands_take_a_uri_and_name_it(
    server: Emulator, place: ObjectPath, photos: Path, tmp_path: Path, run: Run
) -> None:
    """`index`, `info`, `query`, `verify`, `optimize`, `remove`; and what they say when the store is gone."""
    at = ["--library", str(place)]
    assert run("index", str(photos), "--prompt", "red", "--model", "mini", "--no-regions", *at).code == 0
    assert str(place) in run("info", *at).out
    hits = run("query", str(photos / "red.png"), "--focus", "red", "--paths", *at)
    assert sorted(hits.out.splitlines()) == sorted(map(str, {*photos.iterdir()} - {photos / "red.png"}))
    assert run("verify", *at).code == 0
    assert run("optimize", *at).code == 0
    server.stop()
    failed = run("info", *at)
    assert failed.code == 1
    assert (
        f"{place}/library.json: the store does not answer; check the network and AWS_ENDPOINT_URL"
        in failed.err
    )
    assert "Traceback" not in failed.err


@pytest.mark.slow  # hundreds of requests
def test_a_machine_that_may_only_read_searches_everything_and_changes_nothing(
    server: Emulator, place: ObjectPath, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By a focus that is indexed, by words, and by one that nobody has indexed, whose vectors cannot be kept."""
    Library.create(photos, str(place)).index(ToyEmbedder(), ["red"])
    before = {str(path): status.version for path, status in place.below()}
    shutil.rmtree(home_of(place))  # as on another machine
    server.only_read_from_now_on()
    library = Library.open(str(place))
    assert len(found(library, photos / "red.png")) == 3
    assert library.find(library.resolve(["red"])[0])[0].path.name == "red.png"
    assert library.info().photos == 6
    assert library.verify() == []
    library._use(ToyEmbedder())
    hits = steersearch_library.Library.query(library, photos / "red.png", focus="blue", k=3, exact=True)
    assert hits.searched.compared == 6
    assert "cannot be written (access is refused" in caplog.text
    for change in (lambda: library.index(ToyEmbedder(), ["green"]), library.optimize, library.delete):
        with pytest.raises(LibraryPlaceError, match=f"{place}: cannot be written .access is refused"):
            change()
    assert {str(path): status.version for path, status in place.below()} == before
