"""What may take long, too much memory, or crash its decoder is decoded apart, and ended where it takes too much."""

from __future__ import annotations

import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from steersearch.core.errors import ImageError, ImageRefusedError
from steersearch.core.images import decoder_process
from steersearch.core.images.limits import Budget, Limits
from steersearch.core.images.reader import read_date, read_header, read_picture
from tests.small_dng import write_dng

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


@pytest.fixture
def no_process() -> None:
    """No process is there yet."""
    decoder_process._end_all()


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def scan_bomb(path: Path, scans: int, side: int) -> Path:
    """A sequential JPEG of three colours, whose first is sent again and again."""
    Image.new("L", (side, side), 128).save(path, "JPEG")
    content = path.read_bytes()
    frame, scan = content.index(b"\xff\xc0"), content.index(b"\xff\xda")
    three = struct.pack(">HHBHHB", 0xFFC0, 17, 8, side, side, 3) + bytes([1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0])
    tables = content[frame + 13 : scan]
    path.write_bytes(content[:frame] + three + tables + content[scan:-2] * scans + b"\xff\xd9")
    return path


@pytest.mark.usefixtures("no_process")
def test_a_picture_decoded_apart_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x8769] = {0x9003: "2021:03:04 05:06:07"}
    noise(90, 40).save(tmp_path / "a.jpg", exif=exif)
    here = read_picture(tmp_path / "a.jpg", at_least=10)
    monkeypatch.setattr("steersearch.core.images.reader.is_plain", lambda _: False)
    for _ in range(2):
        apart = read_picture(tmp_path / "a.jpg", at_least=10)
        assert (apart.size, apart.taken_at, apart.box) == (here.size, here.taken_at, here.box)
        assert np.array_equal(np.asarray(apart.image), np.asarray(here.image))
    assert len(decoder_process._idle) == 1  # the second was decoded by the same process


def test_a_large_picture_comes_in_parts(tmp_path: Path) -> None:
    image = noise(200, 150).resize((4000, 3000), Image.Resampling.NEAREST)
    assert 3 * image.width * image.height > 2 * decoder_process._STRIP
    image.save(tmp_path / "a.bmp")
    assert np.array_equal(np.asarray(read_picture(tmp_path / "a.bmp").image), np.asarray(image))


def test_a_large_file_is_handed_over_as_it_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(40, 30).save(tmp_path / "a.bmp")
    monkeypatch.setattr(decoder_process, "_IN_MEMORY", 100)
    assert np.array_equal(np.asarray(read_picture(tmp_path / "a.bmp").image), np.asarray(noise(40, 30)))


def test_a_large_raw_photo_is_read_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rawpy")
    path = write_dng(tmp_path / "a.dng", (200, 60, 20))
    expected = np.asarray(read_picture(path).image)
    monkeypatch.setattr(decoder_process, "_IN_MEMORY", 100)
    assert np.array_equal(np.asarray(read_picture(path).image), expected)


@pytest.mark.usefixtures("no_process")
def test_decoding_that_outlives_its_seconds_is_ended(tmp_path: Path) -> None:
    bomb = scan_bomb(tmp_path / "bomb.jpg", 2000, 2000)
    reason = (
        r"bomb\.jpg: decoding it takes more than 0\.2 s of processor time; --limit seconds=0\.6 allows more"
    )
    with pytest.raises(ImageRefusedError, match=reason):
        read_picture(bomb, limits=Limits(seconds=0.2))
    assert decoder_process._idle == []
    noise(8, 8).save(tmp_path / "a.bmp")
    assert read_picture(tmp_path / "a.bmp").size == (8, 8)  # the next file has a new process


def test_a_few_scans_are_within_bounds(tmp_path: Path) -> None:
    assert read_picture(scan_bomb(tmp_path / "a.jpg", 20, 200)).size == (200, 200)


@pytest.mark.usefixtures("no_process")
def test_a_decoder_that_waits_for_ever_is_ended_by_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise(8, 8).save(tmp_path / "a.bmp")
    monkeypatch.setattr(decoder_process, "_PATIENCE", 1e-9)
    with pytest.raises(ImageRefusedError, match="more than 20 s of processor time"):
        read_picture(tmp_path / "a.bmp")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system bounds no memory")
@pytest.mark.usefixtures("no_process")
def test_memory_that_the_header_does_not_announce_is_refused_by_the_system(tmp_path: Path) -> None:
    """A text of 60 MB, packed into 60 kB."""
    text = PngInfo()
    text.add_text("Comment", "a" * 60_000_000, zip=True)
    noise(8, 8).save(tmp_path / "a.png", pnginfo=text)
    with pytest.raises(ImageRefusedError, match="too large: more than 30 MB of memory"):
        read_picture(tmp_path / "a.png", limits=Limits(memory=30e6))
    assert read_picture(tmp_path / "a.png").size == (8, 8)
    assert len(decoder_process._idle) == 1  # the process went on


def test_damage_that_may_be_a_want_of_memory_is_tried_again(tmp_path: Path) -> None:
    noise(300, 300).save(tmp_path / "a.bmp")
    (tmp_path / "a.bmp").write_bytes((tmp_path / "a.bmp").read_bytes()[:50_000])
    with pytest.raises(ImageError, match=r"truncated or damaged [^,]*$") as caught:
        read_picture(tmp_path / "a.bmp")
    assert type(caught.value) is ImageError
    with pytest.raises(
        ImageRefusedError, match=r"truncated or damaged .*, or it takes more than 500 kB of memory"
    ):
        read_picture(tmp_path / "a.bmp", limits=Limits(memory=500e3))


@pytest.mark.parametrize(
    ("sent", "error", "reason"),
    [
        (signal.SIGSEGV, ImageError, r"damaged: its decoder crashed \(SIGSEGV\)"),
        (signal.SIGKILL, ImageRefusedError, r"the process that decoded it was ended \(SIGKILL\)"),
    ],
)
def test_a_decoder_that_crashes_is_one_bad_file(
    sent: signal.Signals, error: type[ImageError], reason: str, tmp_path: Path
) -> None:
    noise(8, 8).save(tmp_path / "a.bmp")
    read_picture(tmp_path / "a.bmp")
    decoder_process._idle[0]._process.send_signal(sent)
    with pytest.raises(error, match=reason) as caught:
        read_picture(tmp_path / "a.bmp")
    assert type(caught.value) is error
    assert read_picture(tmp_path / "a.bmp").size == (8, 8)


@pytest.mark.usefixtures("no_process")
def test_as_many_processes_as_threads_and_no_more(tmp_path: Path) -> None:
    for i in range(12):
        noise(60 + i, 40).save(tmp_path / f"{i}.bmp")
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(read_picture, [tmp_path / f"{i}.bmp" for i in range(12)]))
    assert [picture.size for picture in found] == [(60 + i, 40) for i in range(12)]
    assert 1 <= len(decoder_process._idle) <= 3


@pytest.mark.usefixtures("no_process")
def test_reasons_come_back_with_their_kind(tmp_path: Path) -> None:
    (tmp_path / "text.tif").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"text\.tif: not an image") as caught:
        read_picture(tmp_path / "text.tif")
    assert type(caught.value) is ImageError
    noise(300, 300).save(tmp_path / "a.bmp")
    with pytest.raises(ImageRefusedError, match=r"a\.bmp: too large: decoding takes"):
        read_picture(tmp_path / "a.bmp", limits=Limits(memory=1e5))
    assert len(decoder_process._idle) == 1


def test_dates_and_headers_come_back_as_they_are(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x8769] = {0x9003: "2021:03:04 05:06:07"}
    noise(9, 5).save(tmp_path / "a.webp", exif=exif, lossless=True)
    tags = ImageFileDirectory_v2()
    tags[0x0112], tags[0x8769] = 6, {0x9003: "2021:03:04 05:06:07"}
    noise(9, 5).save(tmp_path / "a.tif", tiffinfo=tags)
    assert read_date(tmp_path / "a.tif") == read_date(tmp_path / "a.webp") is not None
    assert read_picture(tmp_path / "a.tif").taken_at == read_date(tmp_path / "a.webp")
    assert read_header(tmp_path / "a.tif") == read_header(tmp_path / "a.webp") == ((9, 5), 6)
    noise(9, 5).save(tmp_path / "b.tif")
    assert read_date(tmp_path / "b.tif") is None


def test_an_answer_that_is_no_data_is_refused(tmp_path: Path) -> None:
    noise(8, 8).save(tmp_path / "a.bmp")
    read_picture(tmp_path / "a.bmp")
    (process,) = decoder_process.idle()
    ours, theirs = multiprocessing.Pipe()
    process._connection = ours  # as if a file had taken it over
    theirs.send(os.getpid)
    with pytest.raises(ImageRefusedError, match="the process that decoded it was ended"):
        read_picture(tmp_path / "a.bmp")


def test_a_forked_process_starts_its_own(tmp_path: Path) -> None:
    noise(8, 8).save(tmp_path / "a.bmp")
    read_picture(tmp_path / "a.bmp")
    child = os.fork()
    if not child:
        with suppress(BaseException):
            os._exit(
                7 if not decoder_process._idle and read_picture(tmp_path / "a.bmp").size == (8, 8) else 1
            )
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert read_picture(tmp_path / "a.bmp").size == (8, 8)


def test_no_process_outlives_the_program(tmp_path: Path) -> None:
    noise(8, 8).save(tmp_path / "a.bmp")
    code = (
        "import sys; from steersearch.core.images import decoder_process, reader; reader.read_picture(sys.argv[1]); "
        "print(decoder_process._idle[0]._process.pid)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.bmp")], capture_output=True, text=True, check=True
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


@pytest.mark.usefixtures("no_process")
def test_nothing_is_imported_from_the_folder_one_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('ran')")
    noise(8, 8).save(tmp_path / "a.bmp")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert read_picture("a.bmp").size == (8, 8)


def test_memory_is_shared_by_those_who_decode() -> None:
    budget, order = Budget(100), list[str]()
    first, second = threading.Event(), threading.Event()

    def large() -> None:
        with budget.reserved(70):
            order.append("large")
            first.set()
            second.wait(600)
            order.append("large done")

    def too_much() -> None:
        first.wait(600)
        second.set()
        with budget.reserved(500):  # more than there is: alone
            order.append("too much")

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(large), threads.submit(too_much)]:
            done.result(600)
    assert order == ["large", "large done", "too much"]
