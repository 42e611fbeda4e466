"""Searches of the command line through a running server: the same answers as without one, or none."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as parquet
import pytest
import uvicorn
from fastapi.testclient import TestClient

import steersearch
from steersearch import search_order, served, server_socket
from steersearch.api import Library
from steersearch.indexer.care.verify import Severity
from steersearch.indexer.progress import ProgressEvent
from steersearch.views import terminal
from steersearch.web import orders
from steersearch.web.app import create_app
from steersearch.web.guard import Access
from steersearch.web.shelf import Shelf, id_of
from tests.conftest import Ran, Run, draw_picture, wait_until

NEW = "the green thing"
SERVED = "a running steersearch serve has searched"


@pytest.fixture(autouse=True)
def short_paths(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A socket's path may have about a hundred characters. No machine is so slow that a test depends on it."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("XDG_STATE_HOME", folder)
        monkeypatch.setattr(served, "PATIENCE_S", 600.0)
        monkeypatch.setattr(served, "_SILENCE_S", 600.0)
        yield


@pytest.fixture
def library(photos: Path, tmp_path: Path, tiny_model: Path, word_encoder: None) -> Library:
    (photos / "trip").mkdir()
    draw_picture(photos / "trip" / "more.jpg", "green", seed=11)
    shutil.copy(photos / "red.jpg", photos / "trip" / "copy.jpg")
    draw_picture(tmp_path / "outside.png", "yellow", seed=12)
    made = Library.create(photos, str(tiny_model), place=tmp_path / "library")
    made.index(["the red thing"])
    return made


@contextmanager
def serving(*places: Path, token: str | None = None) -> Iterator[str]:
    """The address of a server in this process, which commands find by its socket too."""
    with ExitStack() as stack:
        by_name = stack.enter_context(server_socket.listening())
        by_port = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        address = f"http://127.0.0.1:{by_port.getsockname()[1]}"
        app = create_app(Shelf(places), Access(token=token, socket=by_name.getsockname()))
        server = uvicorn.Server(uvicorn.Config(app, http="h11", log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [by_name, by_port]})
        thread.start()
        wait_until(lambda: server.started)
        try:
            yield address
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def server(library: Library) -> Iterator[str]:
    with serving(library.place) as address:
        yield address


def forget(library: Library) -> None:
    """Everything that a search may have kept."""
    for index in library.prompts():
        if index.prompt != "the red thing" or index.gate_scale != 1:
            library.remove(index)


def written(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.parent.glob(f"{output.name}*")}


OUTSIDE, INSIDE = "outside.png", "photos/red.jpg"
QUERIES = [
    [OUTSIDE, "--focus", NEW],
    [OUTSIDE, "--focus", NEW, "--json"],
    [OUTSIDE, "--focus", "the red thing", "--json"],
    [INSIDE, "--focus", NEW, "--paths"],
    [INSIDE, "--focus", NEW, "--print0"],
    [OUTSIDE, "--focus", NEW, "--focus", "blue:-0.5", "--json"],
    [OUTSIDE, "--focus", "UNREAD thing", "--json"],
    [OUTSIDE, "--json"],
    [OUTSIDE, "--region", "10%,10%,60%,70%", "--json"],
    [OUTSIDE, "--region", "10,10,60,50", "--focus", NEW],
    [OUTSIDE, INSIDE, "--focus", NEW, "--json"],
    [OUTSIDE, INSIDE, "--any", "--focus", NEW, "--json"],
    [INSIDE, "--focus", NEW, "--include-query", "--json"],
    [OUTSIDE, "--focus", NEW, "--collapse", "--json"],
    [OUTSIDE, "--focus", NEW, "--sort=-date", "-k", "3"],
    [OUTSIDE, "--focus", NEW, "--in", "trip"],
    [OUTSIDE, "--focus", NEW, "--in", "photos/trip", "--json"],
    [OUTSIDE, "--focus", NEW, "--after", "2001", "--before", "2500-01-02", "--where", "width > height"],
    [OUTSIDE, "--focus", NEW, "--gate-scale", "0.5", "--view", "squash", "--json"],
    [OUTSIDE, "--focus", NEW, "--budget", "1ms", "-k", "2", "--json"],
    [OUTSIDE, "--focus", NEW, "--limit", "memory=2GB"],
    [OUTSIDE, "--focus", NEW, "-o", "hits.csv"],
    [OUTSIDE, "--focus", NEW, "-o", "hits.json"],
    [OUTSIDE, "--focus", NEW, "-o", "hits.parquet"],
    [OUTSIDE, "--focus", NEW, "-o", "hits.html"],
    [OUTSIDE, "--region", "10%,10%,60%,70%", "--focus", NEW, "-o", "hits.html"],
    [OUTSIDE, INSIDE, "--any", "--focus", NEW, "-o", "hits.html"],
]
FINDS = [
    [NEW],
    [NEW, "--json"],
    [NEW, "-o", "hits.html", "--sort", "date"],
    [NEW, "--in", "photos/trip", "--json"],
    [NEW, "--budget", "1ms", "--json"],
    [NEW, "--collapse", "-k", "3", "--print0"],
]


@pytest.mark.parametrize("search", [["query", *one] for one in QUERIES] + [["find", *one] for one in FINDS])
def test_a_server_answers_as_the_command_itself_does(
    search: list[str],
    run: Run,
    library: Library,
    server: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def searched(server: str) -> tuple[Ran, list[Any], dict[str, bytes]]:
        monkeypatch.setenv("STEERSEARCH_SERVER", server)
        details.clear()
        time = [] if "--budget" in search or NEW not in search else ["--budget", "30s"]
        ran = run(*search, *time, "--library", library.place)
        is_served = SERVED in details
        assert is_served is (server != "off"), ran.err
        rows = [json.loads(line) for line in ran.out.splitlines()] if "--json" in search else []
        assert all(row.pop("served", False) is is_served for row in rows)
        file = next((tmp_path / one for one in search if one.startswith("hits.")), None)
        return ran, rows, {} if file is None else _unmarked(written(file), is_served)

    details: list[str] = []
    monkeypatch.setattr(terminal, "detail", details.append)
    there = searched(server)
    forget(library)
    here = searched("off")
    assert there[1:] == here[1:]
    assert (there[0].code, there[0].err) == (here[0].code, here[0].err)
    assert "--json" in search or there[0].out_bytes == here[0].out_bytes
    assert here[0].out or here[0].err


def _unmarked(files: dict[str, bytes], is_served: bool) -> dict[str, Any]:
    """The files without what says that a server searched."""
    if "hits.json" in files:
        rows = json.loads(files["hits.json"])
        assert all(row.pop("served", False) is is_served for row in rows)
        return {"hits.json": rows}
    if "hits.csv" in files:
        lines = files["hits.csv"].decode().replace(",served", "").replace(",True,the", ",the")
        assert (b",served" in files["hits.csv"]) is is_served
        return {"hits.csv": lines}
    if "hits.parquet" in files:
        table = parquet.read_table(BytesIO(files["hits.parquet"]))
        assert ("served" in table.column_names) is is_served
        table = table.drop_columns(["served"] if is_served else [])
        return {"hits.parquet": (table.to_pylist(), table.schema.metadata)}
    return dict(files)


@pytest.mark.parametrize(
    "search",
    [
        ["query", "nosuch.jpg", "--focus", NEW],
        ["query", "text.jpg", "--focus", NEW],
        ["query", OUTSIDE, "--focus", NEW, "--where", "nosuch = 1"],
        ["query", OUTSIDE, "--focus", NEW, "--in", "nosuch"],
        ["query", OUTSIDE, "--region", "900,900,950,950"],
        ["query", OUTSIDE, "--focus", NEW, "--limit", "file=1b"],
        ["query", OUTSIDE, "--focus", NEW, "--budget", "0s"],
        ["find", " "],
        ["find", NEW, "--where", "1 ="],
    ],
)
def test_errors_are_the_same_through_a_server(
    search: list[str],
    run: Run,
    library: Library,
    server: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    ran = []
    for where in (server, "off"):
        monkeypatch.setenv("STEERSEARCH_SERVER", where)
        ran.append(run(*search, "--library", library.place))
    assert ran[0] == ran[1]
    assert ran[0].code in (1, 2)


# ---------------------------------------------------------------------------------------------------- whom it asks


def test_what_takes_no_model_is_answered_here(run: Run, library: Library, server: str) -> None:
    for search in (
        ["query", INSIDE, "--focus", "the red thing"],
        ["find", "the red thing"],
        ["query", INSIDE],
    ):
        known = run(*search, "--json", "--library", library.place)
        assert "served" not in json.loads(known.out.splitlines()[0])


def test_a_server_is_found_by_its_socket(run: Run, library: Library, server: str) -> None:
    found = run("find", NEW, "--budget", "30s", "--json", "--library", library.place)
    assert json.loads(found.out.splitlines()[0])["served"] is True
    told = run("find", "the blue thing", "--budget", "30s", "-v", "--library", library.place)
    assert SERVED in told.err


def searched_here(run: Run, library: Library) -> str:
    """A search that no server answers; what -v says of servers."""
    ran = run("find", NEW, "--budget", "30s", "--json", "-v", "--library", library.place)
    assert ran.code == 0, ran.err
    assert "served" not in json.loads(ran.out.splitlines()[0])
    assert SERVED not in ran.err
    return ran.err


def test_a_server_of_other_libraries_is_not_asked(
    run: Run, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path / "elsewhere") as address:
        assert "no library has the id" in searched_here(run, library)
        monkeypatch.setenv("STEERSEARCH_SERVER", address)
        ran = run("find", "the red thing", "--library", library.place)
    assert (ran.code, ran.out) == (1, "")
    assert f"STEERSEARCH_SERVER={address}: no library has the id" in ran.err


def test_another_library_at_the_same_place_is_not_searched(
    run: Run, library: Library, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "mark_of", lambda place: [1, 2, 3])  # as on another machine
    assert "no library has the id" in searched_here(run, library)


def test_a_server_of_another_version_is_not_asked(
    run: Run, library: Library, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "Order", partial(search_order.Order, version="9.9"))
    this = f"this server is {steersearch.__version__}"
    assert this in searched_here(run, library)
    monkeypatch.setenv("STEERSEARCH_SERVER", server)
    ran = run("find", "the red thing", "--library", library.place)
    assert ran.code == 1
    assert this in ran.err


def test_a_server_that_is_gone_is_passed_over_and_missed_where_it_was_named(
    run: Run, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(library.place) as address:
        folder = server_socket.sockets()[0].parent
        left = folder / "1.socket"
        os.link(server_socket.sockets()[0], left)
    assert "does not answer" in searched_here(run, library)  # the file is there, nobody listens
    monkeypatch.setenv("STEERSEARCH_SERVER", address)
    ran = run("find", "the red thing", "--library", library.place)
    assert ran.code == 1
    assert "it does not answer" in ran.err
    assert "without the variable, the search is done here" in ran.err


@pytest.mark.parametrize(
    "address", ["ftp://here", "127.0.0.1:8000", "http://", "http://here:port", "http://[::1"]
)
def test_what_is_no_address_is_refused(
    run: Run, library: Library, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("STEERSEARCH_SERVER", address)
    ran = run("find", "the red thing", "--library", library.place)
    assert ran.code == 1
    assert "is not an address" in ran.err


def test_a_token_is_sent_and_not_shown(run: Run, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(library.place, token="secret") as address:
        monkeypatch.setenv("STEERSEARCH_SERVER", f"{address}/?token=secret")
        assert run("find", "the red thing", "--library", library.place).code == 0
        monkeypatch.setenv("STEERSEARCH_SERVER", address)
        monkeypatch.setenv("STEERSEARCH_TOKEN", "secret")
        assert run("find", "the red thing", "--library", library.place).code == 0
        monkeypatch.setenv("STEERSEARCH_SERVER", f"{address}/?token=wrong")
        ran = run("find", "the red thing", "--library", library.place)
        assert ran.code == 1
        assert "wrong" not in ran.err
        monkeypatch.delenv("STEERSEARCH_SERVER")  # by its socket none is needed
        monkeypatch.delenv("STEERSEARCH_TOKEN")
        found = run("find", NEW, "--budget", "30s", "--json", "--library", library.place)
        assert json.loads(found.out.splitlines()[0])["served"] is True


@pytest.mark.parametrize("option", [["--exact"], ["--model", "MODEL"], ["--budget", "31s"]])
def test_what_a_server_does_not_do_is_done_here(
    run: Run, library: Library, server: str, option: list[str], tiny_model: Path
) -> None:
    option = [str(tiny_model) if one == "MODEL" else one for one in option]
    ran = run("find", NEW, *option, "--json", "--library", library.place)
    assert "served" not in json.loads(ran.out.splitlines()[0])


# ------------------------------------------------------------------------------------------------------------ trust


def test_a_socket_is_closed_to_others_and_goes_with_its_server(library: Library) -> None:
    with serving(library.place):
        (path,) = server_socket.sockets()
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.lstat().st_mode) == 0o700
    assert server_socket.sockets() == []


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o604])
def test_a_socket_that_others_may_open_is_not_trusted(
    run: Run, library: Library, server: str, mode: int
) -> None:
    server_socket.sockets()[0].chmod(mode)
    assert server_socket.sockets() == []
    searched_here(run, library)


def test_a_folder_that_others_may_write_is_not_trusted(library: Library, server: str) -> None:
    server_socket.sockets()[0].parent.chmod(0o777)
    assert server_socket.sockets() == []


def test_another_users_socket_and_server_are_not_trusted(
    run: Run, library: Library, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = server_socket.sockets()
    monkeypatch.setattr(server_socket, "_peer", lambda made: os.getuid() + 1)
    assert "another user's" in searched_here(run, library)
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    assert server_socket.sockets() == []
    with pytest.raises(PermissionError, match="another user's"):
        server_socket.connected(path, 1.0)


def test_a_link_is_no_socket(server: str) -> None:
    (path,) = server_socket.sockets()
    link = path.with_name("2.socket")
    link.symlink_to(path)
    assert server_socket.sockets() == [path]


def test_what_a_killed_server_left_is_deleted_by_the_next(library: Library) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with server_socket.listening() as made:
        left = Path(made.getsockname()).with_name(f"{gone.pid}.socket")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.fspath(left))
    with server_socket.listening():
        assert not left.exists()


def ordered(address: str, library: Library, order: bytes) -> dict[str, Any]:
    said = httpx.post(f"{address}/api/v1/libraries/{id_of(library.place)}/orders", content=order)
    return {"status": said.status_code, **json.loads(said.text.splitlines()[-1])}


def order_of(library: Library, **changed: Any) -> search_order.Order:
    made = search_order.Order(
        library=search_order.mark_of(library.place),
        text="the red thing",
        photos=[],
        limits={"file": 1e6, "memory": 1e9, "seconds": 5.0},
        options={"k": 3, "folder": None},
    )
    return replace(made, **changed)


def test_no_order_opens_a_file_by_its_path_or_holds_the_server_up(library: Library, server: str) -> None:
    assert "answer" in ordered(server, library, order_of(library).line())
    for options in (
        {"model": "/etc/passwd"},
        {"exact": True},
        {"budget_s": 1e6},
        {"k": 10**9},
        {"progress": 1},
        {"k": "1"},
    ):
        order = order_of(library, options={"k": 3, **options})
        assert ordered(server, library, order.line())["status"] == 422, options
    for line in (b"", b"{}\n", b"[]\n", b"\x80\n", b"x" * 3_000_000):
        assert ordered(server, library, line)["status"] == 422
    images = order_of(library, text=None, focuses=[("the red thing", 1.0)], photos=[10**9])
    said = ordered(server, library, images.line() + b"/etc/passwd")
    assert "ImageError" in said["refusal"]


def test_photos_that_were_sent_are_deleted(library: Library, tmp_path: Path) -> None:
    content = (tmp_path / OUTSIDE).read_bytes()
    order = order_of(library, text=None, focuses=[("the red thing", 1.0)], photos=[len(content)])
    app = create_app(Shelf([library.place]))
    with TestClient(app, "http://localhost") as client:
        address = f"/api/v1/libraries/{id_of(library.place)}/orders"
        said = client.post(address, content=order.line() + content).text.splitlines()
        assert "answer" in json.loads(said[-1])
        assert list(app.state.server.uploads.folder.iterdir()) == []


# ------------------------------------------------------------------------------------------------- what has changed


def test_a_photo_that_changed_since_is_left_out_through_a_server_too(
    run: Run, library: Library, server: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_picture(photos / "red.jpg", "black", seed=40)
    rows = []
    for where in (server, "off"):
        monkeypatch.setenv("STEERSEARCH_SERVER", where)
        ran = run("query", INSIDE, "--focus", "the red thing", "--paths", "--library", library.place)
        rows.append(ran.out)
    assert rows[0] == rows[1]
    assert "photos/red.jpg" not in rows[0]


def test_a_folder_that_moved_is_known_to_a_running_server(
    run: Run, library: Library, server: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos.rename(photos.with_name("moved"))
    library.relocate(photos, photos.with_name("moved"))
    monkeypatch.setenv("STEERSEARCH_SERVER", server)
    ran = run("find", "the red thing", "--json", "--library", library.place)
    assert all("/moved/" in json.loads(line)["path"] for line in ran.out.splitlines())


def test_vectors_that_could_not_be_kept_are_computed_here(
    run: Run, library: Library, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = orders.data_of
    monkeypatch.setattr(
        orders, "data_of", lambda hits: kept(hits) | {"searched": kept(hits)["searched"] | {"is_kept": False}}
    )
    monkeypatch.setenv("STEERSEARCH_SERVER", server)
    ran = run("find", NEW, "--json", "-v", "--budget", "30s", "--library", library.place)
    assert "could not be kept" in ran.err
    assert "served" not in json.loads(ran.out.splitlines()[0])


# -------------------------------------------------------------------------------------------------- the real process


@contextmanager
def process_of(library: Library) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server of its own, and its address."""
    command = [sys.executable, "-m", "steersearch", "serve", "--port", "0", "--library", str(library.place)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        wait_until(lambda: server_socket.sockets() or process.poll() is not None)
        yield process, address
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def many(library: Library, photos: Path) -> Library:
    """So many photos that a search under a new focus takes a while."""
    return with_more(library, photos, 120)


def with_more(library: Library, photos: Path, count: int) -> Library:
    for number in range(count):
        draw_picture(photos / f"{number:04d}.png", "blue", seed=100 + number, size=(40, 30))
    library.index()
    return library


@pytest.mark.slow
def test_a_server_that_is_killed_while_it_searches_is_replaced_by_the_command_itself(
    run: Run, many: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    with process_of(many) as (process, _):

        def kill(_: ProgressEvent) -> None:
            process.kill()

        monkeypatch.setattr(terminal, "_progress_lines", lambda what: kill)
        ran = run("find", NEW, "--budget", "30s", "--json", "-v", "-k", "3", "--library", many.place)
    assert process.returncode == -signal.SIGKILL
    assert SERVED not in ran.err
    assert len(ran.out.splitlines()) == 3
    assert all(finding.severity is Severity.note for finding in many.verify())


@pytest.mark.slow
def test_a_server_that_is_killed_while_it_searches_leaves_a_clear_end_and_a_library_intact(
    library: Library, photos: Path
) -> None:
    many = with_more(library, photos, 1492)  # several rounds, so that the first answer is not the last
    path = f"api/v1/libraries/{id_of(many.place)}/search/stream"
    wanted = {"focus": NEW, "seconds": 600}
    with process_of(many) as (process, address):

        def follow() -> None:
            with httpx.stream("GET", f"{address}{path}", params=wanted, timeout=600) as response:
                for _ in response.iter_lines():
                    process.kill()

        with pytest.raises(httpx.TransportError):
            follow()
    assert process.returncode == -signal.SIGKILL
    assert all(finding.severity is Severity.note for finding in many.verify())
    with process_of(many) as (_, address):
        last = httpx.get(f"{address}{path}", params=wanted, timeout=600).text.strip().splitlines()[-1]
    answer = json.loads(last.removeprefix("data: "))
    assert (answer["is_final"], answer["is_exact"], answer["of"]) == (True, True, 1500)
    assert [hit["path"] for hit in answer["hits"]] == [hit.name for hit in many.find(NEW, 24)]
