"""Photos to search with that are not files: URLs, standard input, the clipboard."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from steersearch import query_source
from steersearch.core.errors import ImageError, ImageRefusedError
from steersearch.core.images.limits import Limits
from steersearch.query_source import photo_from, photo_from_clipboard
from tests.conftest import Run, draw_picture

PROMPT = "the red mug"


class Answers(BaseHTTPRequestHandler):
    """Pictures and traps."""

    picture = b""
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to?"))
            self.end_headers()
            return
        if self.path == "/missing.jpg":
            self.send_error(404)
            return
        body = b"<html>no picture</html>" if self.path == "/letter.jpg" else self.picture
        if self.path == "/endless.jpg":
            body = self.picture + bytes(3_000_000)
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):  # the other side had enough
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    draw_picture(tmp_path / "served.jpg", "red", seed=5)
    Answers.picture, Answers.asked = (tmp_path / "served.jpg").read_bytes(), []
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_a_picture_is_fetched_whatever_it_is_called(server: str) -> None:
    for address in ("/a%20photo.jpg?size=2", "/letter.txt", "/", f"/to?{server}/photo"):
        assert photo_from(server + address).read_bytes() == Answers.picture
    assert photo_from(f"{server}/a%20photo.jpg").name == "a photo.jpg"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("/letter.jpg", "not an image"),
        ("/missing.jpg", "the server answers 404"),
        ("/to?file:///etc/passwd", "file:///etc/passwd.* is not allowed"),
        ("/to?ftp://example.org/a.jpg", "leads to an address of another kind"),
        ("/endless.jpg", "too large: more than 2 MB"),
    ],
)
def test_what_is_not_fetched(server: str, address: str, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as raised:
        photo_from(server + address, limits=Limits(file=2e6))
    assert str(raised.value).startswith(server)


def test_redirects_have_an_end(server: str) -> None:
    with pytest.raises(ImageError, match="infinite loop"):
        photo_from(f"{server}/to?/to?/to?/to?/to?/to?/to?/to?/to?/photo.jpg")
    assert len(Answers.asked) <= query_source.MOST_REDIRECTS + 1


def test_offline_asks_no_server(server: str) -> None:
    with pytest.raises(ImageRefusedError, match="is not fetched with --offline"):
        photo_from(f"{server}/photo.jpg", offline=True)
    assert Answers.asked == []


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://[::1/a.png", "is not a valid URL"),
        ("http://localhost:ab/a.png", "cannot be fetched .*nonnumeric port"),
        ("http://two words/a.png", "cannot be fetched"),
        ("file:///%00", "contains a NUL character"),
    ],
)
def test_an_address_that_is_none(address: str, reason: str) -> None:
    with pytest.raises(ImageError, match=f"{re.escape(address)}: {reason}"):
        photo_from(address)


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(ImageError, match="cannot be fetched"):
        photo_from("http://127.0.0.1:1/photo.jpg")
    with pytest.raises(ImageRefusedError, match="only http, https, file, s3, gs and az URLs are read"):
        photo_from("ftp://127.0.0.1/photo.jpg")


def test_a_picture_beyond_the_limits_is_refused(server: str) -> None:
    with pytest.raises(ImageRefusedError, match="too large"):
        photo_from(f"{server}/photo.jpg", limits=Limits(file=100))


def test_a_slow_server_is_given_up(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_source, "WHOLE_SECONDS", -1)
    with pytest.raises(ImageError, match="takes more than"):
        photo_from(f"{server}/photo.jpg")


def test_a_file_url(tmp_path: Path) -> None:
    photo = draw_picture(tmp_path / "a photo.jpg", "red", seed=1) or tmp_path / "a photo.jpg"
    assert photo_from(photo.as_uri()) == photo
    with pytest.raises(ImageRefusedError, match="lies on another machine, elsewhere"):
        photo_from("file://elsewhere/a.jpg")
    assert photo_from("a:b.jpg") == Path("a:b.jpg")


class Input:
    """Standard input that holds these bytes."""

    def __init__(self, content: bytes, terminal: bool = False) -> None:
        self.buffer, self._terminal = io.BytesIO(content), terminal

    def isatty(self) -> bool:
        return self._terminal


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_picture(tmp_path / "red.jpg", "red", seed=1)
    content = (tmp_path / "red.jpg").read_bytes()
    monkeypatch.setattr("sys.stdin", Input(content))
    assert photo_from("-").read_bytes() == content
    for given, reason in (
        (Input(b"text"), "not an image"),
        (Input(b""), "empty"),
        (Input(b"", True), "a terminal"),
    ):
        monkeypatch.setattr("sys.stdin", given)
        with pytest.raises(ImageError, match=f"standard input: .*{reason}"):
            photo_from("-")


def test_the_clipboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.new("RGBA", (8, 4), (10, 20, 30, 255))
    monkeypatch.setattr("PIL.ImageGrab.grabclipboard", lambda: image)
    assert Image.open(photo_from_clipboard()).getpixel((0, 0)) == (10, 20, 30, 255)
    monkeypatch.setattr("PIL.ImageGrab.grabclipboard", lambda: [str(tmp_path / "a.jpg")])
    assert photo_from_clipboard() == tmp_path / "a.jpg"
    for found, reason in ((None, "holds no picture"), (["a", "b"], "holds several files")):
        monkeypatch.setattr("PIL.ImageGrab.grabclipboard", lambda found=found: found)
        with pytest.raises(ImageError, match=reason):
            photo_from_clipboard()


def test_a_machine_without_a_clipboard(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ImageError, match=r"the clipboard: cannot be read \(.*\); save the picture to a file"):
        photo_from_clipboard()


def test_the_command_line(
    run: Run, photos: Path, tiny_model: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("index", photos, "--prompt", PROMPT, "--model", tiny_model)
    expected = run("query", "served.jpg", "--focus", PROMPT, "--paths").out
    assert run("query", f"{server}/photo", "--focus", PROMPT, "--paths").out == expected
    done = run("query", f"{server}/photo", "--focus", PROMPT, "--offline")
    assert (done.code, "is not fetched with --offline" in done.err) == (1, True)
    monkeypatch.setattr("sys.stdin", Input(Answers.picture))
    assert run("query", "-", "--focus", PROMPT, "--paths").out == expected
    monkeypatch.setattr("PIL.ImageGrab.grabclipboard", lambda: Image.open("served.jpg"))
    assert run("query", "--clipboard", "--focus", PROMPT, "--paths").out == expected
    done = run("query", f"./{photos.name}/red.jpg", "--focus", PROMPT, "--paths")
    assert run("query", (photos / "red.jpg").as_uri(), "--focus", PROMPT, "--paths").out == done.out
    assert run("query", "served.jpg", "--clipboard").code == 2
    assert run("query", "--focus", PROMPT).code == 2
