"""Every kind of pixels that a file may hold is shown as a viewer shows it: bits, signs, white as zero, alpha."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from steersearch.core.images import colour
from steersearch.core.images.colour import to_rgb
from steersearch.core.images.reader import read_header, read_picture

RAMP = np.linspace(0, 1, 64).reshape(4, 16)
SHORT, LONG = 3, 4  # types of TIFF values


def write_tiff(
    path: Path, data: bytes, tags: dict[int, tuple[int, ...]], order: str = "<", strips: Sequence[int] = ()
) -> Path:
    """A TIFF. tags: number -> values, as shorts; those of the strips are added.  strips: bytes of each; none: one."""
    strips = strips or [len(data)]
    tags = {**tags, 273: tuple(8 + sum(strips[:i]) for i in range(len(strips))), 279: tuple(strips)}
    start, extra, entries = 8 + len(data), b"", b""
    after = start + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        kind = LONG if tag in (256, 257, 273, 279) else SHORT
        packed = struct.pack(f"{order}{len(values)}{'I' if kind == LONG else 'H'}", *values)
        place = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(f"{order}I", after + len(extra))
        extra += b"" if len(packed) <= 4 else packed
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    count = struct.pack(f"{order}H", len(tags))
    path.write_bytes(head + data + count + entries + struct.pack(f"{order}I", 0) + extra)
    return path


def grey_tags(bits: int, photometric: int, sample_format: int = 1) -> dict[int, tuple[int, ...]]:
    height, width = RAMP.shape
    return {
        256: (width,), 257: (height,), 258: (bits,), 259: (1,), 262: (photometric,), 277: (1,), 278: (height,),
        339: (sample_format,),
    }  # fmt: skip


def packed_bits(values: npt.NDArray[np.float64], bits: int) -> bytes:
    levels = (values * (2**bits - 1)).round().astype(np.uint16)
    unpacked = (levels[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(unpacked.reshape(len(levels), -1), axis=1).tobytes()


def grey(path: Path) -> npt.NDArray[np.float64]:
    """Shares of white of a picture without colour."""
    found = np.asarray(read_picture(path).image, float)
    assert (found == found[..., :1]).all()
    return found[..., 0] / 255


KINDS_OF_GREY = [(bits, photometric) for bits in (1, 2, 4, 8, 16) for photometric in (0, 1)] + [
    (12, 1),
    (32, 1),
]


@pytest.mark.parametrize(("bits", "photometric"), KINDS_OF_GREY)
def test_white_is_zero_is_no_negative_at_any_depth(bits: int, photometric: int, tmp_path: Path) -> None:
    stored = RAMP if photometric else 1 - RAMP
    if bits in (1, 2, 4, 12):
        data = packed_bits(stored, bits)
    else:
        data = (stored * (2**bits - 1)).round().astype(f"<u{bits // 8}").tobytes()
    path = write_tiff(tmp_path / "a.tif", data, grey_tags(bits, photometric))
    levels = 2 ** min(bits, 8) - 1
    np.testing.assert_allclose(grey(path), (RAMP * levels).round() / levels, atol=0.005)


def test_32_bits_are_unsigned_where_nothing_says_so(tmp_path: Path) -> None:
    tags = {tag: values for tag, values in grey_tags(32, 1).items() if tag != 339}
    path = write_tiff(tmp_path / "a.tif", (RAMP * (2**32 - 1)).round().astype("<u4").tobytes(), tags)
    np.testing.assert_allclose(grey(path), RAMP, atol=0.005)


def test_floats_may_be_white_at_zero_too(tmp_path: Path) -> None:
    for photometric in (0, 1):
        stored = RAMP if photometric else 1 - RAMP
        path = write_tiff(tmp_path / "a.tif", stored.astype("<f4").tobytes(), grey_tags(32, photometric, 3))
        np.testing.assert_allclose(grey(path), RAMP, atol=0.003)


def test_most_significant_bytes_may_come_first(tmp_path: Path) -> None:
    path = write_tiff(
        tmp_path / "a.tif", (RAMP * 65535).round().astype(">u2").tobytes(), grey_tags(16, 1), ">"
    )
    np.testing.assert_allclose(grey(path), RAMP, atol=0.003)


@pytest.mark.parametrize(("bits", "kind"), [(8, "i1"), (16, "<i2"), (32, "<i4")])
def test_signed_numbers_are_shown_by_their_own_range(bits: int, kind: str, tmp_path: Path) -> None:
    values = ((RAMP - 0.5) * 200).round().astype(kind)
    path = write_tiff(tmp_path / "a.tif", values.tobytes(), grey_tags(bits, 1, 2))
    np.testing.assert_allclose(grey(path), (values.astype(float) + 100) / 200, atol=0.003)


@pytest.mark.parametrize("largest", [1.0, 0.7])
def test_floats_within_0_and_1_are_shares_of_white(largest: float, tmp_path: Path) -> None:
    Image.fromarray((RAMP * largest).astype(np.float32)).save(tmp_path / "a.tif")
    np.testing.assert_allclose(grey(tmp_path / "a.tif"), RAMP * largest, atol=0.003)


def test_floats_that_are_no_numbers_spoil_none_beside_them(tmp_path: Path) -> None:
    values = (RAMP * 100 - 20).astype(np.float32)
    values[0, :3] = [np.nan, np.inf, -np.inf]
    Image.fromarray(values).save(tmp_path / "a.tif")
    found = grey(tmp_path / "a.tif")
    assert found[0, :3].tolist() == [0, 1, 0]
    low = 3 / 63  # the least that is a number
    np.testing.assert_allclose(found.ravel()[3:], (RAMP.ravel()[3:] - low) / (1 - low), atol=0.003)


def test_twelve_bits_in_a_file_of_sixteen(tmp_path: Path) -> None:
    Image.fromarray((RAMP * 4095).round().astype(np.uint16)).save(tmp_path / "a.png")
    np.testing.assert_allclose(grey(tmp_path / "a.png"), RAMP, atol=0.003)


def test_one_grey_of_sixteen_bits_may_be_transparent(tmp_path: Path) -> None:
    values = (RAMP * 65535).round().astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png", transparency=int(values[1, 2]))
    expected = RAMP.copy()
    expected[1, 2] = 1
    np.testing.assert_allclose(grey(tmp_path / "a.png"), expected, atol=0.003)


def half_transparent(mode: str) -> Image.Image:
    """Red or grey, left half opaque, right half three quarters transparent."""
    image = Image.new("RGBA", (8, 4), (200, 0, 0, 255))
    image.paste((200, 0, 0, 64), (4, 0, 8, 4))
    if mode in ("LA", "La"):
        image = image.convert("LA")
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA", "La", "PA"])
def test_every_kind_of_transparency_lies_on_white(mode: str) -> None:
    image = half_transparent("RGBA").quantize(8).convert("PA") if mode == "PA" else half_transparent(mode)
    if mode == "PA":
        image.putalpha(half_transparent("RGBA").getchannel("A"))
    found = np.asarray(to_rgb(image))
    opaque = [60, 60, 60] if mode in ("LA", "La") else [200, 0, 0]
    expected = [round(64 / 255 * value + 255 - 64) for value in opaque]
    np.testing.assert_allclose(found[0, 0], opaque, atol=2)
    np.testing.assert_allclose(found[0, 7], expected, atol=3)


@pytest.mark.parametrize("samples", [1, 2], ids=["premultiplied", "unassociated"])
def test_grey_tiff_with_alpha(samples: int, tmp_path: Path) -> None:
    alpha = np.array([[255, 64]], np.uint8)
    value = np.array([[100, 100]], np.uint8)
    stored = (value.astype(float) * alpha / 255).round().astype(np.uint8) if samples == 1 else value
    tags = grey_tags(8, 1) | {
        256: (2,),
        257: (1,),
        258: (8, 8),
        277: (2,),
        278: (1,),
        338: (samples,),
        339: (1, 1),
    }
    path = write_tiff(tmp_path / "a.tif", np.dstack([stored, alpha]).tobytes(), tags)
    np.testing.assert_allclose(np.asarray(read_picture(path).image)[0, :, 0], [100, 216], atol=2)


def colours(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(1)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def deep(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)


KINDS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "1": lambda image: image.convert("1"),
    "P": lambda image: image.quantize(200),
    "LA": lambda image: image.convert("LA"),
    "RGBA": lambda image: Image.merge("RGBA", (*image.split(), image.getchannel("R"))),
    "CMYK": lambda image: image.convert("CMYK"),
    "YCbCr": lambda image: image.convert("YCbCr"),
    "I;16": deep,
    "F": lambda image: Image.fromarray(np.asarray(image.convert("L"), np.float32) - 7),
}


@pytest.mark.parametrize("kind", KINDS)
def test_strips_are_converted_as_the_whole_is(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = KINDS[kind](colours(50, 37))
    whole = to_rgb(image)
    monkeypatch.setattr(colour, "STRIP", 200)
    assert np.array_equal(np.asarray(to_rgb(image)), np.asarray(whole))
    reduced = np.asarray(to_rgb(image, shrink=4), int)
    assert reduced.shape == (10, 13, 3)
    np.testing.assert_allclose(reduced, np.asarray(whole.reduce(4), int), atol=1)


def test_a_strip_is_all_that_is_converted_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    image, seen = Image.new("RGBA", (100, 90)), []
    monkeypatch.setattr(colour, "STRIP", 1000)
    convert = Image.Image.convert

    def watching(self: Image.Image, *arguments: Any) -> Image.Image:
        seen.append(self.width * self.height)
        return convert(self, *arguments)

    monkeypatch.setattr(Image.Image, "convert", watching)
    assert to_rgb(image).size == (100, 90)
    assert max(seen) == 1000


RGB16 = np.random.default_rng(5).integers(0, 2**16, (4, 16, 3), np.uint16)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bands", [3, 4], ids=["RGB", "CMYK"])
def test_samples_in_planes_of_their_own(bits: int, order: str, bands: int, tmp_path: Path) -> None:
    """Pillow takes planes of 16 bits for planes of 8."""
    stored = RGB16 if bits == 16 else RGB16 >> 8
    stored = np.dstack([stored, np.zeros_like(stored[..., 0])])[..., :bands]
    size = stored[..., 0].nbytes * bits // 16
    planes = np.moveaxis(stored, 2, 0).astype(f"{order}u{bits // 8}").tobytes()
    tags = grey_tags(bits, 2 if bands == 3 else 5) | {
        258: (bits,) * bands,
        277: (bands,),
        284: (2,),
        339: (1,) * bands,
    }
    path = write_tiff(tmp_path / "a.tif", planes, tags, order, strips=[size] * bands)
    shown = np.asarray(read_picture(path).image).astype(int)
    expected = (RGB16 >> 8).astype(int)
    np.testing.assert_allclose(shown, expected if bands == 3 else 255 - expected, atol=1)


@pytest.mark.parametrize("turned", [1, 6])
def test_planes_that_lie_on_their_side(turned: int, tmp_path: Path) -> None:
    planes = np.moveaxis(RGB16, 2, 0).astype("<u2").tobytes()
    tags = grey_tags(16, 2) | {258: (16,) * 3, 274: (turned,), 277: (3,), 284: (2,), 339: (1,) * 3}
    path = write_tiff(tmp_path / "a.tif", planes, tags, strips=[RGB16[..., 0].nbytes] * 3)
    shown = np.asarray(read_picture(path).image).astype(int)
    upright = (RGB16 >> 8).astype(int)
    np.testing.assert_allclose(shown, upright if turned == 1 else np.rot90(upright, -1), atol=1)


@pytest.mark.parametrize(("bits", "photometric"), [(1, 0), (1, 1), (16, 1)])
def test_a_single_plane_is_no_different(bits: int, photometric: int, tmp_path: Path) -> None:
    data = packed_bits(RAMP, bits) if bits < 8 else (RAMP * 65535).round().astype("<u2").tobytes()
    path = write_tiff(tmp_path / "a.tif", data, grey_tags(bits, photometric) | {284: (2,)})
    expected = RAMP.round() if bits == 1 else RAMP
    np.testing.assert_allclose(grey(path), expected if photometric else 1 - expected, atol=0.003)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_one_grey_of_few_bits_may_be_transparent(bits: int, tmp_path: Path) -> None:
    """A PNG gives it in the bits of the file, Pillow the others in eight."""
    levels = 2**bits - 1
    values = (RAMP * levels).round().astype(np.uint8)
    gone = int(values[1, 2])
    rows = np.packbits((values[..., None] >> np.arange(bits - 1, -1, -1)) & 1).reshape(len(values), -1)
    write_png(tmp_path / "a.png", values.shape, bits, b"".join(b"\0" + row.tobytes() for row in rows), gone)
    np.testing.assert_allclose(
        grey(tmp_path / "a.png"), np.where(values == gone, 1, values / levels), atol=0.003
    )


def write_png(path: Path, shape: tuple[int, int], bits: int, rows: bytes, transparent: int) -> None:
    """A grey PNG, of which one value is transparent."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", shape[1], shape[0], bits, 0, 0, 0, 0))
    body = chunk(b"tRNS", struct.pack(">H", transparent)) + chunk(b"IDAT", zlib.compress(rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b""))


@pytest.mark.parametrize("thumbnails", [1, 2])
def test_a_thumbnail_that_comes_first_is_not_the_photo(thumbnails: int, tmp_path: Path) -> None:
    """As in files of scanners and of older cameras: the tag NewSubfileType tells."""
    photo, small = colours(64, 48), Image.new("RGB", (8, 6), "red")
    small.encoderinfo = {"tiffinfo": {254: 1}}
    photo.encoderinfo = {"tiffinfo": {254: 0}}
    first, *others = [small] * thumbnails + [photo]
    first.save(tmp_path / "a.tif", save_all=True, append_images=others, tiffinfo={254: 1})
    read = read_picture(tmp_path / "a.tif")
    assert read.size == (64, 48)
    assert read_header(tmp_path / "a.tif") == ((64, 48), 1)
    np.testing.assert_array_equal(np.asarray(read.image), np.asarray(photo))


def test_a_file_of_thumbnails_alone_shows_the_first(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6), "red").save(tmp_path / "a.tif", tiffinfo={254: 1})
    assert read_picture(tmp_path / "a.tif").size == (8, 6)
