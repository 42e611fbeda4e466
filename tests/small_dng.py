"""A RAW photo small enough to write by hand: a DNG with an RGGB sensor, with or without a JPEG preview."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Tag = tuple[int, int, Sequence[float] | bytes]  # number, TIFF type, values
# The camera's colours are those of sRGB, in linear light; numerators and denominators.
_XYZ_TO_CAMERA = [
    part for value in (32406, -15372, -4986, -9689, 18758, 415, 557, -2040, 10570) for part in (value, 10000)
]
_FORMATS = {1: "B", 2: "s", 3: "H", 4: "I", 10: "i"}


def write_dng(
    path: Path,
    colour: tuple[int, int, int],
    size: tuple[int, int] = (96, 64),
    *,
    preview: Image.Image | None = None,
    orientation: int = 1,
    taken_at: str | None = None,
) -> Path:
    """A sensor of `size` (width, height), even numbers, that saw one colour, 0 to 255 each, in linear light.

    preview: is embedded as a JPEG.  taken_at: "YYYY:MM:DD hh:mm:ss", written as DateTime.
    """
    mosaic = _mosaic(colour, size).tobytes()
    raw = [
        (254, 4, [0]), (256, 4, [size[0]]), (257, 4, [size[1]]), (258, 3, [16]), (259, 3, [1]),
        (262, 3, [32803]), (277, 3, [1]), (278, 4, [size[1]]), (33421, 3, [2, 2]), (33422, 1, bytes([0, 1, 1, 2])),
        (50714, 4, [0]), (50717, 4, [65535]),
    ]  # fmt: skip
    shared = [
        (271, 2, b"Maker\0"), (272, 2, b"Model\0"), (274, 3, [orientation]), (50706, 1, bytes([1, 4, 0, 0])),
        (50708, 2, b"Maker Model\0"), (50721, 10, _XYZ_TO_CAMERA),
        (50728, 10, [1, 1, 1, 1, 1, 1]), (50778, 3, [21]),
    ]  # fmt: skip
    if taken_at is not None:
        shared.append((306, 2, taken_at.encode() + b"\0"))
    if preview is None:
        path.write_bytes(_tiff([[*raw, *shared]], [mosaic]))
        return path
    jpeg = io.BytesIO()
    preview.save(jpeg, "JPEG", quality=95)
    small = [
        (254, 4, [1]), (256, 4, [preview.width]), (257, 4, [preview.height]), (258, 3, [8, 8, 8]), (259, 3, [7]),
        (262, 3, [6]), (277, 3, [3]), (278, 4, [preview.height]),
    ]  # fmt: skip
    path.write_bytes(_tiff([[*small, *shared], raw], [jpeg.getvalue(), mosaic]))
    return path


def _mosaic(colour: tuple[int, int, int], size: tuple[int, int]) -> npt.NDArray[np.uint16]:
    red, green, blue = (round(value * 257) for value in colour)
    cell = np.array([[red, green], [green, blue]], dtype="<u2")
    return np.tile(cell, (size[1] // 2, size[0] // 2))


def _tiff(directories: list[list[Tag]], strips: list[bytes]) -> bytes:
    """A little-endian TIFF: the first directory, the second as its child, a strip of pixels for each."""
    at = 8
    places = []
    for strip in strips:
        places.append(at)
        at += len(strip) + len(strip) % 2
    pixels = b"".join(strip + b"\0" * (len(strip) % 2) for strip in strips)
    blocks: list[bytes] = []
    child: int | None = None
    for tags, place, strip in reversed(list(zip(directories, places, strips, strict=True))):
        own = [*tags, (273, 4, [place]), (279, 4, [len(strip)])]
        if child is not None:
            own.append((330, 4, [child]))
        child = at
        blocks.append(_directory(own, at))
        at += len(blocks[-1])
    assert child is not None
    return b"II*\0" + struct.pack("<I", child) + pixels + b"".join(blocks)


def _directory(tags: list[Tag], at: int) -> bytes:
    """The directory that begins at byte `at`, with the values that do not fit into it behind it."""
    entries, values = b"", b""
    behind = at + 2 + 12 * len(tags) + 4
    for number, kind, given in sorted(tags, key=lambda tag: tag[0]):
        data = (
            given
            if isinstance(given, bytes)
            else struct.pack(f"<{len(given)}{_FORMATS[kind]}", *map(int, given))
        )
        count = len(given) // (2 if kind == 10 else 1)
        if len(data) > 4:
            place = struct.pack("<I", behind + len(values))
            values += data + b"\0" * (len(data) % 2)
        else:
            place = data.ljust(4, b"\0")
        entries += struct.pack("<HHI", number, kind, count) + place
    return struct.pack("<H", len(tags)) + entries + b"\0\0\0\0" + values
