"""Reader of Qt resource files (.rcc, format versions 1 to 3), in which Qt programs ship their pictures."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from steersearch.core.errors import DataError
from steersearch.core.files import read_regular

MOST_BYTES = 256 * 2**20  # of an archive, and of a file in it
_FOLDER, _COMPRESSED, _ZSTD = 2, 1, 4  # flags of an entry


@dataclass(frozen=True)
class _Archive:
    path: Path
    content: bytes
    tree: int  # offsets of the three sections
    data: int
    names: int
    entry_size: int

    def unpack(self, form: str, at: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(form, self.content, at)
        except struct.error:
            raise DataError(self.path, "it ends too early for a Qt resource file") from None

    def name(self, offset: int) -> str:
        (length,) = self.unpack(">H", self.names + offset)
        start = self.names + offset + 6  # length and hash come before the name
        return self.content[start : start + 2 * length].decode("utf-16-be", "replace")

    def body(self, offset: int, flags: int) -> bytes:
        (length,) = self.unpack(">I", self.data + offset)
        start = self.data + offset + 4
        body = self.content[start : start + length]
        if flags & _ZSTD:
            raise DataError(self.path, "its files are packed with zstd, which is not read here")
        if not flags & _COMPRESSED:
            return body
        try:
            unpacked = zlib.decompressobj()
            inflated = unpacked.decompress(body[4:], MOST_BYTES)  # the size comes first
        except zlib.error as error:
            raise DataError(self.path, f"a file in it is damaged ({error})") from error
        if unpacked.unconsumed_tail:
            raise DataError(self.path, f"a file in it unfolds to more than {MOST_BYTES:,} bytes")
        return inflated


def read_resources(path: Path) -> dict[str, bytes]:
    """Every file in the archive `path`, by its full name in it. Raises DataError."""
    try:
        content = read_regular(path, MOST_BYTES)
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
    if content[:4] != b"qres":
        raise DataError(path, "it is no Qt resource file")
    head = _Archive(path, content, 0, 0, 0, 0)
    version, tree, data, names = head.unpack(">4I", 4)
    archive = _Archive(path, content, tree, data, names, entry_size=14 if version == 1 else 22)
    return dict(_files(archive))


def _files(archive: _Archive) -> Iterator[tuple[str, bytes]]:
    waiting, seen = [(0, "")], {0}
    while waiting:
        entry, name = waiting.pop()
        at = archive.tree + entry * archive.entry_size
        _, flags = archive.unpack(">IH", at)
        if not flags & _FOLDER:
            (offset,) = archive.unpack(">I", at + 10)
            yield name, archive.body(offset, flags)
            continue
        count, first = archive.unpack(">II", at + 6)
        for child in range(first, first + count):
            if child in seen:
                raise DataError(archive.path, "two of its folders hold the same entry")
            seen.add(child)
            (offset,) = archive.unpack(">I", archive.tree + child * archive.entry_size)
            own = archive.name(offset)
            waiting.append((child, f"{name}/{own}" if entry else own))  # the root has no name
