"""Searches that a fleet of workers on a Ray cluster steers: the answers of a search in this process."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from steersearch.api import Library as NamedLibrary
from steersearch.core.errors import FolderError, MissingExtraError
from steersearch.indexer import ray_cluster
from steersearch.indexer.embedder import Embedder, LazyEmbedder
from steersearch.indexer.folders import Folders, PhotoFolder
from steersearch.indexer.hits import Hits
from steersearch.indexer.hits_data import data_of, hits_of
from steersearch.indexer.library import Library
from steersearch.indexer.ray_fleet import Fleet, _Batch, _name, _Round, _Steerer
from steersearch.indexer.work import Job
from tests.bucket import emulator
from tests.conftest import Run, draw_picture, wait_until
from tests.ray_embedders import POISON, Noted, Poisoned, embedded, noted_load
from tests.ray_nodes import two_nodes
from tests.test_bucket_photos import png
from tests.test_ray import OnceAt, rows
from tests.toy_embedder import ToyEmbedder, save_photo, save_photos

COUNT = 120
SAID = "no worker of the cluster was ready, so the server's own model steered"
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason='needs pip install "steersearch[ray]"')


def indexed(folder: Path | str, place: Path | str) -> None:
    """A library in which any focus can be searched; none was."""
    Library.create(folder, ToyEmbedder(), place).index()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with two_nodes() as made:
        yield made


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return save_photos(tmp_path / "photos", COUNT)


@pytest.fixture
def place(photos: Path, tmp_path: Path) -> Path:
    indexed(photos, tmp_path / "library")
    return tmp_path / "library"


@pytest.fixture
def fleet(cluster: Any) -> Iterator[Fleet]:
    with Fleet(cluster.address) as made:
        yield made


def begun(fleet: Fleet, embedder: Embedder) -> None:
    """Wait until all workers have the model."""
    import ray

    fleet.load(embedder)
    ray.get([ref for member in fleet.members for ref in member.loading.values()])


def steered_by(fleet: Fleet, place: Path, embedder: Embedder) -> Library:
    library = Library.open(place, embedder)
    library.steering = fleet
    return library


def found(hits: Hits) -> list[tuple[str, float]]:
    return [(hit.path.name, hit.score) for hit in hits]


def assert_found_as_here(hits: Hits, place: Path, photos: Path, tmp_path: Path) -> None:
    """By rows and answer."""
    indexed(photos, tmp_path / "here")
    assert found(Library.open(tmp_path / "here", ToyEmbedder()).find("red", k=COUNT, exact=True)) == found(
        hits
    )
    assert rows(tmp_path / "here") == rows(place)


# -------------------------------------------------------------------------------------------------- without a cluster


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "steersearch\[ray\]"'):
        Fleet()


def test_serve_refuses_an_address_that_it_would_not_use(run: Run) -> None:
    done = run("serve", "--port", "0", "--ray-address", "localhost:1")
    assert (done.code, "needs --engine ray" in done.err) == (2, True)


@needs_ray
def test_serve_says_that_there_is_no_cluster_before_it_gives_an_address(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    done = run("serve", "--port", "0", "--engine", "ray", "--ray-address", address)
    assert (done.code, done.out) == (1, "")
    assert f"no Ray cluster at {address}" in done.err


def test_a_worker_that_lacks_a_folder_says_so_instead_of_calling_its_photos_unreadable(
    tmp_path: Path,
) -> None:
    worker, embedder = _Steerer(), ToyEmbedder()
    worker.load("toy", embedder)
    job = Job(folders=Folders([PhotoFolder(path=str(tmp_path / "photos"))]), prompts=(), features={})
    answer = worker.steer("toy", job, [str(tmp_path / "photos")], [("0", "0.png")])
    assert isinstance(answer.finished, FolderError)
    assert "every node of the cluster must see it at this path" in str(answer.finished)


# ----------------------------------------------------------------------------------------------------- with a cluster


@needs_ray
@pytest.mark.slow
def test_two_workers_steer_what_this_process_would(
    fleet: Fleet,
    place: Path,
    photos: Path,
    notes: Path,
    tmp_path: Path,
) -> None:
    embedder = Noted(notes, processes=2)
    begun(fleet, embedder)
    hits = steered_by(fleet, place, embedder).find("red", k=COUNT, exact=True)
    assert len(embedded(notes)) == 2
    assert os.getpid() not in embedded(notes)
    assert sum(embedded(notes).values()) == COUNT
    assert hits.searched.is_exact
    assert_found_as_here(hits, place, photos, tmp_path)


@needs_ray
@pytest.mark.slow
def test_a_query_by_several_focuses_finds_what_this_process_would(
    fleet: Fleet, place: Path, photos: Path, tmp_path: Path
) -> None:
    query, focuses = save_photo(tmp_path / "query.png", (200, 30, 90)), ["red", "green:-0.5"]
    begun(fleet, ToyEmbedder())
    hits = steered_by(fleet, place, ToyEmbedder()).query(query, focuses, k=30, exact=True)
    indexed(photos, tmp_path / "here")
    here = Library.open(tmp_path / "here", ToyEmbedder()).query(query, focuses, k=30, exact=True)
    assert found(hits) == found(here)
    assert str(hits.searched) == str(here.searched) == "exact"


@needs_ray
@pytest.mark.slow
def test_the_likeliest_come_first_within_a_budget(fleet: Fleet, place: Path, tmp_path: Path) -> None:
    query, embedder = save_photo(tmp_path / "query.png", (200, 30, 90)), ToyEmbedder(seconds=0.1)
    begun(fleet, embedder)
    hits = steered_by(fleet, place, embedder).query(query, "red", k=3, budget_s=2)
    best = Library.open(place, ToyEmbedder()).query(query, "red", k=3, exact=True)
    assert 1 <= hits.compared < COUNT
    assert hits.searched.by_regions
    assert {hit.path for hit in hits} & {hit.path for hit in best}


@needs_ray
@pytest.mark.slow
def test_workers_keep_their_model_from_one_search_to_the_next(
    fleet: Fleet,
    place: Path,
    notes: Path,
) -> None:
    embedder = LazyEmbedder(
        partial(noted_load, notes), model_id="toy", weights_hash=ToyEmbedder().weights_hash
    )
    begun(fleet, embedder)
    for focus in ("red", "blue"):
        assert steered_by(fleet, place, embedder).find(focus, exact=True).searched.is_exact
    loads = {int(file.name): file.read_text().splitlines() for file in notes.iterdir()}
    assert len(loads) == 3
    assert all(lines == ["loaded"] for lines in loads.values())


@needs_ray
@pytest.mark.slow
def test_the_batch_of_a_killed_worker_goes_to_another(
    fleet: Fleet,
    place: Path,
    photos: Path,
    notes: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    embedder = Noted(notes, 0.02, processes=2)
    begun(fleet, embedder)
    kill = OnceAt(0.3, lambda: os.kill(next(iter(embedded(notes))), signal.SIGKILL))
    hits = steered_by(fleet, place, embedder).find("red", k=COUNT, exact=True, progress=kill)
    assert kill.is_done
    assert "a worker died and is replaced" in caplog.text
    assert hits.searched.is_exact
    assert not hits.searched.remarks
    assert len(fleet.members) == 2
    assert_found_as_here(hits, place, photos, tmp_path)


@needs_ray
@pytest.mark.slow
def test_a_photo_that_ends_two_workers_is_unreadable_and_this_process_does_not_try_it(
    fleet: Fleet, photos: Path, tmp_path: Path
) -> None:
    save_photo(photos / "050-poison.png", POISON)
    indexed(photos, tmp_path / "library")
    begun(fleet, Poisoned())
    searched = steered_by(fleet, tmp_path / "library", Poisoned()).find("red", exact=True).searched
    assert (searched.compared, searched.of, searched.unreadable) == (COUNT, COUNT + 1, 1)


@needs_ray
@pytest.mark.slow
def test_a_worker_has_nothing_beside_what_another_may_have_died_at(fleet: Fleet, photos: Path) -> None:
    embedder, folders = ToyEmbedder(), Folders([PhotoFolder(path=str(photos))])
    begun(fleet, embedder)
    fleet.paces[_name(embedder)] = 0.01
    names = sorted(path.name for path in photos.iterdir())
    job = Job(folders=folders, prompts=(), features={}, batch_size=4)
    one = _Round(fleet, job, embedder, zip(names, names, strict=True), math.inf)
    suspects = [_Batch([(name, name)], 1) for name in names[-2:]]
    one._again.extend(suspects)
    first, second = fleet.members
    one._give(first)
    assert [batch for _, batch in one._out.values()] == suspects[:1]
    one._give(second)
    assert [batch for _, batch in one._out.values()] == suspects
    one._out.clear()
    one._give(first)
    assert [batch.deaths for _, batch in one._out.values()] == [0, 0]


class Stopped(Exception):
    """By whoever searches."""


@needs_ray
@pytest.mark.slow
def test_a_search_that_is_cancelled_frees_the_fleet(fleet: Fleet, place: Path, notes: Path) -> None:
    embedder = Noted(notes, 0.05)
    begun(fleet, embedder)

    def stop() -> None:
        raise Stopped

    library = steered_by(fleet, place, embedder)
    with pytest.raises(Stopped):
        library.find("red", exact=True, progress=OnceAt(0.2, stop))
    kept = library.gallery(library.find_prompt_index("red"))
    assert library.find("blue", exact=True).searched.is_exact
    steered = sum(embedded(notes).values()) - COUNT
    assert len(kept) <= steered < COUNT


@needs_ray
@pytest.mark.slow
def test_without_a_worker_this_process_steers_and_the_answer_says_so(
    cluster: Any,
    place: Path,
    photos: Path,
    notes: Path,
    tmp_path: Path,
) -> None:
    import ray

    with ray_cluster.connected(cluster.address):
        others = [ray.remote(_Steerer).options(num_cpus=1).remote() for _ in range(2)]
        ray.get([other.load.remote("toy", ToyEmbedder()) for other in others])
        with Fleet(cluster.address) as fleet:
            library = steered_by(fleet, place, Noted(notes))
            hits = library.find("red", k=COUNT, exact=True)
    assert list(embedded(notes)) == [os.getpid()]
    assert str(hits.searched) == f"exact; {SAID}"
    assert str(hits_of(data_of(hits), library, [], None).searched) == f"exact; {SAID}"  # type: ignore[arg-type]
    assert_found_as_here(hits, place, photos, tmp_path)


@needs_ray
@pytest.mark.slow
def test_a_library_and_photos_in_a_bucket(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with emulator(monkeypatch) as server:
        bucket = server.create_bucket("of-a-fleet")
        for i in range(20):
            server.put("of-a-fleet", f"photos/{i}.png", png((i * 7 % 256, i * 31 % 256, i)))
        indexed(str(bucket / "photos"), str(bucket / "library"))
        embedder = Noted(notes)
        with Fleet() as fleet:
            begun(fleet, embedder)
            hits = steered_by(fleet, bucket / "library", embedder).find("red", k=20, exact=True)
        indexed(str(bucket / "photos"), tmp_path / "here")
        here = Library.open(tmp_path / "here", ToyEmbedder()).find("red", k=20, exact=True)
    assert os.getpid() not in embedded(notes)
    assert hits.searched.is_exact
    assert found(hits) == found(here)


# ------------------------------------------------------------------------------------------------------ from end to end


def asked(address: str, path: str) -> Any:
    with urllib.request.urlopen(f"{address}api/v1/{path}", timeout=900) as answer:
        content = answer.read().decode()
    if content.startswith("event:"):
        return [json.loads(line) for line in re.findall("^data: (.*)$", content, re.M)]
    return json.loads(content)


@needs_ray
@pytest.mark.slow
def test_serve_lets_the_workers_steer_for_page_and_commands(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number, colour in enumerate(("red", "green", "blue", "yellow") * 3):
        draw_picture(tmp_path / "photos" / f"{number:02}.jpg", colour, seed=number)
    place = tmp_path / "library"
    NamedLibrary.create(tmp_path / "photos", "mini", place).index()
    command = [
        "serve",
        "--port",
        "0",
        "--library",
        str(place),
        "--engine",
        "ray",
        "--ray-address",
        cluster.address,
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "steersearch", *command], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        try:
            (library,) = asked(address, "libraries")
            search = f"libraries/{library['id']}/search"
            tried = iter(range(100))

            def by_workers() -> bool:
                last = asked(address, f"{search}/stream?focus=colour+{next(tried)}&seconds=600")[-1]
                assert (last["compared"], last["is_final"]) == (12, True)
                return SAID not in last["text"]

            wait_until(by_workers)
            answers = asked(address, f"{search}/stream?focus=the+red+thing&k=12&seconds=600")
            assert answers[-1]["is_exact"]
            assert SAID not in answers[-1]["text"]
            query = [
                "query",
                str(tmp_path / "photos" / "01.jpg"),
                "--focus",
                "a leaf",
                "--library",
                str(place),
            ]
            done = subprocess.run(
                [sys.executable, "-m", "steersearch", *query, "--json"], capture_output=True, check=True
            )
            assert [json.loads(line)["served"] for line in done.stdout.splitlines()] == [True] * 10
        finally:
            server.send_signal(signal.SIGTERM)
    assert server.returncode == 0
    here = NamedLibrary.create(tmp_path / "photos", "mini", tmp_path / "here")
    here.index()
    wanted = {hit.path.name: hit.parts[0].score for hit in here.find("the red thing", k=12, exact=True)}
    given = {hit["path"]: hit["parts"][0]["score"] for hit in answers[-1]["hits"]}
    assert given == pytest.approx(wanted, abs=1e-4)
