"""Prompts on disk: what was put comes back bit for bit or not at all, and no fault of the folder reaches the user."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from steersearch.core import prompt_cache
from steersearch.core.prompt_cache import PromptCache, default_folder
from steersearch.core.prompts import EncodedPrompt, Reading

ENCODER, OTHER_ENCODER = "5" * 64, "6" * 64


def tokens_of(prompt: str, length: int = 4) -> np.ndarray:
    """Random tokens (length, 6), the same for the same prompt."""
    return np.random.default_rng(sum(map(ord, prompt))).standard_normal((length, 6)).astype(np.float32)


def encoded(prompt: str) -> EncodedPrompt:
    return EncodedPrompt(tokens_of(prompt), Reading(unread=(prompt,), cut="the rest"))


@pytest.fixture
def kept(tmp_path: Path) -> PromptCache:
    return PromptCache(tmp_path / "prompts")


def put(kept: PromptCache, *prompts: str) -> None:
    kept.put(ENCODER, {prompt: encoded(prompt) for prompt in prompts})


def the_file(kept: PromptCache) -> Path:
    (path,) = kept.folder.iterdir()
    return path


@pytest.mark.parametrize(
    "prompt", ["mug", " ", "der rote Schlüssel 🔑", "a\0b", "\udc80 no UTF-8", "mug " * 600]
)
def test_tokens_come_back_bit_for_bit_whatever_the_prompt(kept: PromptCache, prompt: str) -> None:
    assert kept.get(ENCODER, prompt) is None
    put(kept, prompt)
    found = PromptCache(kept.folder).get(ENCODER, prompt)
    assert found is not None
    assert found.tokens.dtype == np.float32
    np.testing.assert_array_equal(found.tokens, tokens_of(prompt))
    assert found.reading == encoded(prompt).reading


def test_another_encoder_and_another_spelling_are_misses(kept: PromptCache) -> None:
    put(kept, "mug")
    assert kept.get(OTHER_ENCODER, "mug") is None
    assert [kept.get(ENCODER, prompt) for prompt in ("Mug", "mug ", "mugs", "")] == [None] * 4


def test_tokens_of_any_layout_and_length_are_kept(kept: PromptCache) -> None:
    wide = np.arange(24, dtype=np.float32).reshape(4, 6)
    arrays = {"transposed": wide.T, "double": wide.astype(np.float64), "one": wide[:1]}
    kept.put(ENCODER, {prompt: EncodedPrompt(tokens) for prompt, tokens in arrays.items()})
    for prompt, expected in (("transposed", wide.T), ("double", wide), ("one", wide[:1])):
        found = kept.get(ENCODER, prompt)
        assert found is not None
        assert found.tokens.dtype == np.float32
        np.testing.assert_array_equal(found.tokens, expected)


def test_a_file_cut_off_anywhere_is_a_miss_and_is_replaced(kept: PromptCache) -> None:
    put(kept, "mug")
    path = the_file(kept)
    whole = path.read_bytes()
    for length in range(0, len(whole), 5):
        path.write_bytes(whole[:length])
        assert kept.get(ENCODER, "mug") is None
    put(kept, "mug")
    assert the_file(kept).stat().st_size == len(whole)
    assert kept.get(ENCODER, "mug") is not None


def test_no_flipped_bit_changes_the_tokens(kept: PromptCache) -> None:
    put(kept, "mug")
    path = the_file(kept)
    whole = path.read_bytes()
    for i in range(0, len(whole), 5):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 4]) + whole[i + 1 :])
        found = kept.get(ENCODER, "mug")
        assert found is None or np.array_equal(found.tokens, tokens_of("mug"))
        assert found is None or found.reading == encoded("mug").reading
    path.write_bytes(b"not what it was")
    assert kept.get(ENCODER, "mug") is None


def test_a_file_of_another_prompt_under_this_name_is_a_miss(kept: PromptCache) -> None:
    put(kept, "mug")
    mug = the_file(kept)
    put(kept, "book")
    (book,) = set(kept.folder.iterdir()) - {mug}
    mug.write_bytes(book.read_bytes())
    assert kept.get(ENCODER, "mug") is None
    assert kept.get(ENCODER, "book") is not None


def test_tokens_that_are_not_finite_are_not_kept(kept: PromptCache) -> None:
    broken = tokens_of("mug")
    broken[2, 3] = np.nan
    kept.put(ENCODER, {"mug": EncodedPrompt(broken), "book": encoded("book")})
    assert kept.get(ENCODER, "mug") is None
    assert kept.get(ENCODER, "book") is not None


def test_a_folder_that_cannot_be_written_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    kept = PromptCache(tmp_path / "file" / "prompts")
    for _ in range(3):
        put(kept, "mug")
        assert kept.get(ENCODER, "mug") is None
    (told,) = caplog.records
    assert told.levelno == logging.WARNING
    assert f"{kept.folder}: prompts cannot be cached here (Not a directory)" in told.getMessage()
    assert "set STEERSEARCH_CACHE to a writable folder" in told.getMessage()


def test_a_full_disk_leaves_no_half_file(kept: PromptCache, caplog: pytest.LogCaptureFixture) -> None:
    put(kept, "mug")
    before = the_file(kept).read_bytes()
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # writing beyond it fails as on a full disk
    try:
        put(kept, "book", "mug")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    assert "prompts cannot be cached here (File too large)" in caplog.text
    assert the_file(kept).read_bytes() == before
    assert kept.get(ENCODER, "book") is None


def test_a_folder_in_the_place_of_a_file_is_no_error(kept: PromptCache) -> None:
    put(kept, "mug")
    path = the_file(kept)
    path.unlink()
    path.mkdir()
    assert kept.get(ENCODER, "mug") is None
    put(kept, "mug")
    assert kept.get(ENCODER, "mug") is None
    assert list(kept.folder.iterdir()) == [path]  # no draft is left


def test_what_was_not_used_for_longest_is_dropped(kept: PromptCache) -> None:
    put(kept, "mug")
    size = the_file(kept).stat().st_size
    for age, prompt in ((30, "mug"), (20, "cup"), (10, "pot")):
        put(kept, prompt)
        os.utime(kept._path(prompt_cache._key(ENCODER, prompt)), (1e9 - age, 1e9 - age))
    assert kept.get(ENCODER, "mug") is not None  # used now
    bounded = PromptCache(kept.folder, max_bytes=3 * size)
    put(bounded, "jug")
    found = {prompt for prompt in ("mug", "cup", "pot", "jug") if bounded.get(ENCODER, prompt) is not None}
    assert found == {"mug", "pot", "jug"}


def test_only_files_of_its_own_are_dropped(kept: PromptCache) -> None:
    put(kept, "mug")
    mine = the_file(kept)
    theirs = [kept.folder / "notes.txt", kept.folder / "model.safetensors"]
    draft = mine.with_name(".writing-0123456789abcdef")  # left by a process that was killed
    for path in (*theirs, draft):
        path.write_bytes(b"x" * 5000)
        os.utime(path, (1, 1))
    PromptCache(kept.folder, max_bytes=mine.stat().st_size).put(ENCODER, {})
    assert sorted(kept.folder.iterdir()) == sorted([mine, *theirs])


def test_threads_never_see_half_a_file(kept: PromptCache) -> None:
    seen: list[bool] = []

    def work() -> None:
        for _ in range(30):
            put(kept, "mug")
            found = kept.get(ENCODER, "mug")
            seen.append(found is not None and np.array_equal(found.tokens, tokens_of("mug")))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 120
    assert the_file(kept).suffix == ".safetensors"


PROCESS = """
import sys
from pathlib import Path
import numpy as np
from steersearch.core.prompt_cache import PromptCache
from steersearch.core.prompts import EncodedPrompt
kept = PromptCache(Path(sys.argv[1]), max_bytes=4000)
for i in range(40):
    prompt = f"prompt {i % 12}"
    tokens = np.full((4, 6), i % 12, np.float32)
    kept.put("5" * 64, {prompt: EncodedPrompt(tokens)})
    found = kept.get("5" * 64, prompt)
    assert found is None or np.array_equal(found.tokens, tokens), found
"""


def test_processes_that_keep_and_drop_at_once_do_no_harm(kept: PromptCache) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(kept.folder)], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate()[1] for process in running] == ["", ""]
    assert 0 < sum(path.stat().st_size for path in kept.folder.iterdir()) <= 4000


def test_the_folder_is_the_users_cache_or_the_one_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, own_user_folders: Path, tmp_path: Path
) -> None:
    assert default_folder() == own_user_folders / "xdg_cache_home" / "steersearch" / "prompts"
    monkeypatch.setenv("STEERSEARCH_CACHE", str(tmp_path / "elsewhere"))
    assert PromptCache().folder == tmp_path / "elsewhere" / "prompts"
    put(PromptCache(), "mug")
    assert the_file(PromptCache()).parent == tmp_path / "elsewhere" / "prompts"
    monkeypatch.setenv("STEERSEARCH_CACHE", "")
    assert default_folder() == own_user_folders / "xdg_cache_home" / "steersearch" / "prompts"
