"""What a PNG says in a chunk that Pillow leaves out."""

from __future__ import annotations

from typing import BinaryIO

_MOST_CHUNKS = 10_000
_MOST_BYTES = 1000


def png_chunk(file: BinaryIO, kind: bytes) -> bytes | None:
    """The content of the first chunk of this kind, at most its first 1000 bytes; None if there is none.

    Leaves the file where it is.
    """
    place = file.tell()
    try:
        file.seek(8)
        for _ in range(_MOST_CHUNKS):
            length, found = int.from_bytes(file.read(4)), file.read(4)
            if found == kind:
                return file.read(min(length, _MOST_BYTES))
            if len(found) < 4 or found == b"IEND":
                return None
            file.seek(length + 4, 1)
        return None
    finally:
        file.seek(place)
