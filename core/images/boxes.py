"""The colours that AVIF and JPEG 2000 files name in boxes, which Pillow leaves unread (ISO 14496-12, 15444-1)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

_MOST_BYTES = 2**22  # of a box with properties; an ICC profile of a printer takes 2 MB


def avif_codes(file: BinaryIO) -> tuple[int, int] | None:
    """Primaries and transfer of an AVIF's main picture, as codes of ITU-T H.273; None without them."""
    try:
        meta = dict(_boxes(_box(file, b"meta")[4:]))
        properties = dict(_boxes(meta[b"iprp"]))
        of_file = list(_boxes(properties[b"ipco"]))
        mine = _properties_of(_item(meta[b"pitm"]), properties[b"ipma"])
        named = [of_file[number - 1] for number in mine if 0 < number <= len(of_file)]
        return next(
            (
                struct.unpack(">2H", what[4:8])
                for kind, what in named
                if (kind, what[:4]) == (b"colr", b"nclx")
            ),
            None,
        )
    except (KeyError, IndexError, struct.error):  # damaged, or without properties
        return None


def jp2_profile(file: BinaryIO) -> bytes | None:
    """The ICC profile of a JPEG 2000 file; None without one."""
    found = (
        what for kind, what in _boxes(_box(file, b"jp2h")) if kind == b"colr" and what[:1] in (b"\2", b"\3")
    )
    return next((what[3:] for what in found), None)


def _item(pitm: bytes) -> int:
    """The number of the main picture."""
    return int.from_bytes(pitm[4:8] if pitm[0] else pitm[4:6])


def _properties_of(item: int, ipma: bytes) -> list[int]:
    """The places of an item's properties in the file's list, from 1."""
    id_size, size = 4 if ipma[0] else 2, 2 if ipma[3] & 1 else 1
    at = 8
    for _ in range(int.from_bytes(ipma[4:8])):
        number, count = int.from_bytes(ipma[at : at + id_size]), ipma[at + id_size]
        at += id_size + 1
        if number == item:
            essential = 1 << (8 * size - 1)
            return [
                int.from_bytes(ipma[i : i + size]) & ~essential for i in range(at, at + count * size, size)
            ]
        at += count * size
    return []


def _box(file: BinaryIO, kind: bytes) -> bytes:
    """The content of the first box of this kind in the file, b"" for none. Keeps the file's position."""
    before, start = file.tell(), 0
    try:
        end = file.seek(0, 2)
        while start + 8 <= end:
            file.seek(start)
            head = file.read(16)
            size, header = _size(head, end - start)
            if head[4:8] == kind:
                file.seek(start + header)
                return file.read(min(size - header, _MOST_BYTES))
            start += size
        return b""
    finally:
        file.seek(before)


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each box in the content of another."""
    start = 0
    while start + 8 <= len(content):
        size, header = _size(content[start : start + 16], len(content) - start)
        yield content[start + 4 : start + 8], content[start + header : start + size]
        start += size


def _size(head: bytes, left: int) -> tuple[int, int]:
    """A box's size, and that of its header. 0 stands for all that is left, 1 for a size of 64 bits."""
    size = int.from_bytes(head[:4])
    if size == 1:
        return max(16, int.from_bytes(head[8:16])), 16
    return (left if size == 0 else max(8, size)), 8
