"""Indexing on a Ray cluster gives what a local run gives, whatever dies meanwhile."""

from __future__ import annotations

import inspect
import pickle
import socket
from collections.abc import Generator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from steersearch.core import errors
from steersearch.core.errors import ClusterError, FolderError, MissingExtraError, SteerSearchError
from steersearch.indexer import ray_engine
from steersearch.indexer.build import Counts
from steersearch.indexer.contents import Contents
from steersearch.indexer.database import Database
from steersearch.indexer.embedder import Embedder, LazyEmbedder
from steersearch.indexer.folders import Folders, PhotoFolder
from steersearch.indexer.library import Library
from steersearch.indexer.ray_engine import RayEngine, _RayWorker
from steersearch.indexer.shards import SHARDS, mark_shards, marked_shards
from steersearch.indexer.store import table_names
from steersearch.indexer.work import Finished, Job, ShardReport, Worker
from tests.conftest import Run
from tests.toy_embedder import ToyEmbedder, save_photos

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


def index(folders: Sequence[Path], place: Path, embedder: Embedder, **settings: Any) -> Counts:
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


def test_a_worker_that_lacks_a_folder_says_which_and_where(tmp_path: Path) -> None:
    folders = Folders([PhotoFolder(path=str(tmp_path / "photos"))])
    job = Job(folders=folders, prompts=(), features={})
    answer = _RayWorker(job, ToyEmbedder(), Contents([], [], {}), None).begin()
    assert isinstance(answer.finished, FolderError)
    assert "every node of the cluster must see it at this path" in str(answer.finished)


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "steersearch\[ray\]"'):
        RayEngine()


def test_an_address_needs_the_engine(run: Run, photos: Path) -> None:
    done = run("index", photos, "--ray-address", "localhost:1")
    assert (done.code, "needs --engine ray" in done.err) == (2, True)


@needs_ray
def test_an_address_without_a_cluster_is_said_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    photos = save_photos(tmp_path / "photos", 3)
    with pytest.raises(ClusterError, match=f"no Ray cluster at {address}"):
        index([photos], tmp_path / "library", ToyEmbedder(), engine=RayEngine(address))
