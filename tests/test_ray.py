"""Indexing on a Ray cluster gives what a local run gives, whatever dies meanwhile."""

from __future__ import annotations

import inspect
import os
import pickle
import platform
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from steersearch.api import Models
from steersearch.core import checkpoints, errors
from steersearch.core.errors import ClusterError, FolderError, MissingExtraError, SteerSearchError
from steersearch.core.objects import ObjectPath
from steersearch.indexer import ray_cluster, ray_engine
from steersearch.indexer.build import Counts
from steersearch.indexer.contents import Contents
from steersearch.indexer.database import Database
from steersearch.indexer.embedder import Embedder, LazyEmbedder
from steersearch.indexer.folders import Folders, PhotoFolder
from steersearch.indexer.id_map import sorted_ids
from steersearch.indexer.library import Library
from steersearch.indexer.progress import ProgressEvent
from steersearch.indexer.ray_engine import RayEngine, _RayWorker
from steersearch.indexer.shards import SHARDS, mark_shards, marked_shards
from steersearch.indexer.store import table_names
from steersearch.indexer.work import Finished, Job, ShardReport, Worker
from tests.bucket import Emulator, emulator
from tests.conftest import Run, wait_until
from tests.ray_embedders import POISON, Failing, Noted, Poisoned, embedded
from tests.ray_nodes import add_node, two_nodes
from tests.test_bucket_photos import png
from tests.toy_embedder import ToyEmbedder, save_photo, save_photos

PROMPTS = ["red", "green blue", "everything"]
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason='needs pip install "steersearch[ray]"')


def rows(place: Path) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, checksums included."""

    def read(name: str) -> list[dict[str, Any]]:
        found = Database(place).read(name, lambda table: table.to_arrow())
        return sorted(found.to_pylist(), key=lambda row: row.get("path", row["image_id"]))

    return {name: read(name) for name in table_names(place)}


def tally(counts: Counts) -> dict[str, Any]:
    """All that does not depend on the clock."""
    return {name: value for name, value in vars(counts).items() if "seconds" not in name}


WRITTEN = 1_700_000_000  # seconds


def index(folders: Sequence[Path], place: Path, embedder: Embedder, **settings: Any) -> Counts:
    for file in (file for folder in folders for file in folder.rglob("*") if file.is_file()):
        os.utime(file, (WRITTEN, WRITTEN))  # a file just written is noted by a nanosecond less
    return Library.create(folders, embedder, place).index(PROMPTS, **settings)


def assert_same(place: Path, folders: Sequence[Path], tmp_path: Path) -> Counts:
    """The library at `place` has the rows of a local run; returns the counts of the latter."""
    counts = index(folders, tmp_path / "local", ToyEmbedder())
    assert rows(place) == rows(tmp_path / "local")
    assert not (place / SHARDS).exists()
    return counts


# -------------------------------------------------------------------------------------------------- without a cluster


class InShards:
    """A cluster in this process: shards of ten paths. stops: after so many shards."""

    def __init__(self, stops: int = 10**6) -> None:
        self.stops = stops

    def ready(self) -> AbstractContextManager[None]:
        return nullcontext()

    def work(
        self, job: Job, embedder: Embedder, contents: Contents, paths: Sequence[str]
    ) -> Generator[Finished, None, None]:
        for number, start in enumerate(range(0, len(paths), 10)):
            if number == self.stops:
                raise KeyboardInterrupt
            whole = Finished()
            for finished in Worker(job, embedder, contents).work(paths[start : start + 10]):
                whole.add(finished)
            whole.shard = ShardReport(number, len(whole.results), 0, 0.5)
            yield whole


def test_shards_give_the_rows_of_a_local_run(tmp_path: Path) -> None:
    photos = save_photos(tmp_path / "photos", 35)
    counts = index([photos], tmp_path / "library", ToyEmbedder(), engine=InShards())
    assert tally(assert_same(tmp_path / "library", [photos], tmp_path)) == tally(counts)


def test_finished_shards_leave_markers_and_are_not_repeated(tmp_path: Path) -> None:
    photos, place = save_photos(tmp_path / "photos", 35), tmp_path / "library"
    with pytest.raises(KeyboardInterrupt):
        index([photos], place, ToyEmbedder(), engine=InShards(stops=2))
    assert [(report.photos, report.seconds) for report in marked_shards(place)] == [(10, 0.5), (10, 0.5)]
    embedder = ToyEmbedder()
    counts = index([photos], place, embedder, engine=InShards())
    assert (counts.reused, counts.added) == (20, 15)
    assert sum(photos for photos, _ in embedder.batches) == 15
    assert_same(place, [photos], tmp_path)


def test_a_local_run_goes_on_after_one_on_a_cluster(tmp_path: Path) -> None:
    photos, place = save_photos(tmp_path / "photos", 35), tmp_path / "library"
    with pytest.raises(KeyboardInterrupt):
        index([photos], place, ToyEmbedder(), engine=InShards(stops=2))
    assert index([photos], place, ToyEmbedder()).added == 15
    assert_same(place, [photos], tmp_path)


def test_a_damaged_marker_counts_for_nothing(tmp_path: Path) -> None:
    mark_shards(tmp_path, [ShardReport(1, 64, 2, 4.0), ShardReport(2, 32, 0, 4.0)])
    first, _ = sorted((tmp_path / SHARDS).iterdir())
    assert '"photos_per_s": 16.0' in first.read_text()
    first.write_text(first.read_text().replace("64", "65"))
    assert marked_shards(tmp_path) == [ShardReport(2, 32, 0, 4.0)]


def test_a_removed_library_leaves_no_marker(tmp_path: Path) -> None:
    photos, place = save_photos(tmp_path / "photos", 12), tmp_path / "library"
    with pytest.raises(KeyboardInterrupt):
        index([photos], place, ToyEmbedder(), engine=InShards(stops=1))
    Library.open(place).delete()
    assert not place.exists()


def test_every_error_can_be_sent_to_another_process() -> None:
    sent = FolderError("photos", "is gone")
    received = pickle.loads(pickle.dumps(sent))
    assert (type(received), str(received), received.reason) == (FolderError, str(sent), "is gone")
    kinds = [k for _, k in inspect.getmembers(errors, inspect.isclass) if issubclass(k, SteerSearchError)]
    assert len(kinds) > 15
    for kind in kinds:
        error = kind.__new__(kind, "said")
        error.__dict__["reason"] = "why"
        received = pickle.loads(pickle.dumps(error))
        assert (type(received), received.args, received.reason) == (kind, ("said",), "why")


def test_a_loaded_model_is_not_sent_but_loaded_there() -> None:
    lazy = LazyEmbedder(ToyEmbedder, model_id="toy", weights_hash=ToyEmbedder().weights_hash)
    _ = lazy.dim
    received = pickle.loads(pickle.dumps(lazy))
    assert not received.is_loaded
    assert received.known == lazy.known
    assert received.dim == 4


def test_workers_load_what_auto_was_found_to_be(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    here = Models("cpu").embedder("auto", None)
    assert here.weights_hash
    assert "mini" in caplog.text
    sent = pickle.dumps(here)
    caplog.clear()
    monkeypatch.setattr(checkpoints, "choose_auto", lambda: pytest.fail("asked again"))
    there = pickle.loads(sent)
    assert (there.dim, there.model_id) == (here.dim, "mini")
    assert not caplog.text


def test_a_worker_that_lacks_a_folder_says_which_and_where(tmp_path: Path) -> None:
    folders = Folders([PhotoFolder(path=str(tmp_path / "photos"))])
    job = Job(folders=folders, prompts=(), features={})
    nothing = Contents([], sorted_ids(()), {}, ())
    answer = _RayWorker(job, ToyEmbedder(), nothing, None).begin([str(tmp_path / "photos")])
    assert isinstance(answer.finished, FolderError)
    assert "every node of the cluster must see it at this path" in str(answer.finished)


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "steersearch\[ray\]"'):
        RayEngine()


def test_an_address_needs_the_engine(run: Run, photos: Path) -> None:
    done = run("index", photos, "--ray-address", "localhost:1")
    assert (done.code, "needs --engine ray" in done.err) == (2, True)


@needs_ray
def test_an_address_without_a_cluster_is_said_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    photos, embedder = save_photos(tmp_path / "photos", 3), ToyEmbedder()
    with pytest.raises(ClusterError, match=f"no Ray cluster at {address}"):
        index([photos], tmp_path / "library", embedder, engine=RayEngine(address))
    assert embedder.is_untouched
    assert not (tmp_path / "library").exists()


@needs_ray
@pytest.mark.slow
def test_an_address_where_something_else_listens_makes_no_library(
    tmp_path: Path, own_user_folders: Path
) -> None:
    photos = save_photos(tmp_path / "photos", 3)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_address[1]}"
        command = ["index", str(photos), "--model", "mini", "--engine", "ray", "--ray-address", address]
        done = subprocess.run([sys.executable, "-m", "steersearch", *command], capture_output=True, text=True)
        server.shutdown()
    assert (done.returncode, f"no Ray cluster at {address}" in done.stderr) == (1, True), done.stderr
    assert not list(own_user_folders.rglob("*.json"))


# ----------------------------------------------------------------------------------------------------- with a cluster

COUNT = 240


class OnceAt:
    """Calls something once, when this part of the photos is finished."""

    def __init__(self, part: float, call: Callable[[], object]) -> None:
        self.part, self.call, self.is_done = part, call, False

    def __call__(self, event: ProgressEvent) -> None:
        if not self.is_done and event.done >= self.part * event.total:
            self.is_done = True
            self.call()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with two_nodes() as made:
        yield made


@pytest.fixture
def engine(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> RayEngine:
    """Small shards, so that there are many."""
    monkeypatch.setattr(ray_engine, "_SHARD", range(8, 32))
    return RayEngine(cluster.address)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return save_photos(tmp_path / "photos", COUNT)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


@needs_ray
@pytest.mark.slow
def test_two_nodes_give_the_tables_and_counts_of_a_local_run(
    engine: RayEngine, photos: Path, notes: Path, tmp_path: Path
) -> None:
    """Copies in other shards, damaged and empty files, and a second folder included."""
    more = save_photos(tmp_path / "more", 30)
    for i in range(40):
        save_photo(photos / "again" / f"{i}.png", (i * 7 % 256, i * 31 % 256, i))
    (photos / "damaged.jpg").write_bytes(b"\xff\xd8\xff no more")
    (photos / "empty.png").touch()
    place = tmp_path / "library"
    counts = index([photos, more], place, Noted(notes, processes=2), engine=engine)
    assert tally(counts) == tally(assert_same(place, [photos, more], tmp_path))
    assert (counts.copies, counts.skipped) == (70, 2)
    assert len(embedded(notes)) == 2
    assert sum(embedded(notes).values()) == COUNT


@needs_ray
@pytest.mark.slow
def test_an_update_on_the_cluster_computes_what_is_new(
    engine: RayEngine, photos: Path, tmp_path: Path
) -> None:
    """Also where one of the folders is away."""
    place, away = tmp_path / "library", save_photos(tmp_path / "away", 3)
    index([photos, away], place, ToyEmbedder())
    away.rename(tmp_path / "elsewhere")
    (photos / "000.png").rename(photos / "moved.png")
    (photos / "001.png").unlink()
    save_photo(photos / "new.png", (1, 2, 3))
    counts = Library.open(place, ToyEmbedder()).index(engine=engine)
    assert [folder.path for folder in counts.away] == [str(away)]
    assert (counts.added, counts.moved, counts.removed, counts.reused) == (1, 1, 1, COUNT - 2)
    assert counts.forward_passes == len(PROMPTS)


@needs_ray
@pytest.mark.slow
def test_a_killed_worker_loses_nothing(
    engine: RayEngine, photos: Path, notes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kill = OnceAt(0.3, lambda: os.kill(next(iter(embedded(notes))), signal.SIGKILL))
    place = tmp_path / "library"
    counts = index([photos], place, Noted(notes, 0.02, processes=2), engine=engine, progress=kill)
    assert tally(counts) == tally(assert_same(place, [photos], tmp_path))
    assert kill.is_done
    assert "a worker died and is replaced" in caplog.text


@needs_ray
@pytest.mark.slow
def test_a_lost_node_loses_nothing(
    engine: RayEngine, cluster: Any, photos: Path, notes: Path, tmp_path: Path
) -> None:
    node = add_node(cluster)
    lose = OnceAt(0.3, lambda: cluster.remove_node(node, allow_graceful=False))
    place = tmp_path / "library"
    counts = index([photos], place, Noted(notes, 0.02, processes=3), engine=engine, progress=lose)
    assert lose.is_done
    assert tally(counts) == tally(assert_same(place, [photos], tmp_path))


@needs_ray
@pytest.mark.slow
def test_a_photo_that_ends_every_worker_is_skipped_with_the_reason(
    engine: RayEngine, photos: Path, tmp_path: Path
) -> None:
    local = index([photos], tmp_path / "local", ToyEmbedder())
    save_photo(photos / "100-poison.png", POISON)
    place = tmp_path / "library"
    counts = index([photos], place, Poisoned(), engine=engine)
    assert [(skip.path, skip.reason) for skip in counts.skips] == [
        ("100-poison.png", "the process that read it died 2 times")
    ]
    assert (counts.added, counts.forward_passes) == (local.added, local.forward_passes)
    found = rows(place)
    found["images"] = [row for row in found["images"] if row["status"] == "ok"]
    assert found == rows(tmp_path / "local")


@needs_ray
@pytest.mark.slow
def test_a_photo_that_vanishes_is_skipped_as_in_a_local_run(
    engine: RayEngine, photos: Path, tmp_path: Path
) -> None:
    vanish = OnceAt(0.0, (photos / "100.png").unlink)
    counts = index([photos], tmp_path / "library", ToyEmbedder(), engine=engine, progress=vanish)
    assert [(skip.path, skip.reason) for skip in counts.skips] == [
        ("100.png", "it vanished before it could be read")
    ]
    assert_same(tmp_path / "library", [photos], tmp_path)


@needs_ray
@pytest.mark.slow
def test_another_run_at_the_same_time_loses_nothing(engine: RayEngine, photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "library"
    another = OnceAt(0.3, lambda: index([photos], place, ToyEmbedder()))
    counts = index([photos], place, ToyEmbedder(seconds=0.005), engine=engine, progress=another)
    assert another.is_done
    assert tally(counts) == tally(assert_same(place, [photos], tmp_path))


@needs_ray
@pytest.mark.slow
def test_an_error_of_the_model_is_raised_as_it_is(engine: RayEngine, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(SteerSearchError, match=r"^this model fails$"):
        index([photos], tmp_path / "library", Failing(), engine=engine)


# ------------------------------------------------------------------------------------------------ photos in a bucket


def put_photos(server: Emulator) -> ObjectPath:
    """Forty photos, a copy and a damaged one."""
    folder = server.create_bucket("of-a-cluster") / "photos"
    for i in range(40):
        server.put("of-a-cluster", f"photos/{i % 4}/{i}.png", png((i * 7 % 256, i * 31 % 256, i)))
    server.put("of-a-cluster", "photos/copy.png", png((7, 31, 1)))
    server.put("of-a-cluster", "photos/damaged.png", b"no more")
    assert isinstance(folder, ObjectPath)
    return folder


@needs_ray
@pytest.mark.slow
def test_photos_in_a_bucket_give_the_rows_of_a_local_run(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster that the run starts has the keys of its environment; an update reads one new object."""
    monkeypatch.setattr(ray_engine, "_SHARD", range(8, 16))
    with emulator(monkeypatch) as server, ray_cluster.connected(None):
        photos, place = str(put_photos(server)), tmp_path / "library"
        counts = Library.create(photos, Noted(notes), place).index(PROMPTS, engine=RayEngine())
        assert (counts.added, counts.copies, counts.skipped) == (40, 1, 1)
        assert sum(embedded(notes).values()) == 40
        assert os.getpid() not in embedded(notes)
        local = Library.create(photos, ToyEmbedder(), tmp_path / "local")
        assert tally(local.index(PROMPTS)) == tally(counts)
        assert rows(place) == rows(tmp_path / "local")
        server.put("of-a-cluster", "photos/new.png", png((1, 2, 3)))
        again = Library.open(place, ToyEmbedder()).index(engine=RayEngine())
        assert (again.added, again.reused) == (1, 41)


@needs_ray
@pytest.mark.slow
def test_nodes_without_a_way_into_the_bucket_are_named(
    engine: RayEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of this cluster were started without keys, and no run hands its own on."""
    with emulator(monkeypatch) as server:
        library = Library.create(str(put_photos(server)), ToyEmbedder(), tmp_path / "library")
        with pytest.raises(FolderError, match="every node needs its own way into the bucket") as caught:
            library.index(PROMPTS, engine=engine)
    assert platform.node() in str(caught.value)
    assert server.environment["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)


def running(mark: str) -> list[int]:
    """The processes that have `mark` in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def listening(pids: list[int]) -> set[str]:
    """The addresses at which these processes listen, as /proc writes them."""
    sockets = set()
    for pid in pids:
        with suppress(OSError):
            sockets |= {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()
    ]
    return {
        line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets
    }


@needs_ray
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux")
def test_a_killed_run_on_this_machine_is_quiet_alone_and_resumed(
    photos: Path, notes: Path, tmp_path: Path
) -> None:
    """It listens on the loopback only, leaves no process, and what it finished is not repeated."""
    code = f"""
        from pathlib import Path
        from steersearch.indexer import ray_engine
        from steersearch.indexer.library import Library
        from tests.ray_embedders import Noted
        if __name__ == "__main__":
            ray_engine._SHARD = range(8, 32)
            library = Library.create({str(photos)!r}, Noted(Path({str(notes)!r}), 0.05), {str(tmp_path / "library")!r})
            library.index({PROMPTS!r}, engine=ray_engine.RayEngine())
    """
    place, mark = tmp_path / "library", uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "STEERSEARCH_TEST": mark, "PYTHONPATH": os.getcwd()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        wait_until(lambda: len(marked_shards(place)) >= 2 or process.poll() is not None)
        addresses = listening(running(mark))
    finally:
        process.kill()
        said = process.communicate()[0]
    assert said == b""
    assert addresses
    assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    wait_until(lambda: not running(mark))
    done = sum(report.photos for report in marked_shards(place))
    for file in notes.iterdir():
        file.unlink()
    counts = index([photos], place, Noted(notes), engine=RayEngine())
    assert counts.reused >= done
    assert counts.added == COUNT - counts.reused == sum(embedded(notes).values())
    assert_same(place, [photos], tmp_path)


# ------------------------------------------------------------------------------- two nodes and two thousand photos

MANY, SHARED = 2000, 100  # contents, and copies of some of them
MOST_LOST = 2 * 64  # photos of a worker that dies: of the shard that it works on and of the next


@dataclass(frozen=True)
class Gallery:
    """A folder, and what a local run makes of it."""

    folder: Path
    counts: dict[str, Any]
    rows: dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    work = tmp_path_factory.mktemp("two-nodes")
    folder, place = work / "photos", work / "local"
    for i in range(MANY):
        save_photo(folder / f"{i % 20}" / f"{i:04}.bmp", (i % 256, i // 256, 7))
    for i in range(SHARED):
        save_photo(folder / "copies" / f"{i}.bmp", (i * 17 % 256, i % 7, 7))
    (folder / "damaged.jpg").write_bytes(b"\xff\xd8\xff no more")
    counts = index([folder], place, ToyEmbedder())
    assert (counts.added, counts.copies, counts.skipped) == (MANY, SHARED, 1)
    return Gallery(folder, tally(counts), rows(place))


@pytest.fixture
def shards(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> RayEngine:
    monkeypatch.setattr(ray_engine, "_SHARD", range(32, 64))
    return RayEngine(cluster.address)


@needs_ray
@pytest.mark.soak
def test_two_nodes_index_two_thousand_photos_as_a_local_run_does(
    shards: RayEngine, gallery: Gallery, notes: Path, tmp_path: Path
) -> None:
    place = tmp_path / "library"
    counts = index([gallery.folder], place, Noted(notes, processes=2), engine=shards)
    assert (tally(counts), rows(place)) == (gallery.counts, gallery.rows)
    assert len(embedded(notes)) == 2
    assert sum(embedded(notes).values()) == MANY


@needs_ray
@pytest.mark.soak
def test_one_of_two_nodes_is_lost_half_way(
    shards: RayEngine, gallery: Gallery, cluster: Any, notes: Path, tmp_path: Path
) -> None:
    """Only the shards that its worker had are worked on again."""
    (node,) = cluster.worker_nodes
    lose = OnceAt(0.5, lambda: cluster.remove_node(node, allow_graceful=False))
    place = tmp_path / "library"
    try:
        counts = index(
            [gallery.folder], place, Noted(notes, 0.003, processes=2), engine=shards, progress=lose
        )
    finally:
        add_node(cluster)
    assert lose.is_done
    assert (tally(counts), rows(place)) == (gallery.counts, gallery.rows)
    assert MANY <= sum(embedded(notes).values()) <= MANY + MOST_LOST


@needs_ray
@pytest.mark.soak
def test_a_run_on_two_nodes_is_killed_half_way_and_resumed(
    shards: RayEngine, gallery: Gallery, cluster: Any, notes: Path, tmp_path: Path
) -> None:
    """What its finished shards hold is not computed again; at the end no marker is left."""
    place, before = tmp_path / "library", tmp_path / "before"
    before.mkdir()
    code = f"""
        from pathlib import Path
        from tests.ray_embedders import Noted
        from tests.test_ray import index
        from steersearch.indexer import ray_engine
        ray_engine._SHARD = range(32, 64)
        embedder, engine = Noted(Path({str(before)!r}), 0.003, 2), ray_engine.RayEngine({cluster.address!r})
        index([Path({str(gallery.folder)!r})], Path({str(place)!r}), embedder, engine=engine)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], cwd=Path(__file__).parents[1])

    def done() -> int:
        return sum(report.photos for report in marked_shards(place))

    try:
        wait_until(lambda: done() >= MANY / 2 or process.poll() is not None)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    assert len(embedded(before)) == 2
    finished = done()
    assert MANY / 2 <= finished < MANY
    counts = index([gallery.folder], place, Noted(notes), engine=shards)
    assert counts.reused >= finished
    assert sum(embedded(notes).values()) == counts.added
    assert counts.added + counts.reused + counts.copies + counts.skipped == counts.files
    assert rows(place) == gallery.rows
    assert not (place / SHARDS).exists()
