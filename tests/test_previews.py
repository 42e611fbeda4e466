"""Thumbnails in a terminal that shows pictures, and what other terminals get."""

from __future__ import annotations

import base64
import fcntl
import io
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import textual_image._terminal
from PIL import Image, ImageChops, ImageStat

from steersearch import Library
from steersearch.core.heatmaps import overlay, shared_vmax, strengths
from steersearch.core.vectors import VectorSettings
from tests.conftest import Run, draw_picture

STEERSEARCH = f"{shlex.quote(sys.executable)} -m steersearch"
SIXEL = b"\x1b[?62;4;22c"  # what a terminal answers that has it: iTerm2, WezTerm, foot
NO_SIXEL = b"\x1b[?62;22c"


def of_kitty(answer: bytes) -> bytes:
    """What a terminal without Sixel answers about Kitty's protocol: textual-image asks for it last before 0.14."""
    parts = (b"\x1b_Gi=31;" + answer + b"\x1b\\", NO_SIXEL)
    return b"".join(parts if hasattr(textual_image._terminal, "probe_terminal") else parts[::-1])


KITTY = of_kitty(b"OK")
DRAWN_SIXEL = re.compile(r'\x1bP[\d;]*q"1;1;(\d+);(\d+)')
SENT_TO_KITTY = re.compile(r"\x1b_Gi=(\d+),m=[01],f=100,q=2;([^\x1b]*)\x1b")


@pytest.fixture
def library(run: Run, photos: Path, tiny_model: Path, tmp_path: Path) -> Path:
    """Of seven photos: one upright, one with a name that takes control of a terminal."""
    (photos / "red.jpg").rename(photos / "\x1b[31mred.jpg")
    draw_picture(photos / "upright.jpg", "red", seed=9, size=(64, 96))
    place = tmp_path / "library"
    assert (
        run(
            "index", photos, "--prompt", "mug", "--model", tiny_model, "--library", place, "--no-regions"
        ).code
        == 0
    )
    return place


def on_terminal(command: str, answer: bytes = b"") -> tuple[int, str]:
    """Exit code, and what is sent to a terminal of 100 by 40 cells of 10 by 20 pixels that answers this."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 1000, 800))
    os.write(ours, answer)
    process = subprocess.Popen(
        ["bash", "-c", command], stdin=its, stdout=its, stderr=its, start_new_session=True
    )
    os.close(its)
    sent = b""
    try:
        while part := os.read(ours, 65536):
            sent += part
    except OSError:  # the last program has left it
        pass
    os.close(ours)
    return process.wait(), sent.decode().replace("\r\n", "\n")


def rows_of(sent: str) -> list[str]:
    """Where each hit begins: rank, score, z or presence."""
    return re.findall(
        r"^ *(\d) +-?\d\.\d+ +-?\d\.\d+",
        re.sub(r"\x1b\[[\d;]*m|[\U0010eeee\u0300-\U0001d244]", " ", sent),
        re.M,
    )


def test_a_terminal_with_sixel_shows_each_hit(library: Path, photos: Path) -> None:
    code, sent = on_terminal(f"cd {photos}; {STEERSEARCH} find mug --preview --library {library}", SIXEL)
    assert code == 0
    sizes = sorted((int(width), int(height)) for width, height in DRAWN_SIXEL.findall(sent))
    assert len(sizes) == 7
    assert sizes[0] == (130, 200)  # upright: 13 by 10 cells
    assert set(sizes[1:]) == {(200, 140)}  # 20 by 7 cells
    assert rows_of(sent) == list("1234567")
    assert "  \\x1b[31mred.jpg" in sent
    assert "\x1b[31m" not in sent


def test_kitty_shows_each_hit_with_its_heatmap(library: Path, photos: Path) -> None:
    query = f"NO_COLOR=1 {STEERSEARCH} query upright.jpg --focus mug --preview"
    code, sent = on_terminal(f"cd {photos}; {query} --library {library}", KITTY)
    assert code == 0
    assert rows_of(sent) == list("123456")
    hits = Library.open(library).query(photos / "upright.jpg", "mug")
    scale = shared_vmax([hit.heatmap for hit in hits])
    shown = sent_to_kitty(sent)
    for hit, picture in zip(hits, shown.values(), strict=True):
        region = VectorSettings.from_dict(hit.searched.index.preprocessing).preprocess.region(
            hit.thumbnail.size
        )
        assert_alike(picture, overlay(hit.thumbnail, strengths(hit.heatmap, scale), region))
    for number in shown:  # it finds a picture by the colour of its cells
        red, green, blue = int(number).to_bytes(4)[1:]
        assert f"\x1b[38;2;{red};{green};{blue}m\U0010eeee" in sent
    assert "\x1bP" not in sent


def test_without_a_focus_thumbnails_are_shown_as_they_are(
    run: Run, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    place = tmp_path / "library"
    assert run("index", photos, "--model", tiny_model, "--library", place).code == 0
    code, sent = on_terminal(f"cd {photos}; {STEERSEARCH} query red.jpg --preview --library {place}", KITTY)
    assert code == 0
    hits = Library.open(place).query(photos / "red.jpg")
    assert len(hits) == 5
    for hit, picture in zip(hits, sent_to_kitty(sent).values(), strict=True):
        assert_alike(picture, hit.thumbnail)


def sent_to_kitty(sent: str) -> dict[str, Image.Image]:
    """The pictures by their numbers."""
    pngs: dict[str, str] = {}
    for number, part in SENT_TO_KITTY.findall(sent):
        pngs[number] = pngs.get(number, "") + part
    return {number: Image.open(io.BytesIO(base64.b64decode(png))) for number, png in pngs.items()}


def assert_alike(picture: Image.Image, other: Image.Image) -> None:
    assert picture.size == ((200, 140) if other.width > other.height else (130, 200))
    difference = ImageChops.difference(picture.convert("RGB"), other.resize(picture.size))
    assert max(ImageStat.Stat(difference).mean) < 2


@pytest.mark.parametrize("answer", [b"", NO_SIXEL, of_kitty(b"ENOTSUPPORTED"), b"\xc3\xa9"])
def test_a_terminal_without_pictures_gets_the_table_and_a_remark(
    library: Path, photos: Path, answer: bytes
) -> None:
    code, sent = on_terminal(f"cd {photos}; {STEERSEARCH} find mug --preview --library {library}", answer)
    assert code == 0
    assert "no previews: this terminal did not answer that it shows pictures" in sent
    assert "Kitty, iTerm2" in sent
    assert rows_of(sent) == list("1234567")
    assert DRAWN_SIXEL.search(sent) is None
    assert SENT_TO_KITTY.search(sent) is None


def test_a_terminal_that_cannot_be_asked_gets_the_table(library: Path, photos: Path) -> None:
    query = f"{STEERSEARCH} query - --focus mug --preview --library {library}"
    code, sent = on_terminal(f"cd {photos}; {query} <upright.jpg", SIXEL)
    assert code == 0
    assert "or standard input is not the terminal" in sent
    assert rows_of(sent) == list("123456")
    assert "\x1b[c" not in sent


def test_a_photo_that_is_gone_is_shown_by_its_thumbnail(library: Path, photos: Path) -> None:
    (photos / "upright.jpg").unlink()
    _, sent = on_terminal(f"{STEERSEARCH} find mug --preview --library {library}", SIXEL)
    assert len(DRAWN_SIXEL.findall(sent)) == 7


def test_no_picture_is_printed_to_a_pipe_or_among_paths(run: Run, library: Path) -> None:
    alone = run("find", "mug", "--preview", "--library", library)
    assert (alone.code, alone.out) == (2, "")
    assert "standard output is none" in alone.err
    for form in ("--json", "--paths", "--print0"):
        both = run("find", "mug", "--preview", form, "--library", library)
        assert (both.code, both.out) == (2, "")
        assert "exclude each other" in both.err


def test_previews_without_their_extra_say_how_to_install_it(library: Path) -> None:
    code = (
        "import sys\nsys.modules['textual_image'] = None\nfrom steersearch.cli import main\n"
        f"sys.argv = ['steersearch', 'find', 'mug', '--preview', '--library', {str(library)!r}]\nmain()"
    )
    failed, sent = on_terminal(f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}", SIXEL)
    assert failed == 1
    assert 'needs textual-image; install it with: pip install "steersearch[preview]"' in sent
