"""Damaged, mislabelled or hostile files: the outcome of each, and the longest time that one takes.

python -m steersearch.benchmarks.engineering.damaged --save

Every file is read alone and timed; then all are indexed in one folder among a few good photos. This happens in a
separate process, so that a crash is noticed. A file that is counted never or twice is an error.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import resource
import struct
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from steersearch.benchmarks.engineering.fresh_process import call_fresh, peak_memory
from steersearch.benchmarks.harness.record import Record, run_script
from steersearch.core.images import decoder_process
from steersearch.core.images.picture import Picture, image_of
from steersearch.core.preprocess import least_side
from steersearch.core.prompts import EncodedPrompt
from steersearch.core.vectors import Embedded, Floats, Unsteered
from steersearch.indexer.library import Library
from steersearch.indexer.loader import Photo, PhotoReader

MODEL = "none"
GOOD = 10  # photos without a fault, in the same folder
SLOW = 5.0  # seconds that no file may take
_SIDE = 16

Rng = np.random.Generator
_FORMATS: dict[str, dict[str, Any]] = {
    ".jpg": {"format": "JPEG"}, ".png": {"format": "PNG"}, ".webp": {"format": "WEBP"}, ".gif": {"format": "GIF"},
    ".tif": {"format": "TIFF", "compression": "tiff_lzw"}, ".bmp": {"format": "BMP"}, ".avif": {"format": "AVIF"},
    ".jp2": {"format": "JPEG2000"}, ".jpeg": {"format": "JPEG", "progressive": True},
}  # fmt: skip


class MeanColour:
    """An embedder without a model, since only the files are tested."""

    model_id, weights_hash, dim, batch_size = MODEL, "0" * 64, 4, 32
    preprocessing: dict[str, Any] = {"size": _SIDE}  # noqa: RUF012, as the protocol has it

    def preprocess(self, picture: Picture | Image.Image) -> Floats:
        pixels = np.asarray(image_of(picture).resize((_SIDE, _SIDE)), dtype=np.float32) / 255
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def encode_prompt(self, prompt: str) -> EncodedPrompt:
        return EncodedPrompt(np.zeros((1, 1), np.float32))

    def embed_pixels(
        self, pixels: Floats, prompt_features: Sequence[Any], gate_scale: float
    ) -> list[Embedded]:
        number = len(pixels)
        vectors = np.concatenate([pixels.mean(axis=(2, 3)), np.ones((number, 1), np.float32)], axis=1)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        heatmaps = np.full((number, 2, 2), 0.25, np.float32)
        return [Embedded(vectors, heatmaps, np.zeros(number, np.float32)) for _ in prompt_features]

    def embed_with_unsteered(
        self, pixels: Floats, prompt_features: Sequence[Any], gate_scale: float
    ) -> tuple[Unsteered, list[Embedded]]:
        raise AssertionError("indexed without regions")


# ------------------------------------------------------------------------------------------------ the files


def picture(rng: Rng, size: tuple[int, int] = (480, 360)) -> Image.Image:
    """A soft pattern with grain."""
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(size)
    grain = rng.integers(-12, 13, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))


@cache
def whole(suffix: str) -> bytes:
    """A good file of this kind."""
    content = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0x9003] = "2021:03:04 05:06:07"
    options: dict[str, Any] = {"exif": exif} if suffix in (".jpg", ".png", ".webp", ".avif") else {}
    picture(np.random.default_rng(1)).save(content, **_FORMATS[suffix], **options)
    return content.getvalue()


def bits_flipped(rng: Rng) -> tuple[str, bytes]:
    """One to forty bits, anywhere or in the first 200 bytes, where the structure is."""
    suffix = str(rng.choice(list(_FORMATS)))
    content = bytearray(whole(suffix))
    end = len(content) if rng.random() < 0.5 else 200
    for at in rng.integers(0, end, int(rng.integers(1, 41))):
        content[at] ^= 1 << int(rng.integers(8))
    return suffix, bytes(content)


def truncated(rng: Rng) -> tuple[str, bytes]:
    suffix = str(rng.choice(list(_FORMATS)))
    content = whole(suffix)
    return suffix, content[: int(rng.integers(0, len(content)))]


def mislabelled(rng: Rng) -> tuple[str, bytes]:
    """Another image format, a text, noise or a fake RAW photo."""
    suffix = str(rng.choice([*_FORMATS, ".heic", ".nef", ".dng"]))
    contents = [
        whole(str(rng.choice(list(_FORMATS)))),
        b"Dear photographer,\n" * 20,
        rng.bytes(3000),
        b"PK\3\4" * 99,
    ]
    return suffix, contents[int(rng.integers(len(contents)))]


def patched(rng: Rng) -> tuple[str, bytes]:
    """A small file whose header says that the picture is up to a thousand times as large as memory."""
    suffix = str(rng.choice([".png", ".gif", ".bmp", ".tif", ".webp", ".jpg"]))
    content = bytearray(whole(suffix))
    width, height = (int(rng.choice([12_000, 13_000, 16_383, 65_000, 2**31 - 1])) for _ in range(2))
    if suffix == ".png":
        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    elif suffix == ".gif":
        content[6:10] = struct.pack("<HH", min(width, 65_535), min(height, 65_535))
    elif suffix == ".bmp":
        content[18:26] = struct.pack("<ii", width, height)
    elif suffix == ".webp":
        content[24:30] = (
            struct.pack("<I", min(width, 2**24) - 1)[:3] + struct.pack("<I", min(height, 2**24) - 1)[:3]
        )
    elif suffix == ".tif":
        content = bytearray(_tiff_of_size(content, width, height))
    else:
        at = content.index(b"\xff\xc0") + 5
        content[at : at + 4] = struct.pack(">HH", min(height, 65_500), min(width, 65_500))
    return suffix, bytes(content)


def _tiff_of_size(content: bytearray, width: int, height: int) -> bytes:
    directory = struct.unpack_from("<I", content, 4)[0]
    for entry in range(struct.unpack_from("<H", content, directory)[0]):
        at = directory + 2 + 12 * entry
        tag = struct.unpack_from("<H", content, at)[0]
        if tag in (256, 257):
            content[at + 2 : at + 12] = struct.pack("<HII", 4, 1, width if tag == 256 else height)
    return bytes(content)


def bomb(rng: Rng) -> tuple[str, bytes]:
    """A PNG of one colour just below the limit: 150 megapixels in some 150 kB."""
    side = int(rng.choice([12_000, 12_247]))
    packer, rows = zlib.compressobj(9), b"\0" + bytes(3 * side)
    data = b"".join(packer.compress(rows) for _ in range(side)) + packer.flush()
    return ".png", _png(side, side, data)


def _png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def many_scans(rng: Rng) -> tuple[str, bytes]:
    """A progressive JPEG that repeats its last scan."""
    content = whole(".jpeg")
    last = content.rindex(b"\xff\xda")
    return ".jpg", content[:last] + content[last:-2] * int(rng.integers(20, 3000)) + content[-2:]


def deep_exif(rng: Rng) -> tuple[str, bytes]:
    """Directories that point at themselves, at each other or at nothing, and values that claim to be huge."""
    entries = []
    for tag in rng.choice([0x8769, 0x8825, 0xA005, 0x014A, 0x9003, 0x0112, 0x927C], int(rng.integers(1, 40))):
        kind, count = int(rng.integers(1, 13)), int(rng.choice([1, 2, 20, 2**31]))
        entries.append(struct.pack("<HHII", int(tag), kind, count, int(rng.choice([8, 10, 200, 2**31]))))
    body = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", int(rng.choice([0, 8])))
    block = b"Exif\0\0II*\0\x08\0\0\0" + body
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    content = whole(".jpeg")
    return ".jpg", content[:2] + segment + content[2:]


FAULTS: dict[str, tuple[Callable[[Rng], tuple[str, bytes]], float]] = {  # each with its share
    "bits flipped": (bits_flipped, 0.42),
    "truncated": (truncated, 0.25),
    "mislabelled": (mislabelled, 0.12),
    "huge by its header": (patched, 0.1),
    "many scans": (many_scans, 0.03),
    "broken EXIF": (deep_exif, 0.07),
    "bomb below the limit": (bomb, 0.01),
}


def write_files(folder: Path, number: int, seed: int) -> dict[str, str]:
    """Write `number` files with a fault, at least one of each, and GOOD sound ones; name -> fault."""
    rng = np.random.default_rng(seed)
    shares = np.array([share for _, share in FAULTS.values()])
    drawn = rng.choice(len(FAULTS), number - len(FAULTS), p=shares / shares.sum()).tolist()
    names: dict[str, str] = {}
    kinds = list(FAULTS)
    for i, kind in enumerate([*range(len(FAULTS)), *drawn]):
        suffix, content = FAULTS[kinds[kind]][0](rng)
        name = f"{i:04}{suffix}"
        (folder / name).write_bytes(content)
        names[name] = kinds[kind]
    for i in range(GOOD):
        picture(rng).save(folder / f"good{i}.jpg")
    return names


# ------------------------------------------------------------------------------------------------ their outcomes


def read_all(folder: str, place: str, faults: dict[str, str]) -> dict[str, Any]:
    """Read each file alone, then index them all; raises AssertionError where the counts do not add up."""
    embedder = MeanColour()
    reader = PhotoReader(
        Path(folder),
        is_known=lambda _: False,
        bad_reason=lambda _: None,
        needs_pixels=lambda _: True,
        preprocess=embedder.preprocess,
        at_least=least_side(embedder.preprocessing),
    )
    slowest: dict[str, float] = dict.fromkeys(FAULTS, 0.0)
    usable: Counter[str] = Counter()
    for name, fault in faults.items():
        began = processor_seconds()
        result = reader(name)
        slowest[fault] = max(slowest[fault], processor_seconds() - began)
        usable[fault] += isinstance(result, Photo)
    counts = Library.create(folder, embedder, place).index(["anything"], regions=False)
    counted = counts.added + counts.moved + counts.copies + counts.skipped
    assert counts.files == len(faults) + GOOD == counted, counts
    skipped = [skip.path for skip in counts.skips]
    assert len(set(skipped)) == len(skipped) == counts.skipped, "a file was skipped twice"
    assert all(skip.reason for skip in counts.skips)
    assert not any(path.startswith("good") for path in skipped), "a good photo was skipped"
    outcomes = {name: getattr(counts, name) for name in ("files", "added", "moved", "copies", "skipped")}
    return {"slowest": slowest, "usable": usable, "outcomes": outcomes, "peak_bytes": peak_memory()}


def processor_seconds() -> float:
    """Processor seconds of this thread and its decoder processes, including those that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = (
        Path(f"/proc/{process.pid}/stat").read_text().split()[13:15] for process in decoder_process.idle()
    )
    ticks = sum(int(number) for numbers in running for number in numbers)
    return time.thread_time() + ended.ru_utime + ended.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def measure(files: int, seed: int) -> Record:
    """The record of `files` files with a fault. Raises BenchmarkError after a crash or a wrong count."""
    with tempfile.TemporaryDirectory() as work:
        return _measure(files, seed, Path(work))


def _measure(number: int, seed: int, work: Path) -> Record:
    began, folder = time.monotonic(), work / "photos"
    folder.mkdir()
    faults = write_files(folder, number, seed)
    digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in sorted(faults))).hexdigest()
    found = call_fresh(read_all, folder=str(folder), place=str(work / "library"), faults=faults)
    slowest, usable = found["slowest"], found["usable"]
    metrics = {
        **found["outcomes"],
        "slowest_processor_seconds": round(max(slowest.values()), 2),
        "within_five_seconds": max(slowest.values()) <= SLOW,
        "peak_gib": round(found["peak_bytes"] / 2**30, 2),
    }
    number_of = Counter(faults.values())
    rows = [
        {
            "fault": fault,
            "files": number_of[fault],
            "still_usable": usable.get(fault, 0),
            "slowest_processor_seconds": round(slowest[fault], 3),
        }
        for fault in FAULTS
    ]
    settings = {"files": number, "seed": seed, "good": GOOD, "sha256": digest}
    return Record.make(
        "damaged", MODEL, settings, metrics, time.monotonic() - began, weights_hash=None, rows=rows
    )


def main() -> None:
    """Measure, print the record and, with --save, keep it."""
    parser = argparse.ArgumentParser(description="Outcomes of damaged and hostile files.")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    run_script(parser, measure)


if __name__ == "__main__":
    main()
