"""Ordinary photos are decoded in this process; whatever could take long is seen in its header and is not."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from steersearch.core.images import plain
from steersearch.core.images.plain import is_plain
from tests.test_colour import P3, press_profile


def photo(mode: str = "RGB", size: tuple[int, int] = (64, 48)) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def saved(kind: str, image: Image.Image | None = None, **options: Any) -> bytes:
    content = io.BytesIO()
    (image or photo()).save(content, kind, **options)
    return content.getvalue()


def camera_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    exif[0x8769] = {0x9003: "2021:03:04 05:06:07", 0x927C: b"x" * 20_000, 0xA005: {1: "R98"}}
    exif[0x8825] = {1: "N"}
    return exif


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def after_start(jpeg: bytes, added: bytes) -> bytes:
    return jpeg[:2] + added + jpeg[2:]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def directories(entries: int, tag: int = 0x9000) -> bytes:
    """An EXIF block of one directory; a pointer to a directory points at itself."""
    entry = struct.pack("<HHII", tag, 4 if tag == 0x8769 else 7, 1 if tag == 0x8769 else 50_000, 8)
    return b"II*\0" + struct.pack("<IH", 8, entries) + entry * entries + bytes(4)


ORDINARY: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: saved("JPEG"),
    "JPEG, grey": lambda: saved("JPEG", photo("L")),
    "JPEG, four inks": lambda: saved("JPEG", photo("CMYK")),
    "JPEG, progressive": lambda: saved("JPEG", progressive=True),
    "JPEG of a camera": lambda: saved("JPEG", exif=camera_exif(), icc_profile=P3, comment=b"c" * 60_000),
    "JPEG of a phone, with a depth map": lambda: after_start(
        saved("JPEG", exif=camera_exif()), segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000)) * 40
    ),
    "JPEG with what follows it": lambda: saved("JPEG") + bytes(10_000),
    "several JPEGs in one": lambda: saved("MPO", save_all=True, append_images=[photo()]),
    "PNG": lambda: saved("PNG", exif=camera_exif(), icc_profile=P3),
    "PNG, palette": lambda: saved("PNG", photo("P")),
    "PNG, moving": lambda: saved("PNG", save_all=True, append_images=[photo("L").convert("RGB")]),
    "WebP": lambda: saved("WEBP", exif=camera_exif(), icc_profile=P3),
    "WebP, bare": lambda: saved("WEBP"),
    "WebP, lossless": lambda: saved("WEBP", lossless=True),
    "WebP, transparent": lambda: saved("WEBP", photo("RGBA")),
    "WebP, moving": lambda: saved("WEBP", save_all=True, append_images=[photo("L").convert("RGB")]),
}  # fmt: skip

SUSPICIOUS: dict[str, Callable[[], bytes]] = {
    "padding before a segment": lambda: after_start(saved("JPEG"), b"\xff" * 1000),
    "junk before a segment": lambda: after_start(saved("JPEG"), bytes(1000)),
    "a thousand segments": lambda: after_start(saved("JPEG"), segment(0xE5, b"") * 1000),
    "two EXIF blocks": lambda: after_start(saved("JPEG", exif=camera_exif()), segment(0xE1, b"Exif\0\0II*\0")),
    "many EXIF entries": lambda: after_start(saved("JPEG"), segment(0xE1, b"Exif\0\0" + directories(600))),
    "an EXIF directory in itself": lambda: saved("JPEG", exif=b"Exif\0\0" + directories(3, 0x8769)),
    "many entries of several pictures": lambda: after_start(saved("JPEG"), segment(0xE2, b"MPF\0" + directories(600))),
    "a profile with tables": lambda: saved("JPEG", photo("CMYK"), icc_profile=press_profile()),
    "a profile in parts": lambda: saved("JPEG", icc_profile=P3 + bytes(70_000)),
    "scans again and again": lambda: many_scans(),
    "a sequential JPEG in scans": lambda: one_colour_at_a_time(),
    "too large": lambda: saved("PNG", Image.new("1", (10_000, 5001))),
    "a JPEG that is too large": lambda: saved("JPEG").replace(struct.pack(">HH", 48, 64), b"\xff\xff\xff\xff", 1),
    "a WebP that is too large": lambda: saved("WEBP", Image.new("L", (10_000, 5001)), lossless=True, method=0),
    "PNG, many EXIF entries": lambda: with_chunk(chunk(b"eXIf", directories(600))),
    "PNG, EXIF as text": lambda: with_chunk(chunk(b"tEXt", b"Raw profile type exif\0\nexif\n4\n00")),
    "PNG, a text that unfolds": lambda: with_chunk(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**6)))),
    "PNG, a packed text": lambda: with_chunk(chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b"text"))),
    "PNG, a profile that unfolds": lambda: with_chunk(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**6)))),
    "PNG of a million chunks": lambda: with_chunk(chunk(b"zzZz", b"") * 30_000),
    "WebP, many EXIF entries": lambda: saved("WEBP", exif=b"Exif\0\0" + directories(600)),
    "GIF": lambda: saved("GIF"),
    "TIFF": lambda: saved("TIFF"),
    "text": lambda: b"no picture",
    "the beginning of a JPEG": lambda: saved("JPEG")[:100],
}  # fmt: skip


def many_scans() -> bytes:
    jpeg = saved("JPEG", photo(size=(640, 480)), progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * 2000 + jpeg[-2:]


def one_colour_at_a_time() -> bytes:
    """A sequential JPEG whose frame has three colours, and whose first scan has one."""
    frame = bytes([0xFF, 0xC0, 0, 11, 8]) + struct.pack(">HH", 48, 64)
    return saved("JPEG", photo("L")).replace(frame + b"\1", frame + b"\3")


def with_chunk(added: bytes) -> bytes:
    png = saved("PNG")
    return png[:33] + added + png[33:]


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_photos_are_plain(name: str) -> None:
    file = io.BytesIO(ORDINARY[name]())
    assert is_plain(file)
    assert file.tell() == 0


@pytest.mark.parametrize("name", SUSPICIOUS)
def test_what_could_take_long_is_not(name: str) -> None:
    file = io.BytesIO(SUSPICIOUS[name]())
    assert not is_plain(file)
    assert file.tell() == 0


def test_a_long_file_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "_MOST_JPEG_BYTES", 5000)
    assert not is_plain(io.BytesIO(saved("JPEG", photo(size=(300, 300)))))
    assert is_plain(io.BytesIO(saved("PNG", photo(size=(300, 300)))))
    monkeypatch.setattr(plain, "_MOST_BYTES", 5000)
    assert not is_plain(io.BytesIO(saved("PNG", photo(size=(300, 300)))))


def test_damaged_headers_are_an_answer_and_no_error() -> None:
    rng = np.random.default_rng(3)
    for make in ORDINARY.values():
        content = make()
        for _ in range(60):
            damaged = bytearray(content[: int(rng.integers(len(content)))] if rng.random() < 0.3 else content)
            for at in rng.integers(0, min(len(damaged), 400) or 1, 4):
                if damaged:
                    damaged[min(at, len(damaged) - 1)] = int(rng.integers(256))
            assert is_plain(io.BytesIO(bytes(damaged))) in (True, False)
