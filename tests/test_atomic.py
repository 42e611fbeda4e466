"""Files that are whole or not there, and drafts that nobody can have prepared."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import IO

import pytest

from steersearch.core.files import drafted, write_atomically


def test_a_file_is_replaced_as_a_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    write_atomically(path, lambda file: file.write(b"old"))

    def fail(file: IO[bytes]) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, fail)
    with pytest.raises(KeyboardInterrupt), drafted(path):
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_writer_may_replace_the_draft_and_the_file_is_as_open_to_others_as_any(tmp_path: Path) -> None:
    path, usual = tmp_path / "file", tmp_path / "usual"
    usual.touch()
    with drafted(path) as draft:
        anew = tmp_path / "anew"
        anew.touch(0o600)
        anew.write_bytes(b"written")
        anew.replace(draft)
    assert path.read_bytes() == b"written"
    assert path.stat().st_mode == usual.stat().st_mode


def test_neither_a_draft_nor_the_file_is_written_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious, path = tmp_path / "precious", tmp_path / "file"
    precious.write_bytes(b"mine")
    path.symlink_to(precious)
    write_atomically(path, lambda file: file.write(b"new"))
    assert (path.is_symlink(), path.read_bytes(), precious.read_bytes()) == (False, b"new", b"mine")
    monkeypatch.setattr(secrets, "token_hex", lambda _: "foreseen")
    os.symlink(precious, tmp_path / ".writing-foreseen")
    with pytest.raises(FileExistsError):
        write_atomically(path, lambda file: file.write(b"once more"))
    assert (path.read_bytes(), precious.read_bytes()) == (b"new", b"mine")


def test_a_device_or_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    """`-o /dev/null` took the device away from the whole system, for a user who may."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match="is not a regular file"):
            write_atomically(tmp_path / name, lambda file: file.write(b"new"))
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_link_to_an_open_stream_is_not_replaced(tmp_path: Path) -> None:
    """`-o /dev/stdout > file`: the link leads to a regular file then, and was replaced by it."""
    link = tmp_path / "stdout"
    with (tmp_path / "file").open("wb") as file:
        link.symlink_to(f"/proc/self/fd/{file.fileno()}")
        with pytest.raises(OSError, match="leads to an open stream"):
            write_atomically(link, lambda draft: draft.write(b"new"))
    assert link.is_symlink()
    assert (tmp_path / "file").read_bytes() == b""
