"""A user without a home folder, as in a container: HOME is not set, and the list of users has no such number."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest
from huggingface_hub import constants

from steersearch.core import files, hub
from steersearch.core.errors import CheckpointError, in_words
from tests.conftest import Run


@pytest.fixture(autouse=True)
def homeless(own_user_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> object:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for variable in ("HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)


def test_a_library_whose_place_is_named_works(
    run: Run, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    place = tmp_path / "library"
    assert run("index", photos, "--prompt", "mug", "--model", tiny_model, "--library", place).code == 0
    found = run("find", "mug", "--library", place, "--paths")
    assert found.code == 0
    assert len(found.out.splitlines()) == 6
    assert run("query", photos / "red.jpg", "--focus", "mug", "--library", place).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["library", "photos"]  # and no folder "~"


def test_without_a_place_what_is_missing_is_said(
    run: Run, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    done = run("index", photos, "--prompt", "mug", "--model", tiny_model)
    assert done.code == 1
    words = (
        "there is no home folder (HOME is not set) for its library; name another place with --library PLACE"
    )
    assert done.err == f"error: {photos}: {words}\n"
    done = run("info")
    assert done.code == 1
    assert "none was used before; index your photos: steersearch index " in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_cache_is_kept_for_as_long_as_the_process_lives() -> None:
    folder = files.cache_folder()
    assert folder.is_dir()
    assert folder == files.cache_folder()


def test_downloads_have_nowhere_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    # As it is where nobody has a home.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "~/.cache/huggingface/hub")
    with pytest.raises(CheckpointError, match="no home folder to keep downloads in; set HF_HOME to a folder"):
        hub.cache_folder()
    with pytest.raises(RuntimeError) as error:  # what other packages make of it
        Path("~").expanduser()
    assert in_words(error.value) == "there is no home folder; set HOME"
