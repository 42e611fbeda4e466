"""Fetching from the model hub, against a stand-in on this machine: whole, cut, wrong, refused, full disks."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http

from steersearch.core import files, hub, registry
from steersearch.core.errors import CheckpointError, HubError, HubFileMissingError
from steersearch.core.registry import HubFile, TextEncoderCard
from tests.conftest import wait_until
from tests.hub_server import COMMIT, HubServer, environment, hub_stand_in

REPO = "someone/some-model"
DATA = np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[HubServer]:
    for module in (file_download, _http):  # which wait before they try again
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))
    with hub_stand_in(monkeypatch, cache) as server:
        yield server


@pytest.fixture
def file(server: HubServer) -> HubFile:
    return server.add(REPO, "model.safetensors", DATA)


def in_blobs(cache: Path) -> list[str]:
    """Names of the files that take space in the cache."""
    return sorted(path.name for path in cache.glob("*/blobs/*"))


def ranges(server: HubServer) -> list[str | None]:
    return [request.range for request in server.asked("store", "GET")]


# ------------------------------------------------------------------------------------------------- what works


def test_a_file_is_fetched_once_and_then_found_without_the_network(
    server: HubServer, file: HubFile, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert hub.find(file) is None
    told: list[tuple[int, int | None]] = []
    path = hub.fetch(file, lambda done, total: told.append((done, total)))
    assert path.read_bytes() == DATA
    assert path == cache / "models--someone--some-model" / "snapshots" / COMMIT / "model.safetensors"
    assert told[0] == (0, len(DATA))
    assert told[-1] == (len(DATA), len(DATA))
    assert told == sorted(told)
    server.requests.clear()
    assert hub.find(file) == hub.fetch(file) == path
    assert server.requests == []
    assert capfd.readouterr() == ("", "")


def test_a_large_download_that_nobody_watches_is_logged(
    server: HubServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = server.add(REPO, "large.safetensors", bytes(6_000_000))
    small = server.add(REPO, "small.safetensors", DATA)
    monkeypatch.setattr(hub, "SECONDS_BETWEEN_LINES", 3600.0)
    with caplog.at_level(logging.INFO, logger="steersearch"):
        hub.fetch(large)
        hub.fetch(small)
        hub.fetch(large)
    assert caplog.messages == [f"fetching {REPO}/large.safetensors: 0 of 6 MB"]


def test_other_programs_find_what_was_fetched_and_the_other_way_round(
    server: HubServer, file: HubFile
) -> None:
    path = hub.fetch(file)
    found = huggingface_hub.hf_hub_download(REPO, "model.safetensors", local_files_only=True)
    assert Path(found) == path
    config = server.add(REPO, "config.json", b"{}")
    theirs = huggingface_hub.hf_hub_download(REPO, "config.json")
    server.requests.clear()
    assert hub.fetch(config) == Path(theirs)
    assert server.requests == []


def test_a_commit_pins_what_is_fetched(server: HubServer, file: HubFile) -> None:
    path = hub.fetch(replace(file, revision=COMMIT))
    assert path.parent.name == COMMIT
    with pytest.raises(HubFileMissingError, match="no such file at the revision bbbb"):
        hub.fetch(replace(file, revision="b" * 40))


def test_the_token_goes_to_the_hub_and_to_nobody_else(
    server: HubServer, file: HubFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.fetch(file)
    assert {r.token for r in server.asked("hub", "HEAD") if "resolve" in r.path} == {"Bearer hf_secret"}
    assert {r.token for r in server.requests if r.server == "store"} == {None}


def test_a_small_file_comes_from_the_hub_itself(server: HubServer) -> None:
    config = server.add(REPO, "config.json", b'{"a": 1}', pinned=False)
    assert hub.fetch(config).read_bytes() == b'{"a": 1}'
    assert server.asked("store", "GET") == []


def test_a_file_is_hashed_once_and_not_at_every_start(
    server: HubServer, file: HubFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "WORTH_REMEMBERING", 0)
    hashed: list[Path] = []
    really = files.file_sha256
    monkeypatch.setattr(files, "file_sha256", lambda path: hashed.append(path) or really(path))
    path = hub.fetch(file)
    hub.fetch(file)
    assert len(hashed) == 1
    path.resolve().write_bytes(path.read_bytes())  # the same bytes, written anew
    assert hub.fetch(file) == path
    assert len(hashed) == 2
    blocked = Path(os.environ["XDG_CACHE_HOME"]) / "blocked"
    blocked.write_text("a file where the folder should be")
    monkeypatch.setenv("STEERSEARCH_CACHE", str(blocked))
    assert hub.fetch(file) == path
    assert hub.fetch(file) == path
    assert len(hashed) == 4


# ------------------------------------------------------------------------------------------------ what is cut


def test_a_cut_connection_goes_on_where_it_was(
    server: HubServer, file: HubFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50_000)  # 10 MB, of which what is not whole is lost
    server.faults.cut_after = 100_000
    told: list[int] = []
    assert hub.fetch(file, lambda done, _: told.append(done)).read_bytes() == DATA
    assert ranges(server) == [None, "bytes=100000-", "bytes=200000-"]
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0, len(DATA))


def test_a_connection_that_brings_nothing_is_given_up_and_leaves_nothing(
    server: HubServer, file: HubFile, cache: Path
) -> None:
    server.faults.cut_after = 0
    with pytest.raises(HubError, match=r"cannot be fetched .*; try again"):
        hub.fetch(file)
    assert 1 < len(ranges(server)) < 10
    assert in_blobs(cache) == []
    server.faults.cut_after = None
    assert hub.fetch(file).read_bytes() == DATA
    assert in_blobs(cache) == [file.sha256]


def test_an_interrupted_download_leaves_nothing(server: HubServer, file: HubFile, cache: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        hub.fetch(file, interrupt_at(1))
    assert in_blobs(cache) == []
    assert hub.fetch(file).read_bytes() == DATA


def test_what_another_program_is_writing_is_left_alone(server: HubServer, file: HubFile, cache: Path) -> None:
    """An earlier huggingface_hub appends to this name: whoever else wrote to it spoiled its download."""
    theirs = cache / "models--someone--some-model" / "blobs" / f"{file.sha256}.incomplete"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(DATA[:1000])
    assert hub.fetch(file).read_bytes() == DATA
    assert theirs.read_bytes() == DATA[:1000]


def interrupt_at(count: int) -> hub.Progress:
    def progress(done: int, total: int | None) -> None:
        if done >= count:
            raise KeyboardInterrupt

    return progress


def test_a_server_that_knows_no_ranges_sends_it_all_again(
    server: HubServer, file: HubFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50_000)
    server.faults.cut_after, server.faults.cuts_left = 100_000, 1
    server.faults.ignore_range = True
    assert hub.fetch(file).read_bytes() == DATA
    assert ranges(server) == [None, "bytes=100000-"]


def test_a_file_of_unknown_size_is_fetched_from_its_start(server: HubServer, cache: Path) -> None:
    config = server.add(REPO, "vocab.json", b"words", pinned=False)
    (cache / "models--someone--some-model" / "blobs").mkdir(parents=True)
    assert hub.fetch(config).read_bytes() == b"words"


@pytest.mark.parametrize("status", [503, 403])
def test_trouble_at_the_store_is_reported(server: HubServer, file: HubFile, status: int) -> None:
    server.faults.store_status = status
    with pytest.raises(HubError, match=f"the model hub answered {status}; try again later"):
        hub.fetch(file)


def test_two_processes_that_want_the_same_file_fetch_it_once(
    server: HubServer, file: HubFile, cache: Path
) -> None:
    server.faults.seconds_per_body = 0.3
    script = (
        "import sys; from steersearch.core import hub; from steersearch.core.registry import HubFile;"
        "print(hub.fetch(HubFile(repo=sys.argv[1], file=sys.argv[2], sha256=sys.argv[3])).stat().st_size)"
    )
    command = [sys.executable, "-c", script, REPO, file.file, str(file.sha256)]
    other = subprocess.Popen(
        command, env=os.environ | environment(server, cache), stdout=subprocess.PIPE, text=True
    )
    wait_until(lambda: server.asked("store", "GET"))  # it has the lock now
    assert hub.fetch(file).read_bytes() == DATA
    printed, _ = other.communicate()
    assert (other.returncode, printed.strip()) == (0, str(len(DATA)))
    assert len(server.asked("store", "GET")) == 1


# ----------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize("pinned", [True, False])
def test_a_download_with_the_wrong_bytes_is_deleted(server: HubServer, cache: Path, pinned: bool) -> None:
    file = server.add(REPO, "model.safetensors", DATA, pinned=pinned)
    server.faults.wrong_bytes = True
    with pytest.raises(HubError, match="the download was deleted; try again") as caught:
        hub.fetch(file)
    found, expected = (hashlib.sha256(data).hexdigest() for data in (DATA[:-1] + bytes([DATA[-1] ^ 1]), DATA))
    assert f"sha256 is {found}, expected {expected}" in str(caught.value)
    assert f"{REPO}/model.safetensors" in str(caught.value)
    assert in_blobs(cache) == []
    server.faults.wrong_bytes = False
    assert hub.fetch(file).read_bytes() == DATA
    assert ranges(server) == [None, None]


def test_another_file_under_the_pinned_name_is_refused_before_it_is_fetched(
    server: HubServer, file: HubFile
) -> None:
    server.faults.other_file = True
    with pytest.raises(HubError, match="its publisher has replaced it; nothing was downloaded"):
        hub.fetch(file)
    assert server.asked("store", "GET") == []


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("damage", [DATA[:-1] + b"!", DATA[:1000]], ids=["another byte", "cut short"])
def test_a_damaged_file_in_the_cache_is_never_used(
    server: HubServer, pinned: bool, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file = server.add(REPO, "model.safetensors", DATA, pinned=pinned)
    path = hub.fetch(file)
    path.resolve().write_bytes(damage)
    assert hub.fetch(file).read_bytes() == DATA
    assert "damaged (sha256 is" in caplog.text
    assert ranges(server) == [None, None]


@pytest.mark.parametrize("token", [None, "hf_secret"])
def test_a_gated_repository_says_where_to_accept_and_how_to_log_in(
    server: HubServer, file: HubFile, token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    server.faults.gated = {REPO}
    with pytest.raises(
        HubError, match=r"accept the conditions on .*`hf auth login` or the variable HF_TOKEN"
    ) as e:
        hub.fetch(file)
    assert f"accept the conditions on {server.endpoint}/{REPO}," in str(e.value)


def test_what_is_not_on_the_hub_is_named(server: HubServer, file: HubFile) -> None:
    with pytest.raises(HubFileMissingError, match=r"nobody/none/a\.pth: no such repository.*hf auth login"):
        hub.fetch(HubFile(repo="nobody/none", file="a.pth"))
    with pytest.raises(HubFileMissingError, match=r"some-model/gone\.pth: no such file at the revision main"):
        hub.fetch(HubFile(repo=REPO, file="gone.pth"))
    with pytest.raises(HubError, match="not a valid repository name"):
        hub.fetch(HubFile(repo="no/such/name", file="a.pth"))


def test_a_hub_in_trouble_is_reported(server: HubServer, file: HubFile) -> None:
    server.faults.hub_status = 500
    with pytest.raises(HubError, match="the model hub answered 500"):
        hub.fetch(file)


def test_a_server_that_is_no_hub_is_reported(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.endpoint + "/?{repo_id}{revision}{filename}"
    )
    with pytest.raises(HubError, match=r"like a model hub; see HF_ENDPOINT|answered 404"):
        hub.fetch(HubFile(repo=REPO, file="a.pth"))


# ---------------------------------------------------------------------------------------------- a hub that lies


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("size", [500, len(DATA)])
def test_more_bytes_than_were_announced_are_not_taken(
    server: HubServer, cache: Path, size: int, pinned: bool
) -> None:
    file = server.add(REPO, "model.safetensors" if size > 1000 else "config.json", DATA[:size], pinned=pinned)
    server.faults.more = 10_000_000
    with pytest.raises(HubError, match=rf"sends more than the expected {size:,} bytes"):
        hub.fetch(file)
    assert in_blobs(cache) == []
    assert len(ranges(server)) <= 1


@pytest.mark.parametrize("size", ["-1", "-300000", "99999999999999", "3000001"])
def test_an_announced_size_that_cannot_be_is_refused(
    server: HubServer, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = server.add(REPO, "model.safetensors", DATA, pinned=False)
    monkeypatch.setattr(hub, "MOST_BYTES", 3_000_000)
    server.faults.headers = {"X-Linked-Size": size}
    with pytest.raises(HubError, match=f"the hub announces {int(size):,} bytes, accepted are 0 to"):
        hub.fetch(file)
    assert server.asked("store", "GET") == []


NAMES_THAT_MISLEAD = [
    ("X-Linked-Etag", '"."'), ("X-Linked-Etag", '".."'), ("X-Linked-Etag", '"../../../../spoiled"'),
    ("X-Linked-Etag", "/spoiled/spoiled"), ("X-Linked-Etag", '"a\x01aaaaaaaaaaaaaa"'),
    ("X-Linked-Etag", '"' + "a" * 500 + '"'),
    ("X-Linked-Etag", '"aaaaaaaa\\..\\spoiled"'), ("X-Repo-Commit", "."), ("X-Repo-Commit", ".."),
    ("X-Repo-Commit", "../../../../spoiled"), ("X-Repo-Commit", "a\x1b[2J"), ("X-Repo-Commit", "main"),
]  # fmt: skip


@pytest.mark.parametrize(("header", "name"), NAMES_THAT_MISLEAD)
def test_names_of_a_hub_that_would_mislead_are_refused(
    header: str, name: str, server: HubServer, cache: Path
) -> None:
    for missing in (False, True):
        file = server.add(REPO, "model.safetensors", DATA, pinned=False)
        server.faults.headers = {header: name}
        if missing:
            file = replace(file, file="gone.json")
        with pytest.raises(HubError):
            hub.fetch(file)
        assert server.asked("store", "GET") == []
        assert not [path for path in cache.parent.rglob("*") if "spoiled" in path.name or "\x1b" in path.name]
        assert not [path for path in cache.rglob("*") if path.is_file() and path.stat().st_size]


@pytest.mark.parametrize(
    "name", ["../escape.bin", "a/../../b", "/etc/passwd", "a\\b", "a//b", ".", "a/.", "", "\x1b[2J", "a\nb"]
)
def test_names_that_no_file_can_have_are_refused(name: str, server: HubServer) -> None:
    for ask in (hub.find, hub.fetch):
        with pytest.raises(HubError, match="not a valid file name") as caught:
            ask(HubFile(repo=REPO, file=name))
        assert str(caught.value).isprintable()
    assert server.requests == []


def test_a_file_that_lies_in_a_store_of_huggingface_hub_is_not_taken_for_damaged(
    server: HubServer, file: HubFile, cache: Path
) -> None:
    """It keeps some files once for all repositories, under another hash than sha256."""
    path = hub.fetch(replace(file, sha256=None, size=None))
    store = cache / "blobs" / "ab" / ("ab" * 32)
    store.parent.mkdir(parents=True)
    path.resolve().rename(store)
    (path.parent / os.readlink(path)).symlink_to(store)
    server.requests.clear()
    assert hub.fetch(replace(file, sha256=None, size=None)) == path
    store.write_bytes(b"damaged")
    assert hub.fetch(replace(file, sha256=None, size=None)).read_bytes() == DATA


# ------------------------------------------------------------------------------------------------- full disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], capture_output=True)
    if mount.returncode != 0:
        pytest.skip("only root can mount a small disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_too_little_space_is_reported_before_the_download(
    server: HubServer, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(small_disk / "hub"))
    file = server.add(REPO, "model.safetensors", DATA * 2)
    with pytest.raises(HubError, match=r"needs 0\.6 MB more in .*, where 0\.4 MB are free.*HF_HOME"):
        hub.fetch(file)
    assert server.asked("store", "GET") == []


def test_a_disk_that_fills_up_meanwhile_is_reported_and_nothing_is_left_on_it(
    server: HubServer, file: HubFile, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(small_disk / "hub"))

    def somebody_else_writes(done: int, total: int | None) -> None:
        with contextlib.suppress(OSError), (small_disk / "other").open("wb") as other:
            other.write(bytes(350_000))

    with pytest.raises(HubError, match="make room") as caught:
        hub.fetch(file, somebody_else_writes)
    assert f"more in {small_disk}" in str(caught.value)
    assert in_blobs(small_disk / "hub") == []
    (small_disk / "other").unlink()
    assert hub.fetch(file).read_bytes() == DATA


# ------------------------------------------------------------------------------------------------- no network


def test_a_hub_that_is_not_there_is_reported(
    server: HubServer, file: HubFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(HubError, match=r"not downloaded yet and .* does not answer .*refused.*--model mini"):
        hub.fetch(file)


def test_a_hub_that_says_nothing_is_given_up_after_a_while(
    server: HubServer, file: HubFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hub.PROBE_SECONDS == 2
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert re.search(r"does not answer \(.*(timed out|nothing within)", hub.why_unreachable() or "")


def test_the_hub_is_not_asked_when_offline(
    server: HubServer, file: HubFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        hub.fetch(file)
    assert server.requests == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    path = hub.fetch(file)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.fetch(file) == path


def test_an_unwelcome_answer_is_an_answer(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", f"{server.endpoint}/nothing-here")
    assert hub.why_unreachable() is None


# ----------------------------------------------------------------------------------------------- text encoders


def encoder_files(repo: str, server: HubServer) -> tuple[HubFile, ...]:
    contents = {"config.json": b"{}", "vocab.json": b"{}", "tokenizer.json": b"[]", "model.safetensors": DATA}
    return tuple(server.add(repo, name, data, revision=COMMIT) for name, data in contents.items())


@pytest.fixture
def known(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> TextEncoderCard:
    """A text encoder that the registry knows, with small files."""
    files = encoder_files("FacebookAI/roberta-large", server)
    card = replace(registry.ROBERTA_LARGE, files=files)
    for name in ("roberta-large", "FacebookAI/roberta-large"):
        monkeypatch.setitem(registry._TEXT_ENCODERS, name, card)
    return card


@pytest.mark.parametrize("name", ["roberta-large", "FacebookAI/roberta-large"])
def test_a_known_text_encoder_is_fetched_pinned(server: HubServer, known: TextEncoderCard, name: str) -> None:
    assert hub.text_encoder_identity(name) == known.weights.sha256
    assert server.requests == []
    folder = hub.text_encoder_folder(name)
    assert {path.name for path in folder.iterdir()} == {file.file for file in known.files}
    assert folder.name == COMMIT
    server.requests.clear()
    assert hub.text_encoder_folder(name) == folder
    assert server.requests == []


def test_a_known_text_encoder_is_found_under_its_earlier_name(
    server: HubServer, known: TextEncoderCard
) -> None:
    encoder_files("roberta-large", server)
    for file in known.files:
        hub.fetch(replace(file, repo="roberta-large"))
    server.requests.clear()
    assert "models--roberta-large" in hub.text_encoder_folder("roberta-large").parts
    assert server.requests == []


def test_a_text_encoder_of_somebody_else_is_fetched_whole(server: HubServer) -> None:
    encoder_files("someone/tiny-roberta", server)
    folder = hub.text_encoder_folder("someone/tiny-roberta")
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "vocab.json",
        "tokenizer.json",
        "model.safetensors",
    }
    server.requests.clear()
    assert hub.text_encoder_folder("someone/tiny-roberta") == folder
    assert hub.text_encoder_identity("someone/tiny-roberta") == hashlib.sha256(DATA).hexdigest()
    assert server.requests == []


def test_other_formats_than_safetensors_are_not_fetched(server: HubServer) -> None:
    for name in ("config.json", "vocab.json", "pytorch_model.bin"):
        server.add("someone/old-roberta", name, DATA)
    with pytest.raises(
        HubFileMissingError, match="other weight formats are refused, because they can run code"
    ):
        hub.text_encoder_folder("someone/old-roberta")
    assert not [request for request in server.requests if "pytorch_model" in request.path]


def test_a_folder_is_its_own_text_encoder(server: HubServer, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not a text encoder, it lacks config\.json and model\.saf"):
        hub.text_encoder_folder(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(DATA)
    assert hub.text_encoder_folder(str(tmp_path)) == tmp_path
    assert hub.text_encoder_identity(str(tmp_path)) == hashlib.sha256(DATA).hexdigest()
    assert server.requests == []


# ----------------------------------------------------------------------------------------------------- threads


def test_threads_that_want_the_same_file_all_get_it(server: HubServer, file: HubFile) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(hub.fetch(file))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len(server.asked("store", "GET")) == 1
