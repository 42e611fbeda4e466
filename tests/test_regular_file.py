"""Only regular files are read, and none is waited for."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from steersearch.core.files import open_regular, read_regular


def test_a_regular_file_and_a_link_to_one_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"content")
    (tmp_path / "link").symlink_to("a.txt")
    for name in ("a.txt", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"content"


def test_whatever_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it: an ordinary `open` waits for ever
    (tmp_path / "folder").mkdir()
    (tmp_path / "link to pipe").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        reasons = {
            tmp_path / "pipe": "a pipe, not a regular file",
            tmp_path / "link to pipe": "a pipe, not a regular file",
            tmp_path / "folder": "a folder, not a file",
            Path("/dev/zero"): "a device, not a regular file",
            tmp_path / "gone": "No such file or directory",
        }
        for path, reason in reasons.items():
            with pytest.raises(OSError, match=path.name) as caught:
                open_regular(path)
            assert caught.value.strerror == reason
        with pytest.raises(OSError, match="socket"):
            open_regular(tmp_path / "socket")


def test_a_refused_file_is_closed_again(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = os.listdir("/dev/fd")
    for _ in range(5):
        with pytest.raises(OSError, match="a pipe"):
            open_regular(tmp_path / "pipe")
    assert len(os.listdir("/dev/fd")) == len(before)


def test_no_more_is_read_than_was_allowed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"content")
    assert read_regular(tmp_path / "a.txt", 7) == b"content"
    with pytest.raises(OSError, match="larger than the 6 bytes that are read"):
        read_regular(tmp_path / "a.txt", 6)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_a_file_that_announces_no_size_is_bounded_too() -> None:
    assert os.stat("/proc/self/maps").st_size == 0
    with pytest.raises(OSError, match="larger than the 10 bytes"):
        read_regular("/proc/self/maps", 10)
