"""A query photo that is not a file: from a URL, standard input or the clipboard. It becomes a file."""

from __future__ import annotations

import http.client
import sys
import tempfile
import time
import urllib.error
import urllib.request
from functools import cache
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from PIL import Image, ImageGrab

from steersearch.core.errors import ImageError, ImageRefusedError
from steersearch.core.images.limits import DEFAULT_LIMITS, Limits, in_units
from steersearch.core.images.reader import read_header
from steersearch.core.objects import as_place, is_uri

STDIN = "-"
MOST_BYTES = 100 * 10**6  # of a photo that is not a file yet
SECONDS, WHOLE_SECONDS = 15.0, 60.0  # for each answer of a server; for the whole download
MOST_REDIRECTS = 5
_PART = 2**18


def photo_from(source: str, *, offline: bool = False, limits: Limits = DEFAULT_LIMITS) -> Path:
    """The file of a photo to search with: `source` itself if it is a path or an object in a bucket; that of a file://
    URL; a temporary file,
    which goes with this process, for an http or https URL and for "-", standard input.

    offline: refuse http and https.  limits: of `Library.query`; what is fetched has MOST_BYTES at most.
    Raises ImageError with the reason for a photo that cannot be fetched, or is not a picture whatever its name.
    """
    if source == STDIN:
        if sys.stdin.isatty():
            raise ImageError("standard input", "is a terminal; pipe a photo into it")
        return _kept(source="standard input", name="stdin", content=sys.stdin.buffer, limits=limits)
    try:
        scheme = urlsplit(source).scheme.lower() if "://" in source else ""
    except ValueError as error:
        raise ImageError(source, f"is not a valid URL ({error})") from error
    if scheme == "file":
        return _local(source)
    if scheme in ("http", "https"):
        if offline:
            raise ImageRefusedError(source, "is not fetched with --offline; save it to a file")
        return _fetched(source, limits)
    if is_uri(source):
        return as_place(source)
    if scheme:
        raise ImageRefusedError(source, "only http, https, file, s3, gs and az URLs are read")
    return Path(source)


def photo_from_clipboard() -> Path:
    """The picture in the clipboard, or the file that was copied there. Raises ImageError."""
    try:
        found = ImageGrab.grabclipboard()
    except Exception as error:  # each system fails in its own way
        said = str(error).strip() or type(error).__name__
        raise ImageError("the clipboard", f"cannot be read ({said}); save the picture to a file") from error
    if isinstance(found, list) and len(found) == 1:
        return Path(found[0])
    if not isinstance(found, Image.Image):
        what = "holds several files" if found else "holds no picture"
        raise ImageError("the clipboard", f"{what}; copy one picture")
    path = _folder() / "clipboard.png"
    found.convert("RGBA" if "A" in found.mode else "RGB").save(path)
    return path


def is_temporary(photo: Path) -> bool:
    """Whether the file exists for this process only."""
    return photo.is_relative_to(_folder())


def _local(source: str) -> Path:
    parts = urlsplit(source)
    if parts.netloc not in ("", "localhost"):
        raise ImageRefusedError(source, f"lies on another machine, {parts.netloc}")
    path = url2pathname(parts.path)
    if "\0" in path:
        raise ImageError(source, "contains a NUL character")
    return Path(path)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Few, and to no other kind of address; never from https to http."""

    max_redirections = max_repeats = MOST_REDIRECTS

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        scheme = urlsplit(newurl).scheme.lower()
        if scheme != "https" and scheme != urlsplit(req.full_url).scheme.lower():
            raise ImageRefusedError(req.full_url, f"leads to an address of another kind, {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """For http and https alone."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _fetched(source: str, limits: Limits) -> Path:
    request = urllib.request.Request(source, headers={"User-Agent": "steersearch", "Accept": "image/*"})
    name = Path(unquote(urlsplit(source).path)).name or "photo"
    try:
        with _opener().open(request, timeout=SECONDS) as answer:
            return _kept(source, name, answer, limits, deadline=time.monotonic() + WHOLE_SECONDS)
    except urllib.error.HTTPError as error:
        raise ImageError(source, f"the server answers {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise ImageError(source, f"cannot be fetched ({error.reason})") from error
    except (
        OSError,
        ValueError,
        http.client.HTTPException,
    ) as error:  # a time-out, a broken answer, an odd address
        raise ImageError(source, f"cannot be fetched ({error})") from error


def _kept(
    source: str, name: str, content: BinaryIO | Any, limits: Limits, *, deadline: float = float("inf")
) -> Path:
    """The content in a temporary file, after a check that it is a picture."""
    at_most = min(MOST_BYTES, limits.file)
    path = Path(tempfile.mkdtemp(dir=_folder()), name[-100:].replace("\0", ""))
    size = 0
    with path.open("wb") as file:
        while part := content.read(_PART):
            size += len(part)
            if size > at_most:
                raise ImageRefusedError(
                    source, f"too large: more than {in_units(at_most)}; save it to a file"
                )
            if time.monotonic() > deadline:
                raise ImageError(source, f"takes more than {WHOLE_SECONDS:g} seconds; save it to a file")
            file.write(part)
    try:
        read_header(path, limits)
    except ImageRefusedError as error:
        raise ImageRefusedError(source, error.reason) from error
    except ImageError as error:
        raise ImageError(source, error.reason) from error
    return path


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    """Deleted when this process ends."""
    return tempfile.TemporaryDirectory(prefix="steersearch-")


def _folder() -> Path:
    return Path(_temporary().name)
