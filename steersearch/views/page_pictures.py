"""The pictures of a page: inside it or, if there are many, files in a folder beside it."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from PIL import Image

from steersearch.core.errors import OutputError
from steersearch.views.output import write_output

_OURS = re.compile(r"[0-9a-f]{32}\.(jpeg|webp)")


class Pictures(Protocol):
    """A place for the pictures of a page."""

    def source(self, image: Image.Image, kind: str, **options: Any) -> str:
        """Store a picture; return the address for <img>. kind: "jpeg" or "webp"; options: of Pillow's writer."""
        ...


class Inside:
    """Pictures inside the page, which needs no other file."""

    def source(self, image: Image.Image, kind: str, **options: Any) -> str:
        return f"data:image/{kind};base64,{base64.b64encode(_encoded(image, kind, options)).decode()}"


class Beside:
    """Files in a folder named after the page, each named by its content, so that a new page overwrites no picture.

    If the process is killed, the existing page still has all its pictures: new ones are written first, then the page,
    and `sweep` deletes those that it does not use.
    """

    def __init__(self, page: Path) -> None:
        self.folder = page.with_name(f"{page.name}.pictures")
        self._used: set[str] = set()

    def source(self, image: Image.Image, kind: str, **options: Any) -> str:
        content = _encoded(image, kind, options)
        name = f"{hashlib.sha256(content).hexdigest()[:32]}.{kind}"
        if name not in self._used:
            self._make_folder()
            write_output(self.folder / name, content)
            self._used.add(name)
        return f"{link(self.folder.name)}/{name}"

    def sweep(self) -> None:
        """Delete our pictures of earlier pages, and the folder if nothing is left in it; other files stay."""
        if self.folder.is_symlink() or not self.folder.is_dir():
            return
        with suppress(OSError):
            for file in self.folder.iterdir():
                if _OURS.fullmatch(file.name) and file.name not in self._used:
                    file.unlink()
            if not self._used:
                self.folder.rmdir()

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(self.folder, error.strerror or str(error)) from error


def link(path: str | Path) -> str:
    """A relative path as a page names it: the bytes of the file system, percent-encoded."""
    return quote(os.fsencode(Path(path).as_posix()))


def _encoded(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, kind, **options)
    return encoded.getvalue()
