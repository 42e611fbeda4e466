from __future__ import annotations

import hashlib
import io
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
from PIL import Image

from steersearch.core.errors import ImageError, ModelMismatchError
from steersearch.core.images.limits import Limits
from steersearch.core.images.reader import Picture, read_picture
from steersearch.indexer import loader
from steersearch.indexer.loader import BadFile, KnownPhoto, Photo, PhotoReader, read_ahead
from steersearch.indexer.schema import FileRecord
from tests.conftest import wait_until
from tests.toy_embedder import ToyEmbedder, save_photo
from tests.toy_library import Library

RED = (255, 0, 0)


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


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
        wait_until(lambda most=6 + taken: len(started) >= most)
        time.sleep(0.05)  # time enough to read many more, if it would
        assert len(started) == 6 + taken  # those taken and 6 more
    results.close()
    assert len(started) <= 6 + 3


def test_read_ahead_follows_a_bound_that_changes() -> None:
    bound, started = [2], list[int]()
    results = read_ahead(range(1000), lambda i: started.append(i), threads=1, look_ahead=lambda: bound[0])
    for now, expected in ((2, 3), (7, 9), (1, 9), (1, 9)):  # a smaller one reads nothing until it is reached
        bound[0] = now
        next(results)
        wait_until(lambda expected=expected: len(started) >= expected)
        time.sleep(0.05)  # time enough to read more, if it would
        assert len(started) == expected
    assert list(results)[-1] is None
    assert len(started) == 1000


def test_read_ahead_works_on_several_threads_and_does_overlap() -> None:
    both_there = threading.Barrier(2, timeout=600)
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
    assert photo.file == FileRecord("a.jpg", digest, len(content), status.st_mtime_ns)
    assert (photo.file.width, photo.file.height) == (300, 600)
    assert photo.file.taken_at == datetime(2024, 5, 6, 7, 8, 9)
    assert (photo.file.taken_at_precision, photo.file.taken_at_source) == ("second", "EXIF DateTimeOriginal")
    with Image.open(io.BytesIO(photo.thumbnail)) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", (128, 256))
    assert photo.pixels is not None
    np.testing.assert_allclose(photo.pixels[:, 0, 0], [1, 0, 0], atol=0.01)


def test_pixels_are_left_out_where_no_prompt_needs_them(tmp_path: Path) -> None:
    save_photo(tmp_path / "a.png", RED)
    photo = reader(tmp_path, needs_pixels=False)("a.png")
    assert isinstance(photo, Photo)
    assert photo.pixels is None
    assert (photo.file.taken_at, photo.file.taken_at_source) == (None, "none")


def test_known_content_good_or_bad_is_hashed_but_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photo(tmp_path / "a.png", RED)
    monkeypatch.setattr(loader, "read_picture", lambda *_args, **_options: pytest.fail("opened"))
    known = reader(tmp_path, known=True)("a.png")
    assert isinstance(known, KnownPhoto)
    assert known.file.image_id == hash_of(tmp_path / "a.png")
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
        assert bad.file.image_id == hash_of(tmp_path / name)  # so it is not tried again
        reasons[name] = bad.reason
    assert reasons["empty.jpg"] == "the file is empty"
    assert reasons["text.png"].startswith("not an image")
    assert "truncated" in reasons["half.png"]


def test_a_decoder_that_fails_in_its_own_way_spoils_one_file_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photo(tmp_path / "a.png", RED)

    def fail(*_args: object, **_options: object) -> Picture:
        raise KeyError("Decoding of color planes failed")

    monkeypatch.setattr(loader, "read_picture", fail)
    bad = reader(tmp_path)("a.png")
    assert isinstance(bad, BadFile)
    assert bad.reason == "damaged ('Decoding of color planes failed')"


def test_a_file_that_vanished_has_no_content_to_remember(tmp_path: Path) -> None:
    assert reader(tmp_path)("gone.jpg") == BadFile(
        FileRecord("gone.jpg", "", 0, 0), "it vanished before it could be read", is_gone=True
    )


def test_a_file_that_is_replaced_while_it_is_read_is_read_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash and the pixels are of one file, whichever; the time and size are its own, so the next run sees."""
    path = save_photo(tmp_path / "a.png", RED)
    status, old = path.stat(), hash_of(path)

    def replace_then_read(full: Path, file: BinaryIO, **options: Any) -> Picture:
        save_photo(tmp_path / "new.png", (0, 0, 255), (30, 30)).replace(path)
        return read_picture(full, file, **options)

    monkeypatch.setattr(loader, "read_picture", replace_then_read)
    photo = reader(tmp_path)("a.png")
    assert isinstance(photo, Photo)
    assert photo.file == FileRecord("a.png", old, status.st_size, status.st_mtime_ns)
    assert (photo.file.width, photo.file.height) == (20, 10)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_file_that_is_written_while_it_is_read_is_read_again(
    in_memory: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "_IN_MEMORY", 2**20 if in_memory else 0)
    path = save_photo(tmp_path / "a.png", RED)
    read = 0

    def write_then_read(full: Path, file: BinaryIO, **options: Any) -> Picture:
        nonlocal read
        read += 1
        if read == 1:
            save_photo(path, (0, 0, 255), (30, 30))
        return read_picture(full, file, **options)

    monkeypatch.setattr(loader, "read_picture", write_then_read)
    photo = reader(tmp_path)("a.png")
    assert isinstance(photo, Photo)
    assert read == 2
    assert photo.file.image_id == hash_of(path)  # never the old hash with the new pixels
    assert (photo.file.width, photo.file.height) == (30, 30)


def test_a_file_that_never_rests_is_left_for_a_later_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_photo(tmp_path / "a.png", RED)

    def grow(full: Path, file: BinaryIO, **options: Any) -> Picture:
        with path.open("ab") as growing:
            growing.write(b"x")
        return read_picture(full, file, **options)

    monkeypatch.setattr(loader, "read_picture", grow)
    bad = reader(tmp_path)("a.png")
    assert bad == BadFile(FileRecord("a.png", "", 0, 0), "it changes while it is read; index again later")


def test_a_large_file_is_hashed_and_decoded_without_being_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photo(tmp_path / "a.png", RED)
    whole = reader(tmp_path)("a.png")
    monkeypatch.setattr(loader, "_IN_MEMORY", 10)
    parts = reader(tmp_path)("a.png")
    assert isinstance(whole, Photo)
    assert isinstance(parts, Photo)
    assert parts.file.as_row() == whole.file.as_row()


def test_a_large_jpeg_is_decoded_at_the_scale_that_is_needed(tmp_path: Path) -> None:
    Image.effect_noise((2100, 1500), 60).convert("RGB").save(tmp_path / "a.jpg")
    sizes: list[tuple[int, int]] = []

    def watching(picture: Picture) -> Any:
        sizes.append(picture.image.size)
        return ToyEmbedder().preprocess(picture)

    for needed in (None, 256, 400, 800):
        photo = PhotoReader(
            tmp_path,
            is_known=lambda _: False,
            bad_reason=lambda _: None,
            needs_pixels=lambda _: True,
            preprocess=watching,
            at_least=needed,
        )("a.jpg")
        assert isinstance(photo, Photo)
        assert (photo.file.width, photo.file.height) == (2100, 1500)  # the photo's own, at whatever scale
        with Image.open(io.BytesIO(photo.thumbnail)) as thumbnail:
            assert thumbnail.size == (256, 183)
    assert sizes == [(2100, 1500), (525, 375), (1050, 750), (2100, 1500)]


def test_a_photo_above_the_limit_is_left_to_be_tried_again(tmp_path: Path) -> None:
    save_photo(tmp_path / "a.png", RED, (2000, 1000))
    bad = PhotoReader(
        tmp_path,
        is_known=lambda _: False,
        bad_reason=lambda _: None,
        needs_pixels=lambda _: True,
        preprocess=ToyEmbedder().preprocess,
        limits=Limits(memory=15e6),
    )("a.png")
    assert isinstance(bad, BadFile)
    assert bad.file.image_id == ""
    assert bad.reason.startswith(
        "too large: decoding takes 16 MB of memory, more than 15 MB; --limit memory="
    )


# ------------------------------------------------------------------------------------- one file never ends a run


def long_comment(path: Path) -> None:
    """A GIF whose comment is longer than a JPEG's may be, as the thumbnail would have it."""
    Image.new("RGB", (20, 10), RED).save(path, "GIF", comment=b"c" * 66_000)


def long_strip(path: Path) -> None:
    """A PNG of 1 × 169,000,000 pixels in 41 kB."""
    head = struct.pack(">IIBBBBB", 1, 169_000_000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(2 * 169_000), 9)  # not all of them: its sides decide
    chunks = [(b"IHDR", head), (b"IDAT", rows), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


def sparse_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10**12)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (long_strip, "a side of 169,000,000 pixels, more than 200,000"),
        (sparse_file, "too large: 1 TB, more than 2 GB; --limit file=1.2TB allows it"),
        (os.mkfifo, "it cannot be read (a pipe, not a regular file)"),
        (os.mkdir, "it cannot be read (a folder, not a file)"),
        (lambda path: path.symlink_to("/dev/zero"), "it cannot be read (a device, not a regular file)"),
    ],
    ids=["strip", "sparse", "pipe", "folder", "device"],
)
def test_a_file_that_cannot_be_used_is_a_skip_at_once(
    make: Callable[[Path], object], reason: str, tmp_path: Path
) -> None:
    make(tmp_path / "a.jpg")
    bad = reader(tmp_path)("a.jpg")
    assert isinstance(bad, BadFile)
    assert bad.reason == reason
    assert bad.file.image_id == ""  # so it is tried again


def test_a_long_comment_does_not_spoil_the_thumbnail(tmp_path: Path) -> None:
    long_comment(tmp_path / "a.gif")
    photo = reader(tmp_path)("a.gif")
    assert isinstance(photo, Photo)
    assert len(photo.thumbnail) < 2000


def test_whatever_preprocessing_raises_is_a_skip_that_is_tried_again(tmp_path: Path) -> None:
    save_photo(tmp_path / "a.png", RED)

    def fail(_: Picture) -> Any:
        raise ZeroDivisionError("division by zero")

    reading = reader(tmp_path)
    reading._preprocess = fail
    bad = reading("a.png")
    assert isinstance(bad, BadFile)
    assert bad.reason == "it cannot be prepared for the model (division by zero)"
    assert bad.file.image_id == ""


def test_what_loading_the_model_raises_is_no_fault_of_a_photo(tmp_path: Path) -> None:
    save_photo(tmp_path / "a.png", RED)

    def load() -> None:
        raise ModelMismatchError("red", "one", "another")

    reading = reader(tmp_path)
    reading._prepare = load
    with pytest.raises(ModelMismatchError):
        reading("a.png")


def test_a_file_without_size_is_empty_whatever_it_would_give(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("/proc/self/maps")
    bad = reader(tmp_path)("a.jpg")
    assert isinstance(bad, BadFile)
    assert bad.reason == "the file is empty"
    library = Library.create(tmp_path)
    library.index(ToyEmbedder(), ["red"])
    assert library.verify(deep=True) == []


def test_a_query_photo_without_size_is_empty_though_it_never_ends(tmp_path: Path) -> None:
    save_photo(tmp_path / "a.png", (200, 0, 0))
    library = Library.create(tmp_path)
    library.index(ToyEmbedder(), ["red"])
    with pytest.raises(ImageError, match="the file is empty"):
        library.query(ToyEmbedder(), "/proc/self/pagemap", "red")


# ---------------------------------------------------------------------------------------------- times of files

NOW = 1_900_000_000 * 10**9  # ns since 1970
SECOND = 10**9


@pytest.mark.parametrize(
    ("changed", "status_changed", "is_racy"),
    [
        (NOW - 60 * SECOND, NOW - 60 * SECOND, False),
        (NOW - 60 * SECOND, NOW, False),  # its permissions were changed, or it was copied with its time
        (NOW - SECOND, NOW - SECOND, True),
        (NOW, NOW, True),
        (NOW + SECOND, NOW + SECOND, True),
        (NOW + 10**9 * SECOND, NOW - 60 * SECOND, False),  # from a camera whose clock is years ahead
        (NOW + 60 * SECOND, NOW + 60 * SECOND, True),  # by a file server whose clock is a minute ahead
        (-(10**9) * SECOND, NOW, False),  # before 1970
    ],
)
def test_a_time_that_a_further_write_could_bear_is_not_trusted(
    changed: int, status_changed: int, is_racy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "RACY_NS", 3 * SECOND)
    status = SimpleNamespace(st_size=1, st_mtime_ns=changed, st_ctime_ns=status_changed)
    state = loader._state("a.jpg", cast("os.stat_result", status), "0", NOW)
    assert state == FileRecord("a.jpg", "0", 1, changed - 1 if is_racy else changed)
