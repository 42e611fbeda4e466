"""Recognise files that are certain to decode quickly, by their headers: ordinary JPEG, PNG and WebP of moderate size.

Their decoders take time in proportion to the picture, except for tricks that are looked for here, in microseconds. All
other files go to a process that can be killed, see `decoder_process`.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import BinaryIO

_MOST_BYTES, _MOST_JPEG_BYTES = 64 * 2**20, 16 * 2**20  # a JPEG's padding may take quadratic time
_MOST_PIXELS = 50e6
_MOST_SCANNED = 400e6  # pixels × scans; an honest progressive JPEG has about ten scans
_MOST_SEGMENTS = 300  # before the picture of a JPEG; phones store depth maps in segments of 64 kB
_MOST_CHUNKS = 20_000
_MOST_ENTRIES = 500  # of an EXIF block; each may claim a copy of the whole block
_MOST_PROFILE = 64 * 1024
_DIRECTORIES = (0x8769, 0x8825, 0xA005)  # EXIF tags that point to a directory


def is_plain(file: BinaryIO) -> bool:
    """Whether the picture in `file` is certain to decode quickly. Rewinds the file."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    try:
        head = file.read(12)
        if size > _MOST_BYTES:
            return False
        if head.startswith(b"\xff\xd8\xff"):
            return size <= _MOST_JPEG_BYTES and _is_plain_jpeg(file)
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            return _is_plain_png(file)
        return head.startswith(b"RIFF") and head.endswith(b"WEBP") and _is_plain_webp(file)
    except (struct.error, IndexError):  # truncated
        return False
    finally:
        file.seek(0)


def _is_plain_jpeg(file: BinaryIO) -> bool:
    file.seek(2)
    pixels = components = 0
    is_progressive = has_exif = False
    for _ in range(_MOST_SEGMENTS):
        filler, marker, length = struct.unpack(">BBH", file.read(4))
        if filler != 0xFF or length < 2 or not 0xC0 <= marker <= 0xFE or 0xD0 <= marker <= 0xD9:
            return False
        if marker == 0xDA:  # the scan begins
            if not is_progressive:
                return 0 < pixels <= _MOST_PIXELS and file.read(1)[0] == components
            file.seek(0)
            # Cannot occur in compressed data, where 0 follows each 255.
            scans = file.read().count(b"\xff\xda")
            return 0 < scans * pixels <= _MOST_SCANNED
        if marker not in (0xC0, 0xC1, 0xC2, 0xE1, 0xE2):
            if 0xC3 <= marker <= 0xCF and marker not in (
                0xC4,
                0xC8,
                0xCC,
            ):  # lossless, hierarchical, arithmetic
                return False
            file.seek(length - 2, io.SEEK_CUR)
            continue
        body = file.read(length - 2)
        if marker in (0xC0, 0xC1, 0xC2):
            bits, height, width, components = struct.unpack_from(">BHHB", body)
            pixels, is_progressive = width * height, marker == 0xC2
            if bits != 8:
                return False
        elif body.startswith(b"Exif\0\0"):
            if has_exif or not _has_few_entries(body[6:]):
                return False
            has_exif = True
        elif body.startswith(b"MPF\0"):
            if not _has_few_entries(body[4:]):
                return False
        elif body.startswith(b"ICC_PROFILE\0") and (body[13] != 1 or not _is_simple_profile(body[14:])):
            return False
    return False


def _is_plain_png(file: BinaryIO) -> bool:
    file.seek(8)
    for number in range(_MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return number > 0
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IHDR":
            width, height = struct.unpack(">II", file.read(8))
            if not 0 < width * height <= _MOST_PIXELS:
                return False
            length -= 8
        elif kind in (b"eXIf", b"iCCP", b"tEXt", b"zTXt", b"iTXt"):
            if not _is_plain_chunk(kind, file.read(length)):
                return False
            length = 0
        if kind == b"IEND":
            return True
        file.seek(length + 4, io.SEEK_CUR)
    return False


def _is_plain_chunk(kind: bytes, body: bytes) -> bool:
    """Whether a PNG's text or profile is short, also unpacked."""
    if kind == b"eXIf":
        return _has_few_entries(body)
    name, _, content = body.partition(b"\0")
    if kind == b"iCCP":
        return _is_simple_profile(_inflated(content[1:]))
    if kind == b"zTXt" and len(_inflated(content[1:])) > _MOST_PROFILE:
        return False
    is_packed = kind == b"iTXt" and content[:1] != b"\0"
    return not is_packed and not name.startswith(b"Raw profile type exif")


def _is_plain_webp(file: BinaryIO) -> bool:
    file.seek(12)
    for number in range(_MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return number > 0
        kind, length = struct.unpack("<4sI", head)
        start = file.tell()
        if kind in (b"VP8X", b"VP8 ", b"VP8L"):
            if _webp_pixels(kind, file.read(10)) > _MOST_PIXELS:
                return False
        elif kind in (b"ICCP", b"EXIF"):
            body = file.read(length)
            is_short = _is_simple_profile if kind == b"ICCP" else _has_few_entries
            if not is_short(body.removeprefix(b"Exif\0\0")):
                return False
        file.seek(start + length + length % 2)
    return False


def _webp_pixels(kind: bytes, body: bytes) -> int:
    if kind == b"VP8X":
        return (1 + int.from_bytes(body[4:7], "little")) * (1 + int.from_bytes(body[7:10], "little"))
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", body, 6)
        return int((width & 0x3FFF) * (height & 0x3FFF))
    bits = struct.unpack_from("<I", body, 1)[0]
    return int((1 + (bits & 0x3FFF)) * (1 + (bits >> 14 & 0x3FFF)))


def _has_few_entries(block: bytes) -> bool:
    """Whether an EXIF block and its directories are short; a truncated or missing one counts as short."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) > 2**16:
        return order is None
    entries, waiting = 0, [4]
    while waiting:
        at = waiting.pop()
        try:
            start = struct.unpack_from(f"{order}I", block, at)[0]
            count = struct.unpack_from(f"{order}H", block, start)[0]
            entries += 1 + count
            if entries > _MOST_ENTRIES:
                return False
            for entry in range(start + 2, start + 2 + 12 * count, 12):
                if struct.unpack_from(f"{order}H", block, entry)[0] in _DIRECTORIES:
                    waiting.append(entry + 8)
        except struct.error:
            continue
    return True


def _is_simple_profile(profile: bytes) -> bool:
    """Whether an ICC profile has only primaries and curves, no tables or programs."""
    if len(profile) > _MOST_PROFILE:
        return False
    number = min(struct.unpack_from(">I", profile, 128)[0] if len(profile) >= 132 else 0, _MOST_ENTRIES)
    names = {profile[at : at + 3] for at in range(132, 132 + 12 * number, 12)}
    return names.isdisjoint({b"A2B", b"B2A", b"D2B", b"B2D"})


def _inflated(data: bytes) -> bytes:
    """Decompress just enough data to see whether it is too long."""
    try:
        return zlib.decompressobj().decompress(data, _MOST_PROFILE + 1)
    except zlib.error:
        return b""
