"""Query photos sent by a browser, kept in a temporary folder under names of ours; the oldest go first."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from steersearch.core.errors import ImageError, ImageRefusedError
from steersearch.core.images.limits import Limits
from steersearch.core.images.reader import read_picture
from steersearch.web.problem import UnknownIdError

MOST_BYTES = 64 * 2**20
KEPT = 64
LIMITS = Limits(file=MOST_BYTES, memory=2**30, seconds=20.0)


class Uploads:
    """Uploaded photos by random id. folder: temporary, where they lie."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="steersearch-"))
        self._delete = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._sizes: OrderedDict[str, tuple[int, int]] = OrderedDict()  # the last used is the last to go

    async def add(self, chunks: AsyncIterator[bytes]) -> str:
        """Keep an upload that can be read as a picture; return its id. Raises ImageError."""
        id = secrets.token_hex(16)
        file = self.folder / id
        try:
            length = 0
            with file.open("xb") as opened:
                async for chunk in chunks:
                    length += len(chunk)
                    if length > MOST_BYTES:
                        raise ImageRefusedError(None, f"it has more than {MOST_BYTES // 2**20} MB")
                    await run_in_threadpool(opened.write, chunk)
            size = await run_in_threadpool(_size, file)
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        self._sizes[id] = size
        while len(self._sizes) > KEPT:
            (self.folder / self._sizes.popitem(last=False)[0]).unlink(missing_ok=True)
        return id

    def path(self, id: str) -> Path:
        """The file of an upload. Raises UnknownIdError."""
        self.size(id)
        return self.folder / id

    def size(self, id: str) -> tuple[int, int]:
        """Width and height in pixels, upright. Raises UnknownIdError."""
        if id not in self._sizes:
            raise UnknownIdError("upload", id)
        self._sizes.move_to_end(id)
        return self._sizes[id]

    def close(self) -> None:
        """Delete them all."""
        self._delete()


def _size(file: Path) -> tuple[int, int]:
    """Width and height of the picture. Raises ImageError, which does not name our file, if it is none."""
    try:
        return read_picture(file, limits=LIMITS).size
    except ImageError as error:
        raise type(error)(None, error.reason) from error
