from __future__ import annotations

import hashlib
import io
import os
import threading
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steersearch.indexer import loader
from steersearch.indexer.loader import BadFile, FileState, KnownPhoto, Photo, PhotoReader, read_ahead
from tests.toy_embedder import ToyEmbedder, save_photo

RED = (255, 0, 0)


def test_read_ahead_keeps_the_order_however_long_each_takes() -> None:
    def slow_first(i: int) -> int:
        time.sleep(0.02 if i % 5 == 0 else 0)
        return i

    assert list(read_ahead(range(40), slow_first, threads=4, look_ahead=8)) == list(range(40))


def test_read_ahead_is_bounded_while_the_caller_is_slow() -> None:
    started: list[int] = []
    results = read_ahead(range(1000), lambda i: started.append(i), threads=4, look_ahead=6)
    for taken in range(1, 4):
        next(results)
        deadline = time.monotonic() + 60
        while len(started) < 6 + taken and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.05)  # time enough to read many more, if it would
        assert len(started) == 6 + taken  # those taken and 6 more
    results.close()
    assert len(started) <= 6 + 3


def test_read_ahead_works_on_several_threads_and_does_overlap() -> None:
    both_there = threading.Barrier(2, timeout=60)
    turns = read_ahead(range(2), lambda _: both_there.wait(), threads=2, look_ahead=2)
    assert sorted(turns) == [0, 1]


def test_read_ahead_raises_an_error_at_its_turn_and_stops() -> None:
    read: list[int] = []

    def fail_at_two(i: int) -> int:
        read.append(i)
        if i == 2:
            raise RuntimeError("two")
        return i

    results = read_ahead(range(100), fail_at_two, threads=1, look_ahead=4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(RuntimeError, match="two"):
        next(results)
    assert len(read) < 10


def reader(
    root: Path, *, known: bool = False, bad: str | None = None, needs_pixels: bool = True
) -> PhotoReader:
    return PhotoReader(
        root,
        is_known=lambda _: known,
        bad_reason=lambda _: bad,
        needs_pixels=lambda _: needs_pixels,
        preprocess=ToyEmbedder().preprocess,
    )


def test_a_photo_comes_with_all_that_is_stored_of_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    exif.get_ifd(0x8769)[0x9003] = "2024:05:06 07:08:09"
    Image.new("RGB", (600, 300), RED).save(tmp_path / "a.jpg", exif=exif)
    photo = reader(tmp_path)("a.jpg")
    assert isinstance(photo, Photo)
    content = (tmp_path / "a.jpg").read_bytes()
    status = os.stat(tmp_path / "a.jpg")
    digest = hashlib.sha256(content).hexdigest()[:32]
    assert photo.file == FileState("a.jpg", len(content), status.st_mtime_ns, digest)
    assert (photo.width, photo.height) == (300, 600)
    assert photo.taken_at == datetime(2024, 5, 6, 7, 8, 9)
    with Image.open(io.BytesIO(photo.thumbnail)) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", (128, 256))
    assert photo.pixels is not None
    np.testing.assert_allclose(photo.pixels[:, 0, 0], [1, 0, 0], atol=0.01)


def test_pixels_are_left_out_where_no_prompt_needs_them(tmp_path: Path) -> None:
    save_photo(tmp_path / "a.png", RED)
    photo = reader(tmp_path, needs_pixels=False)("a.png")
    assert isinstance(photo, Photo)
    assert photo.pixels is None
    assert photo.taken_at is None


def test_known_content_good_or_bad_is_hashed_but_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photo(tmp_path / "a.png", RED)
    monkeypatch.setattr(loader, "open_image", lambda path: pytest.fail("opened"))
    known = reader(tmp_path, known=True)("a.png")
    assert isinstance(known, KnownPhoto)
    assert known.file.image_id == loader.content_hash(tmp_path / "a.png")
    bad = reader(tmp_path, bad="was truncated")("a.png")
    assert bad == BadFile(known.file, "was truncated")


def test_files_that_are_no_photos_say_why(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("hello")
    save_photo(tmp_path / "whole.png", RED, (200, 200))
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    reasons = {}
    for name in ("empty.jpg", "text.png", "half.png"):
        bad = reader(tmp_path)(name)
        assert isinstance(bad, BadFile)
        assert bad.file.image_id == loader.content_hash(tmp_path / name)  # so it is not tried again
        reasons[name] = bad.reason
    assert reasons["empty.jpg"] == "the file is empty"
    assert reasons["text.png"].startswith("not an image")
    assert "truncated" in reasons["half.png"]


def test_a_decoder_that_fails_in_its_own_way_spoils_one_file_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photo(tmp_path / "a.png", RED)

    def fail(path: Path) -> Image.Image:
        raise RuntimeError("Decoding of color planes failed")

    monkeypatch.setattr(loader, "open_image", fail)
    bad = reader(tmp_path)("a.png")
    assert isinstance(bad, BadFile)
    assert bad.reason == "damaged (Decoding of color planes failed)"


def test_a_file_that_vanished_has_no_content_to_remember(tmp_path: Path) -> None:
    assert reader(tmp_path)("gone.jpg") == BadFile(
        FileState("gone.jpg", 0, 0, ""), "it vanished before it could be read"
    )


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_photo(tmp_path / "a.png", RED)
    opened: list[Path] = []

    def replace_then_open(full: Path) -> Image.Image:
        if not opened:
            save_photo(path, (0, 0, 255), (30, 30))
        opened.append(full)
        return Image.open(full).convert("RGB")

    monkeypatch.setattr(loader, "open_image", replace_then_open)
    photo = reader(tmp_path)("a.png")
    assert isinstance(photo, Photo)
    assert len(opened) == 2
    assert photo.file.image_id == loader.content_hash(path)  # never the old hash with the new pixels
    assert (photo.width, photo.height) == (30, 30)
